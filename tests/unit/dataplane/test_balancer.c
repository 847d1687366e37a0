#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "dataplane/route/balancer.h"
#include "messages.h"

#define NOW 1000000u /* ms; any will do */
#define MOST 1000
#define THREADS 8

static struct registry *registry;
static struct draft draft;
static struct snapshot *snapshot;

static void setup(void)
{
    registry = registry_new();
    draft = draft_new(1);
}

static void teardown(void)
{
    snapshot_free(&snapshot, registry);
    registry_free(&registry);
    arena_free(&draft.arena);
}

TestSuite(balancer, .init = setup, .fini = teardown, .timeout = 120);

static Gwp__Route *draft_pool(Gwp__Route__Algorithm algorithm, uint32_t count,
                              const uint32_t *weights)
{
    Gwp__Route *r = draft_route(&draft, "users", "", "/");
    r->algorithm = algorithm;
    for (uint32_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "10.0.%u.%u:80", i >> 8, i & 255);
        Gwp__Target *t =
            draft_target(&draft, r, (i + 1) * 0x9E3779B97F4A7C15u, draft_endpoint(&draft, text));
        t->weight = weights ? weights[i] : 1;
    }
    return r;
}

static const struct route *compile(void)
{
    struct err err;
    snapshot = snapshot_compile(draft.message, registry, &err);
    cr_assert(snapshot, "%s", err.text);
    snapshot_enter(snapshot, NOW);
    return &snapshot->routes[0];
}

static const struct route *pool(Gwp__Route__Algorithm algorithm, uint32_t count,
                                const uint32_t *weights)
{
    draft_pool(algorithm, count, weights);
    return compile();
}

static struct target_state *state(const struct route *r, uint32_t i)
{
    return r->targets[i].state;
}

static uint32_t pick_of(const struct route *r, struct pick *p)
{
    const struct target *t = balancer_pick(r, p);
    return t ? (uint32_t)(t - r->targets) : UINT32_MAX;
}

/* Picks and is done at once. */
static uint32_t visit(const struct route *r, struct pick *p)
{
    uint32_t i = pick_of(r, p);
    if (i != UINT32_MAX)
        balancer_done(r, &r->targets[i], r->targets[i].state, p->now_ms);
    return i;
}

static void visit_many(const struct route *r, uint32_t rounds, uint32_t *counts)
{
    struct pick p = {.now_ms = NOW};
    memset(counts, 0, r->target_count * sizeof(*counts));
    for (uint32_t i = 0; i < rounds; i++)
        counts[visit(r, &p)]++;
}

/* ---- many threads ---- */

/* Requests under way are in a ring that all threads share: one that comes in pushes the oldest out.
 * So all last equally long, whichever threads are suspended. */
struct crowd {
    const struct route *route;
    _Atomic uint32_t counts[MOST], ring[512]; /* ring: target + 1 */
    uint32_t picks, under_way;
    _Atomic uint32_t next;
};

static void leave(const struct crowd *c, uint32_t at)
{
    if (at > 0)
        balancer_done(c->route, &c->route->targets[at - 1], state(c->route, at - 1), NOW);
}

static void *crowd_member(void *arg)
{
    struct crowd *c = arg;
    struct pick p = {.now_ms = NOW};
    for (uint32_t i = 0; i < c->picks; i++) {
        uint32_t at = pick_of(c->route, &p);
        atomic_fetch_add(&c->counts[at], 1);
        leave(c, atomic_exchange(&c->ring[atomic_fetch_add(&c->next, 1) % c->under_way], at + 1));
        if (i % 4 == 0)
            sched_yield(); /* here, rather than between pick and ring */
    }
    return NULL;
}

static void let_loose(struct crowd *c, uint32_t picks, uint32_t under_way)
{
    pthread_t threads[THREADS];
    c->picks = picks / THREADS;
    c->under_way = under_way;
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, crowd_member, c), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < under_way; i++)
        leave(c, atomic_exchange(&c->ring[i], 0));
}

