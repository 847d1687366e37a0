#include "dataplane/report/access_log.h"

#include <math.h>
#include <string.h>

#include "dataplane/http/date.h"
#include "dataplane/report/log_writer.h"
#include "proto/base/digits.h"
#include "proto/base/json.h"
#include "proto/base/swar.h"

#define FIELD_MAX_BYTES 2048
#define TRACE_IDS_END 52 /* of a traceparent: version-trace-span-... */
#define FIXED_BYTES 1280 /* names, numbers and punctuation of one line */

/* Writes into a reservation that is large enough by construction: line_bound() comes first. */
struct line {
    char *at;
};

/* ---- pieces ---- */

static void put(struct line *l, const char *text, size_t len)
{
    memcpy(l->at, text, len);
    l->at += len;
}

#define PUT(l, literal) put(l, literal, sizeof(literal) - 1)

static void put_number(struct line *l, uint64_t n)
{
    l->at += digits_decimal(l->at, n);
}

static void put_fixed(struct line *l, unsigned n, unsigned width)
{
    for (unsigned i = width; i > 0; i--, n /= 10)
        l->at[i - 1] = (char)('0' + n % 10);
    l->at += width;
}

/* Seconds as milliseconds with three decimals. */
static void put_ms(struct line *l, double seconds)
{
    double us = seconds * 1e6 + 0.5;
    uint64_t whole = us < 1e18 ? (uint64_t)us : 0;
    put_number(l, whole / 1000);
    *l->at++ = '.';
    put_fixed(l, (unsigned)(whole % 1000), 3);
}

/* Is any of these bytes not plain? Plain is printable ASCII but for the quote and the backslash. */
static bool has_special(uint64_t word)
{
    return (swar_unprintable(word) | swar_equal(word, '"') | swar_equal(word, '\\')) != 0;
}

static bool block_has_special(block b)
{
    return (block_unprintable(b) | block_equal(b, '"') | block_equal(b, '\\')) != 0;
}

/* In blocks or words; the last one overlaps the one before. */
static bool is_plain(struct view v)
{
    if (v.len < SWAR_BYTES)
        return v.len == 0 || !has_special(swar_load_short(v.at, v.len));
    if (v.len < BLOCK_BYTES)
        return !has_special(swar_load(v.at)) && !has_special(swar_load(v.at + v.len - SWAR_BYTES));
    for (size_t i = 0; i + BLOCK_BYTES < v.len; i += BLOCK_BYTES)
        if (block_has_special(block_load(v.at + i)))
            return false;
    return !block_has_special(block_load(v.at + v.len - BLOCK_BYTES));
}

/* The inside of a JSON string. Nearly all of what is logged is plain and only copied. */
static void put_escaped(struct line *l, struct view v)
{
    if (LIKELY(v.len <= FIELD_MAX_BYTES && is_plain(v)))
        put(l, v.at, v.len);
    else
        l->at += json_escape(l->at, FIELD_MAX_BYTES, v);
}

/* "2026-01-31T12:59:59." of the second that was asked for last: one conversion a second. */
static const char *date_of(uint64_t second)
{
    static _Thread_local struct {
        uint64_t second;
        char text[21];
    } last = {.second = UINT64_MAX};
    if (last.second == second)
        return last.text;
    struct civil c = date_civil(second);
    struct line l = {last.text};
    put_fixed(&l, c.year, 4);
    *l.at++ = '-';
    put_fixed(&l, c.month, 2);
    *l.at++ = '-';
    put_fixed(&l, c.day, 2);
    *l.at++ = 'T';
    put_fixed(&l, c.hour, 2);
    *l.at++ = ':';
    put_fixed(&l, c.minute, 2);
    *l.at++ = ':';
    put_fixed(&l, c.second, 2);
    *l.at = '.';
    last.second = second;
    return last.text;
}

static void put_time(struct line *l, double seconds)
{
    uint64_t ms = seconds > 0 ? (uint64_t)(seconds * 1000) : 0;
    put(l, date_of(ms / 1000), 20);
    put_fixed(l, (unsigned)(ms % 1000), 3);
    *l->at++ = 'Z';
}

/* ---- lines ---- */

/* What went wrong here or behind us is worth more than a client's mistake. */
static const char *level_of(const struct access_record *r)
{
    return r->status >= 500 ? "error" : r->status >= 400 ? "warn" : "info";
}

static void put_word(struct line *l, const char *word)
{
    put(l, word, strlen(word));
}

/* ,"name":"value" unless it is empty. */
#define PUT_TEXT(l, name, value)                                                                   \
    do {                                                                                           \
        struct view text_ = (value);                                                               \
        if (text_.len > 0) {                                                                       \
            PUT(l, ",\"" name "\":\"");                                                            \
            put_escaped(l, text_);                                                                 \
            PUT(l, "\"");                                                                          \
        }                                                                                          \
    } while (0)

#define PUT_NUMBER(l, name, value)                                                                 \
    do {                                                                                           \
        PUT(l, ",\"" name "\":");                                                                  \
        put_number(l, value);                                                                      \
    } while (0)

#define PUT_MS(l, name, value)                                                                     \
    do {                                                                                           \
        if ((value) >= 0) {                                                                        \
            PUT(l, ",\"" name "\":");                                                              \
            put_ms(l, value);                                                                      \
        }                                                                                          \
    } while (0)

