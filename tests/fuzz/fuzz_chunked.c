/* fuzz_chunked: whose body it is, two bytes that say where to cut, then a chunked body. */
#include "fuzz.h"
#include "tests/unit/dataplane/reading.h"

struct decoded {
    struct http1_chunked chunked;
    struct buffer *buffer;
    enum chunked_status status;
    struct fuzz_text body;
    size_t taken;
};

/* The first piece ends at `cut`, those behind it have `step` bytes. */
static void decode(struct decoded *d, const char *bytes, size_t len, size_t cut, size_t step,
                   bool is_response)
{
    size_t fed = 0;
    uint32_t piece_at, piece_len;
    d->buffer = malloc(sizeof(*d->buffer) + len);
    PROMISE(d->buffer);
    d->buffer->size = (uint32_t)len;
    d->buffer->keep = d->buffer->parsed = d->buffer->used = 0;
    d->body = (struct fuzz_text){NULL, 0, 0};
    http1_chunked_init(&d->chunked, is_response);
    do {
        size_t piece = MIN(fed < cut ? cut - fed : step, len - fed);
        buffer_compact(d->buffer);
        memcpy(d->buffer->data + d->buffer->used, bytes + fed, piece);
        d->buffer->used += (uint32_t)piece;
        fed += piece;
        d->status = http1_chunked_decode(&d->chunked, d->buffer, &piece_at, &piece_len);
        PROMISE(piece_at + piece_len <= d->buffer->parsed);
        fuzz_put(&d->body, d->buffer->data + piece_at, piece_len);
    } while (d->status == CHUNKED_AGAIN && fed < len);
    d->taken = fed - (d->buffer->used - d->buffer->parsed);
}

static void forget(struct decoded *d)
{
    free(d->buffer);
    free(d->body.at);
}

static void promise_same(const struct decoded *a, const struct decoded *b)
{
    PROMISE(a->status == b->status);
    if (a->status == CHUNKED_BAD)
        return;
    PROMISE(a->body.len == b->body.len &&
            (a->body.len == 0 || memcmp(a->body.at, b->body.at, a->body.len) == 0));
    if (a->status == CHUNKED_AGAIN)
        return;
    const struct trailers *x = &a->chunked.trailers, *y = &b->chunked.trailers;
    PROMISE(a->taken == b->taken && x->count == y->count);
    for (unsigned i = 0; i < x->count; i++)
        PROMISE(view_equal(field_name(a->buffer, &x->fields[i]),
                           field_name(b->buffer, &y->fields[i])) &&
                view_equal(field_value(a->buffer, &x->fields[i]),
                           field_value(b->buffer, &y->fields[i])));
}

/* Every line end of the framing is CRLF: without data, no CR or LF stands alone. */
static void promise_line_ends(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == '\n')
            PROMISE(i > 0 && bytes[i - 1] == '\r');
        if (bytes[i] == '\r')
            PROMISE(i + 1 < len && bytes[i + 1] == '\n');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {(const char *)data, size};
    bool is_response = fuzz_byte(&in) & 1;
    size_t cut = fuzz_cut(&in);
    struct decoded whole, split, slow;
    if (in.len == 0)
        return 0;
    decode(&whole, in.at, in.len, 0, in.len, is_response);
    decode(&split, in.at, in.len, cut, in.len, is_response);
    decode(&slow, in.at, in.len, 0, 1, is_response);
    promise_same(&whole, &split);
    promise_same(&whole, &slow);
    if (whole.status == CHUNKED_DONE && whole.body.len == 0)
        promise_line_ends(in.at, whole.taken);
    for (unsigned i = 0; whole.status == CHUNKED_DONE && i < whole.chunked.trailers.count; i++)
        PROMISE(field_may_trail((enum field_id)whole.chunked.trailers.fields[i].id));
    forget(&whole);
    forget(&split);
    forget(&slow);
    return 0;
}
