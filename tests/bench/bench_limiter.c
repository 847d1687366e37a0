/* What one in-process decision of a rate limit costs, its key included: one thread, rounds of the
 * variants interleaved, the median of each. `make bench-limiter`. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "dataplane/route/limiter.h"

#define ROUNDS 9
#define DECISIONS 400000
#define BOOT_NS 1000000000000000ull

struct variant {
    const char *name;
    enum limiter_algorithm algorithm;
    double rate;
    uint32_t burst;
    uint64_t keys;
    uint64_t pace_ns; /* between two requests */
    struct limit_policy policy;
    uint64_t now_ns;
    double ns[ROUNDS];
};

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct limit_verdict ask(struct variant *v, uint64_t n)
{
    struct ip ip = {n << 32, n};
    v->now_ns += v->pace_ns;
    return limiter_decide(&v->policy, limiter_key_of_ip(&v->policy, ip), v->now_ns);
}

static void prepare(struct variant *v, struct list *limiters)
{
    struct err err;
    v->policy = (struct limit_policy){.algorithm = v->algorithm,
                                      .rate = v->rate,
                                      .burst = v->burst,
                                      .window_ms = 1000,
                                      .ipv6_prefix = 64,
                                      .max_keys = 100000};
    limit_policy_derive(&v->policy);
    v->now_ns = BOOT_NS;
    v->policy.limiter = limiter_open(limiters, v->name, &v->policy, &err);
    if (!v->policy.limiter) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    for (uint64_t n = 0; n < v->keys; n++)
        (void)ask(v, n);
}

/* Keys in no order that a processor could foresee. */
static double round_of(struct variant *v, uint64_t *allowed)
{
    uint64_t x = 88172645463325252ull;
    double start = cpu_ns();
    for (int i = 0; i < DECISIONS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *allowed += ask(v, x % v->keys).allowed;
    }
    return (cpu_ns() - start) / DECISIONS;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void)
{
    struct variant variants[] = {
        {"bucket, one key, passing", LIMITER_BUCKET, 1e9, 1000, 1, 1000},
        {"bucket, one key, refusing", LIMITER_BUCKET, 1, 1, 1, 1},
        {"bucket, 50000 keys", LIMITER_BUCKET, 1000, 1000, 50000, 100},
        {"window, one key, passing", LIMITER_WINDOW, 1e9, 0, 1, 1000},
        {"window, one key, refusing", LIMITER_WINDOW, 1, 0, 1, 1},
        {"window, 50000 keys", LIMITER_WINDOW, 1000, 0, 50000, 100},
    };
    struct list limiters[COUNT_OF(variants)];
    uint64_t allowed = 0;
    for (size_t i = 0; i < COUNT_OF(variants); i++) {
        list_init(&limiters[i]);
        prepare(&variants[i], &limiters[i]);
    }
    for (int round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < COUNT_OF(variants); i++)
            variants[i].ns[round] = round_of(&variants[i], &allowed);
    for (size_t i = 0; i < COUNT_OF(variants); i++) {
        struct variant *v = &variants[i];
        qsort(v->ns, ROUNDS, sizeof(*v->ns), by_size);
        printf("%-28s %6.1f ns (%.1f to %.1f)\n", v->name, v->ns[ROUNDS / 2], v->ns[0],
               v->ns[ROUNDS - 1]);
        limiter_release(&v->policy.limiter);
    }
    return allowed > 0 ? 0 : 1;
}
