/* request: the half of an exchange that comes from the client: its head, until a route is found and
 * the rate limit has let it pass; then the body with back-pressure. One worker's. Hot path. */
#pragma once

#include "dataplane/http/exchange.h"

/* The client's buffer has new bytes. May end the exchange, and the connection with it. */
void request_readable(struct exchange *ex);

/* The rate limit has answered; for admit.c, when it could not do so at once. */
void request_admitted(struct exchange *ex, enum reason r);

/* Bytes are, or may be, there to be moved on to the backend. May end the exchange. */
void request_pump(struct exchange *ex);

/* The client's fault in the middle of its body. */
void request_refuse_body(struct exchange *ex, enum reason r, const char *detail);

/* What is asked for, in the terms that routing and forwarding use: fills `where` and `host`. Their
 * views point into the client's buffer and the worker's scratch, so it is done again when either
 * may have changed. */
enum reason request_find_where(struct exchange *ex);
