/* What http1_parse and http1_check promise beyond a verdict; the verdicts are in test_raw.c. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "reading.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static struct reading reading;

static enum reason read_request(const char *text)
{
    size_t len = strlen(text);
    reading_init(&reading, len);
    return reading_run(&reading, text, len, 0, len, false, 0);
}

Test(http1, persistence_follows_version_and_connection)
{
    static const struct {
        const char *bytes;
        bool keep;
    } cases[] = {
        {GET "\r\n", true},
        {GET "Connection: close\r\n\r\n", false},
        {GET "Connection: x, Close\r\n\r\n", false},
        {GET "Connection: ,close,\r\n\r\n", false},
        {GET "Connection: closed\r\n\r\n", true},
        {GET "Connection: x\r\nConnection: close\r\n\r\n", false},
        {GET "Connection: close, keep-alive\r\n\r\n", false},
        {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cr_assert_eq(read_request(cases[i].bytes), R_SERVED);
        cr_assert_eq(reading.head.keep_alive, cases[i].keep, "%s", cases[i].bytes);
        reading_fini(&reading);
    }
}

Test(http1, a_refusal_says_why)
{
    static const struct {
        const char *bytes;
        enum reason reason;
        bool too_large;
    } cases[] = {
        {"Foo / HTTP/1.1\r\n", R_NOT_IMPLEMENTED, false},
        {"\x16\x03\x01", R_BAD_REQUEST, false},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", R_BAD_VERSION, false},
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", R_BAD_REQUEST, false},
        {CHUNKED "x\r\n", R_BAD_REQUEST, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cr_assert_eq(read_request(cases[i].bytes), cases[i].reason, "%s", cases[i].bytes);
        cr_assert_eq(reading.parser.reason, cases[i].reason);
        cr_assert_eq(reading.parser.too_large, cases[i].too_large);
        cr_assert_not_null(reading.parser.detail);
        reading_fini(&reading);
    }
}

Test(http1, more_fields_than_allowed_are_too_large)
{
    char bytes[2000] = GET;
    for (int i = 0; i < READING_MAX_FIELDS; i++)
        strcat(bytes, "a: b\r\n");
    strcat(bytes, "\r\n");
    cr_assert_eq(read_request(bytes), R_HEAD_TOO_LARGE);
    cr_assert(reading.parser.too_large);
    reading_fini(&reading);
}

Test(http1, a_control_byte_is_found_wherever_it_is)
{
    char bytes[400];
    int at = sprintf(bytes, GET "X: ");
    size_t len = (size_t)at + 300;
    for (size_t i = (size_t)at + 1; i < len - 5; i++) {
        memset(bytes + at, 'x', 300);
        bytes[i] = '\x01';
        memcpy(bytes + len - 4, "\r\n\r\n", 5);
        cr_assert_neq(read_request(bytes), R_SERVED, "byte %zu", i);
        reading_fini(&reading);
    }
}

/* llhttp itself refuses most of them; this is what stands behind it. */
Test(http1, the_check_does_not_rely_on_the_parser)
{
    static const char bytes[] = GET "X: abcdefghijklmnopqrstuvwxyz\r\nY: z\r\n\r\n";
    static const char others[] = "\r\n\0\t\x01\x7f: x";
    const char *detail;
    size_t start = 2; /* a method is what llhttp took it for; its bytes are compared as a whole */
    for (size_t i = start; i < sizeof(bytes) - 1; i++) {
        for (size_t k = 0; k < sizeof(others); k++) {
            bool in_line = strchr("\r\n", bytes[i]) == NULL;
            bool is_text =
                others[k] == 'x' || others[k] == ' ' || others[k] == '\t' || others[k] == ':';
            if (others[k] == bytes[i] || (in_line && is_text))
                continue;
            cr_assert_eq(read_request(bytes), R_SERVED);
            reading.buffer->data[i] = others[k];
            enum reason r = http1_check_request(&reading.head, reading.buffer, &detail);
            cr_assert_neq(r, R_SERVED, "byte %zu -> %02x", i, others[k]);
            reading_fini(&reading);
        }
    }
}

