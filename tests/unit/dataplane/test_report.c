#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

#include "dataplane/report/report.h"
#include "dataplane/state/segment.h"

static const double bounds[] = {0.1, 1};
static struct stats workers[2];
static const struct stats *const list[] = {&workers[0], &workers[1]};
static struct registry *registry;
static struct report *report;
static struct err err;

/* What the last report brought. */
static struct {
    unsigned parts, series, targets, wrong_more;
    uint64_t lineage, requests, retries, alive, target_requests, outcomes, limited, opened;
    uint64_t in_generation, upstream;
    uint32_t active;
    size_t largest;
    bool complete, more, refuse;
    char route[32];
} seen;

static void setup(void)
{
    registry = registry_new();
    report = report_new(registry);
    for (unsigned i = 0; i < 2; i++) {
        stats_init(&workers[i], i, 11);
        stats_set_bounds(&workers[i], bounds, 2);
    }
}

static void teardown(void)
{
    report_free(&report);
    registry_free(&registry);
    for (unsigned i = 0; i < 2; i++)
        stats_fini(&workers[i]);
}

TestSuite(report, .init = setup, .fini = teardown);

static void count(struct stats *s, uint32_t slot, enum method_label method, unsigned status,
                  double seconds)
{
    const struct stats_exchange x = {.route_slot = slot,
                                     .method = method,
                                     .status = status,
                                     .reason = status == 404 ? R_NO_ROUTE : R_SERVED,
                                     .generation = 5,
                                     .seconds = seconds,
                                     .upstream_seconds = seconds};
    stats_request(s, &x);
}

static bool emit(void *owner, const Gwp__StatsReport *part, struct err *why)
{
    if (seen.refuse) {
        err_set(why, "not now");
        return false;
    }
    cr_assert(seen.parts == 0 || seen.more, "a part after the last one");
    seen.parts++;
    seen.more = part->more;
    seen.complete = part->complete;
    seen.lineage = part->lineage;
    seen.largest = MAX(seen.largest, gwp__stats_report__get_packed_size(part));
    seen.series += part->n_routes;
    for (size_t i = 0; i < part->n_routes; i++) {
        const Gwp__RouteSeries *s = part->routes[i];
        cr_assert_eq(s->n_buckets, 3);
        for (size_t k = 0; k < s->n_statuses; k++)
            seen.requests += s->statuses[k]->count;
        for (size_t k = 0; k < s->n_upstream_buckets; k++)
            seen.upstream += s->upstream_buckets[k];
        snprintf(seen.route, sizeof(seen.route), "%s", s->route);
    }
    seen.targets += part->n_targets;
    for (size_t i = 0; i < part->n_targets; i++) {
        seen.target_requests += part->targets[i]->requests;
        seen.active += part->targets[i]->active;
        seen.opened += part->targets[i]->connections_opened;
    }
    for (size_t i = 0; i < part->n_route_counts; i++) {
        const Gwp__RouteCount *c = part->route_counts[i];
        cr_assert_gt(c->count, 0);
        if (strcmp(c->family, "request_outcomes_total") == 0)
            seen.outcomes += c->count;
        if (strcmp(c->family, "limit_decisions_total") == 0 && strcmp(c->value, "limited") == 0)
            seen.limited += c->count;
    }
    for (size_t i = 0; i < part->n_generations; i++)
        if (part->generations[i]->generation == 5)
            seen.in_generation += part->generations[i]->classes[1];
    for (size_t i = 0; i < part->n_counters; i++) {
        if (strcmp(part->counters[i]->name, "retries_total") == 0)
            seen.retries = part->counters[i]->value;
        if (strcmp(part->counters[i]->name, "snapshots_alive") == 0)
            seen.alive = part->counters[i]->value;
    }
    if (part->settled) /* of a process that is gone there is nothing else to tell */
        return true;
    cr_assert_gt(part->started_seconds, 1e9);
    cr_assert(part->rss_bytes > 0 && part->cpu_seconds > 0 && part->open_fds > 0);
    return true;
}

