#include "controlplane/endpoints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"
#include "proto/base/pace.h"

/* An entry takes at most 24 bytes, so that many are far from the bound of a message. */
#define ENTRIES_PER_MESSAGE 100000

/* ---- what a target counts as ---- */

enum health_state target_verdict(const struct target *t)
{
    return t->check ? t->check->state : HEALTH_UP;
}

bool target_counts_as_up(const struct target *t)
{
    enum health_state verdict = target_verdict(t);
    return verdict == HEALTH_UP || (verdict == HEALTH_UNKNOWN && !t->start_down);
}

const struct target *endpoints_find(const struct endpoints *es, uint64_t id)
{
    return table_get(&es->by_id, (struct view){(const char *)&id, sizeof(id)});
}

struct target_tally endpoints_tally(const struct endpoints *es, size_t route)
{
    struct target_tally tally = {.count = es->spans[route].count};
    for (size_t i = 0; i < tally.count; i++) {
        const struct target *t = &es->targets[es->spans[route].first + i];
        enum health_state verdict = target_verdict(t);
        tally.up += verdict == HEALTH_UP;
        tally.down += verdict == HEALTH_DOWN;
        tally.unknown += verdict == HEALTH_UNKNOWN;
        tally.draining += t->draining;
        tally.usable += target_counts_as_up(t) && !t->draining;
    }
    return tally;
}

/* ---- telling data planes ---- */

/* A message under construction. */
struct telling {
    struct endpoints *es;
    struct session *only; /* NULL = every data plane */
    bool complete;
    size_t count;
    Gwp__EndpointState__Entry *entries; /* owned */
    Gwp__EndpointState__Entry **list;   /* owned */
};

static void *must(void *memory)
{
    if (!memory)
        log_fatal("endpoints", "out of memory");
    return memory;
}

static void telling_init(struct telling *m, struct endpoints *es, size_t count)
{
    *m = (struct telling){.es = es};
    m->entries = must(calloc(count + 1, sizeof(*m->entries)));
    m->list = must(calloc(count + 1, sizeof(*m->list)));
}

static void tell(struct telling *m, const struct target *t)
{
    Gwp__EndpointState__Entry *e = &m->entries[m->count];
    pace_yield();
    *e = (Gwp__EndpointState__Entry)GWP__ENDPOINT_STATE__ENTRY__INIT;
    e->target_id = t->id;
    e->unhealthy = !target_counts_as_up(t);
    e->checked = target_verdict(t) != HEALTH_UNKNOWN;
    e->draining = t->draining;
    e->weight_override = t->weight_override;
    m->list[m->count++] = e;
}

static void send_part(const struct telling *m, size_t first, size_t count, bool complete)
{
    Gwp__EndpointState state = GWP__ENDPOINT_STATE__INIT;
    state.entries = m->list + first;
    state.n_entries = count;
    state.complete = complete;
    size_t len = gwp__endpoint_state__get_packed_size(&state);
    uint8_t *packed = must(malloc(len + 1));
    gwp__endpoint_state__pack(&state, packed);
    sessions_each(s, m->es->sessions)
    {
        if (!m->only || s == m->only)
            session_send_state(s, packed, len);
    }
    free(packed);
}

/* More than fit into one message go without the word that they are complete: they are all that the
 * snapshot holds in any case. */
static void telling_send(struct telling *m)
{
    bool fits = m->count <= ENTRIES_PER_MESSAGE;
    if (m->count == 0 && m->complete)
        send_part(m, 0, 0, true);
    for (size_t first = 0; first < m->count; first += ENTRIES_PER_MESSAGE)
        send_part(m, first, MIN(m->count - first, ENTRIES_PER_MESSAGE), m->complete && fits);
    free(m->entries);
    free(m->list);
}

/* Not while another snapshot is on its way: its new targets would be taken for forgotten ones. */
static bool may_be_told_all(const struct endpoints *es, const struct session *s)
{
    return es->generation > 0 && s->generation == es->generation && s->sent == es->generation;
}

static void tell_all(struct endpoints *es, struct session *s)
{
    struct telling m;
    telling_init(&m, es, es->count);
    m.only = s;
    m.complete = true;
    for (size_t i = 0; i < es->count; i++)
        tell(&m, &es->targets[i]);
    telling_send(&m);
}

void endpoints_opened(struct endpoints *es, struct session *s)
{
    if (s->served == 0 && es->generation > 0 && es->count <= ENTRIES_PER_MESSAGE)
        tell_all(es, s);
}

