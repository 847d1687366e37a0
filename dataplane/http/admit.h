/* admit: asks the route's rate limit about a request, once, before anything is done for it; and
 * says in header fields what it answered. The exchange keeps the answer until it ends. Hot path: no
 * allocation, no system call.
 *
 *   RateLimit-Policy: "users";q=1000;w=2          the quota, and the seconds it is for
 *   RateLimit: "users";r=999;t=1                  what is left, and when all of it is there again
 *   X-RateLimit-Limit, -Remaining, -Reset         the same, as older clients read it
 *
 * as draft-ietf-httpapi-ratelimit-headers has them. In mode observe clients are told nothing. */
#pragma once

#include "dataplane/http/exchange.h"
#include "dataplane/http/http1_write.h"

/* R_SERVED: it may go on; else R_LIMITED, and the exchange knows when to try again. Counts either.
 */
enum reason admit_request(struct exchange *ex);

/* Are these fields ours to write in this exchange? Then a backend's are not passed on. */
bool admit_tells(const struct exchange *ex);
bool admit_is_field(struct view name);

/* Into a backend's answer, unless the route removes or sets them. */
void admit_write_fields(struct head_writer *w, const struct exchange *ex);

/* Into an answer of our own. */
void admit_write_reply(struct head_writer *w, const struct exchange *ex);
