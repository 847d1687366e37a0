/* trace: the W3C's trace context (Trace Context Level 1): traceparent and tracestate as they came,
 * judged, and made where there are none and the configuration wants them. This gateway adds no span
 * of its own: what is valid goes on as it is. What is not is left out, together with the tracestate
 * that belongs to it. Pure but for the head's marks; hot path. */
#pragma once

#include "dataplane/http/head.h"

#define TRACE_PARENT_BYTES 55

enum trace { TRACE_NONE, TRACE_RECEIVED, TRACE_MADE };

/* "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", or a later version's that begins so.
 */
bool trace_is_parent(struct view value);

/* One field's list of vendors: "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE". Several fields are one
 * list, so `members` goes on from field to field; it begins with 0. */
bool trace_is_state(struct view value, unsigned *members);

/* TRACE_RECEIVED when the request has a valid traceparent; else its fields of both names are marked
 * (FIELD_LOOKALIKE), so that they are not passed on. A bad tracestate alone is left out alone. */
enum trace trace_check(struct head *h, const struct buffer *b);

/* A new trace, flagged as sampled: whoever comes next may record it. */
void trace_make(const uint64_t random[3], char out[TRACE_PARENT_BYTES]);
