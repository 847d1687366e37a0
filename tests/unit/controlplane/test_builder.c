#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "controlplane/builder.h"
#include "controlplane/config/diagnostics.h"
#include "proto/gateway.pb-c.h"

static const char *two_ips[] = {"10.0.0.1", "fd00::1"};
static const struct strings both = {two_ips, 2};
static const char *one_ip[] = {"127.0.0.1"};
static const struct strings one = {one_ip, 1};

static const struct strings *lookup(void *owner, const char *host)
{
    if (strcmp(host, "two.example") == 0)
        return &both;
    return strcmp(host, "unknown.example") == 0 ? NULL : &one;
}

static struct config *load(const char *yaml)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load("gateway.yaml", view_of(yaml), &d);
    if (!cfg)
        diagnostics_print(&d, stderr, false);
    diagnostics_fini(&d);
    cr_assert(cfg);
    return cfg;
}

static Gwp__Snapshot *build(const char *yaml, uint64_t generation, struct builder_output *out)
{
    struct config *cfg = load(yaml);
    struct builder_input in = {.config = cfg,
                               .lookup = lookup,
                               .generation = generation,
                               .created_ms = 5,
                               .dry_run = true};
    builder_build(&in, out);
    Gwp__Snapshot *s = gwp__snapshot__unpack(NULL, out->len, out->packed);
    free(out->packed);
    config_free(&cfg);
    cr_assert(s);
    return s;
}

Test(builder, everything_a_route_says_is_carried)
{
    struct builder_output out;
    Gwp__Snapshot *s =
        build("server: {addr: [\":8080\", \"unix:/run/x.sock\"], workers: 3, trusted_proxies: "
              "[10.0.0.0/8]}\n"
              "logging: {level: warn, format: console, access_log: 'off', access_log_sample: 0.5}\n"
              "metrics: {duration_buckets_seconds: [0.1, 1]}\n"
              "routes:\n"
              "  - name: users\n"
              "    host: api.example.com\n"
              "    path_prefix: /api/users\n"
              "    methods: [GET, POST]\n"
              "    strip_prefix: true\n"
              "    timeout_seconds: 1.5\n"
              "    lb_algorithm: weighted\n"
              "    headers: {request: {set: {X-A: b}, remove: [X-C]}}\n"
              "    rate_limit: {rate: 5, burst: 10, key_by: api_key, mode: observe}\n"
              "    circuit_breaker: {failure_threshold: 40, failure_status: [500, 502-504]}\n"
              "    backends:\n"
              "      - {url: 'http://two.example:81/base', weight: 7, max_connections: 9}\n",
              12, &out);
    cr_expect_eq(s->generation, 12);
    cr_expect_eq(s->created_ms, 5);
    cr_expect(s->dry_run);
    cr_expect_str_eq(s->source, "gateway.yaml");
    cr_expect_eq(s->server->n_listen, 2);
    cr_expect_eq(s->server->workers, 3);
    cr_expect_str_eq(s->server->trusted_proxies[0], "10.0.0.0/8");
    cr_expect_eq(s->logging->level, GWP__LOGGING__LEVEL__WARN);
    cr_expect_eq(s->logging->format, GWP__LOGGING__FORMAT__CONSOLE);
    cr_expect_eq(s->n_duration_buckets_seconds, 2);
    cr_assert_eq(s->n_routes, 1);
    const Gwp__Route *r = s->routes[0];
    cr_expect_str_eq(r->host, "api.example.com");
    cr_expect_eq(r->place->line, 5);
    cr_expect_eq(r->n_methods, 2);
    cr_expect(r->strip_prefix && !r->preserve_host);
    cr_expect_eq(r->timeout_ms, 1500);
    cr_expect_eq(r->algorithm, GWP__ROUTE__ALGORITHM__WEIGHTED);
    cr_expect_str_eq(r->request_headers->set[0]->value, "b");
    cr_expect_str_eq(r->request_headers->remove[0], "X-C");
    cr_expect_null(r->response_headers);
    cr_expect(r->rate_limit->observe);
    cr_expect_eq(r->rate_limit->key_by, GWP__RATE_LIMIT__KEY__API_KEY);
    cr_expect_eq(r->circuit_breaker->failure_threshold_percent, 40);
    cr_assert_eq(r->circuit_breaker->n_failure_status, 2);
    cr_expect_eq(r->circuit_breaker->failure_status[1]->last, 504);
    cr_assert_eq(r->n_targets, 2);
    cr_expect_eq(r->targets[0]->weight, 7);
    cr_expect_eq(r->targets[0]->max_connections, 9);
    cr_expect_str_eq(r->targets[1]->host, "two.example:81");
    cr_expect_str_eq(r->targets[1]->base_path, "/base");
    cr_expect_str_eq(s->endpoints[r->targets[0]->endpoint]->address, "10.0.0.1:81");
    cr_expect_str_eq(s->endpoints[r->targets[1]->endpoint]->address, "[fd00::1]:81");
    gwp__snapshot__free_unpacked(s, NULL);
}

