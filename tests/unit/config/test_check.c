#include <criterion/criterion.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/config/schema.h"
#include "proto/base/log.h"

static struct diagnostics d;
static struct config *cfg;

static void setup(void)
{
    diagnostics_init(&d);
    unsetenv("GWP_ADMIN_TOKEN");
    unsetenv("REDIS_URL");
}

static void teardown(void)
{
    config_free(&cfg);
    diagnostics_fini(&d);
}

TestSuite(check, .init = setup, .fini = teardown);

static void load(const char *text)
{
    config_free(&cfg);
    diagnostics_fini(&d);
    diagnostics_init(&d);
    cfg = config_load("g.yaml", view_of(text), &d);
}

static void load_clean(const char *text)
{
    load(text);
    if (!cfg || d.count > 0)
        diagnostics_print(&d, stderr, false);
    cr_assert(cfg);
    cr_assert_eq(d.count, 0);
}

#define ONE_ROUTE "routes:\n  - path_prefix: /a\n    backends: [{url: http://a}]\n"

/* The example of the predecessor's README, unchanged. */
static const char predecessor[] = "server:\n"
                                  "  addr: \":8080\"\n"
                                  "  read_timeout_seconds: 30\n"
                                  "  write_timeout_seconds: 30\n"
                                  "\n"
                                  "admin:\n"
                                  "  addr: \":9090\"      # Prometheus metrics, /healthz\n"
                                  "\n"
                                  "logging:\n"
                                  "  level: info        # debug | info | warn | error\n"
                                  "  format: json       # json | console\n"
                                  "\n"
                                  "routes:\n"
                                  "  - path_prefix: /api/users\n"
                                  "    lb_algorithm: round_robin\n"
                                  "    timeout_seconds: 10\n"
                                  "    strip_prefix: false\n"
                                  "\n"
                                  "    backends:\n"
                                  "      - url: http://user-svc-1:8080\n"
                                  "      - url: http://user-svc-2:8080\n"
                                  "\n"
                                  "    rate_limit:\n"
                                  "      algorithm: token_bucket\n"
                                  "      rate: 500                    # tokens/sec\n"
                                  "      burst: 1000\n"
                                  "      key_by: ip                   # ip | user | api_key\n"
                                  "      # redis_url: redis://redis:6379/0\n"
                                  "\n"
                                  "    circuit_breaker:\n"
                                  "      failure_threshold: 50        # trip if ≥50% fail\n"
                                  "      min_requests: 20\n"
                                  "      open_duration_seconds: 30\n"
                                  "      half_open_requests: 5\n";

Test(check, the_predecessors_example_loads_unchanged)
{
    load_clean(predecessor);
    cr_assert_eq(cfg->server.addr.count, 1);
    cr_expect_str_eq(cfg->server.addr.at[0], ":8080");
    cr_expect_eq(cfg->server.read_timeout_ms, 30000);
    cr_expect_str_eq(cfg->admin.addr, ":9090");
    cr_expect_eq(cfg->logging.level, LOG_INFO);
    cr_assert_eq(cfg->route_count, 1);

    const struct route_config *r = &cfg->routes[0];
    cr_expect_str_eq(r->name, "/api/users");
    cr_expect_str_eq(r->path_prefix, "/api/users");
    cr_expect_eq(r->lb_algorithm, LB_ROUND_ROBIN);
    cr_expect_eq(r->timeout_ms, 10000);
    cr_expect_eq(r->place.line, 14);
    cr_assert_eq(r->backend_count, 2);
    cr_expect_str_eq(r->backends[1].host, "user-svc-2");
    cr_expect_eq(r->backends[1].port, 8080);
    cr_expect_eq(r->backends[1].place.line, 21);
    cr_assert(r->rate_limit);
    cr_expect_eq(r->rate_limit->rate, 500);
    cr_expect_eq(r->rate_limit->burst, 1000);
    cr_expect_eq(r->rate_limit->place.line, 23);
    cr_assert(r->circuit_breaker);
    cr_expect_eq(r->circuit_breaker->failure_threshold_percent, 50);
    cr_expect_eq(r->circuit_breaker->open_duration_ms, 30000);
}

Test(check, what_is_not_written_has_its_default)
{
    load_clean(ONE_ROUTE);
    cr_expect_str_eq(cfg->server.addr.at[0], ":8080");
    cr_expect_eq(cfg->server.workers, 0);
    cr_expect_eq(cfg->server.max_header_bytes, 16384);
    cr_expect_eq(cfg->server.header_timeout_ms, 10000);
    cr_expect_str_eq(cfg->admin.socket, "/run/gwp/admin.sock");
    cr_expect_str_eq(cfg->admin.token, "");
    cr_expect_str_eq(cfg->logging.access_log, "stdout");
    cr_expect_eq(cfg->logging.access_log_sample, 1.0);
    cr_assert_eq(cfg->duration_bucket_count, 17);
    cr_expect_eq(cfg->duration_buckets[0], 0.0005);
    cr_expect_eq(cfg->duration_buckets[16], 10);

    const struct route_config *r = &cfg->routes[0];
    cr_expect_eq(r->timeout_ms, 30000);
    cr_expect_eq(r->retries, 1);
    cr_expect_str_eq(r->host, "");
    cr_expect_eq(r->methods.count, 0);
    cr_expect_null(r->rate_limit);
    cr_expect_null(r->circuit_breaker);
    cr_expect(r->health_check.enabled);
    cr_expect_eq(r->health_check.place.line, 0);
    cr_expect_eq(r->health_check.interval_ms, 10000);
    cr_assert_eq(r->health_check.expected_status.count, 1);
    cr_expect_eq(r->health_check.expected_status.at[0].first, 200);
    cr_expect_eq(r->health_check.expected_status.at[0].last, 399);
    cr_expect_eq(r->backends[0].weight, 1);
    cr_expect_eq(r->backends[0].port, 80);
}

