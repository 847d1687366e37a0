/* reply: the gateway's own answers: small JSON with the reason's word, a sentence and the request
 * id. Hot path under attack: no allocation. */
#pragma once

#include "dataplane/http/exchange.h"

/* Writes the whole answer for `r` into the worker's scratch; its length. */
size_t reply_write(struct exchange *ex, enum reason r);
