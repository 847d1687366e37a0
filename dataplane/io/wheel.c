#include "dataplane/io/wheel.h"

#include <string.h>

#define WHEEL_FARTHEST_MS (365ull * 86400 * 1000)

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
    w->asked_s = -1;
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&w->slots[i]);
}

static uint64_t due_tick(const struct wheel *w, const struct wheel_entry *e)
{
    return w->now + (uint64_t)(int64_t)(int32_t)(e->due - (uint32_t)w->now);
}

/* When the entry's slot comes up next. */
static uint64_t slot_tick(const struct wheel *w, const struct wheel_entry *e)
{
    uint64_t next = w->now + 1;
    return next + (e->slot - next) % WHEEL_SLOTS;
}

static void put(struct wheel *w, struct wheel_entry *e)
{
    /* What lies beyond one round waits in the last slot of the round and is looked at again there.
     */
    uint64_t tick = MIN(due_tick(w, e), w->now + WHEEL_SLOTS - 1);
    size_t slot = tick % WHEEL_SLOTS;
    list_remove(&e->link);
    list_push_back(&w->slots[slot], &e->link);
    e->slot = (uint16_t)slot;
    e->linked = true;
    w->placed = true;
    w->occupied[slot / 64] |= 1ull << (slot % 64);
}

void wheel_set(struct wheel *w, struct wheel_entry *e, double now_s, uint64_t after_ms)
{
    /* One more tick: the current one has partly gone by, and a deadline is never early. */
    uint64_t ticks = (MIN(after_ms, WHEEL_FARTHEST_MS) + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
    if (now_s != w->asked_s) {
        w->asked_s = now_s;
        w->asked_tick = tick_at(w, now_s);
    }
    uint64_t due = MAX(w->asked_tick + ticks + 1, w->now + 1);
    e->due = (uint32_t)due;
    e->set = true;
    if (!e->linked || slot_tick(w, e) > due)
        put(w, e);
}

double wheel_due_s(const struct wheel *w, const struct wheel_entry *e)
{
    return w->origin + (double)due_tick(w, e) * WHEEL_TICK_MS / 1000.0;
}

void wheel_clear(struct wheel_entry *e)
{
    list_remove(&e->link);
    e->set = e->linked = false;
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
        e->linked = false;
        if (!e->set)
            continue;
        if (due_tick(w, e) > w->now) {
            put(w, e);
            continue;
        }
        e->set = false;
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
