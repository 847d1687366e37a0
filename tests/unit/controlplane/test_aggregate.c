#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/aggregate.h"

/* A report of one series: GET of route "r", `ok` times 200, all of them in the first bucket, and
 * two counters. */
struct sample {
    Gwp__StatsReport report;
    Gwp__RouteSeries series, *series_list[1];
    Gwp__StatusCount status, *status_list[1];
    Gwp__Counter counters[2], *counter_list[2];
    Gwp__TargetStats target, *target_list[1];
    double bounds[2];
    uint64_t buckets[3];
};

static void sample_init(struct sample *s, uint64_t lineage, uint64_t ok)
{
    gwp__stats_report__init(&s->report);
    gwp__route_series__init(&s->series);
    gwp__status_count__init(&s->status);
    gwp__target_stats__init(&s->target);
    s->report.lineage = lineage;
    s->status.status = 200;
    s->status.count = ok;
    s->status_list[0] = &s->status;
    s->series.route = (char *)"r";
    s->series.method = (char *)"GET";
    s->series.statuses = s->status_list;
    s->series.n_statuses = 1;
    memcpy(s->buckets, (uint64_t[]){ok, 0, 0}, sizeof(s->buckets));
    s->series.buckets = s->buckets;
    s->series.n_buckets = 3;
    s->series.sum_seconds = (double)ok;
    s->series_list[0] = &s->series;
    s->report.routes = s->series_list;
    s->report.n_routes = 1;
    memcpy(s->bounds, (double[]){0.1, 1}, sizeof(s->bounds));
    s->report.duration_buckets_seconds = s->bounds;
    s->report.n_duration_buckets_seconds = 2;
    for (int i = 0; i < 2; i++) {
        gwp__counter__init(&s->counters[i]);
        s->counter_list[i] = &s->counters[i];
        s->counters[i].value = ok;
    }
    s->counters[0].name = (char *)"retries_total";
    s->counters[1].name = (char *)"downstream_connections_active";
    s->report.counters = s->counter_list;
    s->report.n_counters = 2;
    s->target.target_id = 42;
    s->target.requests = ok;
    s->target.active = 1;
    s->target_list[0] = &s->target;
    s->report.targets = s->target_list;
    s->report.n_targets = 1;
}

static void take(struct aggregate *a, const char *instance, uint64_t lineage, uint64_t ok)
{
    struct sample s;
    sample_init(&s, lineage, ok);
    aggregate_take(a, instance, &s.report);
}

static char state_dir[] = "/tmp/gwp-aggregate-XXXXXX", counts_path[64];
static const double two_bounds[] = {0.1, 1};

static void setup(void)
{
    cr_assert(mkdtemp(state_dir));
    snprintf(counts_path, sizeof(counts_path), "%s/counts", state_dir);
}

static void teardown(void)
{
    char aside[80];
    snprintf(aside, sizeof(aside), "%s.damaged", counts_path);
    unlink(aside);
    unlink(counts_path);
    rmdir(state_dir);
}

TestSuite(aggregate, .init = setup, .fini = teardown);

static struct aggregate fresh(void)
{
    return (struct aggregate){0};
}

static void start(struct aggregate *a)
{
    aggregate_init(a, state_dir);
    aggregate_set_bounds(a, two_bounds, 2);
}

static uint64_t total(const struct aggregate *a)
{
    return aggregate_route_requests(a, "r");
}

/* The histogram of all there is; its sum of seconds lies behind the buckets. */
static const uint64_t *buckets(struct aggregate *a)
{
    size_t count;
    struct total *const *all = aggregate_totals(a, TOTAL_DURATION, &count);
    cr_assert_eq(count, 1);
    cr_assert_str_eq(all[0]->words[0], "r");
    cr_assert_str_eq(all[0]->words[1], "GET");
    cr_assert_eq(all[0]->words[2], NULL);
    return all[0]->values;
}

Test(aggregate, data_planes_are_summed)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    take(&a, "two", 2, 7);
    cr_expect_eq(total(&a), 12);
    cr_expect_eq(buckets(&a)[0], 12);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 12);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", "two"), 7);
    cr_expect_eq(aggregate_requests_of(&a, "one"), 5);
    cr_expect_eq(aggregate_target(&a, 42).requests, 12);
    aggregate_fini(&a);
}

Test(aggregate, centuries_of_seconds_are_summed)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 17000000000);
    cr_expect_eq(buckets(&a)[3], 17000000000 * 1000000000ull);
    aggregate_fini(&a);
}