/* Within 1 % of what each target's weight promises. */
static void check_shares(const struct crowd *c, const char *what)
{
    const struct route *r = c->route;
    double units = 0, total = (double)c->picks * THREADS, worst = 0;
    for (uint32_t i = 0; i < r->target_count; i++)
        units += r->targets[i].weight;
    for (uint32_t i = 0; i < r->target_count; i++) {
        double ideal = total * r->targets[i].weight / units, off = c->counts[i] - ideal;
        worst = MAX(worst, (off < 0 ? -off : off) / ideal);
        cr_assert_eq(atomic_load(&state(r, i)->active), 0);
    }
    printf("%s: %u targets, %.0f picks by %d threads: at most %.3f %% off\n", what, r->target_count,
           total, THREADS, worst * 100);
    cr_assert_leq(worst, 0.01, "%s: %f", what, worst);
}

/* ---- round robin ---- */

Test(balancer, round_robin_goes_to_each_in_turn)
{
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 3, NULL);
    struct pick p = {.now_ms = NOW};
    for (uint32_t i = 0; i < 9; i++)
        cr_assert_eq(visit(r, &p), i % 3);
}

Test(balancer, round_robin_is_fair_when_some_are_skipped)
{
    uint32_t counts[5];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 5, NULL);
    atomic_store(&state(r, 1)->unhealthy, true);
    atomic_store(&state(r, 2)->draining, true);
    for (int called = 0; called < 2; called++) { /* before the roster knows, and after */
        visit_many(r, 3000, counts);
        cr_assert(counts[1] == 0 && counts[2] == 0);
        for (uint32_t i = 0; i < 5; i++)
            cr_assert(i == 1 || i == 2 || (counts[i] >= 999 && counts[i] <= 1001), "%u", counts[i]);
        roster_call(r, NOW);
    }
}

Test(balancer, nobody_is_chosen_when_nobody_may_be)
{
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 2, NULL);
    struct pick p = {.now_ms = NOW};
    atomic_store(&state(r, 0)->unhealthy, true);
    atomic_store(&state(r, 1)->unhealthy, true);
    for (int called = 0; called < 2; called++) {
        cr_assert_eq(balancer_pick(r, &p), NULL);
        cr_assert_eq(p.retry_ms, 0);
        roster_call(r, NOW);
    }
}

Test(balancer, a_failed_target_is_avoided_unless_it_is_the_only_one)
{
    for (int algorithm = 0; algorithm < 4; algorithm++) {
        draft.message->n_routes = 0;
        const struct route *r = pool((Gwp__Route__Algorithm)algorithm, 3, NULL);
        struct pick p = {.now_ms = NOW, .avoid = &r->targets[1]};
        for (int i = 0; i < 100; i++)
            cr_assert_neq(visit(r, &p), 1);
        atomic_store(&state(r, 0)->draining, true);
        atomic_store(&state(r, 2)->draining, true);
        cr_assert_eq(visit(r, &p), 1);
        atomic_store(&state(r, 0)->draining, false);
        atomic_store(&state(r, 2)->draining, false);
        snapshot_free(&snapshot, registry);
    }
}

Test(balancer, retry_of_least_conn_goes_to_the_least_of_the_others)
{
    for (uint32_t n = 2; n <= 100; n = n * 3 + 1) { /* 2, 7, 22, 67: up to three levels */
        setup();
        const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, n, NULL);
        for (uint32_t avoid = 0; avoid < n; avoid++) {
            uint32_t best = (avoid * 5 + 1) % n == avoid ? (avoid + 1) % n : (avoid * 5 + 1) % n;
            for (uint32_t i = 0; i < n; i++) {
                atomic_store(&state(r, i)->active, i == avoid ? 0 : i == best ? 2 : 3 + i % 5);
                lb_least_refresh(r, i, NOW);
            }
            struct pick p = {.now_ms = NOW, .avoid = &r->targets[avoid]};
            cr_expect_eq(visit(r, &p), best, "%u targets, not %u", n, avoid);
        }
        teardown();
    }
    setup();
}

