/* balancer: which target of a route takes the next request. Lock-free, any worker: what the choice
 * depends on is in the registry (target_state, route_state), in the target's breaker and in the
 * route's roster. Targets that are unhealthy, draining, full or tripped are passed over. Hot path.
 *
 * Each algorithm chooses by its own lights among those that may be used; when what it knows is out
 * of date and nothing comes of it, the balancer looks at each target once. */
#pragma once

#include "dataplane/route/roster.h"

/* One choice. */
struct pick {
    uint64_t now_ms;       /* CLOCK_MONOTONIC */
    const uint8_t *client; /* the client's address, for ip_hash; borrowed */
    uint32_t client_len;   /* 4, 16, or 0 when there is none */
    const struct target
        *avoid;       /* of a failed attempt: taken only when there is no other; or NULL */
    bool is_foreseen; /* only asked: nobody is counted, no turn is taken, no permit given */
    uint32_t turns;   /* that were foreseen so far */
    /* Answers. */
    breaker_permit permit; /* of the target's breaker; the caller owes its report */
    bool moved;            /* a breaker has changed its state, or the roster is to be called anew */
    uint64_t retry_ms;     /* when nobody could be had and breakers are why: how long until one asks
                              for probes, at least 1; else 0 */
};

/* NULL when none may be used. The caller owes one balancer_done() for what it gets. */
const struct target *balancer_pick(const struct route *route, struct pick *p);

/* Whom balancer_pick() would choose now, were it asked the same: as good as the moment. Any thread;
 * nothing changes by it, but that what was out of date may be set right. */
const struct target *balancer_foresee(const struct route *route, struct pick *p);

/* The request at it is over. `route` and `target` are NULL for one that has outlived its snapshot.
 */
void balancer_done(const struct route *route, const struct target *target, struct target_state *s,
                   uint64_t now_ms);

/* ---- for the algorithms ---- */

/* Counts the request in and takes the breaker's permit, unless the target may not be used. */
bool balancer_admit(const struct route *route, const struct target *t, struct pick *p);

/* The same question without the consequences, and without looking at how full it is. */
bool balancer_would_admit(const struct route *route, const struct target *t, uint64_t now_ms);

/* The number of the next turn, which is taken unless it is only foreseen. */
static inline uint64_t balancer_turn(const struct route *route, struct pick *p)
{
    if (UNLIKELY(p->is_foreseen))
        return atomic_load_explicit(&route->state->position, memory_order_relaxed) + p->turns++;
    return atomic_fetch_add_explicit(&route->state->position, 1, memory_order_relaxed);
}

/* An algorithm: an admitted target, or NULL when it found none, which does not mean that there is
 * none. */
typedef const struct target *balancer_choose_fn(const struct route *route, struct pick *p);

/* Each in turn, across all workers: one position for all of them, since W workers that each went
 * round on their own would send bursts of W to the same target. It lives in the registry, so a
 * reload does not begin at the first target again. A turn of somebody who may not be used is
 * forfeited, so that nobody gets more than the others for standing behind him. A retry takes a turn
 * like any attempt: what is shared alike is what backends have to do, and a retry that went beside
 * the turns would fall to whoever stands behind the one that fails. */
balancer_choose_fn lb_rr_choose; /* lb_rr.c; lb_weighted.c differs in the roster's shares only */

/* The one with the fewest requests under way for its weight; among equals each in turn, as often as
 * its weight says. Refreshing all of them begins the turns anew. */
balancer_choose_fn lb_least_choose; /* lb_least.c */
struct least_tree *lb_least_new(uint32_t targets, struct arena *arena);
void lb_least_refresh(const struct route *route, uint32_t i, uint64_t now_ms);
void lb_least_refresh_all(const struct route *route, uint64_t now_ms);

/* The same client to the same target: of all that may be used the one with the highest score for
 * this client (weighted rendezvous), so that one who goes takes only his own clients along. */
balancer_choose_fn lb_iphash_choose;               /* lb_iphash.c */
struct hash_memo *lb_iphash_new(uint32_t targets); /* NULL when there is no use for one */
void lb_iphash_free(struct hash_memo **m);
void lb_iphash_refresh(const struct route *route); /* what was remembered may be wrong now */
