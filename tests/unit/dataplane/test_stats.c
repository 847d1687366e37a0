#include <criterion/criterion.h>
#include <llhttp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Its limits are looked at. */
#include "dataplane/report/stats.c"

static const double bounds[] = {0.1, 1};
static struct stats stats;
static struct stats_series sum;

static void setup(void)
{
    stats_init(&stats, 0, 11);
    stats_set_bounds(&stats, bounds, 2);
}

static void teardown(void)
{
    stats_fini(&stats);
}

TestSuite(stats, .init = setup, .fini = teardown);

static void count(uint32_t slot, enum method_label method, unsigned status, double seconds)
{
    const struct stats_exchange x = {.route_slot = slot,
                                     .method = method,
                                     .status = status,
                                     .seconds = seconds,
                                     .upstream_seconds = -1};
    stats_request(&stats, &x);
}

static const struct stats_series *read_series(uint32_t slot, enum method_label method)
{
    stats_series_clear(&sum);
    stats_read_series(&stats, slot, method, &sum);
    return &sum;
}

static uint64_t count_of_status(const struct stats_series *s, uint32_t status)
{
    for (uint32_t i = 0; i < s->status_count; i++)
        if (s->statuses[i].status == status)
            return s->statuses[i].count;
    return 0;
}

Test(stats, requests_are_counted_by_route_method_status_and_duration)
{
    count(3, METHOD_GET, 200, 0.05);
    count(3, METHOD_GET, 200, 0.1);
    count(3, METHOD_GET, 404, 0.5);
    count(3, METHOD_POST, 200, 7);
    const struct stats_series *s = read_series(3, METHOD_GET);
    cr_assert_eq(s->requests, 3);
    cr_assert(s->buckets[0] == 2 && s->buckets[1] == 1 && s->buckets[2] == 0);
    cr_assert_float_eq(s->sum_seconds, 0.65, 1e-9);
    cr_assert(count_of_status(s, 200) == 2 && count_of_status(s, 404) == 1);
    s = read_series(3, METHOD_POST);
    cr_assert(s->requests == 1 && s->buckets[2] == 1);
    cr_assert_eq(read_series(2, METHOD_GET)->requests, 0);
    cr_assert_eq(stats_route_slots(&stats), 4);
}

Test(stats, what_matched_no_route_is_counted_too)
{
    count(STATS_NO_ROUTE, METHOD_OTHER, 404, 0);
    cr_assert_eq(read_series(STATS_NO_ROUTE, METHOD_OTHER)->requests, 1);
    cr_assert_eq(stats_route_slots(&stats), 0);
}

Test(stats, counters_and_targets_add_up)
{
    stats_add(&stats, STAT_retries_total, 2);
    stats_add(&stats, STAT_retries_total, 1);
    stats_add(&stats, STAT_upstream_connections_idle, 5);
    stats_sub(&stats, STAT_upstream_connections_idle, 2);
    cr_assert_eq(stats_counter(&stats, STAT_retries_total), 3);
    cr_assert_eq(stats_counter(&stats, STAT_upstream_connections_idle), 3);
    struct stats_target t = {0};
    stats_attempt(&stats, 9, false);
    stats_attempt(&stats, 9, true);
    stats_attempt(&stats, UINT32_MAX, true);
    stats_connection(&stats, 9, CONNECTION_OPENED);
    stats_connection(&stats, 9, CONNECTION_FAILED);
    stats_connection(&stats, 9, CONNECTION_FAILED);
    stats_connection(&stats, UINT32_MAX, CONNECTION_FAILED);
    stats_read_target(&stats, 9, &t);
    cr_assert(t.requests == 2 && t.failures == 1);
    cr_assert(t.connections[CONNECTION_OPENED] == 1 && t.connections[CONNECTION_REUSED] == 0 &&
              t.connections[CONNECTION_FAILED] == 2);
    cr_assert_eq(stats_target_slots(&stats), 10);
}

