#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "controlplane/health/health.h"

/* Simulated time and probes: one that is started ends when the test says so. */
#define MANY 10000

static struct ledger ledger;
static struct health health;
static double now;
static struct check *started[MANY + 1];
static size_t started_count, cancelled;
static struct status_range ok_range = {200, 399};
static struct health_check_config config;

static struct {
    unsigned times;
    enum health_state before, after;
} verdict;

static void fake_start(struct check *c)
{
    cr_assert_lt(started_count, COUNT_OF(started));
    started[started_count++] = c;
}

static void fake_cancel(struct check *c)
{
    cancelled++;
    for (size_t i = 0; i < started_count; i++)
        if (started[i] == c)
            started[i] = started[--started_count];
}

static const struct health_prober fake_prober = {fake_start, fake_cancel};

static void on_changed(void *owner, struct check *c, enum health_state before)
{
    verdict.times++;
    verdict.before = before;
    verdict.after = c->state;
}

static void start(void)
{
    ledger_init(&ledger, NULL);
    health_init(&health, NULL, &ledger, on_changed, NULL);
    health.prober = &fake_prober;
    health.random = 12345;
    now = 1000;
    config = (struct health_check_config){.enabled = true,
                                          .path = "",
                                          .host = "",
                                          .interval_ms = 10000,
                                          .timeout_ms = 2000,
                                          .unhealthy_interval_ms = 2000,
                                          .healthy_threshold = 2,
                                          .unhealthy_threshold = 3,
                                          .expected_status = {&ok_range, 1}};
}

static void stop(void)
{
    health_fini(&health);
    ledger_fini(&ledger);
}

TestSuite(health, .init = start, .fini = stop);

static struct check *want_from(const char *address, const struct check *before)
{
    const struct check_spec spec = {.address = address, .check = &config, .host = "a.example"};
    struct check *c = health_want(&health, &spec, before, now);
    cr_assert(c);
    return c;
}

static struct check *want(const char *address)
{
    return want_from(address, NULL);
}

static struct check *want_only(const char *address)
{
    health_begin(&health);
    struct check *c = want(address);
    health_end(&health, now);
    return c;
}

/* Turns the clock to when the next one is due. */
static double wait_for_due(void)
{
    const struct due_item *first = due_first(&health.due);
    cr_assert(first);
    double waited = first->at - now;
    now = MAX(now, first->at);
    health_turn(&health, now);
    return waited;
}

static void finish(struct check *c, enum probe_result result)
{
    const struct probe_outcome outcome = {.result = result, .seconds = 0.001};
    for (size_t i = 0; i < started_count; i++) {
        if (started[i] != c)
            continue;
        started[i] = started[--started_count];
        health_done(c, &outcome, now);
        return;
    }
    cr_assert_fail("no probe of it is under way");
}

/* One more check; how long it was waited for. */
static double check_once(struct check *c, enum probe_result result)
{
    double waited = wait_for_due();
    finish(c, result);
    return waited;
}

static void make_up(struct check *c)
{
    while (c->state != HEALTH_UP)
        check_once(c, PROBE_OK);
}

/* ---- thresholds ---- */

Test(health, a_new_endpoint_is_up_after_good_checks_in_a_row)
{
    struct check *c = want_only("10.0.0.1:80");
    cr_expect_eq(c->state, HEALTH_UNKNOWN);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_UNKNOWN);
    check_once(c, PROBE_REFUSED);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_UNKNOWN, "the row was broken");
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_UP);
    cr_expect_eq(verdict.times, 1);
    cr_expect_eq(verdict.before, HEALTH_UNKNOWN);
    cr_expect_lt(now, 1001.5);
}

Test(health, a_dead_new_endpoint_is_down_within_about_a_second)
{
    struct check *c = want_only("10.0.0.1:80");
    for (int i = 0; i < 3; i++)
        check_once(c, PROBE_REFUSED);
    cr_expect_eq(c->state, HEALTH_DOWN);
    cr_expect_lt(now, 1001.1);
}