static enum report_status make(bool complete)
{
    bool refuse = seen.refuse;
    memset(&seen, 0, sizeof(seen));
    seen.refuse = refuse;
    struct report_request request = {.workers = list,
                                     .worker_count = 2,
                                     .snapshots_alive = 3,
                                     .complete = complete,
                                     .emit = emit};
    return report_make(report, &request, &err);
}

static uint32_t route(const char *name)
{
    return registry_route(registry, name)->slot;
}

Test(report, sums_over_the_workers)
{
    uint32_t slot = route("users");
    count(&workers[0], slot, METHOD_GET, 200, 0.5);
    count(&workers[1], slot, METHOD_GET, 200, 0.5);
    count(&workers[1], slot, METHOD_GET, 500, 0.5);
    stats_add(&workers[0], STAT_retries_total, 1);
    stats_add(&workers[1], STAT_retries_total, 2);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.parts == 1 && seen.series == 1 && seen.requests == 3);
    cr_assert(seen.complete, "the first one is complete, asked for or not");
    cr_assert(seen.retries == 3 && seen.alive == 3);
    cr_assert_str_eq(seen.route, "users");
}

Test(report, tells_outcomes_decisions_connections_and_generations)
{
    uint32_t slot = route("users"), target = registry_target(registry, 77)->slot;
    for (unsigned i = 0; i < 2; i++) {
        stats_enter_generation(&workers[i], i); /* so that they lie in different slots */
        stats_enter_generation(&workers[i], 5);
        count(&workers[i], slot, METHOD_GET, 200, 0.5);
        stats_decision(&workers[i], slot, DECISION_limited);
        stats_connection(&workers[i], target, CONNECTION_OPENED);
    }
    count(&workers[0], STATS_NO_ROUTE, METHOD_GET, 404, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.outcomes == 3 && seen.limited == 2 && seen.opened == 2 && seen.upstream == 3);
    cr_assert_eq(seen.in_generation, 2);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.outcomes == 0 && seen.opened == 0, "nothing of it has changed");
    stats_decision(&workers[1], slot, DECISION_limited);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.limited == 3 && seen.series == 0);
}

Test(report, brings_only_what_changed_unless_asked_for_all)
{
    uint32_t users = route("users"), orders = route("orders");
    count(&workers[0], users, METHOD_GET, 200, 0);
    count(&workers[0], orders, METHOD_GET, 200, 0);
    count(&workers[0], STATS_NO_ROUTE, METHOD_GET, 404, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert_eq(seen.series, 3);
    count(&workers[1], orders, METHOD_GET, 200, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.series == 1 && !seen.complete);
    cr_assert_str_eq(seen.route, "orders");
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.series == 0 && seen.parts == 1);
    cr_assert_eq(make(true), REPORT_SENT);
    cr_assert(seen.series == 3 && seen.complete);
}

Test(report, targets_are_reported_while_they_move)
{
    struct target_state *t = registry_target(registry, 77);
    registry_target(registry, 78);
    stats_attempt(&workers[1], t->slot, false);
    atomic_store(&t->active, 1);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.targets == 1 && seen.target_requests == 1 && seen.active == 1);
    atomic_store(&t->active, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.targets == 1 && seen.active == 0, "that it has ended is told as well");
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert_eq(seen.targets, 0);
}

Test(report, a_large_one_comes_in_parts_of_bounded_size)
{
    enum { ROUTES = 20000 };
    for (unsigned i = 0; i < ROUTES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "route-with-some-name-%u", i);
        uint32_t slot = route(name);
        for (unsigned status = 200; status < 210; status++)
            count(&workers[0], slot, METHOD_GET, status, 0);
        stats_attempt(&workers[0], registry_target(registry, i)->slot, false);
    }
    cr_assert_eq(make(true), REPORT_SENT);
    cr_assert_gt(seen.parts, 1);
    cr_assert_not(seen.more);
    cr_assert(seen.series == ROUTES && seen.targets == ROUTES);
    cr_assert_eq(seen.requests, ROUTES * 10);
    cr_assert_lt(seen.largest, 1100 * 1024);
}

