#include "dataplane/route/balancer.h"

static balancer_choose_fn *const choose[] = {
    [BALANCE_ROUND_ROBIN] = lb_rr_choose,
    [BALANCE_LEAST_CONN] = lb_least_choose,
    [BALANCE_WEIGHTED] = lb_rr_choose,
    [BALANCE_IP_HASH] = lb_iphash_choose,
};

static bool is_in_service(const struct route *route, const struct target_state *s)
{
    if (atomic_load_explicit(&s->draining, memory_order_relaxed))
        return false;
    return LIKELY(!atomic_load_explicit(&s->unhealthy, memory_order_relaxed)) ||
           atomic_load_explicit(&route->roster->panic, memory_order_relaxed);
}

bool balancer_would_admit(const struct route *route, const struct target *t, uint64_t now_ms)
{
    struct breaker *b = t->state->breaker;
    return is_in_service(route, t->state) &&
           (!route->breaker || !b || breaker_would_allow(b, route->breaker, now_ms));
}

/* The breaker is asked first, since most who are turned away are turned away by it; a permit that
 * then cannot be used goes back at once. */
bool balancer_admit(const struct route *route, const struct target *t, struct pick *p)
{
    struct target_state *s = t->state;
    PREFETCH(t->host.at); /* to be written into the head */
    if (UNLIKELY(p->is_foreseen))
        return balancer_would_admit(route, t, p->now_ms) &&
               (t->max_connections == 0 ||
                atomic_load_explicit(&s->active, memory_order_relaxed) < t->max_connections);
    if (!is_in_service(route, s))
        return false;
    p->permit = 0;
    if (route->breaker && s->breaker &&
        !breaker_allow(s->breaker, route->breaker, s->route->breakers_open, p->now_ms, &p->permit))
        return false;
    p->moved = p->moved || (p->permit & BREAKER_MOVED);
    /* In step with the keys of lb_least.c. */
    uint32_t before = atomic_fetch_add_explicit(&s->active, 1, memory_order_seq_cst);
    if (LIKELY(t->max_connections == 0 || before < t->max_connections))
        return true;
    atomic_fetch_sub_explicit(&s->active, 1, memory_order_seq_cst);
    if (p->permit)
        breaker_report(s->breaker, route->breaker, s->route->breakers_open, p->permit, VERDICT_NONE,
                       R_SERVED, 0, p->now_ms);
    return false;
}

/* How long until one of those that only their breakers keep out asks for probes. */
static void find_retry(const struct route *route, struct pick *p)
{
    p->retry_ms = 0;
    for (uint32_t i = 0; route->breaker && i < route->target_count; i++) {
        const struct target_state *s = route->targets[i].state;
        struct breaker_view view;
        if (!s->breaker || !is_in_service(route, s))
            continue;
        breaker_look(s->breaker, &view);
        if (view.state == BREAKER_CLOSED)
            continue; /* full, that is */
        uint64_t ms = view.until_ms > p->now_ms ? view.until_ms - p->now_ms : 1;
        p->retry_ms = p->retry_ms ? MIN(p->retry_ms, ms) : ms;
    }
}

static const struct target *look_at_all(const struct route *route, struct pick *p)
{
    uint64_t start = balancer_turn(route, p);
    for (uint32_t i = 0; i < route->target_count; i++) {
        const struct target *t = &route->targets[(start + i) % route->target_count];
        if (t != p->avoid && balancer_admit(route, t, p))
            return t;
    }
    return p->avoid && balancer_admit(route, p->avoid, p) ? p->avoid : NULL;
}

const struct target *balancer_pick(const struct route *route, struct pick *p)
{
    const struct target *t = NULL;
    p->permit = 0;
    p->moved = false;
    if (route->target_count == 1) /* there is nothing to choose, and no roster to read */
        t = balancer_admit(route, route->targets, p) ? route->targets : NULL;
    else if (route->target_count > 0)
        t = choose[route->algorithm](route, p);
    if (UNLIKELY(!t) && route->target_count > 0) {
        t = look_at_all(route, p);
        if (!t)
            find_retry(route, p);
    }
    if (t && route->algorithm == BALANCE_LEAST_CONN)
        lb_least_refresh(route, (uint32_t)(t - route->targets), p->now_ms);
    return t;
}

const struct target *balancer_foresee(const struct route *route, struct pick *p)
{
    p->is_foreseen = true;
    p->turns = 0;
    return balancer_pick(route, p);
}

void balancer_done(const struct route *route, const struct target *target, struct target_state *s,
                   uint64_t now_ms)
{
    atomic_fetch_sub_explicit(&s->active, 1, memory_order_seq_cst);
    if (route && target && route->algorithm == BALANCE_LEAST_CONN)
        lb_least_refresh(route, (uint32_t)(target - route->targets), now_ms);
}