Test(check, numbers_are_read_in_their_units)
{
    load_clean("server: {drain_delay_seconds: 0.25, max_body_bytes: 10MiB, workers: 3}\n"
               "routes:\n"
               "  - path_prefix: /a\n"
               "    timeout_seconds: 1.5\n"
               "    backends: [{url: http://a}]\n"
               "    health_check: {path: '/h?x', expected_status: [200, 204-299]}\n"
               "    rate_limit: {rate: 2.5, burst: rate}\n");
    cr_expect_eq(cfg->server.drain_delay_ms, 250);
    cr_expect_eq(cfg->server.max_body_bytes, 10485760);
    cr_expect_eq(cfg->server.workers, 3);
    const struct route_config *r = &cfg->routes[0];
    cr_expect_eq(r->timeout_ms, 1500);
    cr_expect_eq(r->rate_limit->burst, 3);
    cr_assert_eq(r->health_check.expected_status.count, 2);
    cr_expect_eq(r->health_check.expected_status.at[0].last, 200);
    cr_expect_eq(r->health_check.expected_status.at[1].first, 204);
}

Test(check, a_route_takes_the_servers_body_limit_unless_it_says_otherwise)
{
    load_clean("routes:\n"
               "  - {path_prefix: /a, backends: [{url: http://a}]}\n"
               "  - {path_prefix: /b, backends: [{url: http://a}], max_body_bytes: 0}\n"
               "  - {path_prefix: /c, backends: [{url: http://a}], max_body_bytes: 5}\n"
               "server: {max_body_bytes: 1KiB}\n");
    cr_expect_eq(cfg->routes[0].max_body_bytes, 1024);
    cr_expect_eq(cfg->routes[1].max_body_bytes, 0);
    cr_expect_eq(cfg->routes[2].max_body_bytes, 5);
}

Test(check, invented_names_are_unique)
{
    load_clean("routes:\n"
               "  - {path_prefix: /a, methods: [GET, HEAD], backends: [{url: http://a}]}\n"
               "  - {path_prefix: /a, methods: [POST, PUT], backends: [{url: http://a}]}\n"
               "  - {path_prefix: /, host: B.example, backends: [{url: http://a}]}\n"
               "  - {path_prefix: /c, backends: [{url: http://a}]}\n"
               "  - {path_prefix: /d, name: /c, backends: [{url: http://a}]}\n");
    cr_expect_str_eq(cfg->routes[0].name, "/a");
    cr_expect_str_eq(cfg->routes[1].name, "/a:POST,PUT");
    cr_expect_str_eq(cfg->routes[2].name, "b.example/");
    cr_expect_str_eq(cfg->routes[3].name, "/c#2");
    cr_expect_str_eq(cfg->routes[4].name, "/c");
}

Test(check, texts_are_normalised)
{
    load_clean("server: {addr: ['localhost:80', '[::1]:80'], trusted_proxies: [10.0.0.1]}\n"
               "admin: {addr: ''}\n"
               "routes:\n"
               "  - path_prefix: /api/\n"
               "    host: '*.Example.COM'\n"
               "    methods: [get, m-search]\n"
               "    backends: [{url: 'http://[FD00::1]:81/base/'}]\n"
               "    headers: {request: {set: {X-A: '  b  '}, add: {X-B: [c, '$${host}']}}}\n");
    cr_expect_str_eq(cfg->server.addr.at[0], "127.0.0.1:80");
    cr_expect_str_eq(cfg->server.trusted_proxies.at[0], "10.0.0.1/32");
    cr_expect_str_eq(cfg->admin.addr, "");
    const struct route_config *r = &cfg->routes[0];
    cr_expect_str_eq(r->path_prefix, "/api");
    cr_expect_str_eq(r->host, "*.example.com");
    cr_expect_str_eq(r->methods.at[0], "GET");
    cr_expect_str_eq(r->methods.at[1], "M-SEARCH");
    cr_expect_str_eq(r->backends[0].host, "fd00::1");
    cr_expect_str_eq(r->backends[0].base_path, "/base");
    cr_expect_str_eq(r->request_headers.set[0].value, "b");
    cr_assert_eq(r->request_headers.add_count, 2);
    cr_expect_str_eq(r->request_headers.add[1].value, "${host}");
}

