#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "dataplane/route/sketch.h"
#include "limits.h"

static struct digest128 number_key(uint64_t n)
{
    return (struct digest128){n, ~n};
}

static void note(struct sketch *s, uint64_t n, bool limited, uint64_t random, uint64_t now_ns)
{
    sketch_note(s, number_key(n), (struct ip){0, n}, (struct view){NULL, 0}, limited, random,
                now_ns);
}

Test(sketch, few_notes_are_counted_one_by_one)
{
    static struct sketch s;
    struct sketch_entry out[SKETCH_ENTRIES];
    for (uint64_t n = 1; n <= 10; n++)
        for (uint64_t i = 0; i < n * 5; i++)
            note(&s, n, i % 2 == 1, i, BOOT);
    cr_assert_eq(sketch_read(&s, out), 10);
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t n = 10 - i;
        cr_expect_eq(out[i].key.low, n);
        cr_expect_eq(out[i].ip.low, n);
        cr_expect_eq(out[i].count, n * 5);
        cr_expect_eq(out[i].limited, n * 5 / 2);
    }
    struct digest128 gone = number_key(10);
    sketch_forget(&s, &gone);
    cr_assert_eq(sketch_read(&s, out), 9);
    cr_expect_eq(out[0].key.low, 9);
    sketch_forget(&s, NULL);
    cr_assert_eq(sketch_read(&s, out), 0);
}

/* Five keys of which each makes 6 % of all, among a million that come once: five are found, and no
 * count is more than a tenth off. */
Test(sketch, who_comes_often_is_found_in_a_flood, .timeout = 60)
{
    static struct sketch s;
    struct sketch_entry out[SKETCH_ENTRIES];
    uint64_t random = 7, sent[5] = {0}, all = 0;
    for (uint64_t i = 0; i < 1000000; i++) {
        uint64_t which = random_below(&random, 100);
        uint64_t n = which < 30 ? which % 5 : 1000 + i;
        note(&s, n, false, next_random(&random), BOOT);
        if (n < 5)
            sent[n]++;
        all++;
    }
    uint32_t count = sketch_read(&s, out);
    cr_assert_eq(count, SKETCH_ENTRIES);
    for (unsigned n = 0; n < 5; n++) {
        unsigned at = 0;
        while (at < count && out[at].key.low != n)
            at++;
        cr_assert_lt(at, 5, "key %u is at %u", n, at);
        /* Never too low but for the sampling, too high by a share of the flood at most. */
        cr_expect_geq((double)out[at].count, (double)sent[n] * 0.9, "%llu of %llu",
                      (unsigned long long)out[at].count, (unsigned long long)sent[n]);
        cr_expect_leq((double)out[at].count, (double)sent[n] * 1.1 + (double)all / SKETCH_ENTRIES);
    }
}

Test(sketch, counts_fade_by_half_a_minute_and_go)
{
    static struct sketch s;
    struct sketch_entry out[SKETCH_ENTRIES];
    for (unsigned i = 0; i < 100; i++)
        note(&s, 1, true, i, BOOT);
    note(&s, 2, false, 0, BOOT + 61 * SECOND);
    cr_assert_eq(sketch_read(&s, out), 2);
    cr_expect_eq(out[0].count, 50);
    cr_expect_eq(out[0].limited, 50);
    note(&s, 3, false, 0, BOOT + 1000000 * SECOND);
    cr_assert_eq(sketch_read(&s, out), 1);
    cr_expect_eq(out[0].key.low, 3);
    cr_expect_eq(out[0].count, 1, "what comes anew inherits nothing");
}

Test(sketch, long_texts_are_cut_and_told_apart)
{
    static struct sketch s;
    struct sketch_entry out[SKETCH_ENTRIES];
    char text[200];
    memset(text, 'x', sizeof(text));
    sketch_note(&s, number_key(1), (struct ip){0, 0}, (struct view){text, 200}, false, 0, BOOT);
    text[199] = 'y';
    sketch_note(&s, number_key(2), (struct ip){0, 0}, (struct view){text, 200}, false, 0, BOOT);
    cr_assert_eq(sketch_read(&s, out), 2);
    cr_expect_neq(out[0].hash, out[1].hash);
    cr_expect_eq(out[0].len, 200);
}

static void *hammer(void *arg)
{
    struct sketch *s = arg;
    uint64_t random = (uint64_t)(uintptr_t)&random;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t n = next_random(&random);
        note(s, n % 50, n % 3 == 0, n >> 8, BOOT + i * 1000);
    }
    return NULL;
}

Test(sketch, workers_and_a_reader_at_once, .timeout = 60)
{
    static struct sketch s;
    struct sketch_entry out[SKETCH_ENTRIES];
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer, &s), 0);
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t count = sketch_read(&s, out);
        for (uint32_t k = 0; k < count; k++) {
            cr_assert_eq(out[k].key.high, ~out[k].key.low);
            cr_assert_eq(out[k].ip.low, out[k].key.low);
            cr_assert_leq(out[k].limited, out[k].count);
        }
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
}