Test(stats, every_status_of_a_wild_backend_is_counted_in_bounded_memory)
{
    for (unsigned round = 0; round < 2; round++)
        for (unsigned status = 0; status < 1200; status++)
            count(0, METHOD_GET, status, 0);
    const struct stats_series *s = read_series(0, METHOD_GET);
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->status_count; i++)
        total += s->statuses[i].count;
    cr_assert_eq(total, 2400);
    cr_assert_eq(s->requests, 2400);
    cr_assert_leq(s->status_count, EXACT_STATUSES + 10);
    cr_assert_eq(count_of_status(s, 5), 2, "the first ones exactly");
    cr_assert_eq(count_of_status(s, 700), 200, "the rest by class");
}

Test(stats, a_full_segment_counts_under_none_and_loses_nothing)
{
    uint32_t slot = 0;
    uint64_t here = 0;
    for (; slot < ROUTE_SLOTS; slot++)
        for (unsigned m = 0; m < METHOD_LABELS; m++)
            count(slot, (enum method_label)m, 200, 0);
    for (unsigned status = 100; status < 1000; status++)
        count(ROUTE_SLOTS - 1, METHOD_TRACE, status, 0);
    count(ROUTE_SLOTS + 5, METHOD_GET, 200, 0);
    for (unsigned m = 0; m < METHOD_LABELS; m++)
        here += read_series(STATS_NO_ROUTE, (enum method_label)m)->requests;
    cr_assert_gt(here, 900);
    for (slot = 0; slot < ROUTE_SLOTS; slot++)
        for (unsigned m = 0; m < METHOD_LABELS; m++)
            here += read_series(slot, (enum method_label)m)->requests;
    cr_assert_eq(here, (uint64_t)ROUTE_SLOTS * METHOD_LABELS + 900 + 1);
}

Test(stats, other_bounds_begin_anew_under_another_lineage_but_levels_stay)
{
    uint64_t lineage = stats_lineage(&stats);
    uint32_t epoch = stats_epoch(&stats);
    count(1, METHOD_GET, 200, 0.5);
    stats_add(&stats, STAT_retries_total, 1);
    stats_add(&stats, STAT_downstream_connections_active, 1);
    stats_attempt(&stats, 0, false);
    stats_set_bounds(&stats, bounds, 2);
    cr_assert_eq(stats_lineage(&stats), lineage, "the same bounds change nothing");
    cr_assert_eq(read_series(1, METHOD_GET)->requests, 1);

    const double others[] = {0.2};
    stats_set_bounds(&stats, others, 1);
    cr_assert_neq(stats_lineage(&stats), lineage);
    cr_assert_eq(stats_epoch(&stats), epoch + 2);
    cr_assert(read_series(1, METHOD_GET)->requests == 0 && sum.status_count == 0);
    cr_assert_eq(stats_counter(&stats, STAT_retries_total), 0);
    cr_assert_eq(stats_counter(&stats, STAT_downstream_connections_active), 1);
    struct stats_target t = {0};
    stats_read_target(&stats, 0, &t);
    cr_assert_eq(t.requests, 0);
    count(1, METHOD_GET, 200, 0.5);
    cr_assert_eq(read_series(1, METHOD_GET)->buckets[1], 1);
    double now[STATS_MAX_BUCKETS];
    cr_assert(stats_bounds(&stats, now) == 1 && now[0] == 0.2);
}

static void count_one(uint64_t generation, unsigned status, enum reason reason, double seconds,
                      double upstream_seconds)
{
    const struct stats_exchange x = {7,          METHOD_GET, status,          reason,
                                     generation, seconds,    upstream_seconds};
    stats_request(&stats, &x);
}

Test(stats, the_time_at_backends_is_told_apart)
{
    count_one(0, 200, R_SERVED, 0.5, 0.05);
    count_one(0, 200, R_SERVED, 0.5, 0.5);
    count_one(0, 200, R_SERVED, 0.05, 7); /* never so, and counted all the same */
    count_one(0, 404, R_NO_ROUTE, 0.5, -1);
    const struct stats_series *s = read_series(7, METHOD_GET);
    cr_assert(s->upstream_buckets[0] == 1 && s->upstream_buckets[1] == 1 &&
              s->upstream_buckets[2] == 1);
    cr_assert_float_eq(s->upstream_sum_seconds, 7.55, 1e-9);
    cr_assert_eq(s->requests, 4);
}

