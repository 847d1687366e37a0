/* balancer: which target of a route takes the next request. Endpoints that are unhealthy, draining
 * or full are passed over. Lock-free, any worker: what the choice depends on is in the registry
 * (target_state, route_state). Hot path. */
#pragma once

#include "dataplane/state/snapshot.h"

/* `avoid` is the target of a failed attempt: taken only when there is no other; may be NULL. NULL
 * when none may be used. The caller owes one balancer_done() for what it gets. */
const struct target *balancer_pick(const struct route *route, const struct target *avoid);

/* The request at it is over. */
static inline void balancer_done(struct target_state *s)
{
    atomic_fetch_sub_explicit(&s->active, 1, memory_order_relaxed);
}

/* What an algorithm is: the index of the target to try first; the balancer goes on from there until
 * one may be used. */
typedef uint32_t balancer_first_fn(const struct route *route);

uint32_t lb_rr_first(const struct route *route); /* lb_rr.c: each in turn, across all workers */