Test(report, waits_until_all_workers_have_the_same_buckets)
{
    const double others[] = {0.2, 2};
    uint32_t slot = route("users");
    count(&workers[0], slot, METHOD_GET, 200, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    uint64_t lineage = seen.lineage;
    stats_set_bounds(&workers[0], others, 2);
    cr_assert_eq(make(false), REPORT_LATER);
    cr_assert_eq(seen.parts, 0);
    stats_set_bounds(&workers[1], others, 2);
    count(&workers[1], slot, METHOD_GET, 200, 0);
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.complete && seen.requests == 1);
    cr_assert_neq(seen.lineage, lineage);
}

Test(report, one_that_was_not_taken_is_followed_by_a_complete_one)
{
    count(&workers[0], route("users"), METHOD_GET, 200, 0);
    seen.refuse = true;
    cr_assert_eq(make(false), REPORT_FAILED);
    cr_assert_str_eq(err.text, "not now");
    seen.refuse = false;
    cr_assert_eq(make(false), REPORT_SENT);
    cr_assert(seen.complete && seen.series == 1);
}

/* ---- what others have left ---- */

static enum report_status settle_copies(const struct stats *const *from, struct stats *adopted,
                                        struct names *names)
{
    const struct stats *theirs[2];
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(stats_adopt(&adopted[i], dup(stats_segment(from[i])->fd), &err), 0, "%s",
                     err.text);
        theirs[i] = &adopted[i];
    }
    struct settlement s = {.workers = theirs, .worker_count = 2, .names = names, .emit = emit};
    memset(&seen, 0, sizeof(seen));
    enum report_status status = report_settle(&s, &err);
    for (unsigned i = 0; i < 2; i++)
        stats_fini(&adopted[i]);
    return status;
}

Test(report, tells_what_a_process_that_is_gone_had_counted)
{
    struct stats adopted[2];
    uint32_t slot = registry_route(registry, "users")->slot;
    registry_target(registry, 7);
    count(&workers[0], slot, METHOD_GET, 200, 0.05);
    count(&workers[1], slot, METHOD_GET, 200, 0.05);
    stats_attempt(&workers[1], 0, false);
    stats_add(&workers[0], STAT_retries_total, 3);
    stats_add(&workers[0], STAT_downstream_connections_active, 9);
    struct names *names = names_adopt(dup(registry_names(registry)->fd), &err);
    cr_assert(names, "%s", err.text);
    cr_assert_eq(settle_copies(list, adopted, names), REPORT_SENT);
    cr_assert(seen.complete && seen.requests == 2 && seen.retries == 3);
    cr_assert_eq(seen.lineage, stats_lineage(&workers[0]));
    cr_assert_eq(seen.target_requests, 1);
    cr_assert_str_eq(seen.route, "users");
    names_free(&names);
}

/* Offsets, counts and names may be anything. */
Test(report, survives_counters_that_make_no_sense)
{
    struct stats adopted[2];
    struct names *names = names_adopt(dup(registry_names(registry)->fd), &err);
    uint32_t random = 1;
    count(&workers[0], registry_route(registry, "users")->slot, METHOD_GET, 200, 0.05);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned part = 0; part < 3; part++) {
            const struct segment *s =
                part == 2 ? registry_names(registry) : stats_segment(&workers[part]);
            uint32_t *words = (uint32_t *)(s->head + 1);
            size_t count = MIN(s->bytes, 20u << 20) / 4 - 64;
            for (size_t i = 0; i < count; i += 1 + random % 4096) {
                random = random * 1664525 + 1013904223;
                words[i] = random >> (random % 31);
            }
        }
        enum report_status status = settle_copies(list, adopted, names);
        cr_assert(status == REPORT_SENT || status == REPORT_LATER);
    }
    names_free(&names);
}
