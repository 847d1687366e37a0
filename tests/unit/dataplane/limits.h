/* limits: policies and limiters for tests. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/route/limiter.h"

#define SECOND 1000000000ull
#define BOOT (1000000 * SECOND) /* a time at which tests begin */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static inline struct limit_policy bucket_policy(double rate, uint32_t burst)
{
    struct limit_policy p = {
        .algorithm = LIMITER_BUCKET, .rate = rate, .burst = burst, .ipv6_prefix = 64};
    p.max_keys = 100000;
    limit_policy_derive(&p);
    return p;
}

static inline struct limit_policy window_policy(double rate, uint32_t window_ms)
{
    struct limit_policy p = {
        .algorithm = LIMITER_WINDOW, .rate = rate, .window_ms = window_ms, .ipv6_prefix = 64};
    p.max_keys = 100000;
    limit_policy_derive(&p);
    return p;
}

static inline void open_in(struct list *limiters, struct limit_policy *p)
{
    struct err err = {""};
    p->limiter = limiter_open(limiters, "users", p, &err);
    if (!p->limiter) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

static inline struct digest128 key_of_number(const struct limit_policy *p, uint64_t n)
{
    return limiter_key_of_text(p, (struct view){(const char *)&n, sizeof(n)});
}

/* The same numbers each time. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return next_random(state) % bound;
}
