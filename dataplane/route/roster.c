#include "dataplane/route/roster.h"

#include "dataplane/route/balancer.h"

#define SET(where, value) atomic_store_explicit(&(where), (value), memory_order_relaxed)
#define GET(where) atomic_load_explicit(&(where), memory_order_relaxed)

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

struct roster *roster_new(const struct route *route, struct arena *arena)
{
    struct roster *r = arena_array(arena, 1, sizeof(*r));
    uint32_t n = route->target_count;
    r->guide_size = 1;
    while (r->guide_size < n)
        r->guide_size *= 2;
    r->who = arena_array(arena, (size_t)n * 2 + r->guide_size, sizeof(*r->who));
    r->ends = r->who + n;
    r->guide = r->ends + n;
    if (route->algorithm == BALANCE_LEAST_CONN)
        r->least = lb_least_new(n, arena);
    if (route->algorithm == BALANCE_IP_HASH)
        r->memo = lb_iphash_new(n);
    return r;
}

void roster_free(struct roster **r)
{
    if (*r)
        lb_iphash_free(&(*r)->memo);
    *r = NULL;
}

/* ---- calling ---- */

static bool is_in_panic(const struct route *route)
{
    uint64_t healthy = 0;
    if (route->panic_threshold_percent == 0)
        return false;
    for (uint32_t i = 0; i < route->target_count; i++)
        healthy += !GET(route->targets[i].state->unhealthy);
    return healthy * 100 < (uint64_t)route->panic_threshold_percent * route->target_count;
}

/* Notes when it will be asked again if its breaker is what keeps it out. */
static bool takes_part(const struct route *route, const struct target *t, uint64_t now_ms)
{
    struct roster *r = route->roster;
    const struct target_state *s = t->state;
    struct breaker_view view;
    if (GET(s->draining) || (GET(s->unhealthy) && !GET(r->panic)))
        return false;
    if (!route->breaker || !s->breaker)
        return true;
    breaker_look(s->breaker, &view);
    if (view.until_ms <= now_ms)
        return true;
    r->due_ms = r->due_ms ? MIN(r->due_ms, view.until_ms) : view.until_ms;
    return false;
}

static uint32_t share_of(const struct route *route, const struct target *t)
{
    return route->algorithm == BALANCE_WEIGHTED ? roster_weight(t) : 1;
}

/* The golden section of the units, moved to the next number without a common divisor. */
static uint32_t stride_for(uint32_t units, uint32_t count)
{
    if (units == count)
        return 1;
    uint32_t stride = (uint32_t)((double)units * 0.6180339887498949 + 0.5);
    for (uint32_t i = 0; i < units; i++) {
        if (stride + i < units && gcd(stride + i, units) == 1)
            return stride + i;
        if (stride > i && gcd(stride - i, units) == 1)
            return stride - i;
    }
    return 1;
}

static void lay_out(const struct route *route, uint32_t count, uint32_t divisor)
{
    struct roster *r = route->roster;
    uint32_t units = 0, part = 0;
    for (uint32_t i = 0; i < count; i++) {
        units += share_of(route, &route->targets[GET(r->who[i])]) / divisor;
        SET(r->ends[i], units);
    }
    for (uint32_t i = 0; i < count; i++)
        while (part < r->guide_size && (uint64_t)part * units / r->guide_size < GET(r->ends[i]))
            SET(r->guide[part++], i);
    SET(r->count, count);
    SET(r->stride, units > 0 ? stride_for(units, count) : 1);
    atomic_store_explicit(&r->units, units, memory_order_release);
}

static void note_slow_starts(const struct route *route, uint32_t count)
{
    uint64_t first_ms = UINT64_MAX, last_ms = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct target *t = &route->targets[GET(route->roster->who[i])];
        uint64_t since_ms = GET(t->state->fresh_since_ms);
        first_ms = MIN(first_ms, since_ms);
        last_ms = MAX(last_ms, since_ms);
    }
    SET(route->roster->first_since_ms, first_ms);
    SET(route->roster->slow_until_ms, last_ms > 0 ? last_ms + route->slow_start_ms : 0);
}

void roster_call(const struct route *route, uint64_t now_ms)
{
    struct roster *r = route->roster;
    uint32_t count = 0, divisor = 0, lightest = UINT32_MAX;
    SET(r->panic, is_in_panic(route));
    r->due_ms = 0;
    for (uint32_t i = 0; i < route->target_count; i++) {
        if (!takes_part(route, &route->targets[i], now_ms))
            continue;
        divisor = gcd(share_of(route, &route->targets[i]), divisor);
        lightest = MIN(lightest, roster_weight(&route->targets[i]));
        SET(r->who[count++], i);
    }
    SET(r->lightest, count > 0 ? lightest : 1);
    if (route->slow_start_ms > 0)
        note_slow_starts(route, count);
    lay_out(route, count, MAX(divisor, 1));
    if (r->least)
        lb_least_refresh_all(route, now_ms);
    if (r->memo)
        lb_iphash_refresh(route);
}

/* ---- turns ---- */

/* All indices stay in bounds whatever mixture of two rosters is read here. */
uint32_t roster_at(const struct roster *r, uint32_t units, uint64_t turn)
{
    uint32_t count = MAX(GET(r->count), 1);
    if (units == count)
        return GET(r->who[turn % units]);
    uint32_t unit = (uint32_t)(turn % units * GET(r->stride) % units);
    uint32_t part = (uint32_t)((uint64_t)unit * r->guide_size / units);
    uint32_t low = GET(r->guide[part]);
    uint32_t high = part + 1 < r->guide_size ? GET(r->guide[part + 1]) : count - 1;
    while (low < high) { /* the first whose interval ends behind the unit */
        uint32_t middle = low + (high - low) / 2;
        if (GET(r->ends[middle]) <= unit)
            low = middle + 1;
        else
            high = middle;
    }
    return GET(r->who[low]);
}
