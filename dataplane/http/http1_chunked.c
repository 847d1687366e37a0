#include "dataplane/http/http1_chunked.h"

#include "dataplane/http/http1_check.h"

#define MAX_DIGITS 16

enum state {
    SIZE,         /* in the digits */
    SIZE_END,     /* white space behind them: only ";" may follow */
    EXT_START,    /* behind ";" */
    EXT_NAME,     /* in a name */
    EXT_NAME_END, /* white space behind it: only "=" or ";" may follow */
    EXT_EQUALS,   /* behind "=" */
    EXT_TOKEN,    /* in a value */
    EXT_QUOTED,   /* in a quoted value */
    EXT_ESCAPED,  /* behind a backslash in it */
    EXT_UNQUOTED, /* behind its closing quote */
    EXT_END,      /* white space behind a value: only ";" may follow */
    SIZE_LF,      /* behind the CR of the size's line */
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILERS,
    BAD
};

static const char *const details[] = {
    [SIZE] = "chunk size",
    [SIZE_END] = "white space behind a chunk size",
    [EXT_START... EXT_END] = "chunk extension",
    [SIZE_LF] = "chunk size line without CRLF",
    [DATA] = "chunk data",
    [DATA_CR... DATA_LF] = "chunk data without CRLF behind it",
};

void http1_chunked_init(struct http1_chunked *c, bool is_response)
{
    memset(c, 0, offsetof(struct http1_chunked, trailers.fields));
    c->is_response = is_response;
}

static int hex(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || c == '\t';
}

static bool is_text(unsigned char c) /* of a quoted string, escaped or not */
{
    return (c >= ' ' || c == '\t') && c != 127;
}

static bool is_tchar(unsigned char c)
{
    return http1_is_token((struct view){(const char *)&c, 1});
}

static enum state on_size(struct http1_chunked *c, unsigned char ch)
{
    int digit = hex(ch);
    if (digit >= 0) {
        if (++c->digits > MAX_DIGITS || c->left >> 59)
            return BAD;
        c->left = c->left << 4 | (unsigned)digit;
        return SIZE;
    }
    if (c->digits == 0)
        return BAD;
    return ch == '\r' ? SIZE_LF : ch == ';' ? EXT_START : is_blank(ch) ? SIZE_END : BAD;
}

/* What may follow an extension's name or value: another one, or the end of the line. `blank` is
 * where white space leads. */
static enum state on_ext_end(unsigned char ch, enum state blank)
{
    return ch == ';' ? EXT_START : ch == '\r' ? SIZE_LF : is_blank(ch) ? blank : BAD;
}

static enum state on_size_line_end(struct http1_chunked *c, unsigned char ch)
{
    c->digits = 0;
    return ch != '\n' ? BAD : c->left > 0 ? DATA : TRAILERS;
}

/* One byte of framing. */
static enum state on_byte(struct http1_chunked *c, unsigned char ch)
{
    switch ((enum state)c->state) {
    case SIZE:
        return on_size(c, ch);
    case SIZE_END:
        return ch == ';' ? EXT_START : is_blank(ch) ? SIZE_END : BAD;
    case EXT_START:
        return is_blank(ch) ? EXT_START : is_tchar(ch) ? EXT_NAME : BAD;
    case EXT_NAME:
        return is_tchar(ch) ? EXT_NAME : ch == '=' ? EXT_EQUALS : on_ext_end(ch, EXT_NAME_END);
    case EXT_NAME_END:
        return ch == '=' ? EXT_EQUALS : ch == ';' ? EXT_START : is_blank(ch) ? EXT_NAME_END : BAD;
    case EXT_EQUALS:
        return is_blank(ch) ? EXT_EQUALS : ch == '"' ? EXT_QUOTED : is_tchar(ch) ? EXT_TOKEN : BAD;
    case EXT_TOKEN:
        return is_tchar(ch) ? EXT_TOKEN : on_ext_end(ch, EXT_END);
    case EXT_QUOTED:
        return ch == '"' ? EXT_UNQUOTED : ch == '\\' ? EXT_ESCAPED : is_text(ch) ? EXT_QUOTED : BAD;
    case EXT_ESCAPED:
        return is_text(ch) ? EXT_QUOTED : BAD;
    case EXT_UNQUOTED:
        return on_ext_end(ch, EXT_END);
    case EXT_END:
        return ch == ';' ? EXT_START : is_blank(ch) ? EXT_END : BAD;
    case SIZE_LF:
        return on_size_line_end(c, ch);
    case DATA_CR:
        return ch == '\r' ? DATA_LF : BAD;
    case DATA_LF:
        return ch == '\n' ? SIZE : BAD;
    default:
        return BAD;
    }
}

