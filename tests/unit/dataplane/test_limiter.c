#include <criterion/criterion.h>
#include <fcntl.h>
#include <unistd.h>
#include <pthread.h>
#include <sys/mman.h>

#include "dataplane/route/limiter.c" /* its table is looked at */
#include "dataplane/state/segment.h"
#include "limits.h"

static struct list limiters;

static void setup(void)
{
    list_init(&limiters);
}

static void teardown(void)
{
    cr_assert(list_is_empty(&limiters));
}

TestSuite(limiter, .init = setup, .fini = teardown, .timeout = 300);

static uint64_t rss_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    cr_assert(f && fscanf(f, "%*s %llu", &pages) == 1);
    fclose(f);
    return pages * 4096;
}

/* Of this thread: others may be busy too. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* ---- tables by identity ---- */

Test(limiter, same_way_of_counting_is_the_same_table)
{
    struct limit_policy p = bucket_policy(1, 5), faster = bucket_policy(100, 7);
    open_in(&limiters, &p);
    open_in(&limiters, &faster);
    cr_expect_eq(p.limiter, faster.limiter);
    struct limit_policy others[4] = {p, p, window_policy(5, 1000), window_policy(5, 2000)};
    others[0].max_keys = 99;
    others[1].key_by = LIMITER_BY_USER;
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        open_in(&limiters, &others[i]);
        cr_expect_neq(others[i].limiter, p.limiter);
        for (size_t k = 0; k < i; k++)
            cr_expect_neq(others[i].limiter, others[k].limiter);
    }
    for (size_t i = 0; i < COUNT_OF(others); i++)
        limiter_release(&others[i].limiter);
    limiter_release(&p.limiter);
    cr_expect(limiter_decide(&faster, key_of_number(&faster, 1), BOOT).allowed);
    limiter_release(&faster.limiter);
}

Test(limiter, table_has_its_identity_and_no_pointers)
{
    struct limit_policy p = window_policy(3, 1000);
    open_in(&limiters, &p);
    struct digest128 key = key_of_number(&p, 7);
    cr_assert_eq(limiter_decide(&p, key, BOOT).remaining, 2);
    cr_expect_str_eq(p.limiter->table->route, "users");
    cr_expect_eq(p.limiter->table->head.layout, LAYOUT);
    /* The same memory at another address, as another process would have it. */
    struct segment *s = &p.limiter->segment;
    void *again = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    cr_assert_neq(again, MAP_FAILED);
    struct limiter other = *p.limiter;
    other.table = again;
    other.sets = (char *)again + TABLE_HEAD_BYTES;
    struct limit_policy q = p;
    q.limiter = &other;
    struct digest128 same = key_of_number(&q, 7);
    cr_expect_eq(same.low, key.low);
    cr_expect_eq(limiter_decide(&q, same, BOOT).remaining, 1);
    cr_expect_eq(limiter_decide(&p, key, BOOT).remaining, 0);
    munmap(again, s->bytes);
    limiter_release(&p.limiter);
}

Test(limiter, lock_of_a_killed_process_is_taken_over)
{
    struct limit_policy p = bucket_policy(1, 5);
    open_in(&limiters, &p);
    struct digest128 key = key_of_number(&p, 7);
    struct set *s = set_of(p.limiter, key);
    atomic_store(&s->lock, p.limiter->me ^ 1);
    uint64_t start = clock_ns();
    cr_expect(limiter_decide(&p, key, BOOT).allowed);
    cr_expect_geq(clock_ns() - start, ABANDONED_NS);
    cr_expect_eq(atomic_load(&s->lock), 0);
    limiter_release(&p.limiter);
}

