#include <criterion/criterion.h>

#include "dataplane/route/limit_window.c" /* its cells are looked at */
#include "limits.h"

static struct limit_verdict ask(const struct limit_policy *p, struct cells *k, uint64_t now_ns)
{
    return limit_window.decide(p, &k->slot, now_ns);
}

/* Every request that has passed, to be counted by hand. */
struct history {
    uint64_t *at;
    size_t count;
};

/* Those not longer ago than that. */
static uint64_t within(const struct history *h, uint64_t now_ns, uint64_t ns)
{
    size_t low = 0, high = h->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (h->at[middle] + ns < now_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return h->count - low;
}

/* Passing must leave no window with more than the quota; refusing must be because one cell more
 * than a window holds all of it, but for the rounding. */
static void check(const struct limit_policy *p, const struct history *h, uint64_t now,
                  struct limit_verdict v)
{
    uint64_t window = p->window_ms * 1000000ull;
    if (v.allowed) {
        cr_assert_leq(within(h, now, window), p->quota);
        return;
    }
    uint64_t held = within(h, now, window + p->cell_ns);
    cr_assert_geq((double)held * (1 + 1.0 / 1024), (double)p->quota, "%llu of %llu",
                  (unsigned long long)held, (unsigned long long)p->quota);
}

static void compare(uint64_t seed, uint32_t window_ms, double base)
{
    uint64_t random = seed, now = BOOT + random_below(&random, SECOND);
    struct limit_policy p = window_policy(base, window_ms);
    struct cells k = {.slot = {.clock = 0}};
    const size_t requests = 30000;
    struct history h = {.at = calloc(requests, sizeof(uint64_t))};
    double pace = 1;
    for (size_t i = 0; i < requests; i++) {
        if (i % 3000 == 2999)
            p = window_policy(base * (0.2 + (double)random_below(&random, 200) / 100), window_ms);
        if (i % 100 == 0)
            pace = (double)random_below(&random, 3000) / 1000;
        now += (uint64_t)((double)random_below(&random, 2000) / 1000 / p.rate * pace * 1e9);
        if (random_below(&random, 5000) == 0)
            now += random_below(&random, 3 * (uint64_t)window_ms * 1000000);
        struct limit_verdict v = ask(&p, &k, now);
        if (v.allowed)
            h.at[h.count++] = now;
        check(&p, &h, now, v);
    }
    cr_assert_gt(h.count, requests / 20);
    free(h.at);
}

Test(limit_window, never_more_than_the_quota_and_no_refusal_without_cause)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        compare(seed, 1000, 7);
        compare(seed, 1000, 500);
        compare(seed, 60000, 10);
        compare(seed, 100, 50000);
    }
}

static uint64_t passed(const struct limit_policy *p, double per_s, double seconds)
{
    struct cells k = {.slot = {.clock = 0}};
    uint64_t count = 0, sent = (uint64_t)(per_s * seconds);
    for (uint64_t i = 0; i < sent; i++)
        count += ask(p, &k, BOOT + (uint64_t)((double)i / per_s * 1e9)).allowed;
    return count;
}

static void saturate(double rate, double load, double seconds)
{
    struct limit_policy p = window_policy(rate, 1000);
    uint64_t count = passed(&p, rate * load, seconds);
    cr_expect_leq((double)count, rate * seconds, "rate %g, load %g: %llu", rate, load,
                  (unsigned long long)count);
    cr_expect_geq((double)count, 0.99 * rate * seconds, "rate %g, load %g: %llu", rate, load,
                  (unsigned long long)count);
}

Test(limit_window, at_saturation_99_percent_and_never_more)
{
    saturate(5, 1000, 50);
    for (double load = 1; load <= 100; load *= 2.5) {
        saturate(200, load, 50);
        saturate(5000, load, 20);
        saturate(100000, load, 4);
    }
}

Test(limit_window, all_of_it_may_come_at_once_and_is_back_a_window_later)
{
    struct limit_policy p = window_policy(10, 1000);
    struct cells k = {.slot = {.clock = 0}};
    for (uint64_t left = 10; left-- > 0;) {
        struct limit_verdict v = ask(&p, &k, BOOT);
        cr_assert(v.allowed);
        cr_assert_eq(v.remaining, left);
    }
    struct limit_verdict v = ask(&p, &k, BOOT + SECOND / 2);
    cr_assert_not(v.allowed);
    cr_assert_eq(v.remaining, 0);
    cr_assert_not(ask(&p, &k, BOOT + SECOND / 2 + v.retry_ns - 1).allowed);
    cr_assert_leq(v.retry_ns, SECOND / 2 + SECOND / LIMIT_WINDOW_CELLS + LIMIT_WINDOW_CELLS);
    v = ask(&p, &k, BOOT + SECOND / 2 + v.retry_ns);
    cr_assert(v.allowed);
    cr_assert_eq(v.remaining, 9);
}

