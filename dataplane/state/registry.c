#include "dataplane/state/registry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/log.h"
#include "proto/base/pace.h"

#define FIRST_BUCKETS 64

/* A chained hash table of any of the three kinds; the chain's link is a member at `next_offset`.
 * It grows with its entries, so chains stay short at 30,000 targets as at three. */
struct table {
    void **heads; /* owned array; the entries are owned too */
    uint32_t size, count;
    size_t next_offset;
    uint64_t (*hash_of)(const void *entry);
};

struct registry {
    struct table endpoints, targets, routes;
    uint32_t *free_endpoint_slots; /* owned; a stack */
    uint32_t free_endpoint_count, free_endpoint_room;
    uint32_t endpoint_slots;
    struct route_state **route_at; /* owned array, by slot */
    uint32_t route_slots, route_room;
    uint64_t *target_ids; /* owned array, by slot: remembers targets that are gone */
    uint32_t target_slots, target_room;
    uint32_t *slot_of_id; /* owned; open addressing over target_ids, slot + 1 in each used cell */
    uint32_t slot_cells;  /* a power of two */
    struct breakers *breakers;  /* owned */
    struct redis_server *redis; /* owned list */
    struct names *names;        /* owned: of slots, for who comes after this process */
};

static void *checked(void *memory)
{
    if (!memory)
        log_fatal("registry", "out of memory");
    return memory;
}

/* ---- the table ---- */

static void **link_of(const struct table *t, void *entry)
{
    return (void **)(void *)((char *)entry + t->next_offset);
}

static void table_init(struct table *t, size_t next_offset, uint64_t (*hash_of)(const void *))
{
    t->heads = checked(calloc(FIRST_BUCKETS, sizeof(*t->heads)));
    t->size = FIRST_BUCKETS;
    t->count = 0;
    t->next_offset = next_offset;
    t->hash_of = hash_of;
}

static void *table_first(const struct table *t, uint64_t hash)
{
    return t->heads[hash & (t->size - 1)];
}

static void table_grow(struct table *t)
{
    uint32_t size = t->size * 2;
    void **heads = checked(calloc(size, sizeof(*heads)));
    for (uint32_t i = 0; i < t->size; i++) {
        for (void *e = t->heads[i], *next; e; e = next) {
            next = *link_of(t, e);
            void **head = &heads[t->hash_of(e) & (size - 1)];
            *link_of(t, e) = *head;
            *head = e;
        }
    }
    free(t->heads);
    t->heads = heads;
    t->size = size;
}

static void table_add(struct table *t, void *entry)
{
    if (t->count >= t->size)
        table_grow(t);
    void **head = &t->heads[t->hash_of(entry) & (t->size - 1)];
    *link_of(t, entry) = *head;
    *head = entry;
    t->count++;
}

/* Takes out every entry that `dispose` has freed; it says so with true. */
static void table_sweep(struct registry *r, struct table *t,
                        bool (*dispose)(struct registry *r, void *entry))
{
    for (uint32_t i = 0; i < t->size; i++) {
        pace_yield();
        for (void **at = &t->heads[i]; *at;) {
            void *entry = *at, *next = *link_of(t, entry);
            if (dispose(r, entry)) {
                *at = next;
                t->count--;
            } else {
                at = link_of(t, entry);
            }
        }
    }
}

/* ---- slots ---- */

/* Room for one more element in an array that doubles. */
static void *with_room(void *array, uint32_t count, uint32_t *room, size_t bytes)
{
    if (count < *room)
        return array;
    *room = MAX(64, *room * 2);
    return checked(realloc(array, *room * bytes));
}

static uint32_t take_endpoint_slot(struct registry *r)
{
    if (r->free_endpoint_count > 0)
        return r->free_endpoint_slots[--r->free_endpoint_count];
    return r->endpoint_slots++;
}

static void give_endpoint_slot(struct registry *r, uint32_t slot)
{
    r->free_endpoint_slots = with_room(r->free_endpoint_slots, r->free_endpoint_count,
                                       &r->free_endpoint_room, sizeof(*r->free_endpoint_slots));
    r->free_endpoint_slots[r->free_endpoint_count++] = slot;
}

/* Target ids are hashes already. */
static uint32_t *slot_cell(const struct registry *r, uint64_t id)
{
    uint32_t i = (uint32_t)id & (r->slot_cells - 1);
    while (r->slot_of_id[i] != 0 && r->target_ids[r->slot_of_id[i] - 1] != id)
        i = (i + 1) & (r->slot_cells - 1);
    return &r->slot_of_id[i];
}

static void grow_slot_cells(struct registry *r)
{
    free(r->slot_of_id);
    r->slot_cells *= 2;
    r->slot_of_id = checked(calloc(r->slot_cells, sizeof(*r->slot_of_id)));
    for (uint32_t slot = 0; slot < r->target_slots; slot++)
        *slot_cell(r, r->target_ids[slot]) = slot + 1;
}

