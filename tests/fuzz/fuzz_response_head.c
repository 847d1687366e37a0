/* fuzz_response_head: the request's method, two bytes that say where to cut, then a response. */
#include "message.h"

static void put_response(struct fuzz_text *t, const struct reading *r)
{
    struct view reason = head_view(r->buffer, r->head.target_at, r->head.target_len);
    char line[64];
    snprintf(line, sizeof(line), "HTTP/1.1 %u ", r->head.status);
    fuzz_put_text(t, line);
    for (size_t i = 0; i < reason.len; i++)
        PROMISE(((unsigned char)reason.at[i] >= ' ' || reason.at[i] == '\t') &&
                reason.at[i] != 127);
    fuzz_put_view(t, reason);
    fuzz_put_text(t, "\r\n");
    put_passing_fields(t, r);
    put_body(t, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {(const char *)data, size};
    unsigned method = fuzz_byte(&in) & 1 ? HTTP_HEAD : HTTP_GET;
    size_t cut = fuzz_cut(&in);
    struct reading *whole = read_whole(in.at, in.len, 0, true, method);
    struct reading *split = read_whole(in.at, in.len, cut, true, method);
    promise_same(whole, split);
    forget(split);
    PROMISE(method != HTTP_HEAD || whole->reason != R_SERVED ||
            whole->head.framing == FRAMING_NONE);
    /* An answer to HEAD reads like one with a body to anybody else. */
    if (whole->reason == R_SERVED && method != HTTP_HEAD) {
        struct fuzz_text t = {NULL, 0, 0};
        put_response(&t, whole);
        promise_reread(whole, &t, true);
        free(t.at);
    }
    forget(whole);
    return 0;
}
