#include "controlplane/config/diagnostics.h"
#include "controlplane/resolver.h"
#include "tests/unit/controlplane/loop.h"

static unsigned changes, settlings;

static void on_changed(void *owner)
{
    changes++;
}

static void on_settled(void *owner)
{
    settlings++;
}

static const struct resolver_events events = {on_changed, on_settled, NULL};

static struct config *config_of(const char *host)
{
    struct diagnostics d;
    char yaml[256];
    snprintf(yaml, sizeof(yaml), "routes: [{path_prefix: /, backends: [{url: 'http://%s:80'}]}]",
             host);
    diagnostics_init(&d);
    struct config *cfg = config_load("g.yaml", view_of(yaml), &d);
    diagnostics_fini(&d);
    cr_assert(cfg);
    return cfg;
}

static struct resolver *start(struct ev_loop *loop)
{
    struct err err;
    static struct ledger ledger;
    const struct resolver_setup setup = {.ledger = &ledger};
    ledger_init(&ledger, NULL);
    struct resolver *r = resolver_new(loop, &setup, &events, &err);
    cr_assert(r, "%s", err.text);
    return r;
}

Test(resolver, a_ttl_is_bounded_on_both_sides)
{
    cr_expect_eq(resolver_refresh_after(0, false), 5);
    cr_expect_eq(resolver_refresh_after(60, false), 60);
    cr_expect_eq(resolver_refresh_after(86400, false), 300);
    cr_expect_eq(resolver_refresh_after(0, true), 30);
}

Test(resolver, literal_addresses_are_known_at_once)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct resolver *r = start(loop);
    struct config *four = config_of("10.1.2.3"), *six = config_of("[fd00:0::1]");
    resolver_want(r, four, six);
    cr_expect(resolver_is_settled(r));
    cr_expect_str_eq(resolver_lookup(r, "10.1.2.3")->at[0], "10.1.2.3");
    cr_expect_str_eq(resolver_lookup(r, "fd00:0::1")->at[0], "fd00::1");
    resolver_want(r, four, NULL);
    cr_expect_null(resolver_lookup(r, "fd00:0::1"));
    config_free(&four);
    config_free(&six);
    resolver_free(&r);
    ev_loop_destroy(loop);
}

Test(resolver, localhost_is_found_and_told)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct resolver *r = start(loop);
    struct config *cfg = config_of("localhost");
    resolver_want(r, cfg, NULL);
    cr_expect_not(resolver_is_settled(r));
    LOOP_UNTIL(loop, settlings > 0);
    cr_expect_eq(changes, 1);
    const struct strings *found = resolver_lookup(r, "localhost");
    cr_assert(found && found->count > 0);
    bool loopback = false;
    for (size_t i = 0; i < found->count; i++)
        loopback |= strcmp(found->at[i], "127.0.0.1") == 0 || strcmp(found->at[i], "::1") == 0;
    cr_expect(loopback);
    config_free(&cfg);
    resolver_free(&r);
    ev_loop_destroy(loop);
}

Test(resolver, who_is_dropped_while_being_asked_for_harms_nothing)
{
    struct ev_loop *loop = ev_loop_new(0);
    struct resolver *r = start(loop);
    struct config *cfg = config_of("name.invalid");
    resolver_want(r, cfg, NULL);
    ev_run(loop, EVRUN_NOWAIT);
    ev_run(loop, EVRUN_NOWAIT);
    resolver_want(r, NULL, NULL);
    cr_expect(resolver_is_settled(r));
    cr_expect_null(resolver_lookup(r, "name.invalid"));
    config_free(&cfg);
    resolver_free(&r);
    ev_loop_destroy(loop);
}
