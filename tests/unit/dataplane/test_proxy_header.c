#include <criterion/criterion.h>
#include <stdlib.h>

#include "dataplane/http/proxy_header.h"

static struct proxy_header header;
static const char *detail;

/* In a copy of exactly that size, so that a sanitizer sees who reads beyond it. */
static enum proxy_status parse(const char *bytes, size_t len)
{
    char *copy = malloc(len + 1);
    char *exact = copy + (len == 0);
    if (len > 0) {
        free(copy);
        exact = copy = malloc(len);
        memcpy(exact, bytes, len);
    }
    enum proxy_status status = proxy_header_parse(exact, len, &header, &detail);
    free(copy);
    return status;
}

/* Whole, and with every beginning of it: MORE until it is complete, or BAD from some point on. */
static enum proxy_status parse_split(const char *bytes, size_t len)
{
    enum proxy_status whole = parse(bytes, len);
    struct proxy_header of_whole = header;
    bool was_bad = false;
    for (size_t part = 0; part < len; part++) {
        enum proxy_status status = parse(bytes, part);
        if (status == PROXY_DONE) {
            cr_assert(whole == PROXY_DONE && part >= of_whole.consumed, "%zu of %zu", part, len);
            cr_assert_eq(header.consumed, of_whole.consumed);
        } else if (status == PROXY_BAD) {
            cr_assert_eq(whole, PROXY_BAD, "%zu of %zu: %s", part, len, detail);
            was_bad = true;
        } else {
            cr_assert_not(was_bad);
        }
    }
    header = of_whole;
    return whole;
}

static void expect_source(const char *text)
{
    char out[ADDR_TEXT_BYTES];
    cr_assert(header.has_source);
    addr_format(&header.source, out);
    cr_assert_str_eq(out, text);
}

static enum proxy_status line(const char *text)
{
    return parse_split(text, strlen(text));
}

Test(proxy_header, version_1_names_the_source)
{
    cr_assert_eq(line("PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\nGET /"), PROXY_DONE);
    cr_assert_eq(header.consumed, 36);
    expect_source("1.2.3.4:1000");
    cr_assert_eq(line("PROXY TCP6 2001:db8::1 ::1 65535 0\r\n"), PROXY_DONE);
    expect_source("[2001:db8::1]:65535");
}

Test(proxy_header, version_1_may_not_know)
{
    cr_assert_eq(line("PROXY UNKNOWN\r\nGET /"), PROXY_DONE);
    cr_assert_eq(header.consumed, 15);
    cr_assert_not(header.has_source);
    cr_assert_eq(line("PROXY UNKNOWN ff:ff::1 whatever 1 2 3\r\n"), PROXY_DONE);
    cr_assert_not(header.has_source);
}

Test(proxy_header, version_1_is_taken_at_its_word)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 100000\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 ::1%lo ::1 1 2\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN \x01\r\n",
        "PROXY UNKNOWN \xff\r\n",
        "\r\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(line(bad[i]), PROXY_BAD, "%s", bad[i]);
}

