#include <criterion/criterion.h>

#include "controlplane/config/url.h"

static struct arena *arena;
static struct err advice, err;
static struct redis_url redis;

static void setup(void)
{
    arena = arena_new(4096);
}

static void teardown(void)
{
    arena_free(&arena);
}

TestSuite(url, .init = setup, .fini = teardown);

static void takes(const char *text, const char *host, uint16_t port, const char *path)
{
    struct url u;
    cr_assert_eq(url_parse_backend(&u, arena, text, &advice, &err), 0, "%s: %s", text, err.text);
    cr_expect_str_eq(u.host, host);
    cr_expect_eq(u.port, port);
    cr_expect_str_eq(u.path, path);
}

Test(url, a_backend_is_host_port_and_base)
{
    takes("http://user-svc-1:8080", "user-svc-1", 8080, "");
    takes("http://svc", "svc", 80, "");
    takes("HTTP://SVC.Example.Com/", "svc.example.com", 80, "");
    takes("http://10.0.0.1:1/base/", "10.0.0.1", 1, "/base");
    takes("http://[fd00::1]:8080/a/b", "fd00::1", 8080, "/a/b");
    takes("http://my_service:65535", "my_service", 65535, "");
}

Test(url, https_is_said_to_be_unsupported)
{
    struct url u;
    cr_expect_eq(url_parse_backend(&u, arena, "https://a", &advice, &err), -1);
    cr_expect(strstr(err.text, "not supported yet"));
}

Test(url, redis_urls_of_both_kinds_are_taken)
{
    static const char *const good[] = {
        "redis://redis",           "redis://redis:6379/0", "redis://:pw@redis",
        "redis://u:p/w@redis:1/3", "redis://[::1]:6379/",  "unix:///run/redis.sock",
        "unix:///run/r.sock?db=2",
    };
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_expect_eq(url_parse_redis(&redis, arena, good[i], &err), 0, "%s: %s", good[i], err.text);
}

static void expect_redis(const char *text, const char *where, uint16_t port, uint32_t database,
                         const char *user, const char *password, const char *name)
{
    cr_assert_eq(url_parse_redis(&redis, arena, text, &err), 0, "%s: %s", text, err.text);
    cr_expect_str_eq(redis.host ? redis.host : redis.path, where);
    cr_expect_eq(redis.port, port);
    cr_expect_eq(redis.database, database);
    cr_expect_str_eq(redis.user, user);
    cr_expect_str_eq(redis.password, password);
    cr_expect_str_eq(redis.name, name);
}

Test(url, redis_urls_are_taken_apart)
{
    expect_redis("redis://Redis", "redis", 6379, 0, "", "", "redis://Redis:6379/0");
    expect_redis("redis://u:p/w:%40%3a%zz%4@h:1/3", "h", 1, 3, "u", "p/w:@:%zz%4", "redis://h:1/3");
    expect_redis("redis://:p@[::1]:7/", "::1", 7, 0, "", "p", "redis://[::1]:7/0");
    expect_redis("redis://p@10.0.0.1/15", "10.0.0.1", 6379, 15, "", "p",
                 "redis://10.0.0.1:6379/15");
    expect_redis("unix:///run/r.sock?db=2", "/run/r.sock", 0, 2, "", "", "unix:///run/r.sock?db=2");
}

Test(url, a_redis_socket_has_a_path_that_the_system_takes)
{
    char text[160] = "unix:///";
    memset(text + 8, 'a', 106);
    cr_expect_eq(url_parse_redis(&redis, arena, text, &err), 0);
    text[8 + 106] = 'a';
    cr_expect_eq(url_parse_redis(&redis, arena, text, &err), -1);
    cr_expect_str_eq(err.text, "the path of a Redis socket has at most 107 bytes");
}

Test(url, a_redis_password_is_never_repeated)
{
    static const char *const bad[] = {"redis://u:hunter2",     "redis://u:hunter2@",
                                      "http://hunter2",        "redis://u:hunter2@h:x",
                                      "redis://u:hunter2@h/x", "unix://hunter2"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        cr_expect_eq(url_parse_redis(&redis, arena, bad[i], &err), -1, "%s", bad[i]);
        cr_expect_null(strstr(err.text, "hunter2"), "%s", err.text);
    }
}

static const char *network(const char *text)
{
    static char out[URL_CIDR_BYTES];
    return url_parse_cidr(out, text, &err) == 0 ? out : NULL;
}

Test(url, a_network_loses_its_host_bits)
{
    cr_expect_str_eq(network("10.0.0.0/8"), "10.0.0.0/8");
    cr_expect_str_eq(network("10.1.2.3/8"), "10.0.0.0/8");
    cr_expect_str_eq(network("192.168.255.255/17"), "192.168.128.0/17");
    cr_expect_str_eq(network("10.1.2.3"), "10.1.2.3/32");
    cr_expect_str_eq(network("0.0.0.0/0"), "0.0.0.0/0");
    cr_expect_str_eq(network("fd00:1:2:3::1/60"), "fd00:1:2::/60");
    cr_expect_str_eq(network("::1"), "::1/128");
}

Test(url, what_is_no_network_is_refused)
{
    static const char *const bad[] = {
        "",         "/8",     "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8x",
        "10.0.0/8", "::/129", "host/8",    "10.0.0.0/-1", "10.0.0.0/99999999999"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_null(network(bad[i]), "%s", bad[i]);
}
