/* succession: the order that a data plane be replaced on its own host: it starts its successor,
 * which takes over like any other data plane of that name (fd_keeper.h), and then leaves. One at a
 * time. Owned by main.c; on the loop.
 *
 *   IDLE --succession_begin()--> WAITING --another process of that name serves--> IDLE, done
 *                                WAITING --it could not be started, or not in time--> IDLE, as
 * before
 *
 * Where the data plane is the first process of a container its end is the container's, so nobody
 * can be left behind by it: there a restart does it. */
#pragma once

#include "controlplane/session.h"

enum succession_verdict {
    SUCCESSION_DONE,
    SUCCESSION_UNKNOWN, /* no such data plane, or it cannot do that */
    SUCCESSION_BUSY,
    SUCCESSION_FAILED, /* it could not be started */
    SUCCESSION_TIMEOUT
};

struct succession_outcome {
    enum succession_verdict verdict;
    const char *message; /* a sentence; borrowed for the call */
    const char *name;
    uint64_t old_pid, new_pid; /* of the processes */
};

typedef void succession_done_fn(void *owner, const struct succession_outcome *outcome);

struct succession {
    struct ev_loop *loop;
    struct sessions *sessions; /* borrowed */
    ev_timer deadline;
    char *name, *instance_id; /* owned: of who is to be replaced; NULL = IDLE */
    uint64_t old_pid, new_pid;
    succession_done_fn *done;
    void *owner;
};

void succession_init(struct succession *sn, struct ev_loop *loop, struct sessions *sessions);
void succession_fini(struct succession *sn); /* whoever waits is told */

/* `name` "*": the only one there is. `binary` "": the program that runs now, as it is on disk.
 * `done` is called exactly once, maybe before this returns. */
void succession_begin(struct succession *sn, const char *name, const char *binary,
                      double wait_seconds, succession_done_fn *done, void *owner);

/* From the sessions. */
void succession_started(struct succession *sn, const struct session *s,
                        const Gwp__ReplaceResult *r);
void succession_served(struct succession *sn, const struct session *s);
void succession_gone(struct succession *sn, const struct session *s);
