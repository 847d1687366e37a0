/* control: the control thread of the data plane, which is the process's main thread: it wires the
 * session with the control plane (uplink.h) to snapshots and workers (rollout.h), reports what they
 * count, and ends the process.
 *
 *   RUN --SIGTERM, SIGINT, Drain--> QUIET --drain_delay, or a second while there are clients-->
 * DRAIN DRAIN --all ended--> exit 0 RUN --Drain: another one has taken over--> YIELD
 * --shutdown_grace--> DRAIN DRAIN --shutdown_grace, of YIELD a second--> STOP --all ended--> exit 0
 *   any --second signal--> STOP
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