static void put_outcome(struct line *l, const struct access_record *r)
{
    PUT_NUMBER(l, "status", r->status);
    PUT(l, ",\"reason\":\"");
    put_word(l, reason_word(r->reason));
    PUT(l, "\"");
    PUT_TEXT(l, "detail", view_of(r->detail));
    PUT_TEXT(l, "route", r->route);
    PUT_TEXT(l, "limiter", view_of(r->limiter));
    PUT_TEXT(l, "breaker", view_of(r->breaker));
    if (r->generation > 0)
        PUT_NUMBER(l, "generation", r->generation);
    PUT_TEXT(l, "endpoint", r->endpoint);
    if (r->upstream_status > 0)
        PUT_NUMBER(l, "upstream_status", r->upstream_status);
    if (r->attempts > 0)
        PUT_NUMBER(l, "attempts", r->attempts);
    PUT_NUMBER(l, "bytes_in", r->bytes_in);
    PUT_NUMBER(l, "bytes_out", r->bytes_out);
    PUT_MS(l, "duration_ms", r->duration_s);
    PUT_MS(l, "upstream_ms", r->upstream_s);
    PUT_MS(l, "connect_ms", r->connect_s);
}

/* The ids on their own as well, since that is what is looked for. */
static void put_trace(struct line *l, struct view parent)
{
    if (parent.len < TRACE_IDS_END)
        return;
    PUT_TEXT(l, "traceparent", parent);
    PUT(l, ",\"trace_id\":\"");
    put_escaped(l, (struct view){parent.at + 3, 32});
    PUT(l, "\",\"span_id\":\"");
    put_escaped(l, (struct view){parent.at + 36, 16});
    PUT(l, "\"");
}

static void put_json(struct line *l, const struct access_record *r)
{
    PUT(l, "{\"level\":\"");
    put_word(l, level_of(r));
    PUT(l, "\",\"ts\":\"");
    put_time(l, r->time);
    PUT(l, "\",\"msg\":\"request\"");
    PUT_TEXT(l, "request_id", r->request_id);
    PUT_TEXT(l, "client", r->client);
    PUT_TEXT(l, "method", r->method);
    PUT_TEXT(l, "host", r->host);
    PUT_TEXT(l, "path", r->path);
    PUT_TEXT(l, "protocol", r->protocol);
    put_outcome(l, r);
    PUT_TEXT(l, "user_agent", r->user_agent);
    PUT_TEXT(l, "referer", r->referer);
    put_trace(l, r->traceparent);
    PUT(l, "}\n");
}

/* A word of a console line; "-" keeps the columns where there is nothing, quotes do where a client
 * has sent spaces. */
static void put_column(struct line *l, struct view v)
{
    bool has_spaces = v.len > 0 && memchr(v.at, ' ', v.len);
    PUT(l, " ");
    if (v.len == 0)
        PUT(l, "-");
    if (has_spaces)
        PUT(l, "\"");
    put_escaped(l, v);
    if (has_spaces)
        PUT(l, "\"");
}

#define PUT_PAIR(l, name, value)                                                                   \
    do {                                                                                           \
        struct view text_ = (value);                                                               \
        if (text_.len > 0) {                                                                       \
            PUT(l, " " name "=");                                                                  \
            put_escaped(l, text_);                                                                 \
        }                                                                                          \
    } while (0)

/* 2026-01-31T12:59:59.123Z info  10.0.0.9 GET example.com /users?id=1 HTTP/1.1 200 ok 1.250ms ...
 */
static void put_console(struct line *l, const struct access_record *r)
{
    put_time(l, r->time);
    *l->at++ = ' ';
    put_word(l, level_of(r));
    put_column(l, r->client);
    put_column(l, r->method);
    put_column(l, r->host);
    put_column(l, r->path);
    put_column(l, r->protocol);
    *l->at++ = ' ';
    put_number(l, r->status);
    put_column(l, view_of(reason_word(r->reason)));
    *l->at++ = ' ';
    put_ms(l, fmax(r->duration_s, 0));
    PUT(l, "ms in=");
    put_number(l, r->bytes_in);
    PUT(l, " out=");
    put_number(l, r->bytes_out);
    PUT_PAIR(l, "route", r->route);
    PUT_PAIR(l, "limiter", view_of(r->limiter));
    PUT_PAIR(l, "breaker", view_of(r->breaker));
    PUT_PAIR(l, "endpoint", r->endpoint);
    PUT_PAIR(l, "id", r->request_id);
    PUT_PAIR(l, "trace", r->traceparent);
    if (r->detail) {
        PUT(l, " (");
        put_escaped(l, view_of(r->detail));
        PUT(l, ")");
    }
    *l->at++ = '\n';
}

/* An escape is at most six bytes for one. */
static size_t field_bound(struct view v)
{
    return MIN(v.len, FIELD_MAX_BYTES / 6 + 1) * 6;
}

static size_t line_bound(const struct access_record *r)
{
    return FIXED_BYTES + field_bound(view_of(r->detail)) + field_bound(r->request_id) +
           field_bound(r->client) + field_bound(r->method) + field_bound(r->host) +
           field_bound(r->path) + field_bound(r->protocol) + field_bound(r->user_agent) +
           field_bound(r->referer) + field_bound(r->traceparent) + field_bound(r->route) +
           field_bound(r->endpoint);
}

void access_log_write(struct log_ring *ring, bool console, const struct access_record *r,
                      struct stats *stats)
{
    if (log_ring_is_off(ring))
        return;
    struct line l = {log_ring_reserve(ring, line_bound(r))};
    const char *start = l.at;
    if (!start) {
        stats_add(stats, STAT_access_log_dropped_total, 1);
        return;
    }
    if (console)
        put_console(&l, r);
    else
        put_json(&l, r);
    log_ring_commit(ring, (size_t)(l.at - start));
}
