#include <criterion/criterion.h>
#include <llhttp.h>
#include <stdio.h>

/* Its tables are looked at. */
#include "dataplane/route/router.c"
#include "messages.h"

static struct registry *registry;
static struct draft draft;
static struct snapshot *snapshot;

static void setup(void)
{
    registry = registry_new();
    draft = draft_new(1);
}

static void teardown(void)
{
    snapshot_free(&snapshot, registry);
    registry_free(&registry);
    arena_free(&draft.arena);
}

static void compile(void)
{
    struct err err;
    snapshot = snapshot_compile(draft.message, registry, &err);
    cr_assert(snapshot, "%s", err.text);
}

/* The name of the route found, or the word of the reason. */
static const char *find(const char *host, const char *path, unsigned method)
{
    const struct route *route;
    uint64_t allowed;
    enum reason r =
        router_find(snapshot->router, view_of(host), view_of(path), method, &route, &allowed);
    return r == R_SERVED ? route->name.at : r == R_NO_ROUTE ? "404" : "405";
}

#define FINDS(host, path, expected)                                                                \
    cr_assert_str_eq(find(host, path, HTTP_GET), expected, "%s%s", host, path)

TestSuite(router, .init = setup, .fini = teardown);

Test(router, prefixes_end_at_segments_and_the_longest_wins)
{
    draft_route(&draft, "root", "", "/");
    draft_route(&draft, "api", "", "/api");
    draft_route(&draft, "users", "", "/api/users");
    draft_route(&draft, "deep", "", "/api/users/a/b/c");
    compile();
    FINDS("any", "/", "root");
    FINDS("any", "/apix", "root");
    FINDS("any", "/ap", "root");
    FINDS("any", "/api", "api");
    FINDS("any", "/api/", "api");
    FINDS("any", "/api//users", "api");
    FINDS("any", "/api/usersX", "api");
    FINDS("any", "/api/users", "users");
    FINDS("any", "/api/users/", "users");
    FINDS("any", "/api/users/1", "users");
    FINDS("any", "/api/users/a/b", "users");
    FINDS("any", "/api/users/a/b/c/d/e/f/g/h", "deep");
    FINDS("", "/api", "api");
}

Test(router, without_a_root_other_paths_have_no_route)
{
    draft_route(&draft, "api", "", "/api");
    compile();
    FINDS("any", "/", "404");
    FINDS("any", "/other", "404");
}

Test(router, no_routes_at_all_is_no_route)
{
    compile();
    FINDS("any", "/", "404");
}

Test(router, the_most_specific_host_wins)
{
    draft_route(&draft, "any", "", "/");
    draft_route(&draft, "com", "*.com", "/");
    draft_route(&draft, "wild", "*.example.com", "/");
    draft_route(&draft, "wilder", "*.b.example.com", "/");
    draft_route(&draft, "exact", "api.example.com", "/");
    compile();
    FINDS("api.example.com", "/", "exact");
    FINDS("API.Example.COM", "/", "exact");
    FINDS("api.example.com.", "/", "exact");
    FINDS("www.example.com", "/", "wild");
    FINDS("WWW.EXAMPLE.com.", "/", "wild");
    FINDS("a.b.example.com", "/", "wilder");
    FINDS("x.y.example.com", "/", "wild");
    FINDS("b.example.com", "/", "wild");
    FINDS("example.com", "/", "com");
    FINDS("badexample.com", "/", "com");
    FINDS("com", "/", "any");
    FINDS("example.org", "/", "any");
    FINDS("", "/", "any");
    FINDS(".", "/", "any");
}

Test(router, a_host_without_the_path_leaves_it_to_the_less_specific)
{
    draft_route(&draft, "any", "", "/deep/path");
    draft_route(&draft, "wild", "*.example.com", "/api");
    draft_route(&draft, "exact", "api.example.com", "/v1");
    compile();
    FINDS("api.example.com", "/v1/x", "exact");
    FINDS("api.example.com", "/api/x", "wild");
    FINDS("api.example.com", "/deep/path/x", "any");
    FINDS("api.example.com", "/deep", "404");
}