Test(aggregate, the_same_report_again_changes_nothing)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    take(&a, "one", 1, 5);
    cr_expect_eq(total(&a), 5);
    take(&a, "one", 1, 6);
    cr_expect_eq(total(&a), 6);
    aggregate_fini(&a);
}

Test(aggregate, who_is_gone_stays_counted_but_not_as_a_level)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    aggregate_gone(&a, "one");
    cr_expect_eq(total(&a), 5);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 0);
    take(&a, "two", 2, 1);
    cr_expect_eq(total(&a), 6);
    aggregate_fini(&a);
}

Test(aggregate, an_instance_that_comes_back_is_not_counted_twice)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    aggregate_gone(&a, "one");
    take(&a, "one", 1, 8);
    cr_expect_eq(total(&a), 8);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 8);
    aggregate_fini(&a);
}

Test(aggregate, a_new_lineage_counts_from_the_beginning)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    take(&a, "one", 2, 3);
    cr_expect_eq(total(&a), 8);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 3);
    aggregate_fini(&a);
}

Test(aggregate, counters_never_step_back)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    take(&a, "one", 1, 2);
    cr_expect_eq(total(&a), 5);
    take(&a, "one", 1, 6);
    cr_expect_eq(total(&a), 6);
    cr_expect_eq(buckets(&a)[3], 6000000000);
    aggregate_fini(&a);
}

Test(aggregate, other_bounds_move_what_was_counted_up_never_down)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5); /* 5 up to 0.1 s */
    aggregate_set_bounds(&a, (double[]){0.05, 0.5}, 2);
    cr_expect(buckets(&a)[0] == 0 && buckets(&a)[1] == 5);
    take(&a, "one", 1, 6); /* still in the old bounds */
    cr_expect(buckets(&a)[0] == 0 && buckets(&a)[1] == 6 && buckets(&a)[2] == 0);
    cr_expect_eq(buckets(&a)[3], 6000000000);
    aggregate_fini(&a);
}

Test(aggregate, sources_that_are_gone_do_not_pile_up)
{
    struct aggregate a = fresh();
    size_t count = 0;
    start(&a);
    for (uint64_t i = 1; i <= 500; i++) {
        char name[16];
        snprintf(name, sizeof(name), "dp-%d", (int)i);
        take(&a, name, i, 1);
        aggregate_gone(&a, name);
    }
    list_each (node, &a.sources)
        count++;
    cr_expect_leq(count, 66);
    cr_expect_eq(total(&a), 500);
    cr_expect_eq(buckets(&a)[0], 500);
    aggregate_fini(&a);
    start(&a);
    cr_expect_eq(total(&a), 500);
    aggregate_fini(&a);
}

/* What kill -9 leaves: nothing is said to the tallies, and nothing is freed. */
struct aggregate lost[8]; /* where the leak checker finds it */

static void lose(struct aggregate *a)
{
    static size_t count;
    lost[count++] = *a;
    memset(a, 0, sizeof(*a));
}

Test(aggregate, a_control_plane_that_was_killed_goes_on_where_it_was)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "gone", 7, 100);
    aggregate_gone(&a, "gone");
    take(&a, "one", 1, 5);
    lose(&a);
    start(&a);
    cr_expect_eq(total(&a), 105, "before anybody reports again");
    cr_expect_eq(buckets(&a)[0], 105);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 0);
    take(&a, "one", 1, 8); /* it went on counting meanwhile */
    cr_expect_eq(total(&a), 108);
    cr_expect_eq(aggregate_requests_of(&a, "one"), 8);
    cr_expect_eq(aggregate_target(&a, 42).requests, 108);
    aggregate_fini(&a);
}

Test(aggregate, another_data_plane_goes_on_with_the_memory_of_the_one_before)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    take(&a, "two", 1, 6);
    aggregate_gone(&a, "one"); /* heard late: it is about the one before */
    cr_expect_eq(total(&a), 6);
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 6);
    cr_expect_eq(aggregate_requests_of(&a, "one"), 0);
    aggregate_gone(&a, "two");
    cr_expect_eq(aggregate_reported(&a, "downstream_connections_active", NULL), 0);
    aggregate_fini(&a);
}

