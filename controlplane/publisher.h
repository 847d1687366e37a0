/* publisher: brings a configuration from its text into force: check, names, snapshot, data planes,
 * verdict. Owned by main.c; on the loop. The only one who changes which generation is in force.
 *
 *   IDLE --a good text--> NAMES --first answers, or 2 s--> ANSWERS
 *   ANSWERS --all accepted--> IDLE, in force
 *   ANSWERS --one refused, left, or was too slow--> IDLE, as before
 *
 * One candidate at a time, from the intake (intake.h), where what comes meanwhile waits. With no
 * data plane connected a good text is in force at once; one that is leaving has no say.
 *
 * A refused candidate is undone everywhere: when anybody took it or may still take it, the
 * configuration in force is sent again to all, under a new number (generation.h says why). Only for
 * a change of addresses is a data plane that does not answer in time no reason to keep them from
 * the others.
 *
 * What came into force is kept in the history before anybody is told. A pushed configuration is in
 * force until the file's content changes or a reload is asked for (SIGHUP, API). A control plane
 * starts with it again, unless the file has another content than when it was read last: then the
 * file counts (start.h). If a data plane refuses what it starts with, it goes on with the newest of
 * the history. */
#pragma once

#include <ev.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/generation.h"
#include "controlplane/history.h"
#include "controlplane/intake.h"
#include "controlplane/resolver.h"
#include "controlplane/session.h"
#include "proto/base/list.h"

#define PUBLISHER_ANSWER_SECONDS 5. /* for who does not say how long to wait */

enum push_verdict {
    PUSH_ACCEPTED, /* in force, or would be (dry run), or under way (nobody wanted to wait) */
    PUSH_INVALID,  /* the text is wrong: see diagnostics */
    PUSH_REFUSED,  /* by a data plane */
    PUSH_TIMEOUT,  /* not every data plane answered */
    PUSH_BUSY,     /* others are under way, for too long */
    PUSH_CONFLICT, /* another generation is in force than the push was made for */
    PUSH_UNKNOWN,  /* there is no such generation */
    PUSH_FAILED,   /* by the control plane itself: see message */
};

/* Everything is borrowed for the call. */
struct push_outcome {
    enum push_verdict verdict;
    const char *message; /* one sentence; "" when there is nothing to say */
    uint64_t generation; /* of the candidate; in force only when it was accepted and no dry run */
    uint64_t previous;   /* in force before, 0 = none */
    uint64_t in_force;   /* now */
    bool dry_run, unchanged;
    struct changes changes;
    const struct diagnostics *diagnostics; /* NULL when there was no text to check */
    const struct answer *answers;
    size_t answer_count;
    const char *unkept; /* why it will be forgotten with this process; "" or NULL = it will not */
};

typedef void push_done_fn(void *owner, const struct push_outcome *outcome);

struct push {
    enum origin origin;
    char source[HISTORY_SOURCE_BYTES]; /* names the text in messages */
    char user[HISTORY_USER_BYTES];     /* who it is, for the history; may be "" */
    char message[HISTORY_MESSAGE_BYTES];
    uint64_t again; /* of a rollback: the number gone back to */
    bool dry_run;
    bool has_expected;   /* only if the generation in force is that of `expected` */
    uint64_t expected;   /* 0 = none */
    double wait_seconds; /* 0 = the outcome is told as soon as the candidate was sent */
    push_done_fn *done;  /* called exactly once, maybe before publisher_push() returns, or NULL */
    void *owner;
};

/* What became of the last configuration that was not a dry run. */
struct last_reload {
    bool ok;
    double at; /* wall clock, seconds; 0 = there was none */
    char message[ERR_MAX_BYTES];
};

enum publisher_state { PUBLISHER_IDLE, PUBLISHER_NAMES, PUBLISHER_ANSWERS };

struct start; /* start.h */

struct publisher {
    struct ev_loop *loop;
    const char *path;                                        /* of the file; borrowed */
    struct resolver *resolver;                               /* owned */
    struct sessions *sessions;                               /* borrowed */
    void (*in_force)(void *owner, const struct config *cfg); /* another configuration is in force */
    void (*committed)(void *owner, const struct generation *g); /* it is in force: another
        configuration, or the same with other addresses or another number */
    void *owner;                                                /* of both; borrowed */
    struct resolver_events resolver_events;
    struct generations generations;
    struct history history;
    enum publisher_state state;
    struct intake intake;
    struct push push;               /* of the candidate */
    bool answered;                  /* push.done has been called */
    struct diagnostics diagnostics; /* of the candidate: its warnings */
    char *diagnosed_text;           /* owned: what diagnostics points into */
    ev_timer deadline;              /* of the state */
    ev_timer addresses;             /* gathers changes of addresses into one generation */
    bool addresses_wait;
    bool has_fallen_back;                /* to the history, since what was begun with was refused */
    uint64_t load_us, build_us, sent_us; /* of the candidate: how long, and when; monotonic */
    struct last_reload last_reload;
    struct history_entry unkept; /* of what is in force and could not be kept; number 0 = it is */
    struct err unkept_why;
};

MUST_CHECK int publisher_init(struct publisher *p, struct ev_loop *loop, const char *path,
                              const char *state_dir, const struct resolver_setup *names,
                              struct sessions *sessions, struct err *err);
void publisher_fini(struct publisher *p); /* whoever waits for an outcome is told */

/* Begins with what start_choose() has found; its configuration is taken over. */
void publisher_begin(struct publisher *p, struct start *s);

/* What could not be kept on disk is tried again. */
void publisher_keep_again(struct publisher *p);

/* From the intake, when it is idle: a checked configuration, which is taken over. */
void publisher_propose(struct publisher *p, struct generation *g, const struct push *push);

/* Who pushed what never became a candidate is told; the numbers are filled in. */
void publisher_tell(struct publisher *p, const struct push *push,
                    const struct push_outcome *outcome);

/* That became of the last configuration. */
void publisher_remember(struct publisher *p, bool ok, const char *message);

/* From the sessions. */
void publisher_opened(struct publisher *p, struct session *s);
void publisher_result(struct publisher *p, struct session *s, const Gwp__SnapshotResult *r);
void publisher_gone(struct publisher *p, struct session *s);