Test(balancer, no_target_gets_more_than_its_connections)
{
    for (int algorithm = 0; algorithm < 4; algorithm++) {
        uint32_t counts[4] = {0}, taken[16], i = 0;
        draft.message->n_routes = 0;
        Gwp__Route *in = draft_pool((Gwp__Route__Algorithm)algorithm, 4, NULL);
        for (int k = 0; k < 4; k++)
            in->targets[k]->max_connections = 3;
        const struct route *r = compile();
        struct pick p = {.now_ms = NOW};
        while ((taken[i] = pick_of(r, &p)) != UINT32_MAX)
            counts[taken[i++]]++;
        cr_assert_eq(i, 12);
        for (int k = 0; k < 4; k++)
            cr_assert_eq(counts[k], 3);
        balancer_done(r, &r->targets[taken[5]], state(r, taken[5]), NOW);
        cr_assert_eq(pick_of(r, &p), taken[5], "room is used again");
        for (i = 0; i < 12; i++)
            balancer_done(r, &r->targets[taken[i]], state(r, taken[i]), NOW);
        snapshot_free(&snapshot, registry);
    }
}

/* ---- weights ---- */

Test(balancer, weighted_shares_are_exact_in_every_round)
{
    const uint32_t weights[] = {5, 3, 2};
    uint32_t counts[3];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__WEIGHTED, 3, weights);
    for (int round = 0; round < 20; round++) {
        visit_many(r, 10, counts);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(counts[i], weights[i]);
    }
}

/* How many turns the heavy one gets in a row at most. */
static uint32_t longest_run(const struct route *r, uint32_t heavy, uint32_t rounds)
{
    struct pick p = {.now_ms = NOW};
    uint32_t run = 0, longest = 0;
    for (uint32_t i = 0; i < rounds; i++) {
        run = visit(r, &p) == heavy ? run + 1 : 0;
        longest = MAX(longest, run);
    }
    return longest;
}

Test(balancer, weighted_sends_no_bursts_to_the_heavy_one)
{
    static const struct {
        uint32_t weights[3], most;
    } rows[] = {{{5, 1, 1}, 4},      {{2, 1, 1}, 2},      {{10, 5, 5}, 2}, {{50, 25, 25}, 2},
                {{100, 50, 25}, 2},  {{7, 4, 3}, 2},      {{9, 1, 1}, 7},  {{4, 4, 1}, 2},
                {{1000, 999, 1}, 2}, {{600, 300, 100}, 2}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        draft.message->n_routes = 0;
        const struct route *r = pool(GWP__ROUTE__ALGORITHM__WEIGHTED, 3, rows[i].weights);
        uint32_t run = longest_run(r, 0, 6000);
        printf("weights %u:%u:%u: at most %u in a row to the heavy one\n", rows[i].weights[0],
               rows[i].weights[1], rows[i].weights[2], run);
        cr_expect_leq(run, rows[i].most, "%zu: %u", i, run);
        snapshot_free(&snapshot, registry);
    }
}

static void crowd_shares(Gwp__Route__Algorithm algorithm, uint32_t count, uint32_t under_way,
                         const uint32_t *weights, const char *what)
{
    static struct crowd c;
    memset(&c, 0, sizeof(c));
    draft.message->n_routes = 0;
    c.route = pool(algorithm, count, weights);
    let_loose(&c, 100000, under_way);
    check_shares(&c, what);
    snapshot_free(&snapshot, registry);
}

static const uint32_t five[] = {1, 2, 3, 4, 10}, three[] = {2, 3, 5};
static const uint32_t uneven[] = {1000, 1, 99};

Test(balancer, weighted_shares_are_exact_over_all_workers)
{
    crowd_shares(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 7, 1, NULL, "round_robin");
    crowd_shares(GWP__ROUTE__ALGORITHM__WEIGHTED, 5, 1, five, "weighted 1:2:3:4:10");
    crowd_shares(GWP__ROUTE__ALGORITHM__WEIGHTED, 3, 1, uneven, "weighted 1000:1:99");
    crowd_shares(GWP__ROUTE__ALGORITHM__WEIGHTED, 1000, 1, NULL, "weighted, 1,000 equal");
}

