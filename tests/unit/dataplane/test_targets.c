#include <criterion/criterion.h>

#include "dataplane/route/balancer.h"
#include "dataplane/targets.h"
#include "messages.h"
#include "proto/base/clock.h"

/* The control thread's view without workers: the snapshot is in force as far as anybody asks. */
static struct ev_loop *loop;
static struct rollout rollout;
static struct targets targets;
static struct draft draft;
static Gwp__CircuitBreaker breaker;
static unsigned moved;

static void on_result(void *owner, const struct rollout_result *r)
{
}

static void on_moved(void *owner)
{
    moved++;
}

static void setup(void)
{
    loop = ev_loop_new(EVFLAG_AUTO);
    rollout_init(&rollout, loop, NULL, 1, on_result, NULL);
    targets_init(&targets, &rollout, on_moved, NULL);
    draft = draft_new(1);
    gwp__circuit_breaker__init(&breaker);
    breaker.failure_threshold_percent = 50;
    breaker.min_requests = 2;
    breaker.window_ms = 10000;
    breaker.open_duration_ms = 100;
    breaker.max_open_percent = 100;
    breaker.half_open_requests = 1;
    Gwp__Route *r = draft_route(&draft, "users", "", "/");
    r->circuit_breaker = &breaker;
    draft_target(&draft, r, 1, draft_endpoint(&draft, "10.0.0.1:80"));
    draft_target(&draft, r, 2, draft_endpoint(&draft, "10.0.0.2:80"));
}

static void teardown(void)
{
    targets_fini(&targets);
    rollout_fini(&rollout);
    ev_loop_destroy(loop);
    arena_free(&draft.arena);
}

TestSuite(targets, .init = setup, .fini = teardown);

static const struct route *enter(void)
{
    struct err err;
    struct snapshot *s = snapshot_compile(draft.message, rollout.registry, &err);
    cr_assert(s, "%s", err.text);
    snapshot_enter(s, clock_ms());
    s->next = rollout.alive;
    rollout.alive = s;
    targets_entered(&targets);
    return &s->routes[0];
}

/* One attempt at a target, as a worker makes it. */
static void attempt(const struct route *r, uint32_t i, enum verdict verdict)
{
    struct target_state *s = r->targets[i].state;
    struct pick p = {.now_ms = clock_ms()};
    cr_assert(balancer_admit(r, &r->targets[i], &p));
    if (breaker_report(s->breaker, r->breaker, r->state->breakers_open, p.permit, verdict, R_RESET,
                       0, p.now_ms) ||
        p.moved)
        atomic_store(&r->state->stirred, true);
    balancer_done(r, &r->targets[i], s, p.now_ms);
}

static void trip(const struct route *r, uint32_t i)
{
    attempt(r, i, VERDICT_BAD);
    attempt(r, i, VERDICT_BAD);
}

static void say(Gwp__EndpointState__Entry entry, bool complete)
{
    Gwp__EndpointState__Entry *list[] = {&entry};
    Gwp__EndpointState m = GWP__ENDPOINT_STATE__INIT;
    m.entries = list;
    m.n_entries = entry.target_id != 0;
    m.complete = complete;
    targets_take(&targets, &m);
}

static Gwp__EndpointState__Entry entry(uint64_t id)
{
    Gwp__EndpointState__Entry e = GWP__ENDPOINT_STATE__ENTRY__INIT;
    e.target_id = id;
    e.checked = true;
    return e;
}

Test(targets, what_the_control_plane_says_counts_at_once)
{
    const struct route *r = enter();
    Gwp__EndpointState__Entry e = entry(1);
    cr_assert_eq(r->roster->count, 2);
    e.unhealthy = true;
    say(e, false);
    cr_assert_eq(r->roster->count, 1);
    e.unhealthy = false;
    e.draining = true;
    say(e, false);
    cr_assert_eq(r->roster->count, 1);
    say(entry(0), true);
    cr_assert_eq(r->roster->count, 2, "what is not listed has no state");
}

Test(targets, who_is_not_checked_keeps_its_health)
{
    const struct route *r = enter();
    Gwp__EndpointState__Entry e = entry(1);
    e.unhealthy = true;
    say(e, false);
    e.unhealthy = e.checked = false;
    say(e, false);
    cr_assert_eq(r->roster->count, 1);
}

Test(targets, every_change_of_a_breaker_is_told_once_in_order)
{
    const struct route *r = enter();
    trip(r, 1);
    targets_look(&targets);
    cr_assert(targets.untold_count == 1 && moved == 1);
    const Gwp__BreakerTransition *t = targets.untold[0];
    cr_assert(t->target_id == 2 && t->from == 0 && t->to == 1);
    cr_assert_str_eq(t->route, "users");
    cr_assert_str_eq(t->endpoint, "10.0.0.2:80");
    cr_assert_str_eq(t->cause, "2 of 2 requests failed in 10 s (reset last)");
    cr_assert_eq(t->place->line, 10);
    targets_look(&targets);
    cr_assert_eq(targets.untold_count, 1);
    targets_told(&targets);
    ev_run(loop, EVRUN_ONCE); /* until it may be probed */
    attempt(r, 1, VERDICT_GOOD);
    targets_look(&targets);
    cr_assert_eq(targets.untold_count, 2);
    cr_assert(targets.untold[0]->to == 2 && targets.untold[1]->to == 0);
}

Test(targets, an_open_one_is_off_the_roster_until_it_may_be_probed)
{
    const struct route *r = enter();
    trip(r, 0);
    targets_look(&targets);
    cr_assert_eq(r->roster->count, 1);
    cr_assert(ev_is_active(&targets.due));
    ev_run(loop, EVRUN_ONCE);
    cr_assert_eq(r->roster->count, 2);
    cr_assert_not(ev_is_active(&targets.due));
}

Test(targets, a_breaker_is_reset_by_order)
{
    const struct route *r = enter();
    trip(r, 0);
    targets_look(&targets);
    Gwp__EndpointState__Entry e = entry(1);
    e.reset_breaker = true;
    say(e, false);
    cr_assert_eq(r->roster->count, 2);
    cr_assert_eq(targets.untold_count, 2);
    cr_assert_str_eq(targets.untold[1]->cause, "reset by order");
    cr_assert_eq(*r->state->breakers_open, 0);
}

Test(targets, a_new_generation_keeps_the_state_and_one_without_breaker_drops_it)
{
    const struct route *r = enter();
    trip(r, 0);
    r = enter();
    cr_assert_eq(r->roster->count, 1, "still open");
    draft.message->routes[0]->circuit_breaker = NULL;
    r = enter();
    cr_assert_eq(r->roster->count, 2);
    cr_assert_eq(*r->state->breakers_open, 0);
}

Test(targets, what_cannot_be_told_is_bounded)
{
    const struct route *r = enter();
    for (int i = 0; i < TARGETS_UNTOLD_MAX; i++) {
        trip(r, 0);
        breaker_reset(r->targets[0].state->breaker, r->state->breakers_open, clock_ms());
        targets_look(&targets);
    }
    cr_assert_eq(targets.untold_count, TARGETS_UNTOLD_MAX);
    cr_assert_eq(targets.untold[TARGETS_UNTOLD_MAX - 1]->to, 0, "the newest are kept");
}