Test(health, an_endpoint_goes_down_and_comes_back_by_the_thresholds)
{
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    check_once(c, PROBE_STATUS);
    check_once(c, PROBE_TIMEOUT);
    cr_expect_eq(c->state, HEALTH_UP);
    check_once(c, PROBE_OK);
    check_once(c, PROBE_CLOSED);
    check_once(c, PROBE_RESET);
    cr_expect_eq(c->state, HEALTH_UP);
    check_once(c, PROBE_BAD_RESPONSE);
    cr_expect_eq(c->state, HEALTH_DOWN);
    cr_expect_eq(verdict.before, HEALTH_UP);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_DOWN);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_UP);
    cr_expect_eq(verdict.times, 3);
}

Test(health, our_own_failures_say_nothing)
{
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    for (int i = 0; i < 10; i++)
        check_once(c, PROBE_NOT_MADE);
    cr_expect_eq(c->state, HEALTH_UP);
    check_once(c, PROBE_REFUSED);
    check_once(c, PROBE_REFUSED);
    check_once(c, PROBE_NOT_MADE);
    cr_expect_eq(c->state, HEALTH_UP);
    check_once(c, PROBE_REFUSED);
    cr_expect_eq(c->state, HEALTH_DOWN, "nor do they break a row");
    cr_expect_eq(ledger_read(health.counts[PROBE_NOT_MADE]), 11);
}

/* ---- when ---- */

Test(health, intervals_are_jittered_by_a_tenth)
{
    double least = INFINITY, most = 0, sum = 0;
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    for (int i = 0; i < 1000; i++) {
        double waited = check_once(c, PROBE_OK);
        least = MIN(least, waited);
        most = MAX(most, waited);
        sum += waited;
    }
    cr_expect(least >= 9 && least < 9.1, "%f", least);
    cr_expect(most <= 11 && most > 10.9, "%f", most);
    cr_assert_float_eq(sum / 1000, 10, 0.1);
}

Test(health, a_down_endpoint_is_asked_at_its_own_interval)
{
    struct check *c = want_only("10.0.0.1:80");
    while (c->state != HEALTH_DOWN)
        check_once(c, PROBE_REFUSED);
    for (int i = 0; i < 100; i++) {
        double waited = check_once(c, PROBE_REFUSED);
        cr_assert(waited >= 1.8 && waited <= 2.2, "%f", waited);
    }
}

Test(health, intervals_count_from_start_to_start)
{
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    wait_for_due();
    double began = now;
    now += 2;
    finish(c, PROBE_TIMEOUT);
    wait_for_due();
    cr_expect(now - began >= 9 && now - began <= 11, "%f", now - began);
    now += 100;
    finish(c, PROBE_TIMEOUT);
    cr_expect_gt(due_first(&health.due)->at, now, "not in the same breath");
}

Test(health, first_checks_are_spread)
{
    size_t early = 0;
    health_begin(&health);
    for (int i = 0; i < 1000; i++) {
        char address[32];
        snprintf(address, sizeof(address), "10.0.%d.%d:80", i / 250, i % 250);
        struct check *c = want(address);
        cr_assert(c->due.at >= now && c->due.at <= now + 0.5);
        early += c->due.at < now + 0.25;
    }
    cr_expect(early > 400 && early < 600, "%zu", early);
}

/* ---- identity ---- */

Test(health, one_check_for_all_who_ask_the_same)
{
    health_begin(&health);
    struct check *c = want("10.0.0.1:80");
    cr_expect_eq(want("10.0.0.1:80"), c);
    config.path = "/up";
    struct check *http = want("10.0.0.1:80");
    cr_expect_neq(http, c);
    cr_expect_eq(want("10.0.0.1:80"), http);
    config.timeout_ms++;
    cr_expect_neq(want("10.0.0.1:80"), http);
    cr_expect_neq(want("10.0.0.2:80"), http);
    health_end(&health, now);
    cr_expect_eq(health.checks.count, 4);
}

Test(health, statuses_count_only_where_there_is_a_status)
{
    struct status_range other = {500, 500};
    health_begin(&health);
    struct check *c = want("10.0.0.1:80");
    config.expected_status.at = &other;
    cr_expect_eq(want("10.0.0.1:80"), c);
    config.path = "/up";
    struct check *http = want("10.0.0.1:80");
    config.expected_status.at = &ok_range;
    cr_expect_neq(want("10.0.0.1:80"), http);
}