Test(balancer, least_conn_shares_follow_the_weights_over_all_workers)
{
    crowd_shares(GWP__ROUTE__ALGORITHM__LEAST_CONN, 5, 200, NULL, "least_conn, 200 under way");
    crowd_shares(GWP__ROUTE__ALGORITHM__LEAST_CONN, 10, 500, NULL, "least_conn, 500 under way");
    crowd_shares(GWP__ROUTE__ALGORITHM__LEAST_CONN, 3, 500, three,
                 "least_conn 2:3:5, 500 under way");
    crowd_shares(GWP__ROUTE__ALGORITHM__LEAST_CONN, 2, 200, five, "least_conn 1:2, 200 under way");
}

Test(balancer, least_conn_prefers_who_has_less_to_do)
{
    static uint32_t counts[MOST];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, MOST, NULL);
    for (uint32_t i = 0; i < MOST; i++)
        atomic_store(&state(r, i)->active, i == 777 ? 1 : 5);
    lb_least_refresh_all(r, NOW);
    struct pick p = {.now_ms = NOW};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pick_of(r, &p), 777);
    for (uint32_t i = 0; i < MOST; i++)
        counts[pick_of(r, &p)]++;
    for (uint32_t i = 0; i < MOST; i++)
        cr_assert_eq(counts[i], 1, "one more for each: %u has %u", i, counts[i]);
}

Test(balancer, least_conn_counts_what_goes_on_under_another_snapshot)
{
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, 20, NULL);
    struct pick p = {.now_ms = NOW};
    for (uint32_t i = 0; i < 20; i++)
        atomic_store(&state(r, i)->active, 50);
    lb_least_refresh_all(r, NOW);
    for (uint32_t i = 0; i < 20; i++) /* those end without a word to this tree */
        balancer_done(NULL, NULL, state(r, i), NOW);
    atomic_store(&state(r, 7)->active, 10);
    for (int i = 0; i < 20; i++) /* within one round it is found */
        visit(r, &p);
    for (int i = 0; i < 30; i++)
        cr_assert_eq(pick_of(r, &p), 7);
}

Test(balancer, a_weight_override_counts_from_the_next_roster_on)
{
    const uint32_t weights[] = {1, 1};
    uint32_t counts[2];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__WEIGHTED, 2, weights);
    atomic_store(&state(r, 0)->weight_override, 9);
    roster_call(r, NOW);
    visit_many(r, 1000, counts);
    cr_assert(counts[0] == 900 && counts[1] == 100);
    atomic_store(&state(r, 0)->weight_override, 0);
    roster_call(r, NOW);
    visit_many(r, 1000, counts);
    cr_assert(counts[0] == 500 && counts[1] == 500);
}

Test(balancer, least_conn_shares_alike_among_the_idle_wherever_they_stand)
{
    /* Requests one after another; what the others do never ends. */
    static const struct {
        uint32_t targets, idle[3], idle_count;
    } rows[] = {{10, {0, 5}, 2}, {10, {3, 4}, 2}, {16, {0, 1, 15}, 3}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        static uint32_t counts[MOST];
        memset(counts, 0, sizeof(counts));
        draft.message->n_routes = draft.message->n_endpoints = 0;
        const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, rows[i].targets, NULL);
        for (uint32_t k = 0; k < rows[i].targets; k++)
            atomic_store(&state(r, k)->active, 9);
        for (uint32_t k = 0; k < rows[i].idle_count; k++)
            atomic_store(&state(r, rows[i].idle[k])->active, 0);
        lb_least_refresh_all(r, NOW);
        visit_many(r, 10000, counts);
        for (uint32_t k = 0; k < rows[i].idle_count; k++) {
            double ideal = 10000. / rows[i].idle_count;
            cr_assert_float_eq((double)counts[rows[i].idle[k]], ideal, ideal / 50, "%zu: %u has %u",
                               i, rows[i].idle[k], counts[rows[i].idle[k]]);
        }
        snapshot_free(&snapshot, registry);
    }
}

