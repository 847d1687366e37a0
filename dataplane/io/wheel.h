/* wheel: all deadlines of a worker behind one ev_timer. A hashed wheel: setting, moving and
 * clearing a deadline are a few stores, whatever the number of connections. Deadlines are kept to
 * within one tick (WHEEL_TICK_MS), never early. One worker's. Hot path: no allocation, lock or
 * system call.
 *
 * A deadline that moves later is only noted: its entry stays in the old slot and is put right when
 * that slot comes up. That is the common case, since every request pushes its connection's deadline
 * away. */
#pragma once

#include "proto/base/list.h"

#define WHEEL_TICK_MS 16
#define WHEEL_SLOTS 1024

/* Small, since every idle connection has one. Ticks are kept in 32 bits and read as those nearest
 * to the present one, which is right for deadlines within a year. */
struct wheel_entry {
    struct list link;
    uint32_t due;  /* tick */
    uint16_t slot; /* it is linked in */
    uint8_t kind;  /* for its owner, who tells by it what the entry is embedded in */
    bool set : 1;  /* there is a deadline */
    bool linked : 1;
};

/* The deadline has passed and is cleared. May set any deadline, its own included. */
typedef void wheel_expired_fn(void *owner, struct wheel_entry *e);

struct wheel {
    uint64_t now;        /* last tick that was looked at */
    double origin;       /* loop time of tick 0 */
    double asked_s;      /* the time that was last turned into a tick, */
    uint64_t asked_tick; /* and which one it was: the same for all of a turn */
    bool placed;         /* an entry was put into a slot; for whoever looks at wheel_next_s() */
    struct list slots[WHEEL_SLOTS];
    uint64_t occupied[WHEEL_SLOTS / 64]; /* which slots may hold entries */
};

void wheel_init(struct wheel *w, double now_s);

static inline void wheel_entry_init(struct wheel_entry *e, uint8_t kind)
{
    e->kind = kind;
    list_init(&e->link);
    e->set = e->linked = false;
}

/* The entry expires `after_ms` from `now_s`, instead of whenever it would have before. */
void wheel_set(struct wheel *w, struct wheel_entry *e, double now_s, uint64_t after_ms);

/* When an entry with a deadline expires, on now_s' clock. */
double wheel_due_s(const struct wheel *w, const struct wheel_entry *e);

/* No deadline any more; the entry may be freed afterwards. */
void wheel_clear(struct wheel_entry *e);

/* Forgets the deadline but leaves the entry linked: cheaper where another one will be set soon. */
static inline void wheel_pause(struct wheel_entry *e)
{
    e->set = false;
}

/* Calls `expired` for every entry whose deadline is at or before `now_s`. */
void wheel_turn(struct wheel *w, double now_s, wheel_expired_fn *expired, void *owner);

/* Seconds from `now_s` to the next slot that may hold a deadline, or a negative number when there
 * is none. */
double wheel_next_s(const struct wheel *w, double now_s);
