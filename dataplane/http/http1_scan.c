/* Hot path. Every read of a block needs its length as room behind the last byte received, and every
 * place found is compared with the end before it is believed: what lies behind the end is whatever
 * was received there before. */
#include "dataplane/http/http1_scan.h"

#include <llhttp.h>

#include "dataplane/http/http1_check.h"
#include "proto/base/swar.h"

/* Shorter ones are not complete; it is also what the first lines are read by without a look at the
 * end. */
#define LEAST_BYTES 24

struct cursor {
    const char *start, *at, *end;
};

/* The first byte from `at` on that is no printable ASCII, at most `end`. */
static const char *find_unprintable(const char *at, const char *end)
{
    for (; at < end; at += BLOCK_BYTES) {
        uint64_t hits = block_unprintable(block_load(at));
        if (hits)
            return MIN(at + block_first(hits), end);
    }
    return end;
}

static const char *find(const char *at, const char *end, char c)
{
    for (; at < end; at += BLOCK_BYTES) {
        uint64_t hits = block_equal(block_load(at), c);
        if (hits)
            return MIN(at + block_first(hits), end);
    }
    return end;
}

static bool is_crlf(const char *at, const char *end)
{
    return end - at >= 2 && at[0] == '\r' && at[1] == '\n';
}

static uint32_t place(const struct cursor *c, const char *at)
{
    return (uint32_t)(at - c->start);
}

/* name ":" OWS value OWS CRLF */
static bool scan_field(struct cursor *c, struct field *f)
{
    const char *colon = find(c->at, c->end, ':');
    size_t name_len = (size_t)(colon - c->at);
    if (name_len == 0 || name_len > UINT8_MAX || colon == c->end)
        return false;
    f->name_at = place(c, c->at);
    f->name_len = (uint8_t)name_len;
    f->id = (uint8_t)field_find((struct view){c->at, name_len});
    if (f->id == FIELD_OTHER && !http1_is_plain_name((struct view){c->at, name_len}))
        return false;

    const char *value = colon + 1;
    while (value < c->end && *value == ' ')
        value++;
    const char *line_end = find_unprintable(value, c->end), *last = line_end;
    if (!is_crlf(line_end, c->end))
        return false;
    while (last > value && last[-1] == ' ')
        last--;
    if (last - value > UINT16_MAX)
        return false;
    f->value_len = (uint16_t)(last - value);
    f->value_at = last > value ? place(c, value) : f->name_at;
    c->at = line_end + 2;
    return true;
}

/* From behind the first line to the blank one. */
static bool scan_fields(struct cursor *c, struct head *h, unsigned max_fields)
{
    unsigned count = 0;
    while (!is_crlf(c->at, c->end)) {
        if (count == max_fields || !scan_field(c, &h->fields[count]))
            return false;
        head_note(h, count++);
    }
    h->field_count = (uint16_t)count;
    h->bytes = place(c, c->at + 2);
    return true;
}

static bool begin(struct cursor *c, struct head *h, const struct buffer *b)
{
    *c = (struct cursor){b->data, b->data, b->data + b->used};
    h->scanned = true;
    h->major = 1;
    return b->used >= LEAST_BYTES && buffer_room(b) >= BLOCK_BYTES;
}

/* The method that the buffer begins with, and its length; 0 for one that is not common. */
static unsigned find_method(const char *at, unsigned *method)
{
    static const struct {
        char word[SWAR_BYTES + 1];
        uint8_t len, method;
    } known[] = {
        {"GET ", 4, HTTP_GET},   {"POST ", 5, HTTP_POST},     {"PUT ", 4, HTTP_PUT},
        {"HEAD ", 5, HTTP_HEAD}, {"DELETE ", 7, HTTP_DELETE}, {"OPTIONS ", 8, HTTP_OPTIONS},
    };
    uint64_t word = swar_load(at);
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        uint64_t beyond = known[i].len < SWAR_BYTES ? UINT64_MAX << known[i].len * 8 : 0;
        if ((word & ~beyond) == swar_load(known[i].word)) {
            *method = known[i].method;
            return known[i].len;
        }
    }
    return 0;
}

/* "1" or "0" of HTTP/1.x, and what is before it. */
static bool scan_version(const char *at, struct head *h)
{
    h->minor = (uint8_t)(at[7] - '0');
    return memcmp(at, "HTTP/1.", 7) == 0 && h->minor <= 1;
}

bool http1_scan_request(struct head *h, struct buffer *b, unsigned max_fields)
{
    struct cursor c;
    unsigned method;
    if (!begin(&c, h, b))
        return false;
    unsigned method_len = find_method(c.at, &method);
    if (method_len == 0 || c.at[method_len] != '/')
        return false;
    h->method = (uint8_t)method;
    h->method_len = (uint8_t)(method_len - 1);
    h->target_at = method_len;
    const char *target_end = find(c.at + method_len, c.end, ' ');
    h->target_len = place(&c, target_end) - method_len;
    /* " HTTP/1.1\r\n", and all of it printable up to there */
    if (c.end - target_end < 11 || !scan_version(target_end + 1, h) ||
        find_unprintable(c.at + method_len, c.end) != target_end + 9 ||
        !is_crlf(target_end + 9, c.end))
        return false;
    c.at = target_end + 11;
    /* What else asks for another reading of what follows the head is llhttp's to see first. */
    if (!scan_fields(&c, h, max_fields) || h->at[FIELD_TRANSFER_ENCODING] || h->at[FIELD_UPGRADE])
        return false;
    b->parsed = h->bytes;
    return true;
}

bool http1_scan_response(struct head *h, struct buffer *b, unsigned max_fields)
{
    struct cursor c;
    if (!begin(&c, h, b) || !scan_version(c.at, h) || c.at[8] != ' ' || c.at[12] != ' ')
        return false;
    unsigned a = (unsigned)(c.at[9] - '0'), d = (unsigned)(c.at[10] - '0'),
             e = (unsigned)(c.at[11] - '0');
    const char *line_end = find_unprintable(c.at + 13, c.end);
    if (a > 9 || d > 9 || e > 9 || line_end == c.at + 13 || !is_crlf(line_end, c.end))
        return false;
    h->status = (uint16_t)(a * 100 + d * 10 + e);
    h->target_at = 13;
    h->target_len = place(&c, line_end) - 13;
    c.at = line_end + 2;
    if (!scan_fields(&c, h, max_fields) || h->at[FIELD_UPGRADE])
        return false;
    b->parsed = h->bytes;
    return true;
}
