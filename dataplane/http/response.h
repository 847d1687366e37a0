/* response: the half of an exchange that comes from the backend: interim heads and the final one,
 * the body with back-pressure, the end. One worker's. Hot path. */
#pragma once

#include "dataplane/http/exchange.h"

/* The backend's socket has bytes, or its end. May end the exchange. */
void response_readable(struct exchange *ex);

/* Bytes are, or may be, there to be moved on to the client. May end the exchange. */
void response_pump(struct exchange *ex);
