/* roster: which targets of a route take part in balancing now, and with what weight: laid out so
 * that a turn's number finds its target in O(1). Part of a snapshot's route. The control thread
 * calls it anew when health, drains, weights or breakers change; any worker reads it meanwhile.
 *
 * A roster may be a moment old, and what a reader sees while it is being called may be partly the
 * one before: it is a suggestion, always of an existing target, and whoever follows it asks the
 * target itself (balancer_admit()).
 *
 * Turns: each target has as many of `units` as its weight, one interval of them. Turn t goes to
 * unit t * stride mod units. The stride has no common divisor with the units, so each unit has its
 * turn once in a round: shares are exact, whichever worker takes a turn. It is as near to the
 * golden section of the units as can be, so the turns of any interval are spread evenly over the
 * round: no bursts to the heavy one. With equal weights the stride is 1: each in turn. */
#pragma once

#include "dataplane/state/snapshot.h"

struct least_tree; /* lb_least.c */
struct hash_memo;  /* lb_iphash.c */

struct roster {
    _Atomic uint32_t units; /* 0 = nobody */
    _Atomic uint32_t stride;
    _Atomic uint32_t count;          /* of those on it */
    _Atomic uint32_t lightest;       /* weight of any of them */
    _Atomic bool panic;              /* too few are healthy: health is not asked for */
    _Atomic uint64_t slow_until_ms;  /* until then somebody starts slowly */
    _Atomic uint64_t first_since_ms; /* since when the one that is farthest is fresh */
    _Atomic uint32_t *who;           /* index of target; `count` are in use */
    _Atomic uint32_t *ends;          /* after which unit its interval ends */
    _Atomic uint32_t *guide; /* first candidate for each of guide_size equal parts of the units */
    uint32_t guide_size;     /* a power of two, at least the route's targets */
    uint64_t due_ms;         /* control thread: when the next open breaker wants probes; 0 = none */
    struct least_tree *least; /* only for least_conn */
    struct hash_memo *memo;   /* only for ip_hash; owned, may be NULL */
};

/* Control thread. roster_new() is empty. */
struct roster *roster_new(const struct route *route, struct arena *arena);
void roster_free(struct roster **r); /* what is not in the arena */
void roster_call(const struct route *route, uint64_t now_ms);

/* Whose turn is that? units > 0, as read from the roster. */
uint32_t roster_at(const struct roster *r, uint32_t units, uint64_t turn);

/* What balancing takes for a target's weight: the configured one, or the operator's. */
static inline uint32_t roster_weight(const struct target *t)
{
    uint32_t override = atomic_load_explicit(&t->state->weight_override, memory_order_relaxed);
    return override ? override : t->weight;
}

/* The part of its share that a target gets by now, of 1 << 16: how far it is on its way, against
 * who is farthest. When all begin at once nobody needs to be spared. */
static inline uint32_t roster_ramp(const struct route *route, const struct target *t,
                                   uint64_t now_ms)
{
    const struct roster *r = route->roster;
    if (LIKELY(now_ms >= atomic_load_explicit(&r->slow_until_ms, memory_order_relaxed)))
        return 1u << 16;
    uint64_t since_ms = atomic_load_explicit(&t->state->fresh_since_ms, memory_order_relaxed);
    uint64_t first_ms = atomic_load_explicit(&r->first_since_ms, memory_order_relaxed);
    uint64_t way_ms = MIN(now_ms - MIN(first_ms, now_ms), route->slow_start_ms);
    uint64_t done_ms = now_ms - MIN(since_ms, now_ms);
    return done_ms >= way_ms ? 1u << 16 : (uint32_t)((done_ms << 16) / way_ms);
}
