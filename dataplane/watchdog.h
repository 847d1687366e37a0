/* watchdog: notices a worker that makes no progress, and ends the process rather than let it serve
 * half: with the worker's stack on stderr, by SIGABRT. Whoever restarts it gets the sockets, limits
 * and breakers back (keeping.h). Owned by the control thread, on its loop.
 *
 * A worker is woken several times in the allowed time, and answers in its next turn (worker.h:
 * ping, pong). What counts is how many of these it has missed, not the clock: a process that was
 * stopped, or a machine that slept, has missed none. */
#pragma once

#include "dataplane/rollout.h"

struct watchdog {
    struct rollout *rollout; /* borrowed */
    ev_timer beat;
    uint32_t allowed_ms; /* 0 = off */
    double beat_at;      /* clock_s() of the last one */
    unsigned missed[MAX_WORKERS];
};

void watchdog_init(struct watchdog *w, struct rollout *rollout);
void watchdog_fini(struct watchdog *w);

/* From now on; the same again changes nothing. */
void watchdog_set(struct watchdog *w, uint32_t allowed_ms);
