#include <stdio.h>
#include <stdlib.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/endpoints.h"
#include "controlplane/publisher.h"
#include "tests/unit/controlplane/peer.h"

/* A publisher, sessions and endpoints; checks that the test decides, so no connection is made. */
static char dir[] = "/tmp/gwp-endpoints-XXXXXX";
static char file[64], socket_path[64];
static struct ev_loop *loop;
static struct ledger ledger;
static const struct resolver_setup names = {.ledger = &ledger};
static struct sessions sessions;
static struct publisher publisher;
static struct endpoints endpoints;
static struct peer one, two;
static struct check *under_way[16];
static size_t under_way_count;

static const char two_routes[] =
    "routes:\n"
    "- {name: a, path_prefix: /a, backends: [{url: 'http://127.0.0.1:1'}, {url: "
    "'http://127.0.0.1:2'}]}\n"
    "- {name: b, path_prefix: /b, backends: [{url: 'http://127.0.0.1:1'}]}\n"
    "- {name: c, path_prefix: /c, health_check: {enabled: false}, backends: [{url: "
    "'http://127.0.0.1:1'}]}\n"
    "- {name: d, path_prefix: /d, health_check: {until_checked: down}, backends: [{url: "
    "'http://127.0.0.1:3'}]}\n";

static void fake_start(struct check *c)
{
    under_way[under_way_count++] = c;
}

static void fake_cancel(struct check *c)
{
}

static const struct health_prober fake_prober = {fake_start, fake_cancel};

static void on_opened(void *owner, struct session *s)
{
    publisher_opened(&publisher, s);
}

static void on_result(void *owner, struct session *s, const Gwp__SnapshotResult *r)
{
    publisher_result(&publisher, s, r);
    if (r->accepted && !r->dry_run)
        endpoints_accepted(&endpoints, s);
}

static void on_report(void *owner, struct session *s, const Gwp__StatsReport *r)
{
}

static void on_gone(void *owner, struct session *s)
{
    publisher_gone(&publisher, s);
}

static const struct session_events events = {on_opened, on_result, on_report, on_gone, NULL};

static void on_in_force(void *owner, const struct config *cfg)
{
}

static void on_committed(void *owner, const struct generation *g)
{
    endpoints_apply(&endpoints, g->config, g->number, resolver_lookup, publisher.resolver);
}

static void push(const char *text)
{
    struct push p = {.origin = ORIGIN_PUSH, .source = "gateway.yaml"};
    intake_push(&publisher, &p, view_of(text));
}

static void start(void)
{
    struct err err;
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/gateway.yaml", dir);
    snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
    loop = ev_loop_new(0);
    ledger_init(&ledger, NULL);
    cr_assert_eq(sessions_init(&sessions, loop, socket_path, &events, &err), 0, "%s", err.text);
    cr_assert_eq(publisher_init(&publisher, loop, file, dir, &names, &sessions, &err), 0, "%s",
                 err.text);
    publisher.in_force = on_in_force;
    publisher.committed = on_committed;
    endpoints_init(&endpoints, NULL, &sessions, &ledger, dir);
    endpoints.health.prober = &fake_prober;
    push(two_routes);
    cr_assert_eq(endpoints.count, 5);
}

