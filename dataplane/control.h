/* control: the control thread of the data plane, which is the process's main thread: it wires the
 * session with the control plane (uplink.h) to snapshots and workers (rollout.h), reports what they
 * count, and ends the process.
 *
 *   RUN --SIGTERM, SIGINT, Drain--> QUIET: accepts, tells clients to close
 *   RUN --Drain: another one has taken over--> YIELD: the same, but accepts no more
 *   QUIET --drain_delay, and a second while there are clients--> DRAIN
 *   YIELD --SIGTERM, SIGINT--> QUIET
 *   YIELD --shutdown_grace--> DRAIN, for a second
 *   DRAIN --shutdown_grace--> STOP
 *   any --second signal--> STOP
 *   any but RUN --all ended--> exit 0
 *
 * Until it accepts no more, it takes snapshots.
 *
 * Starting: what the control plane keeps comes first, then its snapshot. The stored one is served
 * when there is no control plane, when it has none, or when it does not say so within a second.
 *
 * SIGUSR1 reopens the access log. */
#pragma once

#include "proto/base/defs.h"

struct control_options {
    const char *socket;    /* of the control plane */
    const char *state_dir; /* for the last accepted snapshot; NULL = keep none */
    double max_age_s;      /* of that one; 0 = any */
    const char *name;      /* of this data plane */
    unsigned workers;      /* 0 = as the first snapshot says */
    char *const *argv;     /* of this process, for its successor */
};

/* Returns the exit status when all is over. Call it before other threads exist. */
int control_run(const struct control_options *options);