Test(check, warnings_alone_refuse_nothing)
{
    load("server: {}\n");
    cr_expect(cfg);
    cr_expect_eq(d.count, 1);
    cr_expect_eq(d.at[0].severity, SEVERITY_WARNING);
}

Test(check, one_error_refuses_the_whole)
{
    load(ONE_ROUTE "    retrys: 3\n");
    cr_expect_null(cfg);
    cr_expect_eq(d.errors, 1);
}

Test(check, variables_reach_numbers_too)
{
    setenv("T_TIMEOUT", "7", 1);
    load_clean(ONE_ROUTE "    timeout_seconds: ${T_TIMEOUT}\n    retries: ${T_RETRIES:-4}\n");
    cr_expect_eq(cfg->routes[0].timeout_ms, 7000);
    cr_expect_eq(cfg->routes[0].retries, 4);
}

Test(check, the_text_is_kept_as_it_was_read)
{
    load_clean("\xef\xbb\xbf" ONE_ROUTE);
    cr_expect_str_eq(cfg->text, "\xef\xbb\xbf" ONE_ROUTE);
    cr_expect_eq(cfg->text_len, strlen(cfg->text));
    cr_expect_neq(cfg->hash, 0);
    cr_expect_str_eq(cfg->source, "g.yaml");
}

Test(check, a_file_that_cannot_be_read_is_an_error)
{
    cfg = config_load_file("no/such/gateway.yaml", &d);
    cr_expect_null(cfg);
    cr_assert_eq(d.count, 1);
    cr_expect_str_eq(d.source, "gateway.yaml");
    cr_expect(strstr(d.at[0].message, "No such file"));
    diagnostics_fini(&d);
    diagnostics_init(&d);
    cfg = config_load_file("tests", &d);
    cr_expect_null(cfg);
    cr_expect_eq(d.errors, 1);
}

Test(check, the_example_loads_without_a_word)
{
    cfg = config_load_file("configs/gateway.yaml", &d);
    diagnostics_print(&d, stderr, false);
    cr_assert(cfg);
    cr_expect_eq(d.count, 0);
    bool used[4] = {false};
    for (size_t i = 0; i < cfg->route_count; i++)
        used[cfg->routes[i].lb_algorithm] = true;
    for (size_t i = 0; i < COUNT_OF(used); i++)
        cr_expect(used[i], "algorithm %zu is not shown", i);
}

/* "    key: ", "- key: " or "{key: " somewhere outside of comments. */
static bool has_key(const char *text, struct view name)
{
    bool comment = false;
    for (const char *p = text; *p; p++) {
        comment = *p == '#' || (comment && *p != '\n');
        if (!comment && (p == text || strchr(" \n{", p[-1])) &&
            strncmp(p, name.at, name.len) == 0 && p[name.len] == ':')
            return true;
    }
    return false;
}

Test(check, the_example_holds_every_key)
{
    size_t count;
    const struct key *keys = schema_keys(&count);
    cfg = config_load_file("configs/gateway.yaml", &d);
    cr_assert(cfg);
    for (size_t i = 0; i < count; i++)
        cr_expect(has_key(cfg->text, schema_name(&keys[i])), "%s is missing", keys[i].path);
}

static char *ten_thousand_routes(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("routes:\n", out);
    for (int i = 0; i < 10000; i++)
        fprintf(out,
                "  - name: route-%d\n"
                "    host: h%d.example.com\n"
                "    path_prefix: /api/service-%d\n"
                "    timeout_seconds: 10\n"
                "    backends:\n"
                "      - url: http://svc-%d-a:8080\n"
                "      - url: http://svc-%d-b:8080\n"
                "      - url: http://svc-%d-c:8080\n"
                "    rate_limit: {rate: 500, burst: 1000}\n",
                i, i % 50, i, i, i, i);
    fclose(out);
    return text;
}

Test(check, ten_thousand_routes_load_fast)
{
    struct timespec before, after;
    char *text = ten_thousand_routes();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    cfg = config_load("big.yaml", view_of(text), &d);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    double ms = (double)(after.tv_sec - before.tv_sec) * 1e3 +
                (double)(after.tv_nsec - before.tv_nsec) / 1e6;
    cr_assert(cfg);
    cr_expect_eq(cfg->route_count, 10000);
    cr_expect_str_eq(cfg->routes[9999].backends[2].host, "svc-9999-c");
    /* About 100 ms; sanitizers and a busy machine make it several times that, a quadratic check a
     * hundred times. */
    cr_expect_lt(ms, 2000, "%.0f ms", ms);
    cr_expect_lt(arena_bytes(cfg->arena), 64 << 20);
    free(text);
}

Test(check, ten_thousand_mistakes_are_found_fast)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("routes:\n", out);
    for (int i = 0; i < 10000; i++)
        fputs("  - {path_prefix: /a, bakends: [{url: http://a}], backends: [{url: x}]}\n", out);
    fclose(out);
    clock_t before = clock();
    cfg = config_load("bad.yaml", view_of(text), &d);
    cr_expect_lt(clock() - before, 2 * CLOCKS_PER_SEC);
    cr_expect_null(cfg);
    cr_expect_eq(d.errors, 29999);
    free(text);
}