Test(aggregate, other_bounds_after_a_restart_lose_nothing)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    lose(&a);
    aggregate_init(&a, state_dir);
    aggregate_set_bounds(&a, (double[]){0.05, 0.5, 5}, 3);
    cr_expect(buckets(&a)[1] == 5 && total(&a) == 5);
    take(&a, "one", 1, 6);
    cr_expect(buckets(&a)[1] == 6 && total(&a) == 6);
    aggregate_fini(&a);
}

Test(aggregate, a_damaged_tallies_is_put_aside)
{
    struct aggregate a = fresh();
    start(&a);
    take(&a, "one", 1, 5);
    aggregate_fini(&a);
    FILE *f = fopen(counts_path, "r+");
    cr_assert(f);
    fseek(f, 16, SEEK_SET);
    fputs("no row at all", f);
    fclose(f);
    start(&a);
    cr_expect_eq(total(&a), 0);
    take(&a, "one", 1, 5);
    cr_expect_eq(total(&a), 5);
    aggregate_fini(&a);
    start(&a);
    cr_expect_eq(total(&a), 5);
    aggregate_fini(&a);
}

Test(aggregate, without_a_directory_it_counts_all_the_same)
{
    struct aggregate a = fresh();
    aggregate_init(&a, "/proc/nowhere");
    aggregate_set_bounds(&a, two_bounds, 2);
    take(&a, "one", 1, 5);
    aggregate_set_bounds(&a, (double[]){0.05, 0.5}, 2);
    take(&a, "one", 1, 6);
    cr_expect(total(&a) == 6 && buckets(&a)[1] == 6);
    aggregate_fini(&a);
}

static void take_generation(struct aggregate *a, uint64_t lineage, uint64_t generation, uint64_t ok)
{
    struct sample s;
    uint64_t classes[6] = {0, ok};
    Gwp__GenerationStats g = GWP__GENERATION_STATS__INIT, *list[] = {&g};
    sample_init(&s, lineage, 0);
    s.report.n_routes = s.report.n_counters = s.report.n_targets = 0;
    g.generation = generation;
    g.classes = classes;
    g.n_classes = 6;
    s.buckets[0] = ok;
    g.buckets = s.buckets;
    g.n_buckets = 3;
    s.report.generations = list;
    s.report.n_generations = 1;
    aggregate_take(a, "one", &s.report);
}

static uint64_t of_generation(struct aggregate *a, const char *number, uint64_t *sum)
{
    size_t count;
    uint64_t found = 0;
    struct total *const *all = aggregate_totals(a, TOTAL_GENERATION, &count);
    *sum = 0;
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(all[i]->values[1], all[i]->values[AGGREGATE_CLASSES]);
        *sum += all[i]->values[1];
        found += strcmp(all[i]->words[0], number) == 0 ? all[i]->values[1] : 0;
    }
    return found;
}

Test(aggregate, the_last_three_generations_are_told_apart_and_the_sum_is_all)
{
    struct aggregate a = fresh();
    uint64_t sum;
    start(&a);
    for (uint64_t g = 1; g <= 9; g++)
        take_generation(&a, 1, g * 100, g);
    cr_expect(of_generation(&a, "900", &sum) == 9 && sum == 45);
    cr_expect_eq(of_generation(&a, "700", &sum), 7);
    cr_expect_eq(of_generation(&a, "600", &sum), 0);
    cr_expect_eq(of_generation(&a, "0", &sum), 21);
    take_generation(&a, 1, 600, 8); /* a long request has ended */
    cr_expect(of_generation(&a, "0", &sum) == 23 && sum == 47);
    lose(&a);
    start(&a);
    cr_expect(of_generation(&a, "700", &sum) == 7 && sum == 47);
    aggregate_set_bounds(&a, (double[]){0.2, 2}, 2); /* which writes the tallies anew */
    cr_expect(of_generation(&a, "0", &sum) == 23 && sum == 47);
    take_generation(&a, 1, 600, 8);
    take_generation(&a, 1, 900, 9);
    cr_expect(of_generation(&a, "900", &sum) == 9 && sum == 47);
    aggregate_fini(&a);
}

/* A hundred thousand changes are no reason to grow; and who repeats what all others have forgotten,
 * as one that drains for hours, is not counted twice. */
Test(aggregate, many_generations_take_no_more_room_than_few)
{
    struct aggregate a = fresh();
    uint64_t sum, used = 0;
    start(&a);
    take_generation(&a, 2, 1, 1000);
    for (uint64_t g = 1; g <= 5000; g++) {
        take_generation(&a, 1, g, 1);
        used = MAX(used, a.tallies.used);
    }
    take_generation(&a, 2, 1, 1001);
    cr_expect(of_generation(&a, "5000", &sum) == 1 && sum == 6001, "%llu", (unsigned long long)sum);
    cr_expect_lt(used, 200000);
    lose(&a);
    start(&a);
    cr_expect(of_generation(&a, "4998", &sum) == 1 && sum == 6001);
    aggregate_fini(&a);
}