Test(http1, fields_that_are_not_where_they_should_be_are_refused)
{
    const char *detail;
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(read_request(GET "Aaaa: bbbb\r\n\r\n"), R_SERVED);
        struct field *f = &reading.head.fields[1];
        *(i ? &f->value_at : &f->name_at) += 1;
        *(i ? (uint8_t *)&f->value_len : &f->name_len) -= 1;
        cr_assert_eq(http1_check_request(&reading.head, reading.buffer, &detail), R_BAD_REQUEST);
        reading_fini(&reading);
    }
}

Test(http1, a_higher_minor_version_becomes_the_highest_known)
{
    cr_assert_eq(read_request("GET / HTTP/1.7\r\nHost: a\r\n\r\n"), R_SERVED);
    cr_assert_eq(reading.head.minor, 1);
    reading_fini(&reading);
}

Test(http1, look_alikes_are_marked)
{
    cr_assert_eq(read_request(GET "X_Forwarded_For: 1\r\nX_Y: z\r\nX-Real-IP: 2\r\n\r\n"),
                 R_SERVED);
    cr_assert_eq(reading.head.fields[1].id, FIELD_LOOKALIKE);
    cr_assert_eq(reading.head.fields[2].id, FIELD_OTHER);
    cr_assert_eq(reading.head.fields[3].id, FIELD_REAL_IP);
    reading_fini(&reading);
}

Test(http1, trailers_stay_readable_until_the_buffer_moves)
{
    static const char bytes[] = CHUNKED "1\r\na\r\n0\r\nX-Sum: abc\r\nETag:  \"x\" \r\n\r\nGET";
    for (size_t step = 1; step < sizeof(bytes); step++) {
        size_t len = sizeof(bytes) - 1;
        reading_init(&reading, len);
        cr_assert_eq(reading_run(&reading, bytes, len, 0, step, false, 0), R_SERVED);
        const struct trailers *t = http1_trailers(&reading.parser);
        cr_assert_eq(t->count, 2);
        cr_assert(view_equal(field_name(reading.buffer, &t->fields[0]), view_of("X-Sum")));
        cr_assert(view_equal(field_value(reading.buffer, &t->fields[0]), view_of("abc")));
        cr_assert_eq(t->fields[1].id, FIELD_ETAG);
        cr_assert(view_equal(field_value(reading.buffer, &t->fields[1]), view_of("\"x\"")));
        reading_fini(&reading);
    }
}

Test(http1, an_incomplete_trailer_section_is_left_where_it_is)
{
    cr_assert_eq(read_request(CHUNKED "0\r\nX: y\r\nZ"), R_CLIENT_TIMEOUT);
    cr_assert_eq(reading.buffer->used - reading.buffer->parsed, 7);
    reading_fini(&reading);
}

Test(http1, a_parser_forgets_the_message_before)
{
    struct http1_parser *p = &reading.parser;
    cr_assert_eq(read_request(CHUNKED "0\r\nX: y\r\n\r\n"), R_SERVED);
    cr_assert_eq(http1_trailers(p)->count, 1);
    http1_parser_init(p, false, &reading.head, READING_MAX_FIELDS);
    cr_assert_eq(http1_trailers(p)->count, 0);
    cr_assert_eq(reading.head.field_count, 0);
    reading_fini(&reading);
}

Test(http1, hosts_are_recognised)
{
    cr_assert(http1_is_host(view_of("a.example:80")));
    cr_assert(http1_is_host(view_of("[::1]:80")));
    cr_assert_not(http1_is_host(view_of("")));
    cr_assert_not(http1_is_host(view_of("a%41")));
    cr_assert_not(http1_is_host(view_of("a:65536")));
}

Test(http1, tokens_are_found_in_lists)
{
    cr_assert(http1_has_token(view_of("a, Close ,b"), view_of("close")));
    cr_assert(http1_has_token(view_of(",,close"), view_of("close")));
    cr_assert_not(http1_has_token(view_of("closed, not-close"), view_of("close")));
    cr_assert_not(http1_has_token(view_of(""), view_of("close")));
}