Test(limit_window, refused_ones_learn_when_the_oldest_goes)
{
    struct limit_policy p = window_policy(2, 1000);
    struct cells k = {.slot = {.clock = 0}};
    cr_assert(ask(&p, &k, BOOT).allowed);
    cr_assert(ask(&p, &k, BOOT + SECOND / 2).allowed);
    struct limit_verdict v = ask(&p, &k, BOOT + SECOND * 3 / 4);
    cr_assert_not(v.allowed);
    cr_assert_float_eq((double)v.retry_ns / 1e9, 0.25, 0.01);
    cr_assert_float_eq((double)v.reset_ns / 1e9, 1, 0.01);
}

Test(limit_window, changed_rate_applies_at_once)
{
    struct limit_policy p = window_policy(100, 1000), more = window_policy(150, 1000),
                        less = window_policy(50, 1000);
    struct cells k = {.slot = {.clock = 0}};
    for (int i = 0; i < 100; i++)
        cr_assert(ask(&p, &k, BOOT).allowed);
    cr_assert_not(ask(&p, &k, BOOT).allowed);
    cr_assert_eq(ask(&more, &k, BOOT).remaining, 49);
    struct limit_verdict v = ask(&less, &k, BOOT);
    cr_assert_not(v.allowed);
    cr_assert_eq(v.remaining, 0);
    cr_assert_float_eq((double)v.retry_ns / 1e9, 1, 0.01);
}

Test(limit_window, clock_that_is_behind_counts_as_now)
{
    struct limit_policy p = window_policy(2, 1000);
    struct cells k = {.slot = {.clock = 0}};
    cr_assert(ask(&p, &k, BOOT + SECOND).allowed);
    cr_assert(ask(&p, &k, BOOT).allowed);
    cr_assert_not(ask(&p, &k, BOOT).allowed);
    cr_assert_not(ask(&p, &k, BOOT + 2 * SECOND - 1).allowed);
}

Test(limit_window, counts_are_rounded_up_by_less_than_a_thousandth)
{
    uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        uint32_t count = (uint32_t)(next_random(&random) >> (32 + random_below(&random, 32)));
        uint64_t back = expand(compress(count));
        cr_assert_geq(back, count);
        cr_assert_leq((double)(back - count), (double)count / 1024);
        if (count < 1u << DIGITS)
            cr_assert_eq(back, count);
    }
    cr_assert_geq(expand(compress(UINT32_MAX)), UINT32_MAX);
}

/* As after a kill in the middle of advancing. */
Test(limit_window, wrong_sum_is_right_again_a_window_later)
{
    struct limit_policy p = window_policy(100, 1000);
    struct cells k = {.slot = {.clock = 0}};
    (void)ask(&p, &k, BOOT);
    k.slot.spent += 50;
    for (uint64_t ms = 0; ms < 1000; ms++)
        (void)ask(&p, &k, BOOT + ms * 1000000);
    cr_assert_eq(k.slot.spent, sum(&k));
    k.slot.spent -= 70;
    for (uint64_t ms = 1000; ms < 2020; ms++)
        (void)ask(&p, &k, BOOT + ms * 1000000);
    cr_assert_eq(k.slot.spent, sum(&k));
}

Test(limit_window, soon_after_boot)
{
    struct limit_policy p = window_policy(1, 86400000);
    struct cells k = {.slot = {.clock = 0}};
    cr_assert(ask(&p, &k, 5 * SECOND).allowed);
    cr_assert_eq(ask(&p, &k, 3600 * SECOND).remaining, 86398);
    cr_assert_eq(ask(&p, &k, (uint64_t)86400 * SECOND).remaining, 86397);
}

Test(limit_window, fades_until_it_is_as_if_never_seen)
{
    struct limit_policy p = window_policy(10, 1000);
    struct cells k = {.slot = {.clock = 0}};
    (void)ask(&p, &k, BOOT);
    uint64_t fresh = limit_window.weight(&p, &k.slot, BOOT);
    uint64_t later = limit_window.weight(&p, &k.slot, BOOT + SECOND / 2);
    cr_expect_gt(later, 0);
    cr_expect_gt(fresh, later);
    cr_expect_eq(limit_window.weight(&p, &k.slot, BOOT + SECOND + SECOND / 50), 0);
}
