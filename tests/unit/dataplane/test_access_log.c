#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/report/access_log.h"
#include "dataplane/report/log_writer.h"

/* The line is written here instead of into a ring, which holds exactly what was reserved. */
static char *room;
static size_t reserved, written;
static bool is_off, is_full;
static struct stats stats;
static uint64_t counters[STAT_COUNT];

bool log_ring_is_off(const struct log_ring *r)
{
    return is_off;
}

char *log_ring_reserve(struct log_ring *r, size_t bytes)
{
    if (is_full)
        return NULL;
    free(room);
    reserved = bytes;
    return room = malloc(bytes); /* so that the sanitizer sees a byte too many */
}

void log_ring_commit(struct log_ring *r, size_t bytes)
{
    cr_assert_leq(bytes, reserved);
    written = bytes;
}

static void setup(void)
{
    stats.counters = counters;
}

static void teardown(void)
{
    free(room);
    room = NULL;
}

TestSuite(access_log, .init = setup, .fini = teardown);

static struct access_record record(void)
{
    return (struct access_record){
        .time = 1785456000.1239,
        .request_id = view_of("abc"),
        .client = view_of("10.0.0.9"),
        .method = view_of("GET"),
        .host = view_of("example.com"),
        .path = view_of("/users?id=1"),
        .protocol = view_of("HTTP/1.1"),
        .user_agent = view_of("curl/8 \"quoted\""),
        .referer = view_of("https://example.com/"),
        .traceparent = view_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        .limiter = "allowed",
        .breaker = "half_open",
        .route = view_of("users"),
        .endpoint = view_of("10.0.0.1:80"),
        .generation = 12,
        .status = 200,
        .upstream_status = 200,
        .bytes_in = 5,
        .bytes_out = 18446744073709551615u,
        .duration_s = 0.0012345,
        .upstream_s = 0.001,
        .connect_s = -1,
        .attempts = 1,
        .reason = R_SERVED,
    };
}

