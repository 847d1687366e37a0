#include <criterion/criterion.h>
#include <pthread.h>
#include <unistd.h>

#include "dataplane/route/breaker.h"
#include "dataplane/state/segment.h"

#define THREADS 8
#define START 5000000u /* ms */

static struct breakers *all;
static struct breaker *b;
static struct breaker_policy policy;
static _Atomic uint32_t open_in_route;
static uint64_t now;

static void setup(void)
{
    all = breakers_new();
    b = breakers_at(all, 0);
    policy = (struct breaker_policy){.failure_threshold_percent = 50,
                                     .min_requests = 20,
                                     .window_ms = 16000,
                                     .open_ms = 30000,
                                     .half_open_requests = 5,
                                     .most_open = 10};
    now = START;
    breaker_apply(b, &policy, &open_in_route, now);
}

static void teardown(void)
{
    breakers_free(&all);
}

TestSuite(breaker, .init = setup, .fini = teardown, .timeout = 120);

static struct breaker_view look(void)
{
    struct breaker_view view;
    breaker_look(b, &view);
    return view;
}

static bool allow(breaker_permit *permit)
{
    return breaker_allow(b, &policy, &open_in_route, now, permit);
}

static bool report(breaker_permit permit, enum verdict verdict)
{
    return breaker_report(b, &policy, &open_in_route, permit, verdict, R_CONNECT_FAILED, 0, now);
}

/* One request; was it let through? */
static bool request(enum verdict verdict)
{
    breaker_permit permit;
    if (!allow(&permit))
        return false;
    report(permit, verdict);
    return true;
}

static void requests(unsigned count, enum verdict verdict)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert(request(verdict));
}

static void trip(void)
{
    requests(policy.min_requests, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN);
}

/* ---- the window ---- */

Test(breaker, opens_at_the_threshold_and_not_before)
{
    requests(10, VERDICT_GOOD);
    requests(9, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
    requests(1, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN, "10 of 20 are 50 %%");
    cr_assert_not(request(VERDICT_GOOD));
    cr_assert_eq(open_in_route, 1);
}

Test(breaker, a_success_can_make_up_the_number_that_proves_it)
{
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED, "19 are not enough");
    requests(1, VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_OPEN, "19 of 20 failed");
}

Test(breaker, what_has_no_verdict_is_not_counted)
{
    requests(1000, VERDICT_NONE);
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
}

Test(breaker, the_window_slides)
{
    requests(19, VERDICT_BAD);
    now += policy.window_ms - policy.window_ms / BREAKER_SUB_WINDOWS - 1;
    cr_assert_eq(look().state, BREAKER_CLOSED);
    requests(1, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN, "they are still in the window");

    breaker_reset(b, &open_in_route, now);
    requests(19, VERDICT_BAD);
    now += policy.window_ms;
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED, "the first 19 are not");
}

Test(breaker, never_counts_what_is_older_than_the_window)
{
    /* One failure in each step, and successes: a model of a list of times says when. */
    enum { STEPS = 400 };
    for (unsigned i = 0; i < STEPS; i++) {
        now += 1000;
        requests(1, VERDICT_BAD);
        requests(2, VERDICT_GOOD);
        cr_assert_eq(look().state, BREAKER_CLOSED, "a third is less than half, at %u", i);
    }
    now += 15000;
    requests(16, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED, "1 + 16 of 3 + 16");
    requests(1, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN, "1 + 17 of 3 + 17");
}

Test(breaker, a_long_pause_does_not_confuse_the_ring)
{
    for (unsigned i = 0; i < 50; i++) {
        requests(19, VERDICT_BAD);
        cr_assert_eq(look().state, BREAKER_CLOSED, "%u", i);
        now += policy.window_ms * (i + 1);
    }
}

/* ---- open and half-open ---- */

Test(breaker, opens_probes_and_closes)
{
    trip();
    now += policy.open_ms - 1;
    cr_assert_not(request(VERDICT_GOOD));
    now += 1;
    requests(4, VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_HALF_OPEN);
    requests(1, VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
    cr_assert_eq(open_in_route, 0);
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED, "the window began anew");
}

