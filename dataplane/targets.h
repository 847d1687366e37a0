/* targets: the control thread's part in sending traffic where it will be answered. It takes what
 * the control plane says of endpoints, calls the rosters of the routes concerned, wakes up when an
 * open breaker may be probed, and tells every change of a breaker's state: to the log at once, to
 * the control plane with the next report. */
#pragma once

#include "dataplane/rollout.h"

/* Changes that the control plane has not been told while it was away; the oldest are forgotten. */
#define TARGETS_UNTOLD_MAX 1024

struct targets {
    struct rollout *rollout;                            /* borrowed */
    ev_timer due;                                       /* an open breaker may be probed */
    uint32_t round;                                     /* of EndpointState messages */
    Gwp__BreakerTransition *untold[TARGETS_UNTOLD_MAX]; /* owned */
    size_t untold_count;
    Gwp__EndpointState *early;  /* owned; NULL = none */
    void (*moved)(void *owner); /* there is something untold */
    void *owner;
};

void targets_init(struct targets *ts, struct rollout *rollout, void (*moved)(void *owner),
                  void *owner);
void targets_fini(struct targets *ts);

/* What the control plane says of endpoints. Effective when this returns. */
void targets_take(struct targets *ts, const Gwp__EndpointState *m);

/* What it says before the first snapshot has come is kept for it, and effective when that enters:
 * so no request is sent by what was not known a moment later. */
void targets_take_early(struct targets *ts, const uint8_t *packed, size_t len);
void targets_entering(struct targets *ts);

/* Looks at every route anew: breakers have been changed by other hands. */
void targets_look_at_all(struct targets *ts);

/* A worker has poked, or a snapshot has entered: looks at the routes that were stirred. */
void targets_look(struct targets *ts);
void targets_entered(struct targets *ts);

/* All of untold was told. */
void targets_told(struct targets *ts);