Test(router, a_prefix_without_the_method_answers_405_and_says_what_is_allowed)
{
    draft_route(&draft, "root", "", "/");
    Gwp__Route *r = draft_route(&draft, "read", "", "/api");
    draft_method(&draft, r, "GET");
    draft_method(&draft, r, "HEAD");
    draft_method(&draft, draft_route(&draft, "write", "", "/api"), "POST");
    compile();
    cr_assert_str_eq(find("h", "/api", HTTP_GET), "read");
    cr_assert_str_eq(find("h", "/api/1", HTTP_POST), "write");
    cr_assert_str_eq(find("h", "/other", HTTP_DELETE), "root");
    const struct route *route;
    uint64_t allowed = 0;
    cr_assert_eq(
        router_find(snapshot->router, view_of("h"), view_of("/api"), HTTP_DELETE, &route, &allowed),
        R_METHOD_NOT_ALLOWED);
    cr_assert_eq(allowed, 1u << HTTP_GET | 1u << HTTP_HEAD | 1u << HTTP_POST);
}

Test(router, a_route_that_names_the_method_goes_before_one_that_takes_all)
{
    draft_route(&draft, "all", "", "/api");
    draft_method(&draft, draft_route(&draft, "search", "", "/api"), "M-SEARCH");
    compile();
    cr_assert_str_eq(find("h", "/api", HTTP_MSEARCH), "search");
    cr_assert_str_eq(find("h", "/api", HTTP_GET), "all");
}

static void refuses_two_claims(const char *names)
{
    struct err err;
    cr_assert_eq(snapshot_compile(draft.message, registry, &err), NULL);
    cr_assert(strstr(err.text, names), "%s", err.text);
}

Test(router, two_routes_that_claim_the_same_are_refused_with_both_places)
{
    draft_route(&draft, "one", "h", "/api");
    draft_route(&draft, "two", "H.", "/api");
    refuses_two_claims("gateway.yaml:20: route \"two\" claims the same host, path and method as "
                       "route \"one\" at line 10");
}

Test(router, overlapping_methods_are_the_same_claim)
{
    draft_method(&draft, draft_route(&draft, "one", "", "/api"), "GET");
    Gwp__Route *r = draft_route(&draft, "two", "", "/api");
    draft_method(&draft, r, "PUT");
    draft_method(&draft, r, "GET");
    refuses_two_claims("\"two\" claims the same");
}

Test(router, a_prefix_too_deep_is_refused)
{
    char prefix[2 * (MAX_DEPTH + 1) + 1];
    for (size_t i = 0; i < MAX_DEPTH + 1; i++)
        memcpy(prefix + 2 * i, "/x", 3);
    draft_route(&draft, "deep", "", prefix);
    refuses_two_claims("more than 64 segments");
}

/* Cells that are looked at until each entry is found, on average. */
static double mean_probes(const struct map *m)
{
    uint64_t probes = 0, entries = 0;
    for (uint32_t i = 0; i <= m->mask; i++) {
        if (m->cells[i].index == NONE)
            continue;
        entries++;
        probes += ((i - m->cells[i].hash) & m->mask) + 1;
    }
    return entries ? (double)probes / (double)entries : 0;
}

Test(router, ten_thousand_routes_cost_what_one_costs)
{
    enum { ROUTES = 10000 };
    for (int i = 0; i < ROUTES; i++) {
        char name[32], host[32], prefix[64];
        snprintf(name, sizeof(name), "r%d", i);
        snprintf(host, sizeof(host), "%shost%d.example.com", i % 3 ? "" : "*.", i % 1000);
        snprintf(prefix, sizeof(prefix), "/api/v%d/things", i / 1000);
        draft_route(&draft, name, host, prefix);
    }
    compile();
    for (int i = 0; i < ROUTES; i++) {
        char name[32], host[32], path[64];
        snprintf(name, sizeof(name), "r%d", i);
        snprintf(host, sizeof(host), "%shost%d.example.com", i % 3 ? "" : "a.b.", i % 1000);
        snprintf(path, sizeof(path), "/api/v%d/things/%d", i / 1000, i);
        FINDS(host, path, name);
    }
    cr_assert_lt(mean_probes(&snapshot->router->prefixes), 2.5);
    cr_assert_lt(mean_probes(&snapshot->router->exact), 2.5);
    cr_assert_lt(mean_probes(&snapshot->router->suffixes), 2.5);
}

Test(router, hostile_lookups_are_bounded)
{
    draft_route(&draft, "wild", "*.a.b.c", "/a/b/c");
    compile();
    char host[4096], path[4096];
    for (size_t i = 0; i < sizeof(host); i++) {
        host[i] = i % 2 ? '.' : 'a';
        path[i] = i % 2 ? 'a' : '/';
    }
    const struct route *route;
    uint64_t allowed;
    cr_assert_eq(router_find(snapshot->router, (struct view){host, sizeof(host)},
                             (struct view){path, sizeof(path)}, HTTP_GET, &route, &allowed),
                 R_NO_ROUTE);
}