Test(breaker, lets_no_more_probes_through_than_configured)
{
    breaker_permit permits[5], more;
    trip();
    now += policy.open_ms;
    for (int i = 0; i < 5; i++)
        cr_assert(allow(&permits[i]));
    cr_assert_not(allow(&more));
    cr_assert_not(breaker_would_allow(b, &policy, now));
    report(permits[0], VERDICT_GOOD);
    cr_assert_not(allow(&more), "one that was good has had its turn");
    report(permits[1], VERDICT_NONE);
    cr_assert(allow(&more), "one that proved nothing comes back");
    report(more, VERDICT_GOOD);
    for (int i = 2; i < 5; i++)
        report(permits[i], VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
}

Test(breaker, one_bad_probe_reopens)
{
    breaker_permit good, bad;
    trip();
    now += policy.open_ms;
    cr_assert(allow(&good) && allow(&bad));
    report(bad, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN);
    cr_assert_eq(look().until_ms, now + policy.open_ms);
    report(good, VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_OPEN, "a late one of the same round changes nothing");
    cr_assert_eq(open_in_route, 1);
}

Test(breaker, what_began_before_says_nothing_about_the_probes)
{
    breaker_permit before, probes[5];
    cr_assert(allow(&before));
    trip();
    now += policy.open_ms;
    for (int i = 0; i < 5; i++)
        cr_assert(allow(&probes[i]));
    report(before, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_HALF_OPEN);
    for (int i = 0; i < 4; i++)
        report(probes[i], VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_HALF_OPEN);
    report(probes[4], VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
}

Test(breaker, backs_off_up_to_the_most)
{
    static const uint32_t seconds[] = {30, 60, 120, 200, 200};
    policy.max_open_ms = 200000;
    trip();
    for (size_t i = 0; i < COUNT_OF(seconds); i++) {
        cr_assert_eq(look().until_ms, now + seconds[i] * 1000, "round %zu", i);
        now = look().until_ms;
        requests(1, VERDICT_BAD);
    }
    now = look().until_ms;
    requests(5, VERDICT_GOOD);
    trip();
    cr_assert_eq(look().until_ms, now + 30000, "closed in between: from the beginning");
}

Test(breaker, without_a_most_it_does_not_back_off)
{
    trip();
    for (int i = 0; i < 5; i++) {
        now = look().until_ms;
        requests(1, VERDICT_BAD);
        cr_assert_eq(look().until_ms, now + 30000);
    }
}

Test(breaker, a_route_has_no_more_open_than_allowed)
{
    policy.most_open = 2;
    for (uint32_t slot = 0; slot < 4; slot++) {
        b = breakers_at(all, slot);
        breaker_apply(b, &policy, &open_in_route, now);
        requests(100 * (slot >= 2) + 20, VERDICT_BAD);
        cr_assert_eq(look().state, slot < 2 ? BREAKER_OPEN : BREAKER_CLOSED);
    }
    cr_assert_eq(open_in_route, 2);
    b = breakers_at(all, 0);
    now += policy.open_ms;
    requests(5, VERDICT_GOOD);
    b = breakers_at(all, 2);
    requests(20, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN, "there is room again");
}

/* ---- policies that change ---- */

Test(breaker, the_same_policy_again_changes_nothing)
{
    struct breaker_policy same = policy;
    requests(19, VERDICT_BAD);
    breaker_apply(b, &same, &open_in_route, now);
    requests(1, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_OPEN);
    breaker_apply(b, &same, &open_in_route, now + 10);
    cr_assert(look().state == BREAKER_OPEN && look().until_ms == now + 30000);
}

Test(breaker, a_shorter_time_applies_at_once)
{
    trip();
    policy.open_ms = 1000;
    breaker_apply(b, &policy, &open_in_route, now);
    cr_assert_eq(look().until_ms, now + 1000);
}

Test(breaker, another_window_begins_with_nothing)
{
    requests(19, VERDICT_BAD);
    policy.window_ms = 5000;
    breaker_apply(b, &policy, &open_in_route, now);
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
}

Test(breaker, fewer_probes_than_have_succeeded_close_it)
{
    trip();
    now += policy.open_ms;
    requests(4, VERDICT_GOOD);
    policy.half_open_requests = 3;
    requests(1, VERDICT_GOOD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
    cr_assert_eq(open_in_route, 0);
}

Test(breaker, without_policy_it_is_closed)
{
    trip();
    breaker_apply(b, NULL, &open_in_route, now);
    cr_assert_eq(look().state, BREAKER_CLOSED);
    cr_assert_eq(open_in_route, 0);
}

Test(breaker, reset_closes_and_forgets)
{
    trip();
    cr_assert(breaker_reset(b, &open_in_route, now));
    cr_assert_not(breaker_reset(b, &open_in_route, now));
    requests(19, VERDICT_BAD);
    breaker_reset(b, &open_in_route, now);
    requests(19, VERDICT_BAD);
    cr_assert_eq(look().state, BREAKER_CLOSED);
}

Test(breaker, a_slot_is_whose_it_was_first)
{
    cr_assert_eq(breakers_claim(all, 0, 77), 77);
    cr_assert_eq(breakers_claim(all, 0, 78), 77);
    cr_assert_eq(breakers_claim(all, 1, 78), 78);
    cr_assert_eq(breakers_claim(all, 1u << 30, 1), 1);
    cr_assert_eq(breakers_at(all, 1u << 30), NULL);
}

Test(breaker, a_route_is_counted_in_one_place)
{
    _Atomic uint32_t *one = breakers_route(all, 5), *two = breakers_route(all, 5 + 65536);
    cr_assert_neq(one, two, "the same place by their hashes");
    cr_assert_eq(breakers_route(all, 5), one);
    cr_assert_eq(breakers_route(all, 5 + 65536), two);
    cr_assert_neq(breakers_route(all, 0), NULL);
}

/* What another process does that shares the memory. */
static struct breakers *heir(void)
{
    struct err err;
    struct breakers *other = breakers_new();
    int fd = dup(breakers_segment(all)->fd);
    cr_assert(breakers_adopt(other, fd, &err), "%s", err.text);
    return other;
}

Test(breaker, another_process_goes_on_with_it)
{
    breakers_claim(all, 0, 77);
    trip();
    struct breakers *other = heir();
    cr_assert_eq(breakers_claim(other, 0, 78), 77);
    struct breaker_view v;
    breaker_look(breakers_at(other, 0), &v);
    cr_assert_eq(v.state, BREAKER_OPEN);
    breakers_free(&other);
    cr_assert_eq(look().state, BREAKER_OPEN, "it was not the only one to map it");
}

Test(breaker, probes_of_the_dead_are_not_waited_for)
{
    breaker_permit permit;
    breakers_claim(all, 0, 77);
    trip();
    now += policy.open_ms;
    for (unsigned i = 0; i < policy.half_open_requests; i++)
        cr_assert(breaker_allow(b, &policy, &open_in_route, now, &permit));
    cr_assert_not(breaker_allow(b, &policy, &open_in_route, now, &permit));
    breakers_mend(all, now);
    cr_assert_eq(look().state, BREAKER_OPEN);
    cr_assert(breaker_allow(b, &policy, &open_in_route, now, &permit), "it is due at once");
    cr_assert_eq(open_in_route, 1, "it was counted all the time");
}

Test(breaker, memory_that_makes_no_sense_harms_nobody)
{
    struct segment s;
    struct err err;
    struct breaker_view v;
    struct breaker_transition t;
    breakers_claim(all, 0, 77);
    int fd = dup(breakers_segment(all)->fd);
    cr_assert_eq(segment_adopt(&s, fd, "test", breakers_segment(all)->head->layout, 0, &err), 0);
    memset(s.head + 1, 0xFF, s.bytes / 64); /* the routes, and some breakers */
    segment_close(&s);
    breakers_mend(all, now);
    for (uint32_t slot = 0; slot < 8; slot++) {
        breaker_permit permit;
        struct breaker *odd = breakers_at(all, slot);
        breaker_look(odd, &v);
        cr_assert_lt(v.state, BREAKER_STATES);
        if (breaker_recall(odd, v.epoch, &t))
            cr_assert(t.from < BREAKER_STATES && t.to < BREAKER_STATES);
        breaker_apply(odd, &policy, &open_in_route, now);
        if (breaker_allow(odd, &policy, &open_in_route, now, &permit))
            breaker_report(odd, &policy, &open_in_route, permit, VERDICT_BAD, R_RESET, 0, now);
    }
    cr_assert_eq(breakers_route(all, 9), NULL, "every place is somebody's");
}

/* ---- what is told ---- */

static void recall(uint32_t epoch, enum breaker_state from, enum breaker_state to,
                   const char *cause)
{
    struct breaker_transition t;
    cr_assert(breaker_recall(b, epoch, &t));
    cr_assert(t.from == from && t.to == to);
    cr_assert_str_eq(t.cause, cause);
}

Test(breaker, remembers_what_happened_and_why)
{
    struct breaker_transition t;
    requests(8, VERDICT_GOOD);
    requests(11, VERDICT_BAD);
    breaker_permit permit;
    cr_assert(allow(&permit));
    now += 10;
    cr_assert(breaker_report(b, &policy, &open_in_route, permit, VERDICT_BAD, R_SERVED, 503, now));
    recall(1, BREAKER_CLOSED, BREAKER_OPEN, "12 of 20 requests failed in 16 s (status 503 last)");
    now += policy.open_ms;
    cr_assert(allow(&permit));
    cr_assert(permit & BREAKER_MOVED);
    recall(2, BREAKER_OPEN, BREAKER_HALF_OPEN, "30 s have passed");
    cr_assert(report(permit, VERDICT_BAD));
    recall(3, BREAKER_HALF_OPEN, BREAKER_OPEN, "a probe failed (connect_failed)");
    now += policy.open_ms;
    requests(5, VERDICT_GOOD);
    recall(5, BREAKER_HALF_OPEN, BREAKER_CLOSED, "5 of 5 probes succeeded");
    trip();
    breaker_reset(b, &open_in_route, now);
    recall(7, BREAKER_OPEN, BREAKER_CLOSED, "reset by order");
    cr_assert_not(breaker_recall(b, 8, &t));
    cr_assert_eq(look().epoch, 7);
    cr_assert(look().moved_to[BREAKER_OPEN] == 3 && look().moved_to[BREAKER_HALF_OPEN] == 2 &&
              look().moved_to[BREAKER_CLOSED] == 2);
}

/* ---- many threads ---- */

static _Atomic uint32_t passed, under_way, most_under_way, barrier_count;
static enum verdict crowd_verdict;
static bool crowd_holds;

static void *prober(void *arg)
{
    breaker_permit held[1250], permit;
    unsigned count = 0;
    atomic_fetch_add(&barrier_count, 1);
    while (atomic_load(&barrier_count) < THREADS)
        ;
    for (int i = 0; i < 1250; i++) {
        if (!allow(&permit))
            continue;
        atomic_fetch_add(&passed, 1);
        uint32_t n = atomic_fetch_add(&under_way, 1) + 1, most = atomic_load(&most_under_way);
        while (n > most && !atomic_compare_exchange_weak(&most_under_way, &most, n))
            ;
        if (crowd_holds) {
            held[count++] = permit;
        } else {
            atomic_fetch_sub(&under_way, 1);
            report(permit, crowd_verdict);
        }
    }
    atomic_fetch_add(&barrier_count, 1);
    while (crowd_holds && atomic_load(&barrier_count) < 2 * THREADS)
        ; /* all 10,000 have asked */
    for (unsigned i = 0; i < count; i++)
        report(held[i], crowd_verdict);
    return NULL;
}

static void crowd(void *(*run)(void *))
{
    pthread_t threads[THREADS];
    passed = under_way = most_under_way = barrier_count = 0;
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, run, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

Test(breaker, exactly_the_configured_probes_pass_of_ten_thousand_at_once)
{
    crowd_holds = true;
    crowd_verdict = VERDICT_GOOD;
    for (int round = 0; round < 20; round++) {
        trip();
        now += policy.open_ms;
        crowd(prober);
        cr_assert_eq(passed, policy.half_open_requests);
        cr_assert_eq(look().state, BREAKER_CLOSED);
        now += policy.window_ms;
    }
    crowd_verdict = VERDICT_BAD;
    for (int round = 0; round < 20; round++) {
        trip();
        now += policy.open_ms;
        crowd(prober);
        cr_assert_eq(passed, policy.half_open_requests);
        cr_assert_eq(look().state, BREAKER_OPEN);
        breaker_reset(b, &open_in_route, now);
        now += policy.window_ms;
    }
    cr_assert_eq(open_in_route, 0);
}

Test(breaker, permits_never_leak)
{
    breaker_permit permits[5], more;
    crowd_verdict = VERDICT_NONE;
    trip();
    now += policy.open_ms;
    crowd(prober);
    cr_assert_geq(passed, policy.half_open_requests);
    cr_assert_leq(most_under_way, policy.half_open_requests);
    for (int i = 0; i < 5; i++)
        cr_assert(allow(&permits[i]), "all came back");
    cr_assert_not(allow(&more));
}

static void *failer(void *arg)
{
    for (int i = 0; i < 10000; i++)
        request(i % 4 == 0 ? VERDICT_BAD : VERDICT_GOOD);
    return NULL;
}

Test(breaker, counts_are_exact_over_all_workers)
{
    policy.failure_threshold_percent = 100;
    crowd(failer);
    struct breaker_transition t;
    policy.failure_threshold_percent = 25;
    requests(1, VERDICT_BAD);
    cr_assert(breaker_recall(b, 1, &t));
    cr_assert_str_eq(t.cause, "20001 of 80001 requests failed in 16 s (connect_failed last)");
}

static void *swinger(void *arg)
{
    for (int i = 0; i < 4000; i++) {
        breaker_permit permit;
        uint64_t at = now + (uint64_t)i;
        if (breaker_allow(b, &policy, &open_in_route, at, &permit))
            breaker_report(b, &policy, &open_in_route, permit, (enum verdict)(i % 3), R_RESET, 0,
                           at);
    }
    return NULL;
}

Test(breaker, every_change_of_state_is_counted_once)
{
    policy.min_requests = 3;
    policy.window_ms = 16;
    policy.open_ms = 1;
    policy.half_open_requests = 2;
    breaker_apply(b, &policy, &open_in_route, now);
    crowd(swinger);
    struct breaker_view v = look();
    cr_assert_eq(v.moved_to[0] + v.moved_to[1] + v.moved_to[2], v.epoch);
    cr_assert_eq(open_in_route, v.state != BREAKER_CLOSED);
    cr_assert_gt(v.epoch, 100);
    struct breaker_transition t;
    for (uint32_t i = 0; i < BREAKER_HISTORY; i++)
        cr_assert(breaker_recall(b, v.epoch - i, &t));
}