Test(health, a_reload_keeps_the_same_check_as_it_is)
{
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    check_once(c, PROBE_REFUSED);
    double due = c->due.at;
    cr_expect_eq(want_only("10.0.0.1:80"), c);
    cr_expect_eq(c->failed, 1);
    cr_expect_eq(c->due.at, due);
    wait_for_due();
    cr_expect_eq(want_only("10.0.0.1:80"), c, "while it is under way, too");
    finish(c, PROBE_OK);
    cr_expect_eq(cancelled, 0);
}

Test(health, another_check_begins_with_the_verdict_of_the_old_one)
{
    struct check *old = want_only("10.0.0.1:80");
    while (old->state != HEALTH_DOWN)
        check_once(old, PROBE_REFUSED);
    verdict.times = 0;
    health_begin(&health);
    config.interval_ms = 5000;
    struct check *c = want_from("10.0.0.1:80", old);
    health_end(&health, now);
    cr_expect_eq(health.checks.count, 1);
    cr_expect_eq(c->state, HEALTH_DOWN);
    cr_expect_eq(verdict.times, 0);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_DOWN);
    check_once(c, PROBE_OK);
    cr_expect_eq(c->state, HEALTH_UP);
}

Test(health, what_nobody_wants_is_forgotten)
{
    struct check *c = want_only("10.0.0.1:80");
    make_up(c);
    want_only("10.0.0.2:80");
    cr_expect_eq(health.checks.count, 1);
    cr_expect_eq(want_only("10.0.0.1:80")->state, HEALTH_UNKNOWN);
    wait_for_due();
    cr_expect_eq(health.under_way, 1);
    health_begin(&health);
    health_end(&health, now);
    cr_expect_eq(cancelled, 1, "a probe under way as well");
    cr_expect_eq(health.under_way, 0);
    cr_expect_null(due_first(&health.due));
}

Test(health, what_is_no_address_is_no_check)
{
    const struct check_spec spec = {.address = "nonsense", .check = &config, .host = ""};
    health_begin(&health);
    cr_expect_null(health_want(&health, &spec, NULL, now));
    health_end(&health, now);
}

/* ---- many ---- */

static struct check *all[MANY];
static unsigned rounds[MANY];

static size_t index_of(const struct check *c)
{
    size_t low = 0;
    while (all[low] != c)
        low++;
    return low;
}

/* Every endpoint takes the whole timeout: far more is due than there is room for. */
Test(health, ten_thousand_endpoints_take_turns)
{
    health_begin(&health);
    for (int i = 0; i < MANY; i++) {
        char address[32];
        snprintf(address, sizeof(address), "10.%d.%d.%d:80", i / 62500, i / 250 % 250, i % 250);
        all[i] = want(address);
    }
    health_end(&health, now);
    size_t most = 0;
    for (int batch = 0; batch < 200; batch++) {
        struct check *batched[HEALTH_UNDER_WAY_MAX];
        now += 2;
        health_turn(&health, now);
        most = MAX(most, health.under_way);
        cr_assert_eq(started_count, health.under_way);
        size_t count = started_count;
        for (size_t i = 0; i < count; i++)
            batched[i] = started[i];
        for (size_t i = 0; i < count; i++) {
            rounds[index_of(batched[i])]++;
            finish(batched[i], PROBE_TIMEOUT);
        }
    }
    unsigned least = rounds[0], greatest = rounds[0];
    for (int i = 1; i < MANY; i++) {
        least = MIN(least, rounds[i]);
        greatest = MAX(greatest, rounds[i]);
    }
    cr_expect_eq(most, HEALTH_UNDER_WAY_MAX);
    cr_expect(least >= 4 && greatest - least <= 2, "%u to %u", least, greatest);
}

Test(due, the_earliest_is_first_whatever_comes_and_goes)
{
    struct due due = {0};
    static struct due_item items[2000];
    srand(7);
    for (size_t i = 0; i < COUNT_OF(items); i++)
        due_put(&due, &items[i], rand());
    for (size_t i = 0; i < COUNT_OF(items); i += 3)
        due_remove(&due, &items[i]);
    for (size_t i = 0; i < COUNT_OF(items); i += 6)
        due_put(&due, &items[i], rand());
    due_remove(&due, &items[3]);
    double last = -1;
    size_t count = 0;
    for (struct due_item *first; (first = due_first(&due)); count++) {
        cr_assert_geq(first->at, last);
        last = first->at;
        due_remove(&due, first);
    }
    cr_expect_eq(count, 2000 - 667 + 334);
    due_fini(&due);
}
