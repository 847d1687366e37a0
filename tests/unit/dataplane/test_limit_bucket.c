#include <criterion/criterion.h>

#include "limits.h"

/* A bucket as one would explain it, in long double. Its pace may change; what it has refilled since
 * the last request that passed is reckoned at the pace of the moment. */
struct model {
    long double missing;
    uint64_t since_ns;
};

static long double missing_at(const struct model *m, const struct limit_policy *p, uint64_t now_ns)
{
    long double refilled = (long double)(now_ns - m->since_ns) * p->rate / 1e9L;
    return refilled > m->missing ? 0 : m->missing - refilled;
}

static void compare(uint64_t seed)
{
    uint64_t random = seed, now = BOOT;
    struct limit_policy p = bucket_policy(1, 1);
    struct limit_slot slot = {.clock = 0};
    struct model m = {.since_ns = now};
    for (int i = 0; i < 20000; i++) {
        if (i % 1000 == 0) {
            double rates[] = {0.01, 0.5, 3, 7, 1000, 33333, 1e6};
            p = bucket_policy(rates[random_below(&random, COUNT_OF(rates))],
                              (uint32_t)(1 + random_below(&random, i % 2000 == 0 ? 5 : 5000)));
        }
        now += (uint64_t)((double)random_below(&random, 3000) / 1000 * 1e9 / p.rate);
        long double missing = missing_at(&m, &p, now), after = missing + 1 - p.quota;
        struct limit_verdict v = limit_bucket.decide(&p, &slot, now);
        if (after < -1e-5L || after > 1e-5L)
            cr_assert_eq(v.allowed, after < 0, "seed %llu, request %d: %Lg missing of %llu",
                         (unsigned long long)seed, i, missing, (unsigned long long)p.quota);
        if (v.allowed)
            m = (struct model){missing + 1, now};
        else
            cr_assert_leq((double)v.retry_ns, (double)(after / p.rate) * 1e9 + 10000);
    }
}

Test(limit_bucket, decides_as_the_model_does)
{
    for (uint64_t seed = 1; seed <= 50; seed++)
        compare(seed);
}

/* Requests at `load` times the rate for `seconds`; how many pass. */
static uint64_t passed(const struct limit_policy *p, double load, double seconds)
{
    struct limit_slot slot = {.clock = 0};
    uint64_t count = 0, sent = (uint64_t)(p->rate * load * seconds);
    for (uint64_t i = 0; i < sent; i++)
        count +=
            limit_bucket.decide(p, &slot, BOOT + (uint64_t)((double)i / (p->rate * load) * 1e9))
                .allowed;
    return count;
}

Test(limit_bucket, all_of_the_limit_and_never_more)
{
    for (double load = 2; load <= 10; load += 8) {
        struct limit_policy p = bucket_policy(333, 50);
        uint64_t count = passed(&p, load, 60), most = 50 + 333 * 60;
        cr_expect_leq(count, most);
        cr_expect_geq(count, most - 1);
    }
}

Test(limit_bucket, what_keeps_to_the_rate_is_never_refused)
{
    struct limit_policy p = bucket_policy(1000, 1);
    cr_expect_eq(passed(&p, 0.999, 20), (uint64_t)(1000 * 0.999 * 20));
}

Test(limit_bucket, refusals_cost_nothing)
{
    struct limit_policy p = bucket_policy(0.5, 1);
    struct limit_slot slot = {.clock = 0};
    cr_assert(limit_bucket.decide(&p, &slot, BOOT).allowed);
    /* Each of these refills less than can be written down. */
    for (uint64_t ns = 1; ns < 2000000; ns++)
        cr_assert_not(limit_bucket.decide(&p, &slot, BOOT + ns).allowed);
    cr_assert_not(limit_bucket.decide(&p, &slot, BOOT + 2 * SECOND - 1000).allowed);
    cr_assert(limit_bucket.decide(&p, &slot, BOOT + 2 * SECOND).allowed);
}

