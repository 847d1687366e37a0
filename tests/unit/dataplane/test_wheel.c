#include <criterion/criterion.h>
#include <stdlib.h>

#include "dataplane/io/wheel.h"

struct item {
    struct wheel_entry entry;
    double due_s, fired_s;
    int fired;
};

static double now_s;

static void on_expired(void *owner, struct wheel_entry *e)
{
    struct item *item = CONTAINER_OF(e, struct item, entry);
    item->fired++;
    item->fired_s = now_s;
}

static void start(struct wheel *w)
{
    now_s = 1000;
    wheel_init(w, now_s);
}

static void run_until(struct wheel *w, double until_s)
{
    for (; now_s < until_s; now_s += 0.005)
        wheel_turn(w, now_s, on_expired, NULL);
}

Test(wheel, deadlines_are_never_early_and_at_most_two_ticks_late)
{
    static struct item items[2000];
    struct wheel w;
    start(&w);
    srand(7);
    for (size_t i = 0; i < COUNT_OF(items); i++) {
        uint64_t after_ms = (uint64_t)(rand() % 60000);
        wheel_entry_init(&items[i].entry, 0);
        wheel_set(&w, &items[i].entry, now_s, after_ms);
        items[i].due_s = now_s + (double)after_ms / 1000;
    }
    run_until(&w, 1061);
    for (size_t i = 0; i < COUNT_OF(items); i++) {
        cr_assert_eq(items[i].fired, 1);
        double late_s = items[i].fired_s - items[i].due_s;
        cr_assert(late_s >= -1e-6 && late_s < 2 * WHEEL_TICK_MS / 1000.0 + 0.006, "item %zu: %f", i,
                  late_s);
    }
}

Test(wheel, a_deadline_moves_both_ways)
{
    struct wheel w;
    struct item later = {0}, sooner = {0};
    start(&w);
    wheel_entry_init(&later.entry, 0);
    wheel_entry_init(&sooner.entry, 0);
    wheel_set(&w, &later.entry, now_s, 100);
    wheel_set(&w, &later.entry, now_s, 500);
    wheel_set(&w, &sooner.entry, now_s, 500);
    wheel_set(&w, &sooner.entry, now_s, 100);
    run_until(&w, 1000.3);
    cr_assert_eq(later.fired, 0);
    cr_assert_eq(sooner.fired, 1);
    run_until(&w, 1001);
    cr_assert_eq(later.fired, 1);
    cr_assert_eq(sooner.fired, 1);
}

Test(wheel, cleared_and_paused_deadlines_do_not_fire)
{
    struct wheel w;
    struct item cleared = {0}, paused = {0};
    start(&w);
    wheel_entry_init(&cleared.entry, 0);
    wheel_entry_init(&paused.entry, 0);
    wheel_set(&w, &cleared.entry, now_s, 50);
    wheel_set(&w, &paused.entry, now_s, 50);
    wheel_clear(&cleared.entry);
    wheel_pause(&paused.entry);
    run_until(&w, 1001);
    cr_assert_eq(cleared.fired + paused.fired, 0);
    wheel_set(&w, &paused.entry, now_s, 50);
    run_until(&w, 1002);
    cr_assert_eq(paused.fired, 1);
}

Test(wheel, a_long_sleep_fires_what_is_due_and_nothing_else)
{
    struct wheel w;
    struct item due = {0}, far = {0};
    start(&w);
    wheel_entry_init(&due.entry, 0);
    wheel_entry_init(&far.entry, 0);
    wheel_set(&w, &due.entry, now_s, 30000);
    wheel_set(&w, &far.entry, now_s, 300000);
    now_s += 100;
    wheel_turn(&w, now_s, on_expired, NULL);
    cr_assert_eq(due.fired, 1);
    cr_assert_eq(far.fired, 0);
    run_until(&w, 1310);
    cr_assert_eq(far.fired, 1);
}

Test(wheel, next_names_the_slot_to_wake_for)
{
    struct wheel w;
    struct item item = {0};
    start(&w);
    cr_assert_lt(wheel_next_s(&w, now_s), 0);
    wheel_entry_init(&item.entry, 0);
    wheel_set(&w, &item.entry, now_s, 1000);
    double in_s = wheel_next_s(&w, now_s);
    cr_assert(in_s >= 1.0 && in_s < 1.0 + 3 * WHEEL_TICK_MS / 1000.0, "%f", in_s);
}

Test(wheel, deadlines_hold_where_the_tick_no_longer_fits_32_bits)
{
    static struct item items[100];
    struct wheel w;
    start(&w);
    w.now = (1ull << 32) - 40;
    w.origin = now_s - (double)w.now * WHEEL_TICK_MS / 1000.0;
    for (size_t i = 0; i < COUNT_OF(items); i++) {
        uint64_t after_ms = i * 300;
        wheel_entry_init(&items[i].entry, 0);
        wheel_set(&w, &items[i].entry, now_s, 40000); /* and then sooner */
        wheel_set(&w, &items[i].entry, now_s, after_ms);
        items[i].due_s = now_s + (double)after_ms / 1000;
    }
    run_until(&w, 1060);
    for (size_t i = 0; i < COUNT_OF(items); i++) {
        double late_s = items[i].fired_s - items[i].due_s;
        cr_assert_eq(items[i].fired, 1);
        cr_assert(late_s >= -1e-6 && late_s < 2 * WHEEL_TICK_MS / 1000.0 + 0.006, "item %zu: %f", i,
                  late_s);
    }
}

Test(wheel, a_deadline_of_a_thousand_years_does_not_come_today)
{
    struct wheel w;
    struct item item = {0};
    start(&w);
    wheel_entry_init(&item.entry, 0);
    wheel_set(&w, &item.entry, now_s, 1000ull * 365 * 86400 * 1000);
    run_until(&w, 1100);
    cr_assert_eq(item.fired, 0);
    wheel_set(&w, &item.entry, now_s, 100);
    run_until(&w, 1101);
    cr_assert_eq(item.fired, 1);
}
