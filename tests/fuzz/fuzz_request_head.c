/* fuzz_request_head: two bytes that say where to cut, then a request. */
#include "message.h"

static void put_request(struct fuzz_text *t, const struct reading *r)
{
    struct view host = r->target.authority.len > 0 ? r->target.authority
                                                   : head_value(&r->head, r->buffer, FIELD_HOST);
    PROMISE(host.len == 0 || http1_is_host(host));
    fuzz_put_view(t, head_method(&r->head, r->buffer));
    fuzz_put_text(t, " ");
    fuzz_put_view(t, r->target.path);
    fuzz_put_view(t, r->target.query);
    fuzz_put_text(t, " HTTP/1.1\r\n");
    put_field(t, view_of("Host"), host);
    put_passing_fields(t, r);
    put_body(t, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {(const char *)data, size};
    size_t cut = fuzz_cut(&in);
    struct reading *whole = read_whole(in.at, in.len, 0, false, 0);
    struct reading *split = read_whole(in.at, in.len, cut, false, 0);
    promise_same(whole, split);
    forget(split);
    if (whole->reason == R_SERVED) {
        struct fuzz_text t = {NULL, 0, 0};
        put_request(&t, whole);
        /* one field more than came in, in HTTP/1.0 without a Host and with as many as allowed; and
         * an expectation that HTTP/1.0 does not have; and a number of hops that was the last */
        if (whole->head.field_count < READING_MAX_FIELDS && whole->head.minor == 1 &&
            !whole->head.at[FIELD_MAX_FORWARDS])
            promise_reread(whole, &t, false);
        free(t.at);
    }
    forget(whole);
    return 0;
}
