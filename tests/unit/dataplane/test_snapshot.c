#include <criterion/criterion.h>
#include <llhttp.h>
#include <math.h>
#include <sys/resource.h>

#include "dataplane/state/snapshot.h"
#include "messages.h"
#include "proto/base/log.h"

static struct registry *registry;
static struct draft draft;

static void setup(void)
{
    registry = registry_new();
    draft = draft_new(5);
}

static void teardown(void)
{
    registry_free(&registry);
    arena_free(&draft.arena);
}

TestSuite(snapshot, .init = setup, .fini = teardown);

static void refused_with(const char *words)
{
    struct err err = {""};
    cr_assert_eq(snapshot_compile(draft.message, registry, &err), NULL);
    cr_assert(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    cr_assert_eq(registry_endpoint_slots(registry) + registry_route_slots(registry) +
                     registry_target_slots(registry),
                 0, "the registry was touched");
}

static Gwp__Route *route(void)
{
    return draft_route(&draft, "users", "api.example.com", "/api");
}

Test(snapshot, everything_arrives)
{
    Gwp__Snapshot *m = draft.message;
    double buckets[] = {0.1, 1};
    m->content_hash = 99;
    m->duration_buckets_seconds = buckets;
    m->n_duration_buckets_seconds = 2;
    m->server->drain_delay_ms = 12;
    m->logging->level = GWP__LOGGING__LEVEL__WARN;
    m->logging->format = GWP__LOGGING__FORMAT__CONSOLE;
    Gwp__Route *r = route();
    draft_method(&draft, r, "GET");
    draft_method(&draft, r, "M-SEARCH");
    r->algorithm = GWP__ROUTE__ALGORITHM__IP_HASH;
    r->timeout_ms = 30000;
    r->max_body_bytes = (uint64_t)1 << 40;
    r->preserve_host = true;
    uint32_t e = draft_endpoint(&draft, "[::1]:8080");
    Gwp__Target *t = draft_target(&draft, r, 77, e);
    t->weight = 3;
    t->base_path = (char *)"/base";

    struct err err;
    struct snapshot *s = snapshot_compile(m, registry, &err);
    cr_assert(s, "%s", err.text);
    cr_assert(s->generation == 5 && s->content_hash == 99);
    cr_assert_eq(s->server.drain_delay_ms, 12);
    cr_assert(s->log_level == LOG_WARN && s->log_format == LOG_CONSOLE);
    cr_assert(s->listen_count == 1 && s->listeners[0] == NULL);
    cr_assert_str_eq(s->listen_text[0], "127.0.0.1:0");
    cr_assert(s->duration_bucket_count == 2 && s->duration_buckets[1] == 1);
    cr_assert_eq(s->route_count, 1);
    const struct route *out = &s->routes[0];
    cr_assert_eq(out->methods, (uint64_t)1 << HTTP_GET | (uint64_t)1 << HTTP_MSEARCH);
    cr_assert(out->algorithm == BALANCE_IP_HASH && out->timeout_ms == 30000 && out->line == 10);
    cr_assert(out->max_body_bytes == (uint64_t)1 << 40 && out->preserve_host);
    cr_assert_str_eq(out->state->name, "users");
    const struct target *target = &out->targets[0];
    cr_assert(target->weight == 3 && view_equal(target->base_path, view_of("/base")));
    cr_assert(target->state == registry_find_target(registry, 77));
    cr_assert_str_eq(target->endpoint->text, "[::1]:8080");
    cr_assert(s->endpoints[0] == target->endpoint && s->endpoint_slots == 1);
    cr_assert_eq((uintptr_t)s->holds % CACHE_LINE_BYTES, 0);
    snapshot_free(&s, registry);
}

Test(snapshot, the_next_generation_refers_to_the_same_state)
{
    struct err err;
    draft_target(&draft, route(), 77, draft_endpoint(&draft, "10.0.0.1:80"));
    struct snapshot *one = snapshot_compile(draft.message, registry, &err);
    struct snapshot *two = snapshot_compile(draft.message, registry, &err);
    cr_assert_eq(one->routes[0].state, two->routes[0].state);
    cr_assert_eq(one->routes[0].targets[0].state, two->routes[0].targets[0].state);
    snapshot_free(&one, registry);
    registry_collect(registry);
    cr_assert_eq(registry_find_target(registry, 77), two->routes[0].targets[0].state);
    snapshot_free(&two, registry);
    registry_collect(registry);
    cr_assert_eq(registry_find_target(registry, 77), NULL);
}

Test(snapshot, a_dry_run_touches_no_state)
{
    struct err err;
    draft.message->dry_run = true;
    draft_target(&draft, route(), 77, draft_endpoint(&draft, "10.0.0.1:80"));
    struct snapshot *s = snapshot_compile(draft.message, registry, &err);
    cr_assert(s, "%s", err.text);
    cr_assert_eq(registry_target_slots(registry) + registry_route_slots(registry), 0);
    snapshot_free(&s, registry);
}

Test(snapshot, unknown_features_are_refused_by_name)
{
    char *features[] = {(char *)"teleport"};
    draft.message->required_features = features;
    draft.message->n_required_features = 1;
    refused_with("\"teleport\"");
}

Test(snapshot, an_unknown_method_is_refused_with_route_and_line)
{
    draft_method(&draft, route(), "FETCH");
    refused_with("gateway.yaml:10: route \"users\": unknown method \"FETCH\"");
}

Test(snapshot, an_unknown_algorithm_is_refused)
{
    route()->algorithm = (Gwp__Route__Algorithm)9;
    refused_with("unknown balancing algorithm 9");
}

Test(snapshot, an_index_out_of_range_is_refused)
{
    draft_endpoint(&draft, "10.0.0.1:80");
    draft_target(&draft, route(), 1, 1);
    refused_with("refers to endpoint 1 of 1");
}

Test(snapshot, an_endpoint_that_is_no_address_is_refused)
{
    draft_endpoint(&draft, "backend:80");
    refused_with("endpoint 0");
}

Test(snapshot, a_weight_out_of_range_is_refused)
{
    draft_target(&draft, route(), 1, draft_endpoint(&draft, "10.0.0.1:80"))->weight = 0;
    refused_with("weight is 0");
}

Test(snapshot, a_host_that_would_end_the_field_is_refused)
{
    draft_target(&draft, route(), 1, draft_endpoint(&draft, "10.0.0.1:80"))->host =
        (char *)"x\r\nEvil: 1";
    refused_with("control characters");
}

Test(snapshot, a_prefix_or_host_out_of_shape_is_refused)
{
    Gwp__Route *r = route();
    r->path_prefix = (char *)"api";
    refused_with("begins with /");
    r->path_prefix = (char *)"/api/";
    refused_with("ends with /");
    r->path_prefix = (char *)"/api";
    r->host = (char *)"a.*.com";
    refused_with("a star stands only at the beginning");
}

Test(snapshot, listen_addresses_are_checked)
{
    char *listen[] = {(char *)":8080", (char *)"[::]:8080"};
    draft.message->server->listen = listen;
    draft.message->server->n_listen = 2;
    refused_with("listed twice");
    listen[1] = (char *)"nowhere";
    refused_with("\"nowhere\" is not an address");
    draft.message->server->n_listen = 0;
    refused_with("no address to listen on");
}

Test(snapshot, buckets_ascend_and_are_at_most_32)
{
    double buckets[33] = {0.1, 0.1};
    draft.message->duration_buckets_seconds = buckets;
    draft.message->n_duration_buckets_seconds = 2;
    refused_with("not above the one before it");
    for (int i = 0; i < 33; i++)
        buckets[i] = i + 1;
    draft.message->n_duration_buckets_seconds = 33;
    refused_with("more than 32");
    buckets[1] = 0.0 / 0.0;
    draft.message->n_duration_buckets_seconds = 3;
    refused_with("not above");
}

Test(snapshot, missing_parts_are_refused)
{
    Gwp__Server *server = draft.message->server;
    draft.message->server = NULL;
    refused_with("the server's settings are missing");
    draft.message->server = server;
    draft.message->logging = NULL;
    refused_with("the logging settings are missing");
}

Test(snapshot, sizes_without_sense_are_refused)
{
    draft.message->server->max_header_bytes = 0;
    refused_with("max_header_bytes is 0");
}

Test(snapshot, a_request_is_held_and_let_go_by_its_worker)
{
    struct err err;
    struct snapshot *s = snapshot_compile(draft.message, registry, &err);
    snapshot_hold(s, 3);
    snapshot_hold(s, 3);
    cr_assert_not(snapshot_unhold(s, 3));
    cr_assert(snapshot_unhold(s, 3), "the last one says so");
    snapshot_free(&s, registry);
}

Test(snapshot, a_new_target_may_start_unhealthy_and_a_known_one_stays_what_it_is)
{
    Gwp__Route *r = route();
    r->start_down = true;
    draft_target(&draft, r, 77, draft_endpoint(&draft, "10.0.0.1:80"));
    struct err err;
    struct snapshot *one = snapshot_compile(draft.message, registry, &err);
    cr_assert(one, "%s", err.text);
    struct target_state *t = one->routes[0].targets[0].state;
    cr_expect(atomic_load(&t->unhealthy));
    atomic_store(&t->unhealthy, false);
    struct snapshot *two = snapshot_compile(draft.message, registry, &err);
    cr_assert(two, "%s", err.text);
    cr_expect_eq(two->routes[0].targets[0].state, t);
    cr_expect_not(atomic_load(&t->unhealthy));
    snapshot_free(&one, registry);
    snapshot_free(&two, registry);
}

/* ---- rate limits ---- */

static Gwp__RateLimit *limit(Gwp__Route *r)
{
    Gwp__RateLimit *l = r->rate_limit = arena_alloc(draft.arena, sizeof(*l));
    gwp__rate_limit__init(l);
    l->rate = 2.5;
    l->burst = 10;
    l->window_ms = 1000;
    l->ipv6_prefix = 64;
    l->max_keys = 1000;
    return l;
}

Test(snapshot, a_limit_arrives)
{
    struct err err;
    limit(draft_route(&draft, "a \"b\"", "", "/a"));
    Gwp__RateLimit *l = limit(draft_route(&draft, "window", "", "/b"));
    l->algorithm = GWP__RATE_LIMIT__ALGORITHM__SLIDING_WINDOW;
    l->key_by = GWP__RATE_LIMIT__KEY__USER;
    l->user_header = (char *)"X-User";
    l->window_ms = 2100;
    l->observe = l->hide_headers = true;
    draft_route(&draft, "free", "", "/c");
    struct snapshot *s = snapshot_compile(draft.message, registry, &err);
    cr_assert(s, "%s", err.text);
    const struct limit_policy *p = s->routes[0].limit;
    cr_expect(p->algorithm == LIMITER_BUCKET && p->key_by == LIMITER_BY_IP && p->quota == 10);
    cr_expect(p->limiter && p->headers && !p->observe);
    cr_expect(view_equal(p->label, view_of("\"a \\\"b\\\"\"")));
    cr_expect(view_equal(p->announced, view_of("\"a \\\"b\\\"\";q=10;w=4")));
    p = s->routes[1].limit;
    cr_expect(p->algorithm == LIMITER_WINDOW && p->key_by == LIMITER_BY_USER && p->quota == 5);
    cr_expect(p->limiter != s->routes[0].limit->limiter && !p->headers && p->observe);
    cr_expect(view_equal(p->header, view_of("X-User")) && p->window_s == 3);
    cr_expect_null(s->routes[2].limit);
    snapshot_free(&s, registry);
}

Test(snapshot, limiters_live_as_long_as_a_snapshot_counts_that_way)
{
    struct err err;
    Gwp__RateLimit *l = limit(route());
    struct snapshot *one = snapshot_compile(draft.message, registry, &err);
    l->rate = 99;
    struct snapshot *two = snapshot_compile(draft.message, registry, &err);
    l->max_keys = 7;
    struct snapshot *other = snapshot_compile(draft.message, registry, &err);
    cr_expect_eq(one->routes[0].limit->limiter, two->routes[0].limit->limiter);
    cr_expect_neq(other->routes[0].limit->limiter, two->routes[0].limit->limiter);
    snapshot_free(&one, registry);
    /* One that never came into force changes nothing for the next. */
    snapshot_free(&other, registry);
    l->max_keys = 1000;
    one = snapshot_compile(draft.message, registry, &err);
    cr_expect_eq(one->routes[0].limit->limiter, two->routes[0].limit->limiter);
    struct route_state *state = two->routes[0].state;
    snapshot_free(&one, registry);
    snapshot_free(&two, registry);
    cr_expect(list_is_empty(&state->limiters));
}

Test(snapshot, a_dry_run_makes_no_limiter)
{
    struct err err;
    limit(route());
    draft.message->dry_run = true;
    struct snapshot *s = snapshot_compile(draft.message, registry, &err);
    cr_assert(s, "%s", err.text);
    cr_expect_null(s->routes[0].limit->limiter);
    snapshot_free(&s, registry);
}

Test(snapshot, limits_without_sense_are_refused)
{
    Gwp__RateLimit *l = limit(route());
    l->rate = 0;
    refused_with("rate_limit.rate is 0");
    l->rate = NAN;
    refused_with("rate_limit.rate");
    l->rate = 1;
    l->burst = 0;
    refused_with("rate_limit.burst is 0");
    l->burst = 1;
    l->ipv6_prefix = 129;
    refused_with("rate_limit.ipv6_prefix is 129");
    l->ipv6_prefix = 64;
    l->max_keys = 0;
    refused_with("rate_limit.max_keys is 0");
    l->max_keys = 1;
    l->key_by = GWP__RATE_LIMIT__KEY__USER;
    refused_with("header has no name");
    l->key_by = (Gwp__RateLimit__Key)9;
    refused_with("unknown rate limit key 9");
    l->algorithm = (Gwp__RateLimit__Algorithm)9;
    refused_with("unknown rate limit algorithm 9");
}

/* As when memory for its table cannot be had: everything is given back. */
Test(snapshot, a_limiter_that_cannot_be_made_is_refused)
{
    struct err err = {""};
    limit(route());
    draft_target(&draft, draft.message->routes[0], 77, draft_endpoint(&draft, "10.0.0.1:80"));
    struct rlimit before, none;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    const struct snapshot *s = snapshot_compile(draft.message, registry, &err);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_expect_null(s);
    cr_expect(strstr(err.text, "route \"users\": rate limit: memory segment"), "%s", err.text);
    registry_collect(registry);
    cr_expect_null(registry_find_target(registry, 77));
}
