/* message: what fuzz_request_head and fuzz_response_head share: one message read whole and in two
 * pieces with one result, and what is accepted written anew as it would be sent on. */
#pragma once

#include "fuzz.h"
#include "tests/unit/dataplane/reading.h"

static inline bool same_fields(const struct buffer *a, const struct field *x,
                               const struct buffer *b, const struct field *y, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (x[i].id != y[i].id || !view_equal(field_name(a, &x[i]), field_name(b, &y[i])) ||
            !view_equal(field_value(a, &x[i]), field_value(b, &y[i])))
            return false;
    return true;
}

static inline void promise_same(const struct reading *a, const struct reading *b)
{
    const struct trailers *x = http1_trailers(&a->parser), *y = http1_trailers(&b->parser);
    PROMISE(a->reason == b->reason);
    if (a->reason != R_SERVED)
        return;
    PROMISE(a->taken == b->taken);
    PROMISE(a->head.method == b->head.method && a->head.status == b->head.status);
    PROMISE(a->head.framing == b->head.framing && a->head.minor == b->head.minor);
    PROMISE(a->head.keep_alive == b->head.keep_alive && a->head.bytes == b->head.bytes);
    PROMISE(a->head.field_count == b->head.field_count && x->count == y->count);
    PROMISE(same_fields(a->buffer, a->head.fields, b->buffer, b->head.fields, a->head.field_count));
    PROMISE(same_fields(a->buffer, x->fields, b->buffer, y->fields, x->count));
    PROMISE(a->body_len == b->body_len && memcmp(a->body, b->body, a->body_len) == 0);
    PROMISE(view_equal(a->target.path, b->target.path));
    PROMISE(view_equal(a->target.query, b->target.query));
    PROMISE(view_equal(a->target.authority, b->target.authority));
}

/* What is passed on holds nothing that another reader could take for a line's end or a name's. */
static inline void put_field(struct fuzz_text *t, struct view name, struct view value)
{
    PROMISE(http1_is_token(name));
    for (size_t i = 0; i < value.len; i++)
        PROMISE(((unsigned char)value.at[i] >= ' ' || value.at[i] == '\t') && value.at[i] != 127);
    PROMISE(view_trim(value).len == value.len);
    fuzz_put_view(t, name);
    fuzz_put_text(t, ": ");
    fuzz_put_view(t, value);
    fuzz_put_text(t, "\r\n");
}

static inline void put_passing_fields(struct fuzz_text *t, const struct reading *r)
{
    for (unsigned i = 0; i < r->head.field_count; i++) {
        const struct field *f = &r->head.fields[i];
        if (field_fate((enum field_id)f->id) == KEEP)
            put_field(t, field_name(r->buffer, f), field_value(r->buffer, f));
    }
}

/* Framing, the blank line, and the body with its trailers, anew. */
static inline void put_body(struct fuzz_text *t, const struct reading *r)
{
    const struct trailers *trailers = http1_trailers(&r->parser);
    char line[64];
    if (r->head.framing == FRAMING_LENGTH) {
        snprintf(line, sizeof(line), "Content-Length: %zu\r\n", r->body_len);
        fuzz_put_text(t, line);
    }
    if (r->head.framing != FRAMING_CHUNKED) {
        fuzz_put_text(t, "\r\n");
        fuzz_put(t, r->body, r->body_len);
        return;
    }
    fuzz_put_text(t, "Transfer-Encoding: chunked\r\n\r\n");
    if (r->body_len > 0) {
        snprintf(line, sizeof(line), "%zx\r\n", r->body_len);
        fuzz_put_text(t, line);
        fuzz_put(t, r->body, r->body_len);
        fuzz_put_text(t, "\r\n");
    }
    fuzz_put_text(t, "0\r\n");
    for (unsigned i = 0; i < trailers->count; i++) {
        PROMISE(field_may_trail((enum field_id)trailers->fields[i].id));
        put_field(t, field_name(r->buffer, &trailers->fields[i]),
                  field_value(r->buffer, &trailers->fields[i]));
    }
    fuzz_put_text(t, "\r\n");
}

static inline struct reading *read_whole(const char *bytes, size_t len, size_t cut,
                                         bool is_response, unsigned method)
{
    struct reading *r = malloc(sizeof(*r));
    PROMISE(r);
    reading_init(r, len);
    reading_run(r, bytes, len, cut, len > 0 ? len : 1, is_response, method);
    return r;
}

static inline void forget(struct reading *r)
{
    reading_fini(r);
    free(r);
}

/* What was sent on is read as the same message, to its last byte. */
static inline void promise_reread(const struct reading *r, const struct fuzz_text *t,
                                  bool is_response)
{
    struct reading *again = read_whole(t->at, t->len, 0, is_response, r->head.method);
    PROMISE(again->reason == R_SERVED);
    PROMISE(again->taken == t->len);
    PROMISE(again->head.framing == r->head.framing);
    PROMISE(again->head.status == r->head.status && again->head.method == r->head.method);
    PROMISE(again->body_len == r->body_len && memcmp(again->body, r->body, r->body_len) == 0);
    PROMISE(http1_trailers(&again->parser)->count == http1_trailers(&r->parser)->count);
    if (!is_response) {
        PROMISE(view_equal(again->target.path, r->target.path));
        PROMISE(view_equal(again->target.query, r->target.query));
    }
    forget(again);
}