Test(limit_bucket, changed_rate_applies_to_what_is_spent_already)
{
    struct limit_policy slow = bucket_policy(0.001, 1000), fast = bucket_policy(1000, 1000),
                        small = bucket_policy(1000, 10);
    struct limit_slot slot = {.clock = 0};
    for (int i = 0; i < 1000; i++)
        cr_assert(limit_bucket.decide(&slow, &slot, BOOT).allowed);
    struct limit_verdict v = limit_bucket.decide(&slow, &slot, BOOT);
    cr_assert_not(v.allowed);
    cr_assert_geq(v.retry_ns, 1000 * SECOND);
    v = limit_bucket.decide(&fast, &slot, BOOT + SECOND / 100);
    cr_assert(v.allowed);
    cr_assert_eq(v.remaining, 9);
    /* The burst too: of 991 missing, 990 have to come back first. */
    v = limit_bucket.decide(&small, &slot, BOOT + SECOND / 100);
    cr_assert_not(v.allowed);
    cr_assert_float_eq((double)v.retry_ns / 1e9, 0.982, 0.001);
    cr_assert(limit_bucket.decide(&small, &slot, BOOT + SECOND).allowed);
}

Test(limit_bucket, clock_that_is_behind_gives_nothing)
{
    struct limit_policy p = bucket_policy(10, 2);
    struct limit_slot slot = {.clock = 0};
    cr_assert(limit_bucket.decide(&p, &slot, BOOT + SECOND).allowed);
    cr_assert(limit_bucket.decide(&p, &slot, BOOT).allowed);
    cr_assert_not(limit_bucket.decide(&p, &slot, BOOT).allowed);
    cr_assert_not(limit_bucket.decide(&p, &slot, BOOT + SECOND + SECOND / 11).allowed);
    cr_assert(limit_bucket.decide(&p, &slot, BOOT + SECOND + SECOND / 10).allowed);
}

Test(limit_bucket, says_what_is_left_and_when)
{
    struct limit_policy p = bucket_policy(10, 5);
    struct limit_slot slot = {.clock = 0};
    for (uint64_t left = 5; left-- > 0;) {
        struct limit_verdict v = limit_bucket.decide(&p, &slot, BOOT);
        cr_expect(v.allowed);
        cr_expect_eq(v.remaining, left);
        cr_expect_eq(v.retry_ns, 0);
        cr_assert_float_eq((double)v.reset_ns / 1e9, (double)(5 - left) / 10, 1e-6);
    }
    struct limit_verdict v = limit_bucket.decide(&p, &slot, BOOT + SECOND / 20);
    cr_expect_not(v.allowed);
    cr_assert_float_eq((double)v.retry_ns / 1e9, 0.05, 1e-6);
    cr_expect(limit_bucket.decide(&p, &slot, BOOT + SECOND / 20 + v.retry_ns).allowed);
}

Test(limit_bucket, full_again_is_as_if_never_seen)
{
    struct limit_policy p = bucket_policy(10, 5);
    struct limit_slot slot = {.clock = 0};
    (void)limit_bucket.decide(&p, &slot, BOOT);
    cr_expect_gt(limit_bucket.weight(&p, &slot, BOOT), 0);
    cr_expect_gt(limit_bucket.weight(&p, &slot, BOOT),
                 limit_bucket.weight(&p, &slot, BOOT + SECOND / 20));
    cr_expect_eq(limit_bucket.weight(&p, &slot, BOOT + SECOND / 10 + 1), 0);
}

Test(limit_bucket, extremes_do_not_overflow)
{
    struct limit_policy p = bucket_policy(1e9, 1000000000),
                        least = bucket_policy(0.0001, 1000000000);
    struct limit_slot slot = {.clock = 0};
    cr_assert(limit_bucket.decide(&p, &slot, UINT64_MAX / 2).allowed);
    struct limit_verdict v = limit_bucket.decide(&least, &slot, UINT64_MAX / 2);
    cr_assert(v.allowed);
    cr_assert_geq(v.remaining, 999999998);
    slot.spent = (uint64_t)1000000000 << 32;
    v = limit_bucket.decide(&least, &slot, UINT64_MAX / 2);
    cr_assert_not(v.allowed);
    cr_assert_eq(v.reset_ns, (uint64_t)1e18);
    v = limit_bucket.decide(&least, &slot, UINT64_MAX / 2 + 10001 * SECOND);
    cr_assert(v.allowed);
}
