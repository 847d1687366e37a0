#include "dataplane/targets.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane/route/roster.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

static void *checked(void *memory)
{
    if (!memory)
        log_fatal("targets", "out of memory");
    return memory;
}

/* ---- telling ---- */

static uint64_t wall_ms(uint64_t at_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + at_ms - clock_ms();
}

static void forget(Gwp__BreakerTransition *m)
{
    gwp__breaker_transition__free_unpacked(m, NULL);
}

static void keep(struct targets *ts, const struct route *r, const struct target *t,
                 const struct breaker_transition *change)
{
    Gwp__BreakerTransition *m = checked(malloc(sizeof(*m)));
    gwp__breaker_transition__init(m);
    m->target_id = t->state->id;
    m->route = checked(strdup(r->name.at));
    m->endpoint = checked(strdup(t->endpoint->text));
    m->place = checked(malloc(sizeof(*m->place)));
    gwp__place__init(m->place);
    m->place->line = r->breaker ? r->breaker->line : r->line;
    m->from = change->from;
    m->to = change->to;
    m->at_ms = wall_ms(change->at_ms);
    m->cause = checked(strdup(change->cause));
    if (ts->untold_count == TARGETS_UNTOLD_MAX) {
        forget(ts->untold[0]);
        memmove(&ts->untold[0], &ts->untold[1], sizeof(ts->untold) - sizeof(ts->untold[0]));
        ts->untold_count--;
    }
    ts->untold[ts->untold_count++] = m;
}

static void log_change(const struct snapshot *s, const struct route *r, const struct target *t,
                       const struct breaker_transition *change)
{
    const char *from = breaker_state_word(change->from), *to = breaker_state_word(change->to);
    uint32_t line = r->breaker ? r->breaker->line : r->line;
    log_about(change->to == BREAKER_OPEN ? LOG_WARN : LOG_INFO, "breaker",
              LOG_FIELDS(about_route(r->name.at), about_endpoint(t->endpoint->text),
                         about_from(from), about_to(to), about_cause(change->cause),
                         about_source(s->source.at), about_line(line)),
              "%s/%s %s -> %s: %s, %s:%u", r->name.at, t->endpoint->text, from, to, change->cause,
              s->source.at, line);
}

/* All that has happened to a breaker since the last look, in order. What a worker is just noting
 * down waits for its poke. */
static void tell_changes(struct targets *ts, const struct snapshot *s, const struct route *r,
                         const struct target *t)
{
    struct target_state *state = t->state;
    struct breaker_view view;
    struct breaker_transition change;
    if (!state->breaker)
        return;
    breaker_look(state->breaker, &view);
    uint32_t behind = breaker_epochs_between(state->told_epoch, view.epoch);
    if (behind > BREAKER_HISTORY) {
        log_about(LOG_WARN, "breaker",
                  LOG_FIELDS(about_route(r->name.at), about_endpoint(t->endpoint->text)),
                  "%s/%s has changed its state %u times more than can be told", r->name.at,
                  t->endpoint->text, behind - BREAKER_HISTORY);
        state->told_epoch = view.epoch - BREAKER_HISTORY;
    }
    while (state->told_epoch != view.epoch) {
        uint32_t next = breaker_epoch_after(state->told_epoch);
        if (!breaker_recall(state->breaker, next, &change))
            return;
        state->told_epoch = next;
        log_change(s, r, t, &change);
        keep(ts, r, t, &change);
    }
}

void targets_told(struct targets *ts)
{
    for (size_t i = 0; i < ts->untold_count; i++)
        forget(ts->untold[i]);
    ts->untold_count = 0;
}

/* ---- looking ---- */

/* Routes of every snapshot that requests may still live under. */
#define each_route(s, r, ts)                                                                       \
    for (struct snapshot *s = (ts)->rollout->alive; s; s = s->next)                                \
        for (struct route *r = s->routes; r < s->routes + s->route_count; pace_yield(), r++)

static void set_timer(struct targets *ts, uint64_t now_ms)
{
    uint64_t due_ms = 0;
    each_route(s, r, ts)
    {
        uint64_t at_ms = r->roster->due_ms;
        if (at_ms > 0)
            due_ms = due_ms ? MIN(due_ms, at_ms) : at_ms;
    }
    ev_timer_stop(ts->rollout->loop, &ts->due);
    if (due_ms == 0)
        return;
    ev_timer_set(&ts->due, due_ms > now_ms ? (double)(due_ms - now_ms) / 1000 : 0, 0);
    ev_now_update(ts->rollout->loop);
    ev_timer_start(ts->rollout->loop, &ts->due);
}

