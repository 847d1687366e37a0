/* forward: a received head -> the head that is sent on, once, into one piece of memory. Here is
 * decided what passes: fields that belong to one connection stay behind, framing is our own, and
 * the gateway says who asked (RFC 9110 7.6). Hot path. */
#pragma once

#include "dataplane/http/exchange.h"

/* The request's head for the target of the present attempt, into the worker's scratch. Length, or 0
 * when it does not fit. */
size_t forward_request(struct exchange *ex);

/* The final response's head for the client, or an interim one (1xx) as it is; likewise. */
size_t forward_response(struct exchange *ex);
/* Trailer fields as lines, into `out`; the length. Those that the Connection of `h`, in the same
 * buffer, names are left out (RFC 9110 7.6.1); NULL: it names none. So are those that the route
 * sets or removes. */
size_t forward_trailers(const struct trailers *t, const struct buffer *from, const struct head *h,
                        const struct edits *edits, char *out, size_t cap);

size_t forward_switch(struct exchange *ex); /* 101 */
size_t forward_interim(struct exchange *ex);
