/* router: host, then longest path prefix on segment boundaries, then method. Compiled once per
 * snapshot into hash tables, so a lookup costs the request's own labels and segments, however many
 * routes there are. Immutable, any worker. Hot path: no allocation, lock, log line or system call.
 *
 * Host: the exact name, then the most specific "*.suffix", then "" (any). Where a host has no route
 * for the path, the next less specific host is tried. Where the longest prefix has routes but none
 * for the method, the answer is 405: a shorter prefix is not tried, since the more specific route
 * has claimed the path. */
#pragma once

#include "dataplane/http/reasons.h"
#include "dataplane/state/snapshot.h"

/* Built from s->routes into s->arena. -1 with `err` when two routes claim the same. */
MUST_CHECK int router_compile(struct snapshot *s, struct err *err);

/* `host` without port, any case; `path` normalised (http/target.h), without query, begins with "/";
 * `method` is llhttp's number. R_SERVED sets *route; R_METHOD_NOT_ALLOWED sets *allowed (bits as in
 * route.methods); else R_NO_ROUTE. */
enum reason router_find(const struct router *r, struct view host, struct view path, unsigned method,
                        const struct route **route, uint64_t *allowed);