Test(proxy_header, version_1_is_bounded)
{
    char text[200] = "PROXY UNKNOWN ";
    memset(text + 14, 'x', 91);
    memcpy(text + 105, "\r\n", 3);
    cr_assert_eq(line(text), PROXY_DONE);
    cr_assert_eq(header.consumed, PROXY_HEADER_V1_MAX_BYTES);
    memcpy(text + 105, "x\r\n", 4);
    cr_assert_eq(line(text), PROXY_BAD);
    memset(text + 14, 'x', sizeof(text) - 15);
    cr_assert_eq(line(text), PROXY_BAD);
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define V4_ADDRESSES "\1\2\3\4\5\6\7\10\x03\xe8\0\x50"

/* A literal with its NULs. */
#define v2(text) parse_split(text, sizeof(text) - 1)

Test(proxy_header, version_2_names_the_source)
{
    cr_assert_eq(v2(V2 "\x21\x11\0\x0c" V4_ADDRESSES "GET"), PROXY_DONE);
    cr_assert_eq(header.consumed, 28);
    expect_source("1.2.3.4:1000");
    cr_assert_eq(v2(V2 "\x21\x21\0\x24"
                       "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                       "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
                       "\x03\xe8\0\x50"),
                 PROXY_DONE);
    cr_assert_eq(header.consumed, 52);
    expect_source("[2001:db8::1]:1000");
}

Test(proxy_header, version_2_skips_what_is_appended)
{
    cr_assert_eq(v2(V2 "\x21\x11\0\x13" V4_ADDRESSES "\1\0\4h2ok"
                       "GET"),
                 PROXY_DONE);
    cr_assert_eq(header.consumed, 35);
    expect_source("1.2.3.4:1000");
    cr_assert_eq(v2(V2 "\x21\x11\0\x0f" V4_ADDRESSES "\4\0\0"), PROXY_DONE);
    cr_assert_eq(v2(V2 "\x21\x11\0\x0e" V4_ADDRESSES "\4\0"), PROXY_BAD);
    cr_assert_eq(v2(V2 "\x21\x11\0\x10" V4_ADDRESSES "\4\0\2x"), PROXY_BAD);
}

Test(proxy_header, version_2_may_speak_for_itself)
{
    cr_assert_eq(v2(V2 "\x20\0\0\0"
                       "GET"),
                 PROXY_DONE);
    cr_assert_eq(header.consumed, 16);
    cr_assert_not(header.has_source);
    cr_assert_eq(v2(V2 "\x20\x11\0\x0c" V4_ADDRESSES), PROXY_DONE);
    cr_assert_not(header.has_source);
    cr_assert_eq(v2(V2 "\x21\0\0\0"), PROXY_DONE);
    cr_assert_not(header.has_source);
    char unix_header[16 + 216] = V2 "\x21\x31\0\xd8";
    cr_assert_eq(parse_split(unix_header, sizeof(unix_header)), PROXY_DONE);
    cr_assert_eq(header.consumed, sizeof(unix_header));
    cr_assert_not(header.has_source);
}

Test(proxy_header, version_2_is_taken_at_its_word)
{
    cr_assert_eq(v2(V2 "\x11\x11\0\x0c" V4_ADDRESSES), PROXY_BAD); /* version 1 */
    cr_assert_eq(v2(V2 "\x22\x11\0\x0c" V4_ADDRESSES), PROXY_BAD); /* command 2 */
    cr_assert_eq(v2(V2 "\x21\x41\0\x0c" V4_ADDRESSES), PROXY_BAD); /* family 4 */
    cr_assert_eq(v2(V2 "\x21\x13\0\x0c" V4_ADDRESSES), PROXY_BAD); /* protocol 3 */
    cr_assert_eq(v2(V2 "\x21\x12\0\x0c" V4_ADDRESSES), PROXY_BAD); /* datagrams */
    cr_assert_eq(v2(V2 "\x21\x11\0\x0b" V4_ADDRESSES), PROXY_BAD); /* too short */
    cr_assert_eq(v2(V2 "\x21\x21\0\x0c" V4_ADDRESSES), PROXY_BAD);
    cr_assert_eq(v2("\r\n\r\n\0\r\nQUIT\r"
                    "\x21\x11\0\x0c" V4_ADDRESSES),
                 PROXY_BAD);
}

Test(proxy_header, version_2_is_bounded)
{
    static char bytes[PROXY_HEADER_V2_MAX_BYTES + 1] = V2 "\x20\0\x10\0";
    cr_assert_eq(parse(bytes, sizeof(bytes)), PROXY_DONE);
    cr_assert_eq(header.consumed, PROXY_HEADER_V2_MAX_BYTES);
    cr_assert_eq(parse(bytes, PROXY_HEADER_V2_MAX_BYTES - 1), PROXY_MORE);
    bytes[15] = 1;
    cr_assert_eq(parse(bytes, 16), PROXY_BAD);
}