static void stop(void)
{
    char command[128];
    endpoints_fini(&endpoints);
    publisher_fini(&publisher);
    sessions_fini(&sessions);
    ledger_fini(&ledger);
    peer_fini(&one);
    peer_fini(&two);
    ev_loop_destroy(loop);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(endpoints, .init = start, .fini = stop);

static uint64_t id_of(const char *route, const char *address)
{
    char url[64];
    snprintf(url, sizeof(url), "http://%s", address);
    return builder_target_id(route, url, address);
}

static const Gwp__EndpointState__Entry *entry(const struct peer *p, const char *route,
                                              const char *address)
{
    for (size_t i = 0; p->state && i < p->state->n_entries; i++)
        if (p->state->entries[i]->target_id == id_of(route, address))
            return p->state->entries[i];
    return NULL;
}

static const struct target *target(const char *route, const char *address)
{
    const struct target *t = endpoints_find(&endpoints, id_of(route, address));
    cr_assert(t);
    return t;
}

/* As many checks of that address as make a verdict. */
static void decide(const char *address, enum probe_result result)
{
    static double now;
    const struct check *wanted = target("a", address)->check;
    enum health_state before = wanted->state;
    const struct probe_outcome outcome = {.result = result, .seconds = 0.001, .reason = "because"};
    now = MAX(now, health_now());
    for (int turn = 0; turn < 1000 && wanted->state == before; turn++) {
        now += 1;
        health_turn(&endpoints.health, now);
        while (under_way_count > 0) {
            struct check *c = under_way[--under_way_count];
            const struct probe_outcome other = {.result = PROBE_NOT_MADE};
            health_done(c, c == wanted ? &outcome : &other, now);
        }
    }
    cr_assert_neq(wanted->state, before);
}

static void join(struct peer *p, const char *name)
{
    peer_join(p, loop, socket_path, name);
    LOOP_UNTIL(loop, p->states > 0);
}

static enum order_result order(enum order_kind kind, const char *address, const char *route,
                               uint32_t weight)
{
    struct err err;
    const struct order o = {kind, address, route, weight};
    return endpoints_order(&endpoints, &o, &err);
}

/* ---- what data planes are told ---- */

Test(endpoints, who_serves_the_generation_is_told_everything_once)
{
    join(&one, "one");
    cr_expect(one.state->complete);
    cr_expect_eq(one.state->n_entries, 5);
    cr_expect_not(entry(&one, "a", "127.0.0.1:1")->checked, "it keeps what it has");
    cr_expect_not(entry(&one, "a", "127.0.0.1:1")->unhealthy);
    cr_expect(entry(&one, "c", "127.0.0.1:1")->checked, "nobody asks, so it is up");
    cr_expect_not(entry(&one, "d", "127.0.0.1:3")->checked);
    cr_expect(entry(&one, "d", "127.0.0.1:3")->unhealthy);
    peer_answer(&one, one.last->generation, true, false);
    order(ORDER_DRAIN, "127.0.0.1:2", NULL, 0);
    LOOP_UNTIL(loop, one.states > 1);
    cr_expect_eq(one.states, 2);
    cr_expect_not(one.state->complete);
}

Test(endpoints, a_verdict_is_told_at_once_for_every_route)
{
    join(&one, "one");
    join(&two, "two");
    decide("127.0.0.1:1", PROBE_REFUSED);
    LOOP_UNTIL(loop, one.states > 1 && two.states > 1);
    cr_expect_eq(one.state->n_entries, 2, "not the one that is not checked");
    cr_expect_not(one.state->complete);
    cr_expect(entry(&one, "a", "127.0.0.1:1")->checked);
    cr_expect(entry(&one, "a", "127.0.0.1:1")->unhealthy);
    cr_expect(entry(&two, "b", "127.0.0.1:1")->unhealthy);
    decide("127.0.0.1:1", PROBE_OK);
    LOOP_UNTIL(loop, one.states > 2);
    cr_expect(entry(&one, "b", "127.0.0.1:1")->checked);
    cr_expect_not(entry(&one, "b", "127.0.0.1:1")->unhealthy);
}

Test(endpoints, who_comes_later_is_told_what_is_known)
{
    decide("127.0.0.1:1", PROBE_REFUSED);
    decide("127.0.0.1:2", PROBE_OK);
    join(&one, "one");
    cr_expect(entry(&one, "b", "127.0.0.1:1")->unhealthy);
    cr_expect(entry(&one, "a", "127.0.0.1:2")->checked);
    cr_expect_not(entry(&one, "a", "127.0.0.1:2")->unhealthy);
}

Test(endpoints, nobody_is_told_everything_while_another_snapshot_is_on_its_way)
{
    join(&one, "one");
    uint64_t before = one.last->generation;
    one.manner = PEER_IS_SILENT;
    push("routes: [{name: a, path_prefix: /, backends: [{url: 'http://127.0.0.1:1'}]}]\n");
    LOOP_UNTIL(loop, one.snapshots == 2);
    sessions_each(s, &sessions) s->told = 0;
    peer_answer(&one, before, true, false);
    decide("127.0.0.1:1", PROBE_OK);
    LOOP_UNTIL(loop, one.states > 1);
    cr_expect_not(one.state->complete, "its new targets would be taken for forgotten ones");
    peer_answer(&one, one.last->generation, true, false);
    LOOP_UNTIL(loop, one.states > 2);
    cr_expect(one.state->complete);
    cr_expect_eq(one.state->n_entries, 1);
}

Test(endpoints, a_reload_keeps_verdicts)
{
    decide("127.0.0.1:1", PROBE_REFUSED);
    push("routes: [{name: a, path_prefix: /, health_check: {interval_seconds: 7}, backends: [{url: "
         "'http://127.0.0.1:1'}]}]\n");
    cr_assert_eq(endpoints.count, 1);
    cr_expect_eq(target_verdict(target("a", "127.0.0.1:1")), HEALTH_DOWN);
    cr_expect_eq(endpoints.health.checks.count, 1);
}

Test(endpoints, routes_are_tallied)
{
    struct target_tally a = endpoints_tally(&endpoints, 0), d = endpoints_tally(&endpoints, 3);
    cr_expect_eq(a.unknown, 2);
    cr_expect_eq(a.usable, 2, "until_checked: up");
    cr_expect_eq(d.usable, 0, "until_checked: down");
    decide("127.0.0.1:1", PROBE_REFUSED);
    order(ORDER_DRAIN, "127.0.0.1:2", "a", 0);
    a = endpoints_tally(&endpoints, 0);
    cr_expect_eq(a.count, 2);
    cr_expect_eq(a.down, 1);
    cr_expect_eq(a.draining, 1);
    cr_expect_eq(a.usable, 0);
    cr_expect_eq(endpoints_tally(&endpoints, 2).up, 1, "not checked");
}

/* ---- orders ---- */

Test(endpoints, a_route_s_order_goes_before_that_for_all)
{
    cr_expect_eq(order(ORDER_WEIGHT, "127.0.0.1:1", NULL, 5), ORDER_DONE);
    cr_expect_eq(order(ORDER_WEIGHT, "127.0.0.1:1", "a", 9), ORDER_DONE);
    cr_expect_eq(target("a", "127.0.0.1:1")->weight_override, 9);
    cr_expect_eq(target("b", "127.0.0.1:1")->weight_override, 5);
    cr_expect_eq(target("a", "127.0.0.1:2")->weight_override, 0);
    cr_expect_eq(order(ORDER_DRAIN, "127.0.0.1:1", "b", 0), ORDER_DONE);
    cr_expect_not(target("a", "127.0.0.1:1")->draining);
    cr_expect(target("b", "127.0.0.1:1")->draining);
    cr_expect_eq(target("b", "127.0.0.1:1")->weight_override, 5, "one order keeps the other");
    cr_expect_eq(order(ORDER_WEIGHT, "127.0.0.1:1", "b", 0), ORDER_CONFLICT);
    cr_expect_eq(order(ORDER_WEIGHT, "127.0.0.1:1", NULL, 0), ORDER_DONE);
    cr_expect_eq(target("a", "127.0.0.1:1")->weight_override, 0);
    cr_expect(target("b", "127.0.0.1:1")->draining);
    cr_expect_eq(order(ORDER_UNDRAIN, "127.0.0.1:1", NULL, 0), ORDER_DONE);
    cr_expect_eq(endpoints.overrides.by.count, 0);
}

Test(endpoints, orders_are_for_what_there_is)
{
    cr_expect_eq(order(ORDER_DRAIN, "127.0.0.1:9", NULL, 0), ORDER_UNKNOWN);
    cr_expect_eq(order(ORDER_DRAIN, "127.0.0.1:2", "b", 0), ORDER_UNKNOWN);
    cr_expect_eq(order(ORDER_DRAIN, "unix:/x", NULL, 0), ORDER_UNKNOWN);
    cr_expect_eq(order(ORDER_DRAIN, ":80", NULL, 0), ORDER_UNKNOWN);
    cr_expect_eq(order(ORDER_UNDRAIN, "127.0.0.1:1", NULL, 0), ORDER_DONE, "there was nothing");
    cr_expect_eq(order(ORDER_DRAIN, "127.0.0.1:1", NULL, 0), ORDER_DONE);
    push("routes: [{name: x, path_prefix: /, backends: [{url: 'http://127.0.0.1:2'}]}]\n");
    cr_expect_eq(order(ORDER_DRAIN, "127.0.0.1:1", NULL, 0), ORDER_UNKNOWN);
    cr_expect_eq(order(ORDER_UNDRAIN, "127.0.0.1:1", NULL, 0), ORDER_DONE, "it was ordered once");
    cr_expect_eq(order(ORDER_UNDRAIN, "127.0.0.1:1", NULL, 0), ORDER_UNKNOWN);
}

Test(endpoints, orders_apply_to_what_comes_later)
{
    order(ORDER_DRAIN, "127.0.0.1:1", NULL, 0);
    push("routes: [{name: new, path_prefix: /, backends: [{url: 'http://127.0.0.1:1'}]}]\n");
    cr_expect(target("new", "127.0.0.1:1")->draining);
    join(&one, "one");
    cr_expect(entry(&one, "new", "127.0.0.1:1")->draining);
}
