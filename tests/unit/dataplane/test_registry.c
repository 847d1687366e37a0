#include <criterion/criterion.h>
#include <stdio.h>

#include "dataplane/state/registry.h"

static struct addr address(const char *text)
{
    struct addr a;
    struct err err;
    cr_assert_eq(addr_parse(&a, text, &err), 0, "%s", err.text);
    return a;
}

Test(registry, the_same_identity_is_the_same_entry)
{
    struct registry *r = registry_new();
    struct addr a = address("10.0.0.1:80"), b = address("10.0.0.1:81");
    struct endpoint *one = registry_endpoint(r, &a);
    cr_assert_eq(one, registry_endpoint(r, &a));
    cr_assert_neq(one, registry_endpoint(r, &b));
    cr_assert_str_eq(one->text, "10.0.0.1:80");
    cr_assert_eq(registry_target(r, 7), registry_target(r, 7));
    cr_assert_eq(registry_find_target(r, 8), NULL);
    cr_assert_eq(registry_route(r, "users"), registry_route(r, "users"));
    cr_assert_neq(registry_route(r, "users"), registry_route(r, "orders"));
    registry_free(&r);
    cr_assert_eq(r, NULL);
}

Test(registry, what_nobody_refers_to_is_collected_and_its_endpoint_slot_reused)
{
    struct registry *r = registry_new();
    struct addr a = address("10.0.0.1:80"), b = address("[::1]:80");
    struct endpoint *e = registry_endpoint(r, &a);
    struct target_state *t = registry_target(r, 7);
    uint32_t slot = e->slot;
    registry_collect(r);
    cr_assert_eq(registry_find_target(r, 7), t, "what is referred to stays");
    registry_release_endpoint(r, &e);
    registry_release_target(r, &t);
    cr_assert(e == NULL && t == NULL);
    registry_collect(r);
    cr_assert_eq(registry_find_target(r, 7), NULL);
    cr_assert_eq(registry_endpoint(r, &b)->slot, slot);
    cr_assert_eq(registry_endpoint_slots(r), 1);
    registry_free(&r);
}

Test(registry, an_endpoint_held_outside_survives_collecting)
{
    struct registry *r = registry_new();
    struct addr a = address("10.0.0.1:80");
    struct endpoint *e = registry_endpoint(r, &a), *held = e;
    endpoint_hold(held);
    registry_release_endpoint(r, &e);
    registry_collect(r);
    cr_assert_eq(registry_endpoint(r, &a), held);
    registry_free(&r);
}

Test(registry, a_target_that_comes_back_has_its_old_slot)
{
    struct registry *r = registry_new();
    struct target_state *a = registry_target(r, 1), *b = registry_target(r, 2);
    atomic_store(&a->unhealthy, true);
    registry_release_target(r, &a);
    registry_collect(r);
    struct target_state *c = registry_target(r, 3);
    a = registry_target(r, 1);
    cr_assert_eq(a->slot, 0);
    cr_assert_eq(b->slot, 1);
    cr_assert_eq(c->slot, 2, "slots of targets are never given to another");
    cr_assert_not(atomic_load(&a->unhealthy), "its health is asked for anew");
    cr_assert_eq(registry_target_id(r, 2), 3);
    registry_free(&r);
}

Test(registry, a_route_keeps_slot_and_name_for_ever)
{
    struct registry *r = registry_new();
    struct route_state *s = registry_route(r, "users"), *again = s;
    registry_release_route(r, &s);
    registry_collect(r);
    cr_assert_str_eq(registry_route_name(r, 0), "users");
    cr_assert_eq(registry_route_name(r, 1), NULL);
    cr_assert_eq(registry_route(r, "users"), again);
    cr_assert_eq(registry_route_slots(r), 1);
    registry_free(&r);
}

Test(registry, thirty_thousand_targets_are_found_again)
{
    enum { TARGETS = 30000 };
    struct registry *r = registry_new();
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < TARGETS; i++) {
            char text[32];
            snprintf(text, sizeof(text), "10.%u.%u.%u:80", i >> 16, i >> 8 & 255, i & 255);
            struct addr a = address(text);
            cr_assert_eq(registry_endpoint(r, &a)->slot, i);
            cr_assert_eq(registry_target(r, i * 0x9E3779B97F4A7C15u)->slot, i);
            cr_assert_eq(registry_route(r, text)->slot, i);
        }
    }
    cr_assert_eq(registry_target_slots(r), TARGETS);
    registry_free(&r);
}
