/* upstream: one connection to an endpoint: connect, use, and may it be used again. One worker's;
 * owned by the exchange that uses it, or by the pool while idle. Hot path.
 *
 *   CONNECTING --connected--> BUSY --upstream_release()--> IDLE (in the pool) --upstream_open()-->
 * BUSY any --upstream_close()--> CLOSED (in the worker's dead list until the turn ends)
 */
#pragma once

#include "dataplane/worker.h"

struct exchange;

enum upstream_state { UP_CONNECTING, UP_BUSY, UP_IDLE, UP_CLOSED };

struct upstream {
    struct transport io;
    struct worker *worker;
    struct endpoint
        *endpoint; /* in the registry: outlives its snapshots while idle connections exist */
    struct exchange *exchange; /* NULL while idle */
    struct buffer *in;         /* owned; NULL while idle */
    struct list link;          /* of a pool's list, the dead list or the spare list */
    struct wheel_entry deadline;
    uint8_t state; /* enum upstream_state */
    bool filled;   /* the last read took all the room there was: a long body */
    bool reused;   /* has carried a response before */
};

/* A connection to `e` for that exchange: an idle one (state BUSY), or a new one (CONNECTING,
 * attempt_connected() follows). NULL when the system refused; errno says why. */
struct upstream *upstream_open(struct worker *w, struct endpoint *e, struct exchange *ex,
                               uint32_t connect_timeout_ms, bool fresh);

/* The exchange is done with it. `clean`: request and response were complete and in step. Pools it
 * if it may be reused, closes it otherwise. Nulls *u. */
void upstream_release(struct upstream **u, bool clean);

/* The one way out. Nulls *u. */
void upstream_close(struct upstream **u);

/* Takes a closed one apart: worker.c, at the end of the turn. */
void upstream_recycle(struct upstream *u);

/* Closes idle connections to endpoints that the worker's snapshot does not list any more. */
void upstream_sweep(struct worker *w);

/* Closes one idle connection, to make room. false: none is idle. */
bool upstream_shed(struct worker *w);

void upstream_on_deadline(struct upstream *u);
