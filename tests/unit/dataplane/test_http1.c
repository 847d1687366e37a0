/* http1_parse and http1_check together: one buffer of bytes -> a verdict. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/http/http1_check.h"
#include "dataplane/http/http1_parse.h"

static struct buffer *buffer;
static struct http1_parser parser;
static struct head head;
static const char *detail;
static char body[65536];
static size_t body_len;

static void start(bool is_response)
{
    if (!buffer)
        buffer = malloc(sizeof(*buffer) + 65536);
    buffer->size = 65536;
    buffer->keep = buffer->parsed = buffer->used = 0;
    http1_parser_init(&parser, is_response, &head, 100);
    body_len = 0;
    detail = NULL;
}

static void feed(const char *bytes, size_t len)
{
    memcpy(buffer->data + buffer->used, bytes, len);
    buffer->used += (uint32_t)len;
}

static void collect(void)
{
    memcpy(body + body_len, buffer->data + parser.piece_at, parser.piece_len);
    body_len += parser.piece_len;
}

/* Feeds `text` in pieces of `step` bytes; R_SERVED when a whole message was read. */
static enum reason read_message(const char *text, size_t text_len, size_t step, bool is_response,
                                unsigned method)
{
    size_t at = 0;
    enum parse_status status = PARSE_AGAIN;
    start(is_response);
    while (status == PARSE_AGAIN && at < text_len) {
        size_t len = MIN(step, text_len - at);
        feed(text + at, len);
        at += len;
        status = http1_parse_head(&parser, buffer);
    }
    if (status != PARSE_HEAD) {
        detail = parser.detail;
        return R_BAD_REQUEST;
    }
    enum reason r = is_response ? http1_check_response(&head, buffer, method, &detail)
                                : http1_check_request(&head, buffer, &detail);
    if (r != R_SERVED)
        return r;
    buffer->keep = buffer->parsed;
    http1_parse_start_body(&parser, (enum framing)head.framing, head.content_length);
    for (;;) {
        status = http1_parse_body(&parser, buffer);
        collect();
        if (status != PARSE_AGAIN || at == text_len)
            break;
        buffer_compact(buffer);
        size_t len = MIN(step, text_len - at);
        feed(text + at, len);
        at += len;
    }
    if (status == PARSE_DONE || (status == PARSE_AGAIN && head.framing == FRAMING_UNTIL_CLOSE))
        return R_SERVED;
    detail = parser.detail;
    return R_BAD_REQUEST;
}

struct request_case {
    const char *bytes;
    enum reason verdict;
    const char *body;
};

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\n"

