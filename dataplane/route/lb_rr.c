#include "dataplane/route/balancer.h"

/* One position for all workers: W workers that each went round on their own would send bursts of W
 * to the same target. It lives in the registry, so a reload does not begin at the first target
 * again. */
uint32_t lb_rr_first(const struct route *route)
{
    if (route->target_count == 1)
        return 0;
    return atomic_fetch_add_explicit(&route->state->position, 1, memory_order_relaxed) %
           route->target_count;
}