Test(builder, an_address_is_one_endpoint_however_many_routes_use_it)
{
    struct builder_output out;
    Gwp__Snapshot *s = build("routes:\n"
                             "  - {path_prefix: /a, backends: [{url: 'http://a.example:80'}]}\n"
                             "  - {path_prefix: /b, backends: [{url: 'http://b.example:80'}]}\n",
                             1, &out);
    cr_expect_eq(out.backends, 2);
    cr_expect_eq(out.endpoints, 1);
    cr_expect_eq(s->n_endpoints, 1);
    cr_expect_neq(s->routes[0]->targets[0]->id, s->routes[1]->targets[0]->id);
    cr_expect_str_eq(s->routes[0]->targets[0]->host, "a.example");
    gwp__snapshot__free_unpacked(s, NULL);
}

Test(builder, a_name_without_address_gives_no_target)
{
    struct builder_output out;
    Gwp__Snapshot *s = build("routes:\n  - {path_prefix: /, backends: [{url: "
                             "'http://unknown.example'}, {url: 'http://known.example'}]}\n",
                             1, &out);
    cr_assert_eq(s->routes[0]->n_targets, 1);
    cr_expect_str_eq(s->routes[0]->targets[0]->url, "http://known.example");
    gwp__snapshot__free_unpacked(s, NULL);
}

Test(builder, a_target_keeps_its_id_over_generations)
{
    static const char *const yaml =
        "routes:\n  - {name: r, path_prefix: /, backends: [{url: 'http://a.example:80'}]}\n";
    struct builder_output first, second;
    Gwp__Snapshot *a = build(yaml, 1, &first), *b = build(yaml, 2, &second);
    cr_expect_eq(a->routes[0]->targets[0]->id, b->routes[0]->targets[0]->id);
    cr_expect_eq(a->routes[0]->targets[0]->id,
                 builder_target_id("r", "http://a.example:80", "127.0.0.1:80"));
    cr_expect_eq(first.targets_hash, second.targets_hash);
    cr_expect_neq(builder_target_id("ab", "c", "d"), builder_target_id("a", "bc", "d"));
    gwp__snapshot__free_unpacked(a, NULL);
    gwp__snapshot__free_unpacked(b, NULL);
}

Test(builder, ten_thousand_routes_are_built_at_once)
{
    char *yaml;
    size_t len;
    FILE *out = open_memstream(&yaml, &len);
    fputs("routes:\n", out);
    for (int i = 0; i < 10000; i++)
        fprintf(out,
                "  - {name: r%d, path_prefix: /p%d, backends: [{url: 'http://h%d.example:1'}, "
                "{url: 'http://h%d.example:2'}, {url: 'http://h%d.example:3'}]}\n",
                i, i, i, i, i);
    fclose(out);
    struct config *cfg = load(yaml);
    struct builder_input in = {.config = cfg, .lookup = lookup, .generation = 1};
    struct builder_output built;
    struct timespec from, to;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    builder_build(&in, &built);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    double ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    cr_log_info("built in %.1f ms, %zu bytes", ms, built.len);
    /* 50 ms are promised; sanitizers and a busy machine get some more. */
    cr_expect_lt(ms, 500, "built in %.1f ms", ms);
    free(built.packed);
    config_free(&cfg);
    free(yaml);
}