Test(limiter, peeking_counts_nothing)
{
    struct limit_policy policies[] = {bucket_policy(1, 2), window_policy(2, 1000)};
    for (size_t i = 0; i < COUNT_OF(policies); i++) {
        struct limit_policy *p = &policies[i];
        open_in(&limiters, p);
        struct digest128 key = key_of_number(p, 7);
        for (unsigned n = 0; n < 3; n++) {
            struct limit_verdict peeked = limiter_peek(p, key, BOOT + n);
            for (unsigned again = 0; again < 3; again++)
                cr_assert_eq(limiter_peek(p, key, BOOT + n).remaining, peeked.remaining);
            struct limit_verdict v = limiter_decide(p, key, BOOT + n);
            cr_assert_eq(v.allowed, peeked.allowed);
            cr_assert_eq(v.allowed, n < 2);
            cr_assert_eq(v.remaining, peeked.remaining);
            cr_assert_eq(v.retry_ns, peeked.retry_ns);
            cr_assert_eq(v.reset_ns, peeked.reset_ns);
        }
        cr_assert_eq(find(p->limiter, set_of(p->limiter, key_of_number(p, 8)), key_of_number(p, 8)),
                     PLACES);
        (void)limiter_peek(p, key_of_number(p, 8), BOOT);
        cr_assert_eq(find(p->limiter, set_of(p->limiter, key_of_number(p, 8)), key_of_number(p, 8)),
                     PLACES, "a key that is looked at takes no place");
        limiter_release(&p->limiter);
    }
}

/* ---- keys ---- */

static bool is_same(struct digest128 a, struct digest128 b)
{
    return a.low == b.low && a.high == b.high;
}

static struct digest128 key_of_ip(const struct limit_policy *p, const char *text)
{
    struct ip ip;
    cr_assert(ip_parse(view_of(text), &ip));
    return limiter_key_of_ip(p, ip);
}

Test(limiter, ipv6_is_cut_to_its_prefix)
{
    struct limit_policy p = bucket_policy(1, 5);
    open_in(&limiters, &p);
    cr_expect(is_same(key_of_ip(&p, "2001:db8::1"), key_of_ip(&p, "2001:db8::ffff:0:0:2")));
    cr_expect_not(is_same(key_of_ip(&p, "2001:db8::1"), key_of_ip(&p, "2001:db8:0:1::1")));
    cr_expect_not(is_same(key_of_ip(&p, "10.0.0.1"), key_of_ip(&p, "10.0.0.2")));
    cr_expect(is_same(key_of_ip(&p, "10.0.0.1"), key_of_ip(&p, "::ffff:10.0.0.1")));
    p.ipv6_prefix = 127;
    cr_expect(is_same(key_of_ip(&p, "2001:db8::2"), key_of_ip(&p, "2001:db8::3")));
    cr_expect_not(is_same(key_of_ip(&p, "2001:db8::1"), key_of_ip(&p, "2001:db8::2")));
    p.ipv6_prefix = 128;
    cr_expect_not(is_same(key_of_ip(&p, "2001:db8::2"), key_of_ip(&p, "2001:db8::3")));
    p.ipv6_prefix = 1;
    cr_expect(is_same(key_of_ip(&p, "2001:db8::2"), key_of_ip(&p, "3001:db8::3")));
    cr_expect_not(is_same(key_of_ip(&p, "2001:db8::2"), key_of_ip(&p, "f001:db8::3")));
    limiter_release(&p.limiter);
}

Test(limiter, texts_are_never_addresses_and_secrets_differ)
{
    struct limit_policy p = bucket_policy(1, 5), q = window_policy(1, 1000);
    open_in(&limiters, &p);
    open_in(&limiters, &q);
    struct ip ip = {1, 2};
    struct view text = {(const char *)&ip, sizeof(ip)};
    p.ipv6_prefix = 128;
    cr_expect_not(is_same(limiter_key_of_ip(&p, ip), limiter_key_of_text(&p, text)));
    cr_expect_not(is_same(limiter_key_of_text(&q, text), limiter_key_of_text(&p, text)));
    limiter_release(&p.limiter);
    limiter_release(&q.limiter);
}

/* ---- places ---- */

