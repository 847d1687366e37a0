#include <criterion/criterion.h>
#include <stdio.h>

#include "dataplane/http/client_addr.h"
#include "reading.h"

static struct ip ip(const char *text)
{
    struct ip found;
    cr_assert(ip_parse(view_of(text), &found), "%s", text);
    return found;
}

static bool contains(const char *network, const char *address)
{
    struct cidr c;
    struct err err;
    cr_assert_eq(cidr_parse(&c, network, &err), 0, "%s", network);
    return cidr_contains(&c, ip(address));
}

Test(client_addr, addresses_are_read_and_written)
{
    static const char *const same[] = {"1.2.3.4", "0.0.0.0", "255.255.255.255",
                                       "::1",     "::",      "2001:db8::1"};
    char out[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        cr_assert_eq(ip_format(ip(same[i]), out), strlen(same[i]));
        cr_assert_str_eq(out, same[i]);
    }
    ip_format(ip("::ffff:1.2.3.4"), out);
    cr_assert_str_eq(out, "1.2.3.4", "mapped IPv4 is IPv4");
}

Test(client_addr, what_is_no_address_is_refused)
{
    static const char *const bad[] = {
        "",         "1",      "1.2.3",    "1.2.3.4.5", "1.2.3.256", "01.2.3.4",  "1.2.3.4 ",
        " 1.2.3.4", "1.2.3.", ".1.2.3.4", "1..3.4",    "0x1.2.3.4", "1.2.3.4:1", "[::1]",
        "::1%lo",   ":::",    "g::",      "unknown",   "1.2.3.0004"};
    struct ip found;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_not(ip_parse(view_of(bad[i]), &found), "%s", bad[i]);
    cr_assert_not(ip_parse((struct view){"::1\0", 4}, &found));
}

