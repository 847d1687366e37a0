/* messages: Snapshot messages for tests, built piece by piece; everything is in one arena that the
 * test frees. */
#pragma once

#include <stdlib.h>

#include "proto/base/arena.h"
#include "proto/gateway.pb-c.h"

struct draft {
    struct arena *arena;
    Gwp__Snapshot *message;
};

static inline void *grown(struct arena *arena, void *old, size_t count, size_t bytes)
{
    /* Doubling at powers of two keeps 10,000 routes cheap. */
    if (count > 0 && (count & (count - 1)) != 0)
        return old;
    char *fresh = arena_array(arena, count > 0 ? count * 2 : 1, bytes);
    if (count > 0)
        memcpy(fresh, old, count * bytes);
    return fresh;
}

static inline struct draft draft_new(uint64_t generation)
{
    struct draft d = {.arena = arena_new(64 * 1024)};
    Gwp__Snapshot *m = d.message = arena_alloc(d.arena, sizeof(*m));
    gwp__snapshot__init(m);
    m->generation = generation;
    m->source = arena_copy(d.arena, view_of("gateway.yaml"));
    m->server = arena_alloc(d.arena, sizeof(*m->server));
    gwp__server__init(m->server);
    m->server->max_header_bytes = 16384;
    m->server->max_headers = 100;
    m->server->n_listen = 1;
    m->server->listen = arena_array(d.arena, 1, sizeof(char *));
    m->server->listen[0] = arena_copy(d.arena, view_of("127.0.0.1:0"));
    m->logging = arena_alloc(d.arena, sizeof(*m->logging));
    gwp__logging__init(m->logging);
    m->logging->access_log = arena_copy(d.arena, view_of("off"));
    m->logging->access_log_sample = 1;
    m->logging->level = GWP__LOGGING__LEVEL__ERROR;
    return d;
}

static inline Gwp__Route *draft_route(struct draft *d, const char *name, const char *host,
                                      const char *prefix)
{
    Gwp__Snapshot *m = d->message;
    m->routes = grown(d->arena, m->routes, m->n_routes, sizeof(*m->routes));
    Gwp__Route *r = m->routes[m->n_routes++] = arena_alloc(d->arena, sizeof(*r));
    gwp__route__init(r);
    r->name = arena_copy(d->arena, view_of(name));
    r->host = arena_copy(d->arena, view_of(host));
    r->path_prefix = arena_copy(d->arena, view_of(prefix));
    r->place = arena_alloc(d->arena, sizeof(*r->place));
    gwp__place__init(r->place);
    r->place->line = (uint32_t)m->n_routes * 10;
    return r;
}

static inline void draft_method(struct draft *d, Gwp__Route *r, const char *method)
{
    r->methods = grown(d->arena, r->methods, r->n_methods, sizeof(*r->methods));
    r->methods[r->n_methods++] = arena_copy(d->arena, view_of(method));
}

static inline uint32_t draft_endpoint(struct draft *d, const char *address)
{
    Gwp__Snapshot *m = d->message;
    m->endpoints = grown(d->arena, m->endpoints, m->n_endpoints, sizeof(*m->endpoints));
    Gwp__Endpoint *e = m->endpoints[m->n_endpoints] = arena_alloc(d->arena, sizeof(*e));
    gwp__endpoint__init(e);
    e->address = arena_copy(d->arena, view_of(address));
    return (uint32_t)m->n_endpoints++;
}

static inline Gwp__Target *draft_target(struct draft *d, Gwp__Route *r, uint64_t id,
                                        uint32_t endpoint)
{
    r->targets = grown(d->arena, r->targets, r->n_targets, sizeof(*r->targets));
    Gwp__Target *t = r->targets[r->n_targets++] = arena_alloc(d->arena, sizeof(*t));
    gwp__target__init(t);
    t->id = id;
    t->endpoint = endpoint;
    t->weight = 1;
    t->url = arena_copy(d->arena, view_of("http://backend:8080"));
    t->host = arena_copy(d->arena, view_of("backend:8080"));
    return t;
}