void endpoints_accepted(struct endpoints *es, struct session *s)
{
    if (!may_be_told_all(es, s) || s->told == es->generation)
        return;
    s->told = es->generation;
    tell_all(es, s);
}

/* ---- verdicts ---- */

static bool matters(const struct check *c, enum health_state before)
{
    list_each (node, &c->users) {
        if (before != HEALTH_UNKNOWN || CONTAINER_OF(node, struct target, link)->start_down)
            return true;
    }
    return c->state == HEALTH_DOWN;
}

static void log_verdict(const struct endpoints *es, const struct check *c, enum health_state before)
{
    const struct target *first = CONTAINER_OF(c->users.next, struct target, link);
    char more[48] = "";
    size_t others = 0;
    list_each (node, &c->users)
        others += node != &first->link;
    if (others > 0)
        snprintf(more, sizeof(more), " and %zu more", others);
    /* That an endpoint which counted as up is up is no news for ten thousand lines. */
    log_about(c->state == HEALTH_DOWN ? LOG_WARN
              : matters(c, before)    ? LOG_INFO
                                      : LOG_DEBUG,
              "health",
              LOG_FIELDS(about_endpoint(first->address), about_from(health_word(before)),
                         about_to(health_word(c->state)), about_cause(c->last.reason),
                         about_route(first->route->name), about_source(es->config->source),
                         about_line(first->backend->place.line)),
              "endpoint %s %s -> %s: %s after %.1f ms, %u in a row (%s%s, route %s at %s:%u%s)",
              first->address, health_word(before), health_word(c->state), c->last.reason,
              c->last.seconds * 1000, MAX(c->good, c->failed), c->path[0] ? "GET " : "connect",
              c->path, first->route->name, es->config->source, first->backend->place.line, more);
}

static void on_verdict(void *owner, struct check *c, enum health_state before)
{
    struct endpoints *es = owner;
    struct telling m;
    size_t count = 0;
    list_each (node, &c->users)
        count++;
    if (count == 0)
        return;
    telling_init(&m, es, count);
    list_each (node, &c->users)
        tell(&m, CONTAINER_OF(node, struct target, link));
    telling_send(&m);
    log_verdict(es, c, before);
}

/* ---- overrides ---- */

/* True when that changes anything. */
static bool take_overrides(const struct endpoints *es, struct target *t)
{
    const struct override *all = overrides_find(&es->overrides, t->address, "");
    const struct override *own = overrides_find(&es->overrides, t->address, t->route->name);
    bool draining = (all && all->draining) || (own && own->draining);
    uint32_t weight = own && own->weight ? own->weight : all ? all->weight : 0;
    bool changes = draining != t->draining || weight != t->weight_override;
    t->draining = draining;
    t->weight_override = weight;
    return changes;
}

/* ---- what is in force ---- */

static size_t count_targets(const struct config *config, builder_lookup_fn *lookup, void *owner)
{
    size_t count = 0;
    for (size_t r = 0; r < config->route_count; r++) {
        for (size_t i = 0; i < config->routes[r].backend_count; i++) {
            const struct strings *ips = lookup(owner, config->routes[r].backends[i].host);
            count += ips ? ips->count : 0;
        }
    }
    return count;
}

/* `before` is the same target in the generation before, or NULL. */
static void bind_check(struct endpoints *es, struct target *t, const struct target *before,
                       double now)
{
    const struct health_check_config *c = &t->route->health_check;
    list_init(&t->link);
    if (!c->enabled)
        return;
    const char *host = c->host[0] ? c->host : builder_host(es->arena, t->backend);
    const struct check_spec spec = {.address = t->address, .check = c, .host = host};
    t->start_down = c->until_checked == UNTIL_CHECKED_DOWN;
    t->check = health_want(&es->health, &spec, before ? before->check : NULL, now);
    if (t->check)
        list_push_back(&t->check->users, &t->link);
}

static void add_target(struct endpoints *es, const struct table *old,
                       const struct route_config *route, const struct backend_config *backend,
                       const char *ip, double now)
{
    struct target *t = &es->targets[es->count];
    pace_yield();
    t->address = builder_address(es->arena, ip, backend->port);
    t->id = builder_target_id(route->name, backend->url, t->address);
    if (endpoints_find(es, t->id))
        return; /* the same backend is listed twice */
    t->route = route;
    t->backend = backend;
    struct view key = {(const char *)&t->id, sizeof(t->id)};
    bind_check(es, t, table_get(old, key), now);
    take_overrides(es, t);
    table_add(&es->by_id, key, t);
    es->count++;
}