Test(client_addr, networks_contain_what_they_should)
{
    cr_assert(contains("10.0.0.0/8", "10.255.0.1"));
    cr_assert(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
    cr_assert(contains("10.1.2.3/8", "10.0.0.0"));
    cr_assert_not(contains("10.0.0.0/8", "11.0.0.0"));
    cr_assert_not(contains("10.0.0.0/8", "9.255.255.255"));
    cr_assert(contains("0.0.0.0/0", "255.1.2.3"));
    cr_assert_not(contains("0.0.0.0/0", "::1"));
    cr_assert(contains("1.2.3.4", "1.2.3.4"));
    cr_assert_not(contains("1.2.3.4", "1.2.3.5"));
    cr_assert(contains("1.2.3.4/31", "1.2.3.5"));
    cr_assert(contains("2001:db8::/32", "2001:db8:ffff::1"));
    cr_assert_not(contains("2001:db8::/32", "2001:db9::"));
    cr_assert(contains("2001:db8::/65", "2001:db8::1"));
    cr_assert_not(contains("2001:db8::/65", "2001:db8:0:0:8000::"));
    cr_assert(contains("::/0", "2001:db8::1"));
    cr_assert_not(contains("::/0", "1.2.3.4"), "IPv4 is asked for as 0.0.0.0/0");
    cr_assert(contains("::1", "::1"));
    cr_assert(contains("::ffff:10.0.0.0/104", "10.2.3.4"));
}

Test(client_addr, what_is_no_network_is_refused_with_words)
{
    static const char *const bad[] = {"",           "10.0.0.0/33",  "10.0.0.0/",   "10.0.0.0/-1",
                                      "10.0.0.0/x", "10.0.0.0/08",  "10.0.0/8",    "::/129",
                                      "a.b.c.d/8",  "10.0.0.0/8/8", "10.0.0.0 /8", "[::1]/128"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct cidr c;
        struct err err = {""};
        cr_assert_eq(cidr_parse(&c, bad[i], &err), -1, "%s", bad[i]);
        cr_assert(strstr(err.text, "is not a network"));
    }
}

/* The client that a request with these fields from that peer comes from. */
static void expect(const char *peer, const char *fields, const char *client)
{
    static const char *const trusted[] = {"10.0.0.0/8", "fd00::/8", "192.168.1.1"};
    struct arena *arena = arena_new(1024);
    struct cidr_list list;
    struct reading *r = malloc(sizeof(*r));
    char bytes[4096], out[INET6_ADDRSTRLEN];
    cr_assert_eq(cidr_list_compile(&list, trusted, COUNT_OF(trusted), arena, NULL), 0);
    int len = snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
    reading_init(r, (size_t)len);
    cr_assert_eq(reading_run(r, bytes, (size_t)len, 0, (size_t)len, false, 0), R_SERVED);
    ip_format(client_addr_find(ip(peer), &list, &r->head, r->buffer), out);
    cr_assert_str_eq(out, client, "%s from %s -> %s", fields, peer, out);
    reading_fini(r);
    free(r);
    arena_free(&arena);
}

#define XFF "X-Forwarded-For: "

Test(client_addr, only_trusted_peers_are_believed)
{
    expect("1.2.3.4", "", "1.2.3.4");
    expect("10.0.0.1", "", "10.0.0.1");
    expect("1.2.3.4", XFF "5.6.7.8\r\n", "1.2.3.4");
    expect("10.0.0.1", XFF "5.6.7.8\r\n", "5.6.7.8");
    expect("::ffff:10.0.0.1", XFF "5.6.7.8\r\n", "5.6.7.8");
    expect("fd00::1", XFF "2001:db8::1\r\n", "2001:db8::1");
}

Test(client_addr, the_walk_goes_left_while_it_is_trusted)
{
    expect("10.0.0.1", XFF "1.1.1.1, 5.6.7.8\r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "1.1.1.1, 5.6.7.8, 10.0.0.2, 192.168.1.1\r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "10.0.0.9, 10.0.0.8\r\n", "10.0.0.9");
    expect("10.0.0.1", XFF "  5.6.7.8  ,\t10.0.0.2 \r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "5.6.7.8,10.0.0.2\r\n", "5.6.7.8");
}

Test(client_addr, several_fields_are_one_list)
{
    expect("10.0.0.1", XFF "1.1.1.1\r\nX: y\r\n" XFF "5.6.7.8\r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "1.1.1.1, 5.6.7.8\r\nX: y\r\nx-forwarded-for: 10.0.0.2\r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "5.6.7.8\r\n" XFF "\r\n" XFF "10.0.0.2\r\n", "5.6.7.8");
}

Test(client_addr, ports_are_allowed)
{
    expect("10.0.0.1", XFF "5.6.7.8:1234\r\n", "5.6.7.8");
    expect("10.0.0.1", XFF "[2001:db8::1]:1234\r\n", "2001:db8::1");
    expect("10.0.0.1", XFF "[2001:db8::1]\r\n", "2001:db8::1");
    expect("10.0.0.1", XFF "5.6.7.8, [fd00::2]:80, 10.0.0.3:80\r\n", "5.6.7.8");
}

Test(client_addr, what_is_no_address_ends_the_walk)
{
    static const char *const bad[] = {"unknown",        "_hidden",   "5.6.7.8:",    "5.6.7.8:x",
                                      "5.6.7.8:123456", "[::1",      "[5.6.7.8]",   "[::1]x",
                                      "::1]:80",        "a.example", "\"5.6.7.8\"", "5.6.7.8 9",
                                      "5.6.7",          "",          "[]"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char fields[200];
        snprintf(fields, sizeof(fields), XFF "1.1.1.1, %s, 10.0.0.2\r\n", bad[i]);
        expect("10.0.0.1", fields, "10.0.0.2");
    }
    expect("10.0.0.1", XFF "nobody\r\n", "10.0.0.1");
    expect("10.0.0.1", XFF "5.6.7.8,\r\n", "10.0.0.1");
}

Test(client_addr, the_walk_is_bounded)
{
    char fields[2048] = XFF "5.6.7.8";
    for (int i = 0; i < CLIENT_ADDR_MAX_HOPS; i++)
        strcat(fields, ", 10.0.0.7");
    strcat(fields, "\r\n");
    expect("10.0.0.1", fields, "10.0.0.7");
}
