#include "dataplane/route/balancer.h"

#define MOST_TURNS 16 /* forfeited in a row; then the roster is out of date */
#define PATIENCE 8    /* turns that slow starts may forfeit: nobody else may be there */

/* Deterministic, and even over the turns that a target gets. */
static bool is_held_back(const struct route *route, const struct target *t, uint64_t turn,
                         uint64_t now_ms)
{
    uint32_t ramp = roster_ramp(route, t, now_ms);
    return UNLIKELY(ramp < 1u << 16) && (uint32_t)(turn * 0x9E3779B97F4A7C15u >> 48) >= ramp;
}

const struct target *lb_rr_choose(const struct route *route, struct pick *p)
{
    const struct roster *r = route->roster;
    for (unsigned i = 0; i < MOST_TURNS; i++) {
        uint32_t units = atomic_load_explicit(&r->units, memory_order_acquire);
        if (units == 0)
            return NULL;
        uint64_t turn = balancer_turn(route, p);
        const struct target *t = &route->targets[roster_at(r, units, turn)];
        if (t == p->avoid || (i < PATIENCE && is_held_back(route, t, turn, p->now_ms)))
            continue;
        if (balancer_admit(route, t, p))
            return t;
    }
    return NULL;
}