Test(balancer, least_conn_lets_nobody_catch_up_for_long)
{
    uint32_t run = 0, counts[3];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, 3, NULL);
    atomic_store(&state(r, 1)->active, 1000); /* slow for a long time, then idle */
    visit_many(r, 50000, counts);
    cr_assert_eq(counts[1], 0);
    atomic_store(&state(r, 1)->active, 0);
    struct pick p = {.now_ms = NOW};
    visit_many(r, 3, counts); /* within a round it is seen */
    while (run < 5000 && visit(r, &p) == 1)
        run++;
    cr_assert_leq(run, 1040, "%u in a row", run);
    visit_many(r, 3000, counts);
    for (int i = 0; i < 3; i++)
        cr_assert_float_eq((double)counts[i], 1000, 100);
}

Test(balancer, least_conn_asks_for_a_new_roster_before_its_numbers_are_too_large)
{
    const uint32_t weights[] = {1, 2};
    uint32_t counts[2];
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__LEAST_CONN, 2, weights);
    struct pick p = {.now_ms = NOW};
    uint64_t picks = 0;
    for (; !p.moved && picks < 10000000; picks++)
        visit(r, &p);
    cr_assert(picks > 1000000 && p.moved, "after %lu", (unsigned long)picks);
    roster_call(r, NOW);
    visit_many(r, 3000, counts);
    cr_assert(counts[0] == 1000 && counts[1] == 2000);
    visit(r, &p);
    cr_assert_not(p.moved);
}

Test(balancer, attempts_are_shared_alike_however_many_are_retries)
{
    static const Gwp__Route__Algorithm algorithms[] = {GWP__ROUTE__ALGORITHM__ROUND_ROBIN,
                                                       GWP__ROUTE__ALGORITHM__WEIGHTED,
                                                       GWP__ROUTE__ALGORITHM__LEAST_CONN};
    for (size_t a = 0; a < COUNT_OF(algorithms); a++) {
        uint32_t counts[5] = {0};
        draft.message->n_routes = draft.message->n_endpoints = 0;
        const struct route *r = pool(algorithms[a], 5, NULL);
        for (uint32_t i = 0; i < 8000; i++) {
            struct pick p = {.now_ms = NOW};
            uint32_t at = visit(r, &p);
            counts[at]++;
            if (at != 1) /* which fails whatever it is asked */
                continue;
            p.avoid = &r->targets[1];
            counts[visit(r, &p)]++;
        }
        for (uint32_t i = 0; i < 5; i++)
            cr_assert_float_eq((double)counts[i], 2000, 20, "%zu: %u has %u", a, i, counts[i]);
        snapshot_free(&snapshot, registry);
    }
}

/* ---- a roster that changes ---- */

static void *shuffler(void *arg)
{
    const struct route *r = arg;
    for (uint32_t i = 0; i < 20000; i++) {
        atomic_store(&state(r, i % 16)->draining, i % 3 == 0);
        atomic_store(&state(r, i % 7)->weight_override, i % 1000 + 1);
        if (i % 16 < 15)
            roster_call(r, NOW);
    }
    return NULL;
}

Test(balancer, a_roster_may_be_called_while_it_is_read)
{
    static struct crowd c;
    static const Gwp__Route__Algorithm algorithms[] = {GWP__ROUTE__ALGORITHM__WEIGHTED,
                                                       GWP__ROUTE__ALGORITHM__LEAST_CONN,
                                                       GWP__ROUTE__ALGORITHM__IP_HASH};
    for (size_t i = 0; i < COUNT_OF(algorithms); i++) {
        pthread_t thread;
        memset(&c, 0, sizeof(c));
        draft.message->n_routes = 0;
        c.route = pool(algorithms[i], 17, NULL); /* the last one always stays */
        pthread_create(&thread, NULL, shuffler, (void *)c.route);
        let_loose(&c, 40000, 4);
        pthread_join(thread, NULL);
        for (uint32_t k = 0; k < 17; k++) {
            cr_assert_eq(atomic_load(&state(c.route, k)->active), 0);
            atomic_store(&state(c.route, k)->draining, false);
        }
        snapshot_free(&snapshot, registry);
    }
}