/* A thousand keys, each with its own limit, in a table for a thousand. */
static void each_for_itself(struct limit_policy p)
{
    enum { KEYS = 1000 };
    static unsigned allowed[KEYS];
    uint64_t random = 3;
    p.max_keys = KEYS;
    open_in(&limiters, &p);
    memset(allowed, 0, sizeof(allowed));
    for (unsigned i = 0; i < KEYS * 100; i++) {
        unsigned n = (unsigned)random_below(&random, KEYS);
        allowed[n] += limiter_decide(&p, key_of_number(&p, n), BOOT + i).allowed;
    }
    unsigned forgotten = 0;
    for (unsigned n = 0; n < KEYS; n++)
        forgotten += allowed[n] != p.quota;
    /* Sets of 16 get 10.7 keys on average; few get more than they hold. */
    cr_expect_leq(forgotten, KEYS * 15 / 100, "%u", forgotten);
    limiter_release(&p.limiter);
}

Test(limiter, keys_do_not_disturb_each_other)
{
    each_for_itself(bucket_policy(0.001, 5));
    each_for_itself(window_policy(5, 1000));
}

Test(limiter, key_that_is_as_if_never_seen_goes_first)
{
    struct limit_policy p = bucket_policy(1, 5);
    p.max_keys = 1; /* one set */
    open_in(&limiters, &p);
    cr_assert_eq(p.limiter->set_count, 1);
    for (uint64_t n = 0; n < PLACES; n++)
        for (uint64_t i = 0; i <= n % 5; i++)
            (void)limiter_decide(&p, key_of_number(&p, n), BOOT);
    /* 0, 5, 10 and 15 were seen once and are full again after a second. */
    for (uint64_t n = 100; n < 104; n++)
        cr_assert_eq(limiter_decide(&p, key_of_number(&p, n), BOOT + SECOND + n).remaining, 4);
    for (uint64_t n = 0; n < PLACES; n++)
        if (n % 5 != 0)
            cr_assert_lt(
                find(p.limiter, set_of(p.limiter, key_of_number(&p, n)), key_of_number(&p, n)),
                PLACES);
    limiter_release(&p.limiter);
}

/* ---- a flood of fresh keys ---- */

/* `fresh` keys come, each once, a microsecond apart; a busy one a hundred times a second. */
static void flood(struct limit_policy p, const char *name)
{
    const uint64_t fresh = SANITIZED ? 1000000 : 10000000, every = 10000;
    uint64_t busy_allowed = 0, busy_sent = 0, filled = 0, passed = 0;
    open_in(&limiters, &p);
    struct digest128 busy = key_of_number(&p, UINT64_MAX);
    uint64_t start = cpu_ns();
    for (uint64_t i = 0; i < fresh; i++) {
        uint64_t now = BOOT + i * 1000;
        if (i == fresh / 10)
            filled = rss_bytes();
        if (i % every == 0) {
            busy_sent++;
            busy_allowed += limiter_decide(&p, busy, now).allowed;
        }
        passed += limiter_decide(&p, key_of_number(&p, i), now).allowed;
    }
    uint64_t grown = rss_bytes() - filled;
    fprintf(stderr,
            "%s: %llu keys: table %.1f MiB, grown by %.2f MiB since a tenth of them, %llu ns each; "
            "busy key: %llu of %llu passed\n",
            name, (unsigned long long)fresh, (double)limiter_bytes(p.limiter) / 1048576,
            (double)grown / 1048576, (unsigned long long)((cpu_ns() - start) / fresh),
            (unsigned long long)busy_allowed, (unsigned long long)busy_sent);
    cr_expect_eq(passed, fresh, "%s: each fresh key's first request passes", name);
    if (!SANITIZED) /* those remember where memory was used */
        cr_expect_leq(grown, 1048576, "%s: RSS is flat", name);
    double seconds = (double)fresh / 1e6;
    cr_expect_leq((double)busy_allowed, p.algorithm == LIMITER_BUCKET
                                            ? (double)p.burst + p.rate * seconds
                                            : p.rate * seconds + (double)p.quota);
    cr_expect_geq((double)busy_allowed, p.rate * seconds * 0.9);
    limiter_release(&p.limiter);
}