static json_t *logged(const struct access_record *r)
{
    json_error_t e;
    access_log_write(NULL, false, r, &stats);
    cr_assert_eq(room[written - 1], '\n');
    cr_assert_eq(memchr(room, '\n', written - 1), NULL, "one line");
    json_t *j = json_loadb(room, written, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    cr_assert(j, "%s: %.*s", e.text, (int)written, room);
    return j;
}

static const char *text(const json_t *j, const char *name)
{
    return json_string_value(json_object_get(j, name));
}

Test(access_log, every_field_is_there)
{
    struct access_record r = record();
    r.bytes_out = 7;
    json_t *j = logged(&r);
    cr_assert_str_eq(text(j, "level"), "info");
    cr_assert_str_eq(text(j, "ts"), "2026-07-31T00:00:00.123Z");
    cr_assert_str_eq(text(j, "msg"), "request");
    cr_assert_str_eq(text(j, "request_id"), "abc");
    cr_assert_str_eq(text(j, "client"), "10.0.0.9");
    cr_assert_str_eq(text(j, "method"), "GET");
    cr_assert_str_eq(text(j, "host"), "example.com");
    cr_assert_str_eq(text(j, "path"), "/users?id=1");
    cr_assert_str_eq(text(j, "protocol"), "HTTP/1.1");
    cr_assert_str_eq(text(j, "reason"), "ok");
    cr_assert_str_eq(text(j, "route"), "users");
    cr_assert_str_eq(text(j, "endpoint"), "10.0.0.1:80");
    cr_assert_str_eq(text(j, "user_agent"), "curl/8 \"quoted\"");
    cr_assert_str_eq(text(j, "referer"), "https://example.com/");
    cr_assert_str_eq(text(j, "traceparent"),
                     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    cr_assert_str_eq(text(j, "trace_id"), "4bf92f3577b34da6a3ce929d0e0e4736");
    cr_assert_str_eq(text(j, "span_id"), "00f067aa0ba902b7");
    cr_assert_str_eq(text(j, "limiter"), "allowed");
    cr_assert_str_eq(text(j, "breaker"), "half_open");
    static const struct {
        const char *name;
        int value;
    } numbers[] = {{"status", 200}, {"generation", 12}, {"upstream_status", 200},
                   {"attempts", 1}, {"bytes_in", 5},    {"bytes_out", 7}};
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        cr_assert_eq(json_integer_value(json_object_get(j, numbers[i].name)), numbers[i].value,
                     "%s", numbers[i].name);
    cr_assert_float_eq(json_real_value(json_object_get(j, "duration_ms")), 1.235, 1e-9);
    cr_assert_float_eq(json_real_value(json_object_get(j, "upstream_ms")), 1, 1e-9);
    cr_assert_eq(json_object_get(j, "connect_ms"), NULL);
    json_decref(j);
}

Test(access_log, what_is_empty_is_left_out)
{
    struct access_record r = {.time = 0,
                              .status = 404,
                              .reason = R_NO_ROUTE,
                              .detail = "no host",
                              .duration_s = 0,
                              .upstream_s = -1,
                              .connect_s = -1};
    json_t *j = logged(&r);
    static const char *const absent[] = {"request_id",  "route",          "endpoint",
                                         "generation",  "user_agent",     "attempts",
                                         "upstream_ms", "upstream_status"};
    for (size_t i = 0; i < COUNT_OF(absent); i++)
        cr_assert_eq(json_object_get(j, absent[i]), NULL, "%s", absent[i]);
    cr_assert_str_eq(text(j, "level"), "warn");
    cr_assert_str_eq(text(j, "reason"), "no_route");
    cr_assert_str_eq(text(j, "detail"), "no host");
    cr_assert_str_eq(text(j, "ts"), "1970-01-01T00:00:00.000Z");
    json_decref(j);
}

Test(access_log, numbers_of_any_size_are_written_whole)
{
    struct access_record r = record();
    access_log_write(NULL, false, &r, &stats);
    cr_assert(memmem(room, written, "\"bytes_out\":18446744073709551615,", 33));
    r.duration_s = 86400.5;
    access_log_write(NULL, false, &r, &stats);
    cr_assert(memmem(room, written, "\"duration_ms\":86400500.000,", 27));
    r.duration_s = 1e300;
    json_decref((r.bytes_out = 0, logged(&r)));
}

Test(access_log, any_bytes_give_valid_json)
{
    char bytes[256];
    struct access_record r = record();
    r.bytes_out = 0;
    for (unsigned i = 0; i < 256; i++)
        bytes[i] = (char)i;
    for (unsigned start = 0; start < 256; start++) {
        r.path = (struct view){bytes + start, 256 - start};
        r.user_agent = (struct view){bytes + start, MIN(9, 256 - start)};
        r.host = (struct view){bytes + start, 1};
        json_decref(logged(&r));
    }
    srandom(1);
    for (unsigned round = 0; round < 20000; round++) {
        char noise[40];
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (char)(random() % 4 ? 'a' + random() % 26 : random());
        r.path = (struct view){noise, (size_t)random() % sizeof(noise)};
        json_t *j = logged(&r);
        json_decref(j);
    }
}

Test(access_log, plain_text_comes_out_as_it_went_in)
{
    static const char plain[] =
        "/a-rather~long/path?with=every&kind=of_plain.byte#!$'()*+,;:@[]{}|^`";
    struct access_record r = record();
    r.bytes_out = 0;
    for (size_t len = 1; len < sizeof(plain); len++) {
        r.path = (struct view){plain, len};
        json_t *j = logged(&r);
        const json_t *path = json_object_get(j, "path");
        cr_assert_eq(json_string_length(path), len);
        cr_assert_eq(memcmp(json_string_value(path), plain, len), 0);
        json_decref(j);
    }
}

Test(access_log, long_fields_are_cut_and_the_line_stays_bounded)
{
    static char lots[100000];
    struct access_record r = record();
    struct view *const fields[] = {&r.request_id, &r.client,      &r.method, &r.host,
                                   &r.path,       &r.protocol,    &r.route,  &r.endpoint,
                                   &r.user_agent, &r.traceparent, &r.referer};
    static const char kinds[] = {'x', '\0', '"', (char)0xff, (char)0xc3};
    r.bytes_out = 0;
    for (size_t kind = 0; kind < sizeof(kinds); kind++) {
        memset(lots, kinds[kind], sizeof(lots));
        for (size_t i = 0; i < COUNT_OF(fields); i++)
            *fields[i] = (struct view){lots, sizeof(lots)};
        json_t *j = logged(&r);
        cr_assert_leq(written, 13 * 2048);
        json_decref(j);
        access_log_write(NULL, true, &r, &stats);
        cr_assert_leq(written, 13 * 2048);
    }
}

Test(access_log, no_byte_moves_a_terminal)
{
    static const char hostile[] = "/\x1b[2J\xc2\x9b"
                                  "31m\xc2\x85\x7f\r\n\xe2\x82\xac";
    struct access_record r = record();
    r.path = view_of(hostile);
    access_log_write(NULL, true, &r, &stats);
    static const char shown[] = " /\\u001b[2J\\u009b31m\\u0085\\u007f\\r\\n\xe2\x82\xac ";
    cr_assert(memmem(room, written, shown, sizeof(shown) - 1), "%.*s", (int)written, room);
    r.bytes_out = 0;
    json_t *j = logged(&r);
    cr_assert_str_eq(text(j, "path"), hostile, "and JSON gives it back as it was");
    json_decref(j);
}

Test(access_log, a_console_line_reads_from_left_to_right)
{
    struct access_record r = record();
    r.path = view_of("/two\nlines");
    r.bytes_out = 10;
    r.status = 502;
    r.reason = R_RESET;
    r.detail = "after 3 bytes";
    access_log_write(NULL, true, &r, &stats);
    static const char expected[] =
        "2026-07-31T00:00:00.123Z error 10.0.0.9 GET example.com /two\\nlines HTTP/1.1 502 reset "
        "1.235ms in=5 out=10 route=users limiter=allowed breaker=half_open endpoint=10.0.0.1:80 "
        "id=abc "
        "trace=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 (after 3 bytes)\n";
    cr_assert_eq(written, sizeof(expected) - 1, "%.*s", (int)written, room);
    cr_assert_eq(memcmp(room, expected, written), 0, "%.*s", (int)written, room);
}

Test(access_log, dates_are_right_over_leap_years_and_centuries)
{
    static const struct {
        double time;
        const char *date;
    } cases[] = {
        {951782400, "2000-02-29T00:00:00.000Z"},  {951868799.999, "2000-02-29T23:59:59.999Z"},
        {1709251199, "2024-02-29T23:59:59.000Z"}, {1735689599, "2024-12-31T23:59:59.000Z"},
        {1740787200, "2025-03-01T00:00:00.000Z"}, {4107542400, "2100-03-01T00:00:00.000Z"}};
    struct access_record r = record();
    r.bytes_out = 0;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        r.time = cases[i].time;
        json_t *j = logged(&r);
        cr_assert_str_eq(text(j, "ts"), cases[i].date);
        json_decref(j);
    }
}

Test(access_log, a_full_ring_drops_the_line_and_counts_it)
{
    struct access_record r = record();
    is_full = true;
    access_log_write(NULL, false, &r, &stats);
    cr_assert_eq(counters[STAT_access_log_dropped_total], 1);
    is_full = false;
}

Test(access_log, nothing_is_formatted_for_nobody)
{
    struct access_record r = record();
    is_off = true;
    written = 0;
    access_log_write(NULL, false, &r, &stats);
    cr_assert(written == 0 && counters[STAT_access_log_dropped_total] == 0);
    is_off = false;
}
