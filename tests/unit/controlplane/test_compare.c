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
    struct strings list = compare_configs(a, b, b->arena);
    cr_assert_eq(list.count, count);
    for (size_t i = 0; i < count; i++)
        cr_expect_str_eq(list.at[i], changes[i]);
    config_free(&a);
    config_free(&b);
}

#define ROUTE(name, more)                                                                          \
    "  - {name: " name ", path_prefix: /" name ", backends: [{url: 'http://h:1'" more "}]}\n"

Test(compare, routes_are_told_apart_by_name)
{
    expect("routes:\n" ROUTE("a", "") ROUTE("b", "") ROUTE("c", ""),
           "routes:\n" ROUTE("d", "") ROUTE("c", ", weight: 3") ROUTE("a", ""),
           (const char *const[]){"route d added", "route c changed", "route b removed"}, 3);
}

Test(compare, sections_are_told)
{
    expect("routes:\n" ROUTE("a", ""),
           "server: {max_headers: 50}\nadmin: {token: t}\nlogging: {level: warn}\n"
           "metrics: {duration_buckets_seconds: [1]}\nroutes:\n" ROUTE("a", ""),
           (const char *const[]){"server changed", "admin changed", "logging changed",
                                 "metrics changed"},
           4);
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
