/* attempt: one try of an exchange at one endpoint: choosing it, the connection, the request's head
 * on its way, and when it fails the next try or the answer instead. The balancer's count and the
 * breaker's permit are held from attempt_start() to attempt_end(). One worker's. Hot path. */
#pragma once

#include "dataplane/http/exchange.h"

/* Chooses an endpoint and takes a connection to it; the gateway answers itself when nobody can be
 * asked. */
void attempt_start(struct exchange *ex);

/* The connection stands: the request goes out. */
void attempt_connected(struct exchange *ex);

/* The attempt has failed: tries again where that is allowed and safe, else answers or cuts off. */
void attempt_failed(struct exchange *ex, enum reason why, const char *detail);
void attempt_timeout(struct exchange *ex);

/* It is over; without effect between attempts. R_SERVED: the answer's status, if there was one, is
 * the verdict on the endpoint. Else `why` is, where it is the backend's fault: what the client or
 * the gateway caused says nothing. */
void attempt_end(struct exchange *ex, enum reason why);

/* The backend has said all of its answer: the attempt goes on until the client has it, but what it
 * takes from here on is not the backend's time. */
void attempt_answered(struct exchange *ex);

/* The answer's head is on its way to the client, the rest of its body is awaited: a probe of the
 * breaker has its verdict now. A stream of events never ends, and must not keep it half-open. */
void attempt_proved(struct exchange *ex);

/* It becomes a tunnel, which outlives the snapshot: a good verdict, early. */
void attempt_granted(struct exchange *ex);