/* ---- panic and slow start ---- */

Test(balancer, below_the_panic_threshold_health_is_not_asked_for)
{
    uint32_t counts[4];
    Gwp__Route *in = draft_pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 4, NULL);
    in->panic_threshold_percent = 50;
    const struct route *r = compile();
    for (uint32_t i = 0; i < 2; i++)
        registry_set_health(state(r, i), true, NOW);
    roster_call(r, NOW);
    visit_many(r, 400, counts);
    cr_assert(counts[0] + counts[1] == 0, "half of them is not fewer than half");
    registry_set_health(state(r, 2), true, NOW);
    atomic_store(&state(r, 1)->draining, true);
    roster_call(r, NOW);
    visit_many(r, 300, counts);
    cr_assert(counts[0] == 100 && counts[2] == 100 && counts[3] == 100);
    cr_assert_eq(counts[1], 0, "who drains is not drawn in");
}

Test(balancer, a_recovered_target_grows_its_share)
{
    static const Gwp__Route__Algorithm algorithms[] = {
        GWP__ROUTE__ALGORITHM__ROUND_ROBIN, GWP__ROUTE__ALGORITHM__WEIGHTED,
        GWP__ROUTE__ALGORITHM__LEAST_CONN, GWP__ROUTE__ALGORITHM__IP_HASH};
    for (size_t a = 0; a < COUNT_OF(algorithms); a++) {
        draft.message->n_routes = 0;
        Gwp__Route *in = draft_pool(algorithms[a], 4, NULL);
        in->slow_start_ms = 10000;
        const struct route *r = compile();
        registry_set_health(state(r, 0), true, NOW);
        registry_set_health(state(r, 0), false, NOW);
        roster_call(r, NOW);
        for (uint32_t at = 0; at <= 10; at += 5) {
            uint32_t counts[4] = {0};
            for (uint32_t i = 0; i < 20000; i++) {
                struct pick p = {
                    .now_ms = NOW + at * 1000, .client = (uint8_t *)&i, .client_len = 4};
                counts[visit(r, &p)]++;
            }
            /* Of the others' share it has at / 10. */
            double share = counts[0] / ((20000 - counts[0]) / 3.0);
            cr_assert_float_eq(share, at / 10.0, 0.1, "%zu at %u: %f", a, at, share);
        }
        snapshot_free(&snapshot, registry);
    }
}

Test(balancer, targets_that_all_start_slowly_share_alike)
{
    uint32_t counts[3];
    Gwp__Route *in = draft_pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 3, NULL);
    in->slow_start_ms = 10000;
    const struct route *r = compile();
    for (uint32_t i = 0; i < 3; i++) {
        registry_set_health(state(r, i), true, NOW);
        registry_set_health(state(r, i), false, NOW);
    }
    roster_call(r, NOW);
    visit_many(r, 3000, counts);
    for (int i = 0; i < 3; i++)
        cr_assert(counts[i] > 900 && counts[i] < 1100, "%u", counts[i]);
}

Test(balancer, only_who_joins_a_served_route_starts_slowly)
{
    struct err err;
    draft_pool(GWP__ROUTE__ALGORITHM__ROUND_ROBIN, 2, NULL);
    const struct route *r = compile();
    cr_assert_eq(atomic_load(&state(r, 0)->fresh_since_ms), 0);
    draft_target(&draft, draft.message->routes[0], 4711, draft_endpoint(&draft, "10.1.1.1:80"));
    struct snapshot *next = snapshot_compile(draft.message, registry, &err);
    cr_assert_eq(atomic_load(&next->routes[0].targets[0].state->fresh_since_ms), 0);
    cr_assert_neq(atomic_load(&next->routes[0].targets[2].state->fresh_since_ms), 0);
    snapshot_free(&next, registry);
}

/* ---- ip_hash ---- */