void endpoints_apply(struct endpoints *es, const struct config *config, uint64_t generation,
                     builder_lookup_fn *lookup, void *owner)
{
    struct arena *old_arena = es->arena;
    struct table old = es->by_id;
    double now = health_now();
    es->arena = arena_new(64 * 1024);
    es->config = config;
    es->generation = generation;
    es->count = 0;
    size_t most = count_targets(config, lookup, owner);
    es->targets = arena_array(es->arena, most + 1, sizeof(*es->targets));
    es->spans = arena_array(es->arena, config->route_count + 1, sizeof(*es->spans));
    table_init(&es->by_id);
    table_reserve(&es->by_id, most);
    health_begin(&es->health);
    for (size_t r = 0; r < config->route_count; r++) {
        const struct route_config *route = &config->routes[r];
        es->spans[r].first = es->count;
        for (size_t i = 0; i < route->backend_count; i++) {
            const struct strings *ips = lookup(owner, route->backends[i].host);
            for (size_t k = 0; ips && k < ips->count; k++)
                add_target(es, &old, route, &route->backends[i], ips->at[k], now);
        }
        es->spans[r].count = es->count - es->spans[r].first;
    }
    health_end(&es->health, now);
    table_fini(&old);
    arena_free(&old_arena);
    sessions_each(s, es->sessions) endpoints_accepted(es, s);
}

/* ---- orders ---- */

bool endpoints_normalize(const char *text, char out[ADDR_TEXT_BYTES])
{
    struct addr a;
    if (text[0] == ':' || addr_parse(&a, text, NULL) < 0 || a.sa.any.sa_family == AF_UNIX)
        return false;
    addr_format(&a, out);
    return true;
}

static bool is_meant(const struct target *t, const char *address, const char *route)
{
    return strcmp(t->address, address) == 0 && (!route || strcmp(t->route->name, route) == 0);
}

static bool is_in_force(const struct endpoints *es, const char *address, const char *route)
{
    for (size_t i = 0; i < es->count; i++)
        if (is_meant(&es->targets[i], address, route))
            return true;
    return false;
}

static bool is_undoing(const struct order *o)
{
    return o->kind == ORDER_UNDRAIN || (o->kind == ORDER_WEIGHT && o->weight == 0);
}

/* One override with the order carried out. */
static int change(struct endpoints *es, const struct order *o, const char *address,
                  const char *route, struct err *err)
{
    const struct override *now = overrides_find(&es->overrides, address, route);
    bool draining = o->kind == ORDER_WEIGHT ? now && now->draining : o->kind == ORDER_DRAIN;
    uint32_t weight = o->kind == ORDER_WEIGHT ? o->weight : now ? now->weight : 0;
    return overrides_set(&es->overrides, address, route, draining, weight, err);
}

static void undo_everywhere(struct endpoints *es, const struct order *o, const char *address)
{
    size_t count;
    const struct override **all = overrides_sorted(&es->overrides, &count);
    for (size_t i = 0; i < count; i++) {
        /* What nothing is left of is freed, with its key: nothing of it is used afterwards. */
        if (strcmp(all[i]->address, address) == 0 &&
            change(es, o, all[i]->address, all[i]->route, NULL) < 0)
            log_fatal("endpoints", "an override that is there cannot be changed");
    }
    free(all);
}

/* For one route what is ordered for all of them cannot be undone. */
static bool is_ordered_for_all(const struct endpoints *es, const struct order *o,
                               const char *address)
{
    const struct override *all = overrides_find(&es->overrides, address, "");
    return all && (o->kind == ORDER_UNDRAIN ? all->draining : all->weight > 0);
}

/* Tells the data planes of every target that is another now; how many. */
static size_t put_into_effect(struct endpoints *es, const char *address)
{
    struct telling m;
    telling_init(&m, es, es->count);
    for (size_t i = 0; i < es->count; i++) {
        struct target *t = &es->targets[i];
        if (strcmp(t->address, address) == 0 && take_overrides(es, t))
            tell(&m, t);
    }
    size_t count = m.count;
    telling_send(&m);
    return count;
}

