/* tunnel: an exchange after 101 (RFC 9110 7.8): bytes both ways, as they come, each way ending on
 * its own. It is still the exchange, with its relays and back-pressure, but without framing: what
 * it no longer needs is its snapshot, so upgraded connections never keep an old generation alive.
 * One worker's. */
#pragma once

#include "dataplane/http/exchange.h"

/* May this request's wish for another protocol be passed on? Not in HTTP/1.0, and never to HTTP/2
 * in clear text: what comes after such a switch would be requests that no route has seen. It may
 * have a body, behind which the switch comes. Pure. */
bool tunnel_may_upgrade(const struct head *h, const struct buffer *b);

/* The backend has answered 101: passes that on, and becomes a tunnel. */
void tunnel_start(struct exchange *ex);

/* Nothing to be moved now: waits for either side, at most the route's response_idle_timeout. */
void tunnel_await(struct exchange *ex);

/* One side sends no more; the other is told so, and may go on. */
void tunnel_client_end(struct exchange *ex);
void tunnel_upstream_end(struct exchange *ex);
void tunnel_timeout(struct exchange *ex);

/* Gives back what the tunnel held for itself: called by the exchange's end. */
void tunnel_end(struct exchange *ex);
