/* admit: asks the route's rate limit about a request, once, before anything is done for it; and
 * says in header fields what it answered. The exchange keeps the answer until it ends. Hot path: no
 * allocation, no system call.
 *
 *   RateLimit-Policy: "users";q=1000;w=2          the quota, and the seconds it is for
 *   RateLimit: "users";r=999;t=1                  what is left, and when all of it is there again
 *   X-RateLimit-Limit, -Remaining, -Reset         the same, as older clients read it
 *
 * as draft-ietf-httpapi-ratelimit-headers has them: in a refusal, t is what Retry-After says. In
 * mode observe clients are told nothing.
 *
 * Where Redis counts and cannot be asked, on_redis_failure decides: this process by its share of
 * the limit, which RateLimit-Policy names then (";share=4": one of four), or everybody passes, or
 * nobody does. What Redis lets pass is counted in this process as well, so that whoever has spent a
 * lot has no fresh share when Redis goes away. */
#pragma once

#include "dataplane/http/exchange.h"
#include "dataplane/http/http1_write.h"

/* *r is R_SERVED: it may go on; else R_LIMITED or R_LIMITER_AWAY, and the exchange knows when to
 * try again. Counts either. False: Redis has been asked, request_admitted() will be called. */
bool admit_request(struct exchange *ex, enum reason *r);

/* The exchange goes another way, or ends: Redis' answer is not waited for. */
void admit_cancel(struct exchange *ex);

/* Are these fields ours to write in this exchange? Then a backend's are not passed on. */
bool admit_tells(const struct exchange *ex);
bool admit_is_field(struct view name);

/* Into a backend's answer, unless the route removes or sets them. */
void admit_write_fields(struct head_writer *w, const struct exchange *ex);

/* Into an answer of our own. */
void admit_write_reply(struct head_writer *w, const struct exchange *ex);
