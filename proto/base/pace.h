/* pace: long work gives way. A change of ten thousand routes keeps a core busy for tens of
 * milliseconds in either program, and the system lets who computes finish its time slice before who
 * wakes for a request: on two cores that is what requests would wait for. So what goes over all
 * routes, or all of their endpoints, calls pace_yield() at each, and what has taken a large piece
 * calls pace_look(). With nobody waiting they cost a count, a look at the clock, and every half
 * millisecond a system call. For a quarter of what was taken while they gave way they do not do it
 * again: on a machine that is full a change takes five times as long, not for ever. Any thread;
 * never on the hot path, which is who is given way. */
#pragma once

#include "proto/base/defs.h"

#define PACE_US 500
#define PACE_SHARE 4
#define PACE_CALLS 32               /* of pace_yield() to a look at the clock */
#define PACE_BYTES ((size_t)262144) /* a large piece, of a file or of a message */

void pace_yield(void);

/* True when the processor was offered. */
bool pace_look(void);