Test(stats, a_route_counts_its_outcomes_and_what_its_limit_said)
{
    struct stats_route r = {0};
    count_one(0, 200, R_SERVED, 0, 0);
    count_one(0, 502, R_RESET, 0, 0);
    count_one(0, 502, R_RESET, 0, 0);
    stats_decision(&stats, 7, DECISION_allowed);
    stats_decision(&stats, 7, DECISION_limited);
    stats_decision(&stats, 8, DECISION_limited);
    stats_read_route(&stats, 7, &r);
    cr_assert(r.outcomes[R_SERVED] == 1 && r.outcomes[R_RESET] == 2 && r.outcomes[R_NO_ROUTE] == 0);
    cr_assert(r.decisions[DECISION_allowed] == 1 && r.decisions[DECISION_limited] == 1);
    cr_assert_eq(stats_route_slots(&stats), 9);
}

/* Of that number over all slots; `sum` counts all of them. */
static uint64_t count_of_generation(uint64_t generation, uint64_t *all)
{
    uint64_t found = 0;
    *all = 0;
    for (unsigned i = 0; i <= STATS_GENERATIONS; i++) {
        struct stats_generation g = {0};
        uint64_t requests = 0, buckets = 0;
        stats_read_generation(&stats, i, &g);
        for (unsigned k = 0; k < STATS_CLASSES; k++)
            requests += g.classes[k];
        for (unsigned k = 0; k <= STATS_MAX_BUCKETS; k++)
            buckets += g.buckets[k];
        cr_assert_eq(requests, buckets);
        found += g.generation == generation ? requests : 0;
        *all += requests;
    }
    return found;
}

Test(stats, the_last_generations_are_told_apart)
{
    uint64_t all, lineage = stats_lineage(&stats);
    for (uint64_t g = 1; g <= 4; g++) {
        stats_enter_generation(&stats, g * 10);
        for (uint64_t i = 0; i < g; i++)
            count_one(g * 10, 200, R_SERVED, 0.5, 0.5);
    }
    count_one(20, 503, R_SERVED, 0.5, 0.5); /* a long one, begun under an older generation */
    cr_assert(count_of_generation(10, &all) == 1 && all == 11);
    cr_assert_eq(count_of_generation(20, &all), 3);
    cr_assert_eq(count_of_generation(40, &all), 4);
    stats_enter_generation(&stats, 50); /* takes the place of 10 */
    cr_assert_eq(count_of_generation(10, &all), 0);
    count_one(10, 200, R_SERVED, 0.5, 0.5); /* and what ends under it now is one of the older */
    cr_assert_eq(count_of_generation(0, &all), 1);
    count_one(50, 99, R_SERVED, 0.5, 0.5);
    cr_assert_eq(count_of_generation(50, &all), 1);
    cr_assert_eq(stats_lineage(&stats), lineage);
}

Test(stats, methods_have_labels)
{
    cr_assert_str_eq(method_label_word(method_label(HTTP_GET)), "GET");
    cr_assert_str_eq(method_label_word(method_label(HTTP_DELETE)), "DELETE");
    cr_assert_str_eq(method_label_word(method_label(HTTP_PROPFIND)), "OTHER");
    cr_assert_str_eq(method_label_word(method_label(1000)), "OTHER");
}

static _Atomic bool stop;

static void *work(void *arg)
{
    const double others[] = {0.2};
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        count(i % 50, METHOD_GET, 200 + i % 20, 0.01);
        stats_attempt(&stats, i % 7, false);
        if (i % 1000 == 999)
            stats_set_bounds(&stats, i % 2000 == 999 ? others : bounds, i % 2000 == 999 ? 1 : 2);
    }
    return NULL;
}

/* On one processor the worker may be held up between two marks for a whole time slice: the reader
 * gives its own away then. */
Test(stats, may_be_read_while_the_worker_counts, .timeout = 60)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, work, NULL), 0);
    for (unsigned i = 0, whole = 0; whole < 200; i++) {
        uint32_t epoch = stats_epoch(&stats);
        const struct stats_series *s = read_series(i % 50, METHOD_GET);
        uint64_t total = 0;
        for (uint32_t k = 0; k < s->status_count; k++)
            total += s->statuses[k].count;
        if (epoch % 2 == 0 && stats_epoch(&stats) == epoch) {
            cr_assert_geq(total, s->requests, "a bucket is seen after what belongs to it");
            whole++;
        } else {
            sched_yield();
        }
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}