/* What a message could do without. Sizes and line ends are bounded by their grammar. */
static bool is_extra(enum state s)
{
    return s >= SIZE_END && s <= EXT_END;
}

static enum chunked_status bad(struct http1_chunked *c, const char *why)
{
    c->detail = why;
    return CHUNKED_BAD;
}

/* Several chunks in one buffer become one piece: their bytes are moved together over the framing
 * between them. */
static void take_data(struct http1_chunked *c, struct buffer *b, uint32_t *piece_at,
                      uint32_t *piece_len)
{
    uint32_t len = (uint32_t)MIN((uint64_t)(b->used - b->parsed), c->left);
    uint32_t piece_end = *piece_at + *piece_len;
    if (*piece_len == 0)
        *piece_at = b->parsed;
    else if (piece_end != b->parsed)
        memmove(b->data + piece_end, b->data + b->parsed, len);
    *piece_len += len;
    b->parsed += len;
    c->extras -= (uint32_t)MIN((uint64_t)c->extras, (uint64_t)len);
    c->left -= len;
    if (c->left == 0)
        c->state = DATA_CR;
}

static bool holds_control(struct view v)
{
    for (size_t i = 0; i < v.len; i++)
        if (!is_text((unsigned char)v.at[i]))
            return true;
    return false;
}

/* A field line without its CRLF, `at` bytes behind the start of the section. The offsets recorded
 * are relative to that start until the section is complete, since it may move until then. */
static enum chunked_status on_trailer(struct http1_chunked *c, struct view line, uint32_t at)
{
    const char *colon = memchr(line.at, ':', line.len);
    struct view name = {line.at, colon ? (size_t)(colon - line.at) : 0};
    if (!colon || name.len > UINT8_MAX || !http1_is_token(name) || holds_control(line))
        return bad(c, "malformed trailer field");
    enum field_id id = field_find(name), like = field_find_lookalike(name);
    if (!field_may_trail(id) ||
        (id == FIELD_OTHER && (!field_may_trail(like) || field_claims_forwarding(name))))
        return c->is_response ? CHUNKED_AGAIN : bad(c, "a field that may not be a trailer");
    struct trailers *t = &c->trailers;
    if (t->count == TRAILERS_MAX_FIELDS)
        return bad(c, "too many trailer fields");
    struct view value = view_trim((struct view){colon + 1, line.len - name.len - 1});
    struct field *f = &t->fields[t->count++];
    f->name_at = at;
    f->name_len = (uint8_t)name.len;
    f->value_at = at + (uint32_t)(value.at - line.at);
    f->value_len = (uint16_t)value.len;
    f->id = (uint8_t)id;
    return CHUNKED_AGAIN;
}

static enum chunked_status complete(struct http1_chunked *c, struct buffer *b)
{
    for (uint32_t i = 0; i < c->trailers.count; i++) {
        c->trailers.fields[i].name_at += b->parsed;
        c->trailers.fields[i].value_at += b->parsed;
    }
    b->parsed += c->scanned;
    return CHUNKED_DONE;
}

/* Looks at every line of the trailer section as soon as it is complete. */
static enum chunked_status read_trailers(struct http1_chunked *c, struct buffer *b)
{
    for (;;) {
        uint32_t at = c->scanned;
        const char *line = b->data + b->parsed + at;
        uint32_t have = b->used - b->parsed - at;
        const char *lf = memchr(line, '\n', have);
        uint32_t len = lf ? (uint32_t)(lf - line) : have;
        if (at + len > TRAILERS_MAX_BYTES)
            return bad(c, "trailer section too long");
        if (!lf)
            return CHUNKED_AGAIN;
        if (len == 0 || line[len - 1] != '\r')
            return bad(c, "bare LF in the trailer section");
        c->scanned += len + 1;
        if (len == 1)
            return complete(c, b);
        if (on_trailer(c, (struct view){line, len - 1}, at) == CHUNKED_BAD)
            return CHUNKED_BAD;
    }
}

enum chunked_status http1_chunked_decode(struct http1_chunked *c, struct buffer *b,
                                         uint32_t *piece_at, uint32_t *piece_len)
{
    *piece_at = b->parsed;
    *piece_len = 0;
    while (b->parsed < b->used && c->state != TRAILERS) {
        if (c->state == DATA) {
            take_data(c, b, piece_at, piece_len);
            continue;
        }
        enum state next = on_byte(c, (unsigned char)b->data[b->parsed]);
        if (next == BAD)
            return bad(c, details[c->state]);
        if (is_extra(next) && ++c->extras > CHUNKED_MAX_EXTRA_BYTES)
            return bad(c, "more chunk extensions than data");
        c->state = (uint8_t)next;
        b->parsed++;
    }
    return c->state == TRAILERS ? read_trailers(c, b) : CHUNKED_AGAIN;
}