static void log_order(const struct order *o, const char *address, size_t changed)
{
    char what[48];
    if (o->kind == ORDER_WEIGHT && o->weight > 0)
        snprintf(what, sizeof(what), "weight %u", o->weight);
    else
        snprintf(what, sizeof(what), "%s",
                 o->kind == ORDER_DRAIN     ? "draining"
                 : o->kind == ORDER_UNDRAIN ? "not draining"
                                            : "weight as configured");
    log_about(LOG_INFO, "endpoints",
              LOG_FIELDS(about_endpoint(address), about_route(o->route), about_user(o->user)),
              "endpoint %s is ordered: %s (%s%s, %zu target%s changed)", address, what,
              o->route ? "route " : "every route", o->route ? o->route : "", changed,
              changed == 1 ? "" : "s");
}

static enum order_result refuse_unknown(const struct order *o, const char *address, struct err *err)
{
    err_set(err, "no endpoint %s in %s%s; gwpctl backends shows those that there are", address,
            o->route ? "route " : "any route", o->route ? o->route : "");
    return ORDER_UNKNOWN;
}

static enum order_result reset_breakers(struct endpoints *es, const struct order *o,
                                        const char *address)
{
    struct telling m;
    telling_init(&m, es, es->count);
    for (size_t i = 0; i < es->count; i++) {
        if (!is_meant(&es->targets[i], address, o->route))
            continue;
        tell(&m, &es->targets[i]);
        m.entries[m.count - 1].reset_breaker = true;
    }
    log_about(LOG_INFO, "endpoints",
              LOG_FIELDS(about_endpoint(address), about_route(o->route), about_user(o->user)),
              "endpoint %s is ordered: breaker reset (%s%s, %zu target%s)", address,
              o->route ? "route " : "every route", o->route ? o->route : "", m.count,
              m.count == 1 ? "" : "s");
    telling_send(&m);
    return ORDER_DONE;
}

enum order_result endpoints_order(struct endpoints *es, const struct order *o, struct err *err)
{
    char address[ADDR_TEXT_BYTES];
    err->text[0] = '\0';
    if (!endpoints_normalize(o->address, address)) {
        err_set(err, "\"%s\" is no endpoint: write an address and a port, as in 10.0.0.1:8080",
                o->address);
        return ORDER_UNKNOWN;
    }
    const char *route = o->route ? o->route : "";
    bool undoes = is_undoing(o), is_known = is_in_force(es, address, o->route);
    for (size_t i = 0; undoes && !is_known && i < es->overrides.by.size; i++) {
        const struct override *one = es->overrides.by.slots[i].item;
        is_known = one && strcmp(one->address, address) == 0 &&
                   (!o->route || strcmp(one->route, route) == 0);
    }
    if (!is_known)
        return refuse_unknown(o, address, err);
    if (o->kind == ORDER_RESET_BREAKER)
        return reset_breakers(es, o, address);
    if (undoes && o->route && is_ordered_for_all(es, o, address)) {
        err_set(err, "that is ordered of %s for every route: undo it without naming one", address);
        return ORDER_CONFLICT;
    }
    if (undoes && !o->route)
        undo_everywhere(es, o, address);
    else if (change(es, o, address, route, err) < 0)
        return ORDER_CONFLICT;
    log_order(o, address, put_into_effect(es, address));
    es->orders_are_unkept = overrides_save(&es->overrides, err) < 0;
    if (es->orders_are_unkept)
        log_error("endpoints", "an order is in effect, but will not outlive this process: %s",
                  err->text);
    return ORDER_DONE;
}

void endpoints_keep_again(struct endpoints *es)
{
    struct err ignored;
    if (!es->orders_are_unkept || overrides_save(&es->overrides, &ignored) < 0)
        return;
    es->orders_are_unkept = false;
    log_info("endpoints", "orders are kept again");
}

/* ---- life ---- */

void endpoints_init(struct endpoints *es, struct ev_loop *loop, struct sessions *sessions,
                    struct ledger *ledger, const char *state_dir)
{
    memset(es, 0, sizeof(*es));
    es->sessions = sessions;
    table_init(&es->by_id);
    health_init(&es->health, loop, ledger, on_verdict, es);
    overrides_init(&es->overrides, state_dir);
}

void endpoints_fini(struct endpoints *es)
{
    health_fini(&es->health);
    overrides_fini(&es->overrides);
    table_fini(&es->by_id);
    arena_free(&es->arena);
    es->config = NULL;
    es->count = 0;
}
