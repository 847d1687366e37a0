#include "dataplane/io/wheel.h"

#include <string.h>

static uint64_t tick_at(const struct wheel *w, double now_s)
{
    double ms = (now_s - w->origin) * 1000;
    /* A clock that was set back must not produce a huge unsigned number. */
    return ms < WHEEL_TICK_MS ? 1 : (uint64_t)(ms / WHEEL_TICK_MS);
}

void wheel_init(struct wheel *w, double now_s)
{
    memset(w, 0, sizeof(*w));
    w->origin = now_s - WHEEL_TICK_MS / 1000.0; /* so that no live tick is 0 */
    w->now = 1;
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&w->slots[i]);
}

static void put(struct wheel *w, struct wheel_entry *e)
{
    /* What lies beyond one round waits in the last slot of the round and is looked at again there.
     */
    uint64_t tick = MIN(e->due, w->now + WHEEL_SLOTS - 1);
    size_t slot = tick % WHEEL_SLOTS;
    list_remove(&e->link);
    list_push_back(&w->slots[slot], &e->link);
    e->slot_tick = tick;
    w->occupied[slot / 64] |= 1ull << (slot % 64);
}

void wheel_set(struct wheel *w, struct wheel_entry *e, double now_s, uint64_t after_ms)
{
    /* One more tick: the current one has partly gone by, and a deadline is never early. */
    uint64_t due = tick_at(w, now_s) + (after_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS + 1;
    e->due = MAX(due, w->now + 1);
    if (e->slot_tick == 0 || e->slot_tick > e->due)
        put(w, e);
}

void wheel_clear(struct wheel_entry *e)
{
    list_remove(&e->link);
    e->due = e->slot_tick = 0;
}

static void turn_slot(struct wheel *w, size_t slot, wheel_expired_fn *expired, void *owner)
{
    struct list due;
    if (!(w->occupied[slot / 64] & 1ull << (slot % 64)))
        return;
    w->occupied[slot / 64] &= ~(1ull << (slot % 64));
    /* Taken off first: callbacks may set deadlines, also into this very slot, one round later. */
    list_init(&due);
    while (!list_is_empty(&w->slots[slot])) {
        struct list *node = w->slots[slot].next;
        list_remove(node);
        list_push_back(&due, node);
    }
    while (!list_is_empty(&due)) {
        struct wheel_entry *e = CONTAINER_OF(due.next, struct wheel_entry, link);
        list_remove(&e->link);
        e->slot_tick = 0;
        if (e->due == 0)
            continue;
        if (e->due > w->now) {
            put(w, e);
            continue;
        }
        e->due = 0;
        expired(owner, e);
    }
}

void wheel_turn(struct wheel *w, double now_s, wheel_expired_fn *expired, void *owner)
{
    uint64_t until = tick_at(w, now_s);
    if (until > w->now + WHEEL_SLOTS) {
        /* A long sleep: every slot once is enough, with `now` already at its end. */
        w->now = until;
        for (size_t slot = 0; slot < WHEEL_SLOTS; slot++)
            turn_slot(w, slot, expired, owner);
        return;
    }
    while (w->now < until) {
        w->now++;
        turn_slot(w, w->now % WHEEL_SLOTS, expired, owner);
    }
}

double wheel_next_s(const struct wheel *w, double now_s)
{
    for (uint64_t ahead = 1; ahead <= WHEEL_SLOTS;) {
        size_t slot = (w->now + ahead) % WHEEL_SLOTS;
        uint64_t word = w->occupied[slot / 64] >> (slot % 64);
        if (word == 0) {
            ahead += 64 - slot % 64;
            continue;
        }
        ahead += (uint64_t)__builtin_ctzll(word);
        double at = w->origin + (double)(w->now + ahead) * WHEEL_TICK_MS / 1000.0;
        return MAX(at - now_s, 0.0);
    }
    return -1;
}
