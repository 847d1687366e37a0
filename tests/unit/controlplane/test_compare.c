#include <criterion/criterion.h>

#include "controlplane/config/compare.h"
#include "controlplane/config/diagnostics.h"

static struct config *load(const char *yaml)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load("g.yaml", view_of(yaml), &d);
    diagnostics_fini(&d);
    cr_assert(cfg);
    return cfg;
}

static void expect(const char *before, const char *now, const char *const *changes, size_t count)
{
    struct config *a = load(before), *b = load(now);
    struct changes list = compare_configs(a, b, b->arena);
    for (size_t i = 0; i < list.count; i++)
        cr_expect(i < count && strcmp(list.at[i].sentence, changes[i]) == 0, "%s",
                  list.at[i].sentence);
    cr_assert_eq(list.count, count);
    config_free(&a);
    config_free(&b);
}

#define ROUTE(name, more)                                                                          \
    "  - {name: " name ", path_prefix: /" name ", backends: [{url: 'http://h:1'" more "}]}\n"

Test(compare, routes_are_told_apart_by_name)
{
    expect("routes:\n" ROUTE("a", "") ROUTE("b", "") ROUTE("c", ""),
           "routes:\n" ROUTE("d", "") ROUTE("c", ", weight: 3") ROUTE("a", ""),
           (const char *const[]){"route d added", "route c: backend http://h:1: weight 1 -> 3",
                                 "route b removed"},
           3);
}

Test(compare, keys_are_told_with_their_values)
{
    expect("routes:\n" ROUTE("a", ""),
           "server: {max_headers: 50, max_header_bytes: 32KiB, workers: 2}\n"
           "admin: {token: a-secret-of-some-length}\nlogging: {level: warn}\n"
           "metrics: {duration_buckets_seconds: [0.5, 1]}\nroutes:\n" ROUTE("a", ""),
           (const char *const[]){
               "server.workers auto -> 2", "server.max_header_bytes 16KiB -> 32KiB",
               "server.max_headers 100 -> 50", "admin.token changed",
               "metrics.duration_buckets_seconds [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, "
               "0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10] -> [0.5, 1]",
               "logging.level info -> warn"},
           6);
}

Test(compare, policies_and_backends_are_told)
{
    expect("routes:\n  - name: a\n    path_prefix: /a\n    methods: [GET]\n"
           "    backends: [{url: 'http://h:1'}, {url: 'http://h:2'}]\n"
           "    rate_limit: {rate: 5, burst: 5}\n    circuit_breaker: {}\n",
           "routes:\n  - name: a\n    path_prefix: /b\n    methods: [GET, POST]\n"
           "    headers: {request: {set: {X-A: b}}}\n"
           "    backends: [{url: 'http://h:2'}, {url: 'http://h:3'}]\n"
           "    rate_limit: {rate: 5, burst: 7}\n"
           "    health_check: {expected_status: [200, 300-302], interval_seconds: 0.5}\n",
           (const char *const[]){
               "route a: path_prefix /a -> /b", "route a: methods [GET] -> [GET, POST]",
               "route a: headers.request.set {} -> {X-A: b}", "route a: backend http://h:3 added",
               "route a: backend http://h:1 removed",
               "route a: health_check.interval_seconds 10 -> 0.5",
               "route a: health_check.expected_status 200-399 -> [200, 300-302]",
               "route a: rate_limit.burst 5 -> 7", "route a: circuit_breaker removed"},
           9);
}

Test(compare, lines_of_both_sides_are_known)
{
    struct config *a = load("routes:\n" ROUTE("a", "") ROUTE("b", ""));
    struct config *b = load("\n\nroutes:\n" ROUTE("b", ", weight: 2") ROUTE("c", ""));
    struct changes list = compare_configs(a, b, b->arena);
    cr_assert_eq(list.count, 3);
    cr_expect_eq(list.at[0].from_line, 3, "the backend of b");
    cr_expect_eq(list.at[0].to_line, 4);
    cr_expect_eq(list.at[1].to_line, 5, "c is new");
    cr_expect_eq(list.at[1].from_line, 0);
    cr_expect_eq(list.at[2].from_line, 2, "a is gone");
    config_free(&a);
    config_free(&b);
}

Test(compare, more_than_can_be_read_is_counted_only)
{
    char *text = calloc(1, 200000), *at = stpcpy(text, "routes:\n");
    for (int i = 0; i < COMPARE_MAX + 5; i++)
        at += sprintf(at, "  - {name: r%d, path_prefix: /r%d, backends: [{url: 'http://h:1'}]}\n",
                      i, i);
    struct config *a = load("routes:\n" ROUTE("a", "")), *b = load(text);
    struct changes list = compare_configs(a, b, b->arena);
    cr_expect_eq(list.count, COMPARE_MAX);
    cr_expect_eq(list.dropped, 6);
    config_free(&a);
    config_free(&b);
    free(text);
}

Test(compare, a_moved_route_has_not_changed)
{
    expect("routes:\n" ROUTE("a", ""), "# a comment\n\n\nroutes:\n" ROUTE("a", ""), NULL, 0);
}

Test(compare, the_first_configuration_changes_nothing)
{
    struct config *cfg = load("routes:\n" ROUTE("a", ""));
    cr_expect_eq(compare_configs(NULL, cfg, cfg->arena).count, 0);
    config_free(&cfg);
}