Test(limiter, flood_of_keys_costs_no_memory_and_no_busy_key_its_state)
{
    flood(bucket_policy(10, 20), "bucket of 20");
    flood(bucket_policy(1, 1), "bucket of 1");
    flood(window_policy(10, 1000), "window of 10");
}

/* ---- all workers together ---- */

struct crowd {
    const struct limit_policy *p;
    struct digest128 key;
    _Atomic uint64_t clock, allowed;
    uint64_t each;
    uint64_t tick_ns;
};

static void *hammer(void *arg)
{
    struct crowd *c = arg;
    uint64_t allowed = 0;
    for (uint64_t i = 0; i < c->each; i++)
        allowed += limiter_decide(c->p, c->key, atomic_fetch_add(&c->clock, c->tick_ns)).allowed;
    atomic_fetch_add(&c->allowed, allowed);
    return NULL;
}

static void crowd_run(struct crowd *c)
{
    pthread_t threads[8];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer, c), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
}

Test(limiter, eight_threads_get_exactly_what_one_would)
{
    struct limit_policy p = bucket_policy(1000, 100);
    open_in(&limiters, &p);
    struct crowd c = {.p = &p, .clock = BOOT, .tick_ns = 1000};
    c.each = SANITIZED ? 25000 : 250000;
    c.key = key_of_number(&p, 1);
    crowd_run(&c);
    /* Whose time was ahead when the last one passed has left nothing behind. */
    uint64_t end = atomic_load(&c.clock), allowed = atomic_load(&c.allowed);
    while (limiter_decide(&p, c.key, end).allowed)
        allowed++;
    uint64_t exactly = 100 + (end - BOOT) / 1000000;
    cr_expect_leq(allowed, exactly);
    cr_expect_geq(allowed, exactly - 1);
    limiter_release(&p.limiter);
}

Test(limiter, eight_threads_in_one_window_get_the_quota)
{
    struct limit_policy p = window_policy(100000, 1000);
    open_in(&limiters, &p);
    struct crowd c = {.p = &p, .clock = BOOT, .tick_ns = 1, .each = SANITIZED ? 25000 : 250000};
    c.key = key_of_number(&p, 1);
    crowd_run(&c);
    uint64_t allowed = atomic_load(&c.allowed);
    cr_expect_leq(allowed, 100000);
    cr_expect_geq(allowed, 99900);
    limiter_release(&p.limiter);
}

static void *hammer_many(void *arg)
{
    struct crowd *c = arg;
    for (uint64_t i = 0; i < c->each; i++)
        (void)limiter_decide(c->p, key_of_number(c->p, i * 7919 % 5000),
                             atomic_fetch_add(&c->clock, c->tick_ns));
    return NULL;
}

/* More keys than places: they take them from each other all the time. */
Test(limiter, eight_threads_in_few_places)
{
    struct limit_policy p = window_policy(10, 1000);
    p.max_keys = 100;
    open_in(&limiters, &p);
    struct crowd c = {.p = &p, .clock = BOOT, .tick_ns = 100, .each = SANITIZED ? 10000 : 100000};
    pthread_t threads[8];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer_many, &c), 0);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    for (uint64_t n = 0; n < p.limiter->set_count; n++) {
        struct set *s = (struct set *)(void *)(p.limiter->sets + n * p.limiter->set_bytes);
        cr_assert_eq(atomic_load(&s->lock), 0);
        for (unsigned i = 0; i < PLACES; i++)
            cr_assert(s->tags[i] == 0 || (s->tags[i] == tag_of(slot_at(p.limiter, s, i)->key) &&
                                          set_of(p.limiter, slot_at(p.limiter, s, i)->key) == s));
    }
    limiter_release(&p.limiter);
}