static uint32_t home_of(const struct route *r, uint32_t client)
{
    struct pick p = {.now_ms = NOW, .client = (uint8_t *)&client, .client_len = 4};
    return visit(r, &p);
}

enum { CLIENTS = 50000 };

static void record(const struct route *r, uint64_t *homes)
{
    for (uint32_t i = 0; i < CLIENTS; i++)
        homes[i] = r->targets[home_of(r, i * 2654435761u)].state->id;
}

static void check_movement(uint32_t n, const uint32_t *weights)
{
    static uint64_t before[CLIENTS], without[CLIENTS], after[CLIENTS], smaller[CLIENTS];
    draft.message->n_routes = draft.message->n_endpoints = 0;
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__IP_HASH, n, weights);
    uint32_t leaver = n / 2, moved = 0, strays = 0;
    uint64_t id = state(r, leaver)->id;
    record(r, before);
    atomic_store(&state(r, leaver)->unhealthy, true);
    roster_call(r, NOW);
    record(r, without);
    atomic_store(&state(r, leaver)->unhealthy, false);
    roster_call(r, NOW);
    record(r, after);
    snapshot_free(&snapshot, registry);

    /* Gone from the configuration is the same as gone from service. */
    Gwp__Route *in = draft.message->routes[0];
    in->targets[leaver] = in->targets[--in->n_targets];
    record(compile(), smaller);
    snapshot_free(&snapshot, registry);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        moved += before[i] != without[i];
        strays += before[i] != without[i] && before[i] != id;
        cr_assert_eq(before[i], after[i], "a client did not come back");
        cr_assert_eq(smaller[i], without[i]);
    }
    printf("ip_hash: one of %u leaves: %u of %d clients move, %u of them not its own\n", n, moved,
           CLIENTS, strays);
    cr_assert_eq(strays, 0);
    double share = (double)moved / CLIENTS * n;
    cr_assert(weights || (share > 0.75 && share < 1.25), "%f of a fair share", share);
}

Test(balancer, only_the_leavers_clients_move_and_they_come_back)
{
    static const uint32_t weights[] = {5, 1, 7, 3, 3, 1000, 2, 9, 10, 1};
    check_movement(3, NULL);
    check_movement(10, NULL);
    check_movement(100, NULL);
    check_movement(10, weights);
}

Test(balancer, ip_hash_follows_the_weights)
{
    static const uint32_t weights[] = {1, 2, 3, 4};
    uint32_t counts[4] = {0};
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__IP_HASH, 4, weights);
    for (uint32_t i = 0; i < CLIENTS; i++)
        counts[home_of(r, i)]++;
    for (int i = 0; i < 4; i++)
        cr_assert_float_eq(counts[i] / (CLIENTS / 10.0), weights[i], weights[i] * 0.1);
}

Test(balancer, ip_hash_knows_ipv6_and_who_has_no_address)
{
    const struct route *r = pool(GWP__ROUTE__ALGORITHM__IP_HASH, 10, NULL);
    uint8_t ip[16] = {0x20, 1, 0xd, 0xb8};
    bool seen[10] = {false};
    struct pick p = {.now_ms = NOW, .client = ip, .client_len = 16};
    for (int i = 0; i < 200; i++) {
        ip[15] = (uint8_t)i;
        seen[visit(r, &p)] = true;
    }
    for (int i = 0; i < 10; i++)
        cr_assert(seen[i]);
    struct pick none = {.now_ms = NOW};
    uint32_t home = visit(r, &none);
    cr_assert_eq(visit(r, &none), home);
}

/* ---- cost ---- */

