#include "dataplane/route/balancer.h"

/* The other algorithms take turns too until they are built: a route never goes unserved for the
 * word it uses. */
static balancer_first_fn *const first[] = {
    [BALANCE_ROUND_ROBIN] = lb_rr_first,
    [BALANCE_LEAST_CONN] = lb_rr_first,
    [BALANCE_WEIGHTED] = lb_rr_first,
    [BALANCE_IP_HASH] = lb_rr_first,
};

/* Counts the request in, unless the target may not take it. */
static bool admit(const struct target *t)
{
    struct target_state *s = t->state;
    if (atomic_load_explicit(&s->unhealthy, memory_order_relaxed) ||
        atomic_load_explicit(&s->draining, memory_order_relaxed))
        return false;
    uint32_t before = atomic_fetch_add_explicit(&s->active, 1, memory_order_relaxed);
    if (t->max_connections == 0 || before < t->max_connections)
        return true;
    atomic_fetch_sub_explicit(&s->active, 1, memory_order_relaxed);
    return false;
}

const struct target *balancer_pick(const struct route *route, const struct target *avoid)
{
    if (route->target_count == 0)
        return NULL;
    uint32_t start = first[route->algorithm](route);
    for (uint32_t i = 0; i < route->target_count; i++) {
        const struct target *t = &route->targets[(start + i) % route->target_count];
        if (t != avoid && admit(t))
            return t;
    }
    return avoid && admit(avoid) ? avoid : NULL;
}
