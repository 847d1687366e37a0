/* compare: what is different between two configurations: routes, backends, policies and single keys
 * that were added, removed or changed. Goes by the rows of the schema, so it knows every key. Pure.
 */
#pragma once

#include "controlplane/config/config.h"

/* More are counted only. */
#define COMPARE_MAX 1000

enum change_kind { CHANGE_ADDED, CHANGE_REMOVED, CHANGE_CHANGED };

struct change {
    enum change_kind kind;
    const char *route;     /* whose it is; NULL = of another section */
    const char *backend;   /* likewise, within the route; by its URL */
    const char *key;       /* "server.workers", "rate_limit", "rate_limit.rate"; NULL = all of it */
    const char *from, *to; /* of a key that has changed, as a file has them */
    uint32_t from_line, to_line; /* of the section, 0 = none */
    const char *sentence;        /* "route users: timeout_seconds 10 -> 30" */
};

struct changes {
    struct change *at;
    size_t count, room;
    size_t dropped; /* counted, not kept */
};

/* Routes by name and backends by URL, in the order of `now`, then those that are gone; where a
 * thing stands in the file makes no difference. `before` may be NULL: then everything is new and
 * nothing is worth telling. Texts are taken from `a` or belong to one of the two. */
struct changes compare_configs(const struct config *before, const struct config *now,
                               struct arena *a);