/* A route's mark is taken back before its breakers are looked at: who marks it afterwards is seen
 * the next time. */
void targets_look(struct targets *ts)
{
    uint64_t now_ms = clock_ms();
    size_t untold = ts->untold_count;
    bool any = false;
    each_route(s, r, ts)
    {
        if (!atomic_load_explicit(&r->state->stirred, memory_order_relaxed))
            continue;
        atomic_exchange_explicit(&r->state->stirred, false, memory_order_acquire);
        r->state->is_called = any = true;
    }
    if (!any)
        return;
    each_route(s, r, ts)
    {
        if (!r->state->is_called)
            continue;
        for (uint32_t i = 0; i < r->target_count; i++)
            tell_changes(ts, s, r, &r->targets[i]);
        roster_call(r, now_ms);
    }
    each_route(s, r, ts)
    {
        r->state->is_called = false;
    }
    set_timer(ts, now_ms);
    if (ts->untold_count != untold)
        ts->moved(ts->owner);
}

void targets_entered(struct targets *ts)
{
    set_timer(ts, clock_ms());
}

static void stir(struct route_state *r)
{
    if (r)
        atomic_store_explicit(&r->stirred, true, memory_order_relaxed);
}

static void on_due(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct targets *ts = timer->data;
    uint64_t now_ms = clock_ms();
    each_route(s, r, ts)
    {
        if (r->roster->due_ms > 0 && r->roster->due_ms <= now_ms)
            stir(r->state);
    }
    targets_look(ts);
    set_timer(ts, now_ms);
}

/* ---- what the control plane says ---- */

static void take_entry(struct targets *ts, const Gwp__EndpointState__Entry *e, uint64_t now_ms)
{
    struct target_state *t = registry_find_target(ts->rollout->registry, e->target_id);
    pace_yield();
    if (!t)
        return; /* of another generation; the control plane says it again with that */
    t->told = ts->round;
    if (e->checked) /* else nobody knows yet: it stays what it is */
        registry_set_health(t, e->unhealthy, now_ms);
    atomic_store_explicit(&t->draining, e->draining, memory_order_relaxed);
    atomic_store_explicit(&t->weight_override, e->weight_override, memory_order_relaxed);
    if (e->reset_breaker && t->breaker && t->route)
        breaker_reset(t->breaker, t->route->breakers_open, now_ms);
    stir(t->route);
}

void targets_take(struct targets *ts, const Gwp__EndpointState *m)
{
    uint64_t now_ms = clock_ms();
    if (++ts->round == 0)
        ts->round = 1; /* 0 stands for never */
    for (size_t i = 0; i < m->n_entries; i++)
        take_entry(ts, m->entries[i], now_ms);
    if (m->complete) {
        registry_forget_untold(ts->rollout->registry, ts->round, now_ms);
        each_route(s, r, ts) stir(r->state);
    }
    targets_look(ts);
}

void targets_take_early(struct targets *ts, const uint8_t *packed, size_t len)
{
    if (ts->early)
        gwp__endpoint_state__free_unpacked(ts->early, NULL);
    ts->early = gwp__endpoint_state__unpack(NULL, len, packed);
}

void targets_entering(struct targets *ts)
{
    if (!ts->early)
        return;
    targets_take(ts, ts->early);
    gwp__endpoint_state__free_unpacked(ts->early, NULL);
    ts->early = NULL;
}

void targets_look_at_all(struct targets *ts)
{
    each_route(s, r, ts) stir(r->state);
    targets_look(ts);
}

/* ---- life ---- */

void targets_init(struct targets *ts, struct rollout *rollout, void (*moved)(void *owner),
                  void *owner)
{
    memset(ts, 0, sizeof(*ts));
    ts->rollout = rollout;
    ts->moved = moved;
    ts->owner = owner;
    ev_timer_init(&ts->due, on_due, 0, 0);
    ts->due.data = ts;
}

void targets_fini(struct targets *ts)
{
    ev_timer_stop(ts->rollout->loop, &ts->due);
    targets_told(ts);
    if (ts->early)
        gwp__endpoint_state__free_unpacked(ts->early, NULL);
}