static double pick_ns(Gwp__Route__Algorithm algorithm, uint32_t count)
{
    enum { PICKS = 200000 };
    struct timespec a, b;
    draft.message->n_routes = draft.message->n_endpoints = 0;
    Gwp__Route *in = draft_pool(algorithm, count, NULL);
    Gwp__CircuitBreaker breaker = GWP__CIRCUIT_BREAKER__INIT;
    breaker.failure_threshold_percent = 50;
    breaker.min_requests = 20;
    breaker.window_ms = breaker.open_duration_ms = 10000;
    breaker.half_open_requests = 5;
    breaker.max_open_percent = 100;
    in->circuit_breaker = &breaker;
    for (uint32_t i = 0; algorithm == GWP__ROUTE__ALGORITHM__WEIGHTED && i < count; i++)
        in->targets[i]->weight = i % 1000 + 1;
    const struct route *r = compile();
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        for (uint32_t i = 0; i < PICKS; i++) {
            uint32_t client = (i & 1023) * 7919;
            struct pick p = {.now_ms = NOW, .client = (uint8_t *)&client, .client_len = 4};
            const struct target *t = balancer_pick(r, &p);
            breaker_report(t->state->breaker, r->breaker, r->state->breakers_open, p.permit,
                           VERDICT_GOOD, R_SERVED, 200, NOW);
            balancer_done(r, t, t->state, NOW);
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        best = MIN(best,
                   ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / PICKS);
    }
    snapshot_free(&snapshot, registry);
    return best;
}

Test(balancer, choosing_costs_the_same_with_a_thousand)
{
    static const char *const words[] = {"round_robin", "least_conn", "weighted", "ip_hash"};
    for (int algorithm = 0; algorithm < 4; algorithm++) {
        double two = pick_ns((Gwp__Route__Algorithm)algorithm, 2);
        double hundred = pick_ns((Gwp__Route__Algorithm)algorithm, 100);
        double thousand = pick_ns((Gwp__Route__Algorithm)algorithm, 1000);
        printf("%-12s pick, report and done: %.0f ns with 2, %.0f with 100, %.0f with 1,000\n",
               words[algorithm], two, hundred, thousand);
        cr_assert_lt(thousand, two * 4 + 1500, "%s", words[algorithm]);
    }
}

/* ---- foreseen ---- */

Test(balancer, what_is_foreseen_is_what_is_picked_and_nothing_changes_by_it)
{
    static const Gwp__Route__Algorithm algorithms[] = {
        GWP__ROUTE__ALGORITHM__ROUND_ROBIN, GWP__ROUTE__ALGORITHM__LEAST_CONN,
        GWP__ROUTE__ALGORITHM__WEIGHTED, GWP__ROUTE__ALGORITHM__IP_HASH};
    uint32_t weights[40];
    srandom(5);
    for (uint32_t i = 0; i < COUNT_OF(weights); i++)
        weights[i] = 1 + (uint32_t)random() % 9;
    for (size_t a = 0; a < COUNT_OF(algorithms); a++) {
        const struct route *r = pool(algorithms[a], 40, weights);
        for (unsigned n = 0; n < 4000; n++) {
            uint64_t client = (uint64_t)random();
            struct target_state *s = state(r, (uint32_t)random() % 40);
            if (n % 7 == 0)
                atomic_store(&s->unhealthy, random() % 2 == 0);
            if (n % 11 == 0)
                atomic_store(&s->draining, random() % 3 == 0);
            if (n % 7 == 0 || n % 11 == 0) /* as the control thread does then */
                roster_call(r, NOW + n);
            struct pick p = {.now_ms = NOW + n,
                             .client = (const uint8_t *)&client,
                             .client_len = sizeof(client),
                             .avoid = n % 5 == 0 ? &r->targets[random() % 40] : NULL};
            struct pick asked = p, again = p;
            uint64_t position = atomic_load(&r->state->position);
            const struct target *t = balancer_foresee(r, &asked);
            cr_assert_eq(balancer_foresee(r, &again), t);
            cr_assert_eq(atomic_load(&r->state->position), position);
            cr_assert_eq(asked.permit, 0);
            const struct target *picked = balancer_pick(r, &p);
            cr_assert_eq(picked, t, "algorithm %zu, round %u", a, n);
            if (picked && n % 3 > 0) /* some stay under way */
                balancer_done(r, picked, picked->state, p.now_ms);
        }
        teardown();
        setup();
        snapshot = NULL;
    }
}
