/* overrides: what an operator has ordered about endpoints, against configuration and checks: no new
 * requests (drain), another weight. By address, for every route or for one; kept in the state
 * directory until it is undone, whether the address is in use meanwhile or not. Owned by
 * endpoints.c, which puts it into effect; one thread.
 *
 * What one route is told goes before what all are told; drained is who is drained by either.
 *
 * The file is written beside, synced and renamed with each change. One that cannot be understood is
 * reported, put aside as "overrides.json.broken" and treated as empty. */
#pragma once

#include "controlplane/table.h"
#include "proto/base/err.h"

#define OVERRIDES_MAX 10000

struct override {
    char *key; /* owned: address, zero byte, route */
    size_t key_len;
    const char *address, *route; /* in key; route "" = every route */
    bool draining;
    uint32_t weight; /* 0 = as configured */
    double since;    /* wall clock, of the last change */
};

struct overrides {
    char *path;      /* owned; NULL = nothing is kept */
    struct table by; /* by key -> struct override, owned */
};

/* Reads what is kept in `state_dir`. */
void overrides_init(struct overrides *o, const char *state_dir);
void overrides_fini(struct overrides *o);

/* NULL = nothing was ordered of it. */
const struct override *overrides_find(const struct overrides *o, const char *address,
                                      const char *route);

/* Sets all of it at once; with neither drain nor weight it is forgotten. -1 with `err` when there
 * are too many. Not kept before overrides_save(). */
MUST_CHECK int overrides_set(struct overrides *o, const char *address, const char *route,
                             bool draining, uint32_t weight, struct err *err);

/* -1 with `err`: what is in effect now will be lost with this process. */
MUST_CHECK int overrides_save(const struct overrides *o, struct err *err);

/* All of them by address, then route; the array is the caller's. */
const struct override **overrides_sorted(const struct overrides *o, size_t *count);