static void take_breaker(struct aggregate *a, const char *instance, uint64_t lineage,
                         uint32_t state, uint64_t opened, const char *cause)
{
    struct sample s;
    sample_init(&s, lineage, 1);
    s.target.breaker_state = state;
    s.target.breaker_opened = opened;
    s.target.breaker_cause = (char *)cause;
    aggregate_take(a, instance, &s.report);
}

Test(aggregate, the_worst_breaker_counts_and_its_changes_outlive_the_data_plane)
{
    struct aggregate a = fresh();
    start(&a);
    take_breaker(&a, "one", 1, 2, 3, "time");
    take_breaker(&a, "two", 2, 1, 1, "failures");
    struct target_stats t = aggregate_target(&a, 42);
    cr_expect_eq(t.breaker_state, 1);
    cr_expect_str_eq(t.cause, "failures");
    cr_expect_eq(t.moved_to[1], 4);
    aggregate_gone(&a, "two");
    t = aggregate_target(&a, 42);
    cr_expect_eq(t.breaker_state, 2);
    cr_expect_eq(t.moved_to[1], 4);
    take_breaker(&a, "two", 3, 1, 1, "again"); /* it began anew */
    cr_expect_eq(aggregate_target(&a, 42).moved_to[1], 5);
    aggregate_fini(&a);
}

static void take_count(struct aggregate *a, const char *family, const char *route,
                       const char *value, uint64_t count)
{
    struct sample s;
    Gwp__RouteCount c = GWP__ROUTE_COUNT__INIT, *list[] = {&c};
    sample_init(&s, 1, 1);
    c.family = (char *)family;
    c.route = (char *)route;
    c.value = (char *)value;
    c.count = count;
    s.report.route_counts = list;
    s.report.n_route_counts = 1;
    aggregate_take(a, "one", &s.report);
}

Test(aggregate, counts_are_found_by_family_and_route)
{
    struct aggregate a = fresh();
    size_t count;
    start(&a);
    take_count(&a, "decisions", "users", "limited", 3);
    take_count(&a, "decisions", "users", "allowed", 5);
    take_count(&a, "decisions", "users2", "allowed", 7);
    take_count(&a, "decision", "users", "allowed", 9);
    struct total *const *found = aggregate_route_counts(&a, "decisions", "users", &count);
    cr_assert_eq(count, 2);
    cr_expect_str_eq(found[0]->words[2], "allowed");
    cr_expect(found[0]->values[0] == 5 && found[1]->values[0] == 3);
    aggregate_route_counts(&a, "decisions", "user", &count);
    cr_expect_eq(count, 0);
    aggregate_totals(&a, TOTAL_COUNT, &count);
    cr_expect_eq(count, 4);
    aggregate_fini(&a);
}

Test(aggregate, tells_of_redis_what_each_data_plane_said_last)
{
    struct aggregate a;
    struct sample s;
    size_t count;
    Gwp__RedisStats redis = GWP__REDIS_STATS__INIT, *list[] = {&redis};
    aggregate_init(&a, "/proc/nowhere");
    sample_init(&s, 7, 1);
    redis.name = (char *)"redis://a:6379/0";
    redis.gateways = 3;
    s.report.redis = list;
    s.report.n_redis = 1;
    aggregate_take(&a, "one", &s.report);
    const struct redis_stats *said = aggregate_redis(&a, "one", &count);
    cr_assert_eq(count, 1);
    cr_expect_str_eq(said[0].name, "redis://a:6379/0");
    cr_expect(said[0].gateways == 3 && !said[0].away);
    aggregate_redis(&a, "two", &count);
    cr_expect_eq(count, 0);
    s.report.n_redis = 0; /* no route counts in it any more */
    aggregate_take(&a, "one", &s.report);
    aggregate_redis(&a, "one", &count);
    cr_expect_eq(count, 0);
    s.report.n_redis = 1;
    aggregate_take(&a, "one", &s.report);
    aggregate_gone(&a, "one");
    aggregate_redis(&a, "one", &count);
    cr_expect_eq(count, 0);
    aggregate_fini(&a);
}