/* ---- costs ---- */

static void measure(struct limit_policy p, uint64_t keys, const char *name)
{
    const uint64_t rounds = SANITIZED ? 100000 : 4000000;
    uint64_t allowed = 0;
    open_in(&limiters, &p);
    for (uint64_t n = 0; n < keys; n++)
        (void)limiter_decide(&p, limiter_key_of_ip(&p, (struct ip){n << 32, n}), BOOT);
    uint64_t start = cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t n = i * 7919 % keys;
        allowed +=
            limiter_decide(&p, limiter_key_of_ip(&p, (struct ip){n << 32, n}), BOOT + i * 100)
                .allowed;
    }
    double ns = (double)(cpu_ns() - start) / (double)rounds;
    fprintf(stderr, "%s, %llu keys: %.1f ns for a decision, %llu of %llu passed\n", name,
            (unsigned long long)keys, ns, (unsigned long long)allowed, (unsigned long long)rounds);
    if (!SANITIZED)
        cr_expect_lt(ns, 1000, "far beyond what it takes");
    limiter_release(&p.limiter);
}

Test(limiter, a_decision_is_cheap)
{
    measure(bucket_policy(1e6, 1000), 1, "bucket, passing");
    measure(bucket_policy(1, 1), 1, "bucket, refusing");
    measure(bucket_policy(1000, 1000), 50000, "bucket");
    measure(window_policy(1e8, 1000), 1, "window, passing");
    measure(window_policy(1, 1000), 1, "window, refusing");
    measure(window_policy(1000, 1000), 50000, "window");
}

/* ---- tables of other processes ---- */

static void limiter_init_lists(struct list *one, struct list *other)
{
    list_init(one);
    list_init(other);
}

Test(limiter, another_process_goes_on_with_its_table)
{
    struct list ours, theirs;
    struct limit_policy p = bucket_policy(0.001, 2), q = p;
    struct err err;
    limiter_init_lists(&ours, &theirs);
    open_in(&theirs, &p);
    cr_assert(limiter_decide(&p, key_of_number(&p, 1), BOOT).allowed);
    cr_assert(limiter_decide(&p, key_of_number(&p, 1), BOOT).allowed);
    struct limiter *l = limiter_adopt(&ours, "users", dup(limiter_segment(p.limiter)->fd), &err);
    cr_assert(l, "%s", err.text);
    open_in(&ours, &q);
    cr_assert_eq(q.limiter, l);
    limiter_forget_unused(&ours);
    cr_assert_not(limiter_decide(&q, key_of_number(&q, 1), BOOT).allowed);
    limiter_release(&p.limiter);
    cr_assert_not(limiter_decide(&q, key_of_number(&q, 1), BOOT).allowed);
    limiter_release(&q.limiter);
}

Test(limiter, tables_that_do_not_add_up_are_refused)
{
    struct list ours, theirs;
    struct limit_policy p = window_policy(5, 1000);
    struct err err;
    limiter_init_lists(&ours, &theirs);
    open_in(&theirs, &p);
    const struct segment *s = limiter_segment(p.limiter);
    cr_assert_null(limiter_adopt(&ours, "orders", dup(s->fd), &err), "another route's");
    uint32_t *head = (uint32_t *)(s->head + 1); /* algorithm, key_by, max_keys, window_ms */
    for (unsigned i = 0; i < 4; i++) {
        uint32_t was = head[i];
        head[i] = i == 3 ? 0 : 77777777;
        cr_assert(i == 1 || !limiter_adopt(&ours, "users", dup(s->fd), &err), "%u", i);
        head[i] = was;
    }
    cr_assert(list_is_empty(&ours));
    cr_assert_null(limiter_adopt(&ours, "users", open("/dev/null", O_RDONLY), &err));
    limiter_release(&p.limiter);
}