static const struct request_case requests[] = {
    {GET "\r\n", R_SERVED, ""},
    {"GET / HTTP/1.0\r\n\r\n", R_SERVED, ""},
    {"\r\n" GET "\r\n", R_SERVED, ""},
    {GET "X: \t a b \t\r\nEmpty:\r\n\r\n", R_SERVED, ""},
    {POST "Content-Length: 5\r\n\r\nhello", R_SERVED, "hello"},
    {POST "Content-Length: 0\r\n\r\n", R_SERVED, ""},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", R_SERVED,
     "hello world"},
    {POST "Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: x\r\n\r\n", R_SERVED, "a"},
    {POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", R_SERVED, "x"},
    {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", R_SERVED, ""},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", R_SERVED, ""},
    /* framing that two servers may read in two ways */
    {POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length: 5, 5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length: +5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length: -5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length: 0x5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length: 5 5\r\n\r\nhello", R_BAD_REQUEST, NULL},
    {POST "Content-Length:\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Content-Length: 99999999999999999999\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: gzip\r\n\r\n", R_NOT_IMPLEMENTED, NULL},
    {POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", R_NOT_IMPLEMENTED, NULL},
    {POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", R_NOT_IMPLEMENTED, NULL},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", R_BAD_REQUEST, NULL},
    {POST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n", R_BAD_REQUEST, NULL},
    /* lines */
    {"GET / HTTP/1.1\nHost: a\n\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X: a\rb\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X: a\r\n b\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET " X: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X: a\x01\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X: a\x7f\r\n\r\n", R_BAD_REQUEST, NULL},
    /* names */
    {GET "X : a\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET ": a\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X(y): a\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "X\x80: a\r\n\r\n", R_BAD_REQUEST, NULL},
    /* host */
    {"GET / HTTP/1.1\r\n\r\n", R_BAD_REQUEST, NULL},
    {GET "Host: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", R_BAD_REQUEST, NULL},
    /* start line */
    {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET /\r\nHost: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"get / HTTP/1.1\r\nHost: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / http/1.1\r\nHost: a\r\n\r\n", R_BAD_REQUEST, NULL},
    {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", R_BAD_VERSION, NULL},
    {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", R_NOT_IMPLEMENTED, NULL},
    {GET "Expect: something\r\n\r\n", R_EXPECTATION_FAILED, NULL},
};

Test(http1, requests_have_one_reading_or_none_however_they_are_split)
{
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        const struct request_case *c = &requests[i];
        size_t len = strlen(c->bytes);
        for (size_t step = 1; step <= len; step++) {
            enum reason r = read_message(c->bytes, len, step, false, 0);
            cr_assert_eq(r, c->verdict, "case %zu, step %zu: got %u (%s)\n%s", i, step,
                         reason_status(r), detail ? detail : "", c->bytes);
            if (c->body)
                cr_assert(body_len == strlen(c->body) && memcmp(body, c->body, body_len) == 0,
                          "case %zu, step %zu: body %.*s", i, step, (int)body_len, body);
        }
    }
}

Test(http1, a_nul_byte_is_refused)
{
    static const char bytes[] = GET "X: a\0b\r\n\r\n";
    cr_assert_eq(read_message(bytes, sizeof(bytes) - 1, sizeof(bytes), false, 0), R_BAD_REQUEST);
}

struct response_case {
    const char *bytes;
    unsigned method;
    enum reason verdict;
    enum framing framing;
};

static const struct response_case responses[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", HTTP_GET, R_SERVED, FRAMING_LENGTH},
    {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", HTTP_GET, R_SERVED, FRAMING_LENGTH},
    {"HTTP/1.0 200 OK\r\n\r\nuntil close", HTTP_GET, R_SERVED, FRAMING_UNTIL_CLOSE},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", HTTP_GET,
     R_SERVED, FRAMING_CHUNKED},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", HTTP_HEAD, R_SERVED, FRAMING_NONE},
    {"HTTP/1.1 204 No Content\r\n\r\n", HTTP_GET, R_SERVED, FRAMING_NONE},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", HTTP_GET, R_SERVED, FRAMING_NONE},
    {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", HTTP_GET, R_SERVED, FRAMING_NONE},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_GET,
     R_BAD_RESPONSE, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"HTTP/1.1 99 Low\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"HTTP/1.1 700 High\r\nContent-Length: 0\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"garbage\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
    {"HTTP/1.1 2x0 OK\r\n\r\n", HTTP_GET, R_BAD_RESPONSE, 0},
};

Test(http1, responses_are_framed_by_the_rules_or_refused)
{
    for (size_t i = 0; i < COUNT_OF(responses); i++) {
        const struct response_case *c = &responses[i];
        size_t len = strlen(c->bytes);
        for (size_t step = 1; step <= len; step++) {
            enum reason r = read_message(c->bytes, len, step, true, c->method);
            if (c->verdict == R_SERVED)
                cr_assert(r == R_SERVED && head.framing == c->framing, "case %zu, step %zu: %s", i,
                          step, detail ? detail : "");
            else
                cr_assert_neq(r, R_SERVED, "case %zu, step %zu", i, step);
        }
    }
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
        {GET "Connection: x\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cr_assert_eq(read_message(cases[i].bytes, strlen(cases[i].bytes), 1000, false, 0),
                     R_SERVED);
        cr_assert_eq(head.keep_alive, cases[i].keep, "%s", cases[i].bytes);
    }
}

Test(http1, chunk_framing_without_data_is_bounded)
{
    static char bytes[40000];
    int n = sprintf(bytes, POST "Transfer-Encoding: chunked\r\n\r\n1;");
    memset(bytes + n, 'a', sizeof(bytes) - (size_t)n);
    cr_assert_eq(read_message(bytes, sizeof(bytes), 1000, false, 0), R_BAD_REQUEST);
}

Test(http1, more_fields_than_allowed_are_too_large)
{
    char bytes[2000] = GET;
    for (int i = 0; i < 101; i++)
        strcat(bytes, "a: b\r\n");
    strcat(bytes, "\r\n");
    cr_assert_eq(read_message(bytes, strlen(bytes), 2000, false, 0), R_BAD_REQUEST);
    cr_assert(parser.too_large);
}

Test(http1, what_follows_a_message_is_left_alone)
{
    static const char bytes[] =
        POST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /next";
    cr_assert_eq(read_message(bytes, sizeof(bytes) - 1, 1000, false, 0), R_SERVED);
    cr_assert_eq(buffer->used - buffer->parsed, 9);
    cr_assert_eq(memcmp(buffer->data + buffer->parsed, "GET /next", 9), 0);
}