/* The next slot is that target's. */
static void add_slot(struct registry *r, uint64_t id)
{
    if (r->target_slots * 2 >= r->slot_cells)
        grow_slot_cells(r);
    r->target_ids =
        with_room(r->target_ids, r->target_slots, &r->target_room, sizeof(*r->target_ids));
    r->target_ids[r->target_slots] = id;
    names_put_target(r->names, r->target_slots, id);
    uint32_t *cell = slot_cell(r, id);
    *cell = ++r->target_slots;
}

/* The slot that this id has had before, or a new one. Another process may take slots at the same
 * time: what it was quicker with is noted on the way. */
static uint32_t slot_for_target(struct registry *r, uint64_t id)
{
    while (*slot_cell(r, id) == 0)
        add_slot(r, breakers_claim(r->breakers, r->target_slots, id));
    return *slot_cell(r, id) - 1;
}

/* ---- life ---- */

static uint64_t hash_endpoint(const void *entry)
{
    return addr_hash(&((const struct endpoint *)entry)->addr);
}

static uint64_t hash_target(const void *entry)
{
    return ((const struct target_state *)entry)->id;
}

static uint64_t hash_name(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

static uint64_t hash_route(const void *entry)
{
    return hash_name(((const struct route_state *)entry)->name);
}

struct registry *registry_new(void)
{
    struct registry *r = checked(calloc(1, sizeof(*r)));
    table_init(&r->endpoints, offsetof(struct endpoint, next), hash_endpoint);
    table_init(&r->targets, offsetof(struct target_state, next), hash_target);
    table_init(&r->routes, offsetof(struct route_state, next), hash_route);
    r->slot_cells = FIRST_BUCKETS;
    r->slot_of_id = checked(calloc(r->slot_cells, sizeof(*r->slot_of_id)));
    r->breakers = breakers_new();
    r->names = names_new();
    return r;
}

static bool free_any(struct registry *r, void *entry)
{
    free(entry);
    return true;
}

static bool free_any_route(struct registry *r, void *entry)
{
    free(((struct route_state *)entry)->name);
    free(entry);
    return true;
}

void registry_free(struct registry **rp)
{
    struct registry *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    table_sweep(r, &r->endpoints, free_any);
    table_sweep(r, &r->targets, free_any);
    table_sweep(r, &r->routes, free_any_route);
    free(r->endpoints.heads);
    free(r->targets.heads);
    free(r->routes.heads);
    free(r->free_endpoint_slots);
    free(r->route_at);
    free(r->target_ids);
    free(r->slot_of_id);
    breakers_free(&r->breakers);
    redis_servers_free(&r->redis);
    names_free(&r->names);
    free(r);
}

/* Zeroed and on cache lines of its own: what workers write in one entry slows no other. */
static void *entry_new(size_t bytes)
{
    size_t whole = (bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    void *entry = checked(aligned_alloc(CACHE_LINE_BYTES, whole));
    memset(entry, 0, whole);
    return entry;
}

/* ---- find or make ---- */

struct endpoint *registry_endpoint(struct registry *r, const struct addr *addr)
{
    struct endpoint *e = table_first(&r->endpoints, addr_hash(addr));
    while (e && !addr_equal(&e->addr, addr))
        e = e->next;
    if (!e) {
        e = entry_new(sizeof(*e));
        e->addr = *addr;
        addr_format(addr, e->text);
        e->slot = take_endpoint_slot(r);
        table_add(&r->endpoints, e);
    }
    endpoint_hold(e);
    return e;
}

struct target_state *registry_find_target(const struct registry *r, uint64_t id)
{
    struct target_state *t = table_first(&r->targets, id);
    while (t && t->id != id)
        t = t->next;
    return t;
}

static uint32_t epoch_of_breaker(const struct target_state *t)
{
    struct breaker_view view = {0};
    if (t->breaker)
        breaker_look(t->breaker, &view);
    return view.epoch;
}

struct target_state *registry_target(struct registry *r, uint64_t id)
{
    struct target_state *t = registry_find_target(r, id);
    if (!t) {
        t = entry_new(sizeof(*t));
        t->id = id;
        t->slot = slot_for_target(r, id);
        t->breaker = breakers_at(r->breakers, t->slot);
        t->told_epoch = epoch_of_breaker(t);
        table_add(&r->targets, t);
    }
    t->refs++;
    return t;
}

static struct route_state *route_new(struct registry *r, const char *name)
{
    struct route_state *s = entry_new(sizeof(*s));
    s->name = checked(strdup(name));
    list_init(&s->limiters);
    s->slot = r->route_slots;
    s->breakers_open = breakers_route(r->breakers, hash_name(name));
    if (!s->breakers_open)
        s->breakers_open = &s->own_breakers_open;
    s->is_to_be_counted = true;
    names_put_route(r->names, s->slot, name);
    r->route_at =
        with_room(r->route_at, r->route_slots, &r->route_room, sizeof(struct route_state *));
    r->route_at[r->route_slots++] = s;
    table_add(&r->routes, s);
    return s;
}

struct route_state *registry_route(struct registry *r, const char *name)
{
    struct route_state *s = table_first(&r->routes, hash_name(name));
    while (s && strcmp(s->name, name) != 0)
        s = s->next;
    if (!s)
        s = route_new(r, name);
    s->refs++;
    return s;
}

void registry_set_health(struct target_state *t, bool unhealthy, uint64_t now_ms)
{
    bool was = atomic_load_explicit(&t->unhealthy, memory_order_relaxed);
    if (was && !unhealthy)
        atomic_store_explicit(&t->fresh_since_ms, now_ms, memory_order_relaxed);
    atomic_store_explicit(&t->unhealthy, unhealthy, memory_order_relaxed);
}

void registry_forget_untold(struct registry *r, uint32_t round, uint64_t now_ms)
{
    for (uint32_t i = 0; i < r->targets.size; i++) {
        for (struct target_state *t = r->targets.heads[i]; t; t = t->next) {
            if (t->told == round)
                continue;
            registry_set_health(t, false, now_ms);
            atomic_store_explicit(&t->draining, false, memory_order_relaxed);
            atomic_store_explicit(&t->weight_override, 0, memory_order_relaxed);
        }
    }
}

struct redis_server *registry_redis(struct registry *r, const char *url, const char *name)
{
    return redis_server_find(&r->redis, url, name);
}

struct redis_server *registry_redis_first(const struct registry *r)
{
    return r->redis;
}

/* ---- let go ---- */

void registry_release_endpoint(struct registry *r, struct endpoint **e)
{
    endpoint_unhold(e);
}

void registry_release_target(struct registry *r, struct target_state **t)
{
    assert((*t)->refs > 0);
    (*t)->refs--;
    *t = NULL;
}

void registry_release_route(struct registry *r, struct route_state **s)
{
    assert((*s)->refs > 0);
    (*s)->refs--;
    *s = NULL;
}

static bool collect_endpoint(struct registry *r, void *entry)
{
    struct endpoint *e = entry;
    /* Acquire pairs with endpoint_unhold(): what its last user did with it is over. */
    if (atomic_load_explicit(&e->refs, memory_order_acquire) > 0)
        return false;
    give_endpoint_slot(r, e->slot);
    free(e);
    return true;
}

static bool collect_target(struct registry *r, void *entry)
{
    struct target_state *t = entry;
    if (atomic_load_explicit(&t->refs, memory_order_acquire) > 0)
        return false;
    /* What comes back under this identity one day is asked anew. */
    if (t->breaker && t->route)
        breaker_apply(t->breaker, NULL, t->route->breakers_open, 0);
    free(t);
    return true;
}

void registry_collect(struct registry *r)
{
    table_sweep(r, &r->endpoints, collect_endpoint);
    table_sweep(r, &r->targets, collect_target);
}

/* ---- what other processes share ---- */

bool registry_adopt_breakers(struct registry *r, int fd, uint64_t now_ms, struct err *err)
{
    if (r->target_slots > 0) {
        close(fd);
        err_set(err, "this process has begun with its own already");
        return false;
    }
    if (!breakers_adopt(r->breakers, fd, err))
        return false;
    breakers_mend(r->breakers, now_ms);
    return true;
}

void registry_mend_breakers(struct registry *r, uint64_t now_ms)
{
    breakers_mend(r->breakers, now_ms);
    for (uint32_t slot = 0; slot < r->route_slots; slot++)
        r->route_at[slot]->is_to_be_counted = true;
}

const struct segment *registry_breakers(const struct registry *r)
{
    return breakers_segment(r->breakers);
}

const struct segment *registry_names(const struct registry *r)
{
    return names_segment(r->names);
}

void registry_each_route(const struct registry *r, registry_visit_fn *visit, void *owner)
{
    for (uint32_t slot = 0; slot < r->route_slots; slot++)
        visit(owner, r->route_at[slot]);
}

/* ---- for reports ---- */

uint32_t registry_endpoint_slots(const struct registry *r)
{
    return r->endpoint_slots;
}

uint32_t registry_route_slots(const struct registry *r)
{
    return r->route_slots;
}

uint32_t registry_target_slots(const struct registry *r)
{
    return r->target_slots;
}

const char *registry_route_name(const struct registry *r, uint32_t slot)
{
    return slot < r->route_slots ? r->route_at[slot]->name : NULL;
}

uint64_t registry_target_id(const struct registry *r, uint32_t slot)
{
    assert(slot < r->target_slots);
    return r->target_ids[slot];
}
