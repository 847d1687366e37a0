/* upstream_pool: a worker's idle connections to backends, by endpoint, newest first: those at hand
 * are warm, those at the end grow old and are closed by their deadline. One worker's. Hot path. */
#pragma once

#include "dataplane/state/registry.h"
#include "proto/base/list.h"

#define UPSTREAM_MAX_IDLE 512  /* per endpoint and worker */
#define UPSTREAM_IDLE_MS 60000 /* longest stay in the pool */

struct upstream;

struct idle_list {
    struct list idle; /* of struct upstream.link, newest first */
    uint32_t count;
};

struct upstream_pool {
    struct idle_list *slots; /* owned; index is endpoint.slot */
    uint32_t slot_count;
};

/* Room for so many endpoints; keeps what is idle. When a snapshot is adopted. */
void upstream_pool_resize(struct upstream_pool *p, uint32_t slots);
void upstream_pool_fini(struct upstream_pool *p); /* must be empty */

/* The newest idle connection to that endpoint, taken out; NULL if there is none. */
struct upstream *upstream_pool_take(struct upstream_pool *p, const struct endpoint *e);

/* false when the endpoint's list is full: the caller closes the connection. */
MUST_CHECK bool upstream_pool_put(struct upstream_pool *p, struct upstream *u);
void upstream_pool_remove(struct upstream_pool *p, struct upstream *u);
