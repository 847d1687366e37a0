/* registry: what outlives snapshots, by identity: addresses, targets (an address in its role for a
 * route) and routes. A snapshot refers to entries here; the same identity in the next snapshot is
 * the same entry, so pools, positions, counts and health are not reset by a reload.
 *
 * Owned by the control thread, which alone calls these functions. The structs' atomic members are
 * used by any worker; their other members are written before a snapshot that refers to them is
 * published and never afterwards.
 *
 * Life: each snapshot that refers to an entry holds one reference, taken by registry_*() and given
 * back by registry_release_*() when the snapshot is freed; whoever outlives its snapshot (a tunnel)
 * takes its own with endpoint_hold(), target_hold(). registry_collect() frees endpoints and targets
 * that nobody refers to; a route's entry, and which slot a target had, are remembered for ever, so
 * that an identity which comes back goes on counting where it was. */
#pragma once

#include <stdatomic.h>

#include "dataplane/route/breaker.h"
#include "dataplane/route/redis_server.h"
#include "dataplane/state/names.h"
#include "proto/base/addr.h"
#include "proto/base/list.h"

struct endpoint {
    struct addr addr;
    char text[ADDR_TEXT_BYTES]; /* "10.0.0.1:8080" */
    uint32_t slot; /* index into every worker's pools; reused after the endpoint is freed */
    _Atomic uint64_t listed_by; /* generation of the newest snapshot that lists it: idle connections
                                   go when older */
    _Atomic uint32_t refs;
    struct endpoint *next; /* of the registry's hash chain */
};

struct target_state {
    uint64_t id; /* Target.id of the contract */
    _Atomic uint32_t refs;
    uint32_t told;       /* control thread: the round in which the control plane last spoke of it */
    uint32_t told_epoch; /* control thread: up to where its breaker's transitions were logged */
    struct target_state *next;
    /* All that a request needs is in the line that it writes to anyway. */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t active; /* requests under way at it, all workers */
    uint32_t slot;             /* index into every worker's target counters */
    struct route_state *route; /* its id is made of the route's name, too; set by snapshot.c */
    struct breaker *breaker;   /* in the segment, or NULL when there is no room for it */
    _Atomic uint32_t weight_override; /* 0 = as configured */
    _Atomic uint64_t paid;            /* for its turns (lb_least.c) */
    _Atomic bool unhealthy, draining;
    _Atomic uint64_t fresh_since_ms; /* when it turned healthy, or joined a route that was there:
                                        slow start; 0 = long ago */
};

struct route_state {
    char *name;    /* owned */
    uint32_t slot; /* index into every worker's route counters */
    uint32_t refs; /* control thread */
    struct route_state *next;
    struct list limiters; /* control thread: those that snapshots refer to (route/limiter.h) */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t position; /* whose turn it is, all workers */
    _Atomic uint64_t paid; /* by who was chosen last, about (lb_least.c) */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t *breakers_open; /* those that are not closed: in the
                                                                   breakers' segment, or: */
    _Atomic uint32_t own_breakers_open;                         /* when that has no room */
    _Atomic bool stirred;  /* what its rosters were called from has changed: targets.c looks */
    bool is_called;        /* control thread: being called anew */
    bool is_to_be_counted; /* control thread: nobody knows how far breakers_open can be trusted */
};

struct registry;

struct registry *registry_new(void);
void registry_free(struct registry **r);

/* Goes on with the breakers of another process: targets are found by their ids in the slots that
 * they have there. Only while the registry knows no target yet. False with `err`: it begins with
 * none. Takes `fd` over in either case. */
MUST_CHECK bool registry_adopt_breakers(struct registry *r, int fd, uint64_t now_ms,
                                        struct err *err);

/* A process that shared the breakers has died: mends what it left half done. */
void registry_mend_breakers(struct registry *r, uint64_t now_ms);

const struct segment *registry_breakers(const struct registry *r);
const struct segment *registry_names(const struct registry *r);

/* Calls `visit` for every route there ever was. */
typedef void registry_visit_fn(void *owner, struct route_state *s);
void registry_each_route(const struct registry *r, registry_visit_fn *visit, void *owner);

/* Find or make; each call takes a reference. */
struct endpoint *registry_endpoint(struct registry *r, const struct addr *addr);
struct target_state *registry_target(struct registry *r, uint64_t id);
struct route_state *registry_route(struct registry *r, const char *name);

/* The same for a Redis, by its URL; it is remembered, so nobody counts references. */
struct redis_server *registry_redis(struct registry *r, const char *url, const char *name);
struct redis_server *registry_redis_first(const struct registry *r);

/* Find without making or referring; NULL if unknown. */
struct target_state *registry_find_target(const struct registry *r, uint64_t id);

/* Makes every target healthy, not draining and of its configured weight again that was not told of
 * in that round. */
void registry_forget_untold(struct registry *r, uint32_t round, uint64_t now_ms);

/* The one door to a target's health; control thread. What turns healthy starts slowly. */
void registry_set_health(struct target_state *t, bool unhealthy, uint64_t now_ms);

void registry_release_endpoint(struct registry *r, struct endpoint **e);
void registry_release_target(struct registry *r, struct target_state **t);
void registry_release_route(struct registry *r, struct route_state **s);

/* Any worker, lock-free: a reference that outlives the snapshot, and its end. */
static inline void endpoint_hold(struct endpoint *e)
{
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
}

static inline void endpoint_unhold(struct endpoint **e)
{
    atomic_fetch_sub_explicit(&(*e)->refs, 1, memory_order_release);
    *e = NULL;
}

static inline void target_hold(struct target_state *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
}

static inline void target_unhold(struct target_state **t)
{
    atomic_fetch_sub_explicit(&(*t)->refs, 1, memory_order_release);
    *t = NULL;
}

/* Frees endpoints and targets without references. Called after a snapshot was freed; route and
 * target slots are NOT reused (counters never step back), endpoint slots are. */
void registry_collect(struct registry *r);

/* How many slots of each kind have ever been in use: array sizes. */
uint32_t registry_endpoint_slots(const struct registry *r);
uint32_t registry_route_slots(const struct registry *r);
uint32_t registry_target_slots(const struct registry *r);

/* For reports: what is, or once was, behind a slot. No name (NULL) if the slot was never in use. */
const char *registry_route_name(const struct registry *r, uint32_t slot);
uint64_t registry_target_id(const struct registry *r, uint32_t slot);
