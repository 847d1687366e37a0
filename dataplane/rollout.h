/* rollout: brings snapshots into force, and frees them when nobody is under them any more. Owns the
 * workers, the listening sockets, the registry and the log writer, since each of them changes with
 * a snapshot. Control thread only.
 *
 *   message --compile, listen, open the log--> published --every worker serves it--> in force
 *      --superseded, last request ended--> freed
 *
 * One is being published at a time; of those that come meanwhile only the newest is kept. A
 * snapshot that cannot be compiled, listened for or logged for is refused, and nothing has changed
 * then; if there is nothing else to serve, it is tried again by itself: its addresses may still be
 * taken by a data plane that is about to leave.
 *
 * Workers are started for the first snapshot, which may say how many; the number stays. */
#pragma once

#include <ev.h>

#include "dataplane/io/listener.h"
#include "dataplane/report/log_writer.h"
#include "dataplane/state/snapshot.h"
#include "dataplane/worker.h"

/* What became of a snapshot. Its words are borrowed for the call. */
struct rollout_result {
    uint64_t generation;
    bool accepted, dry_run;
    const char *reason;           /* when refused */
    uint64_t compile_us, swap_us; /* when accepted */
};

typedef void rollout_result_fn(void *owner, const struct rollout_result *result);

/* The workers are about to count anew, in other buckets: what they have counted is to be told now.
 */
typedef void rollout_recount_fn(void *owner);

/* A message on its way: compiled, and as it came. */
struct candidate {
    struct snapshot *snapshot; /* owned until published; NULL = no candidate */
    uint8_t *packed;           /* owned */
    size_t len;
    uint64_t compile_us;
    bool is_stored;   /* it came from the state directory */
    bool was_refused; /* and is tried again, since there is nothing else to serve */
};

/* A worker has something to tell: a breaker may have changed its state. */
typedef void rollout_poked_fn(void *owner);

/* A snapshot is about to be published: its targets are in the registry. */
typedef void rollout_entering_fn(void *owner);

struct rollout {
    struct ev_loop *loop;
    const char *state_dir;   /* borrowed; NULL = keep nothing */
    double max_age_s;        /* of the stored snapshot; 0 = any; set by the owner */
    unsigned workers_wanted; /* 0 = as the first snapshot says */
    rollout_result_fn *tell;
    rollout_recount_fn *recount;   /* set by the owner after rollout_init(); may be NULL */
    rollout_poked_fn *poked;       /* likewise */
    rollout_entering_fn *entering; /* likewise */
    void *owner;
    struct registry *registry; /* owned */
    uint64_t lineage;          /* of what the workers count, to begin with */
    struct listener_set listeners;
    struct log_writer *log;      /* owned; NULL before the first snapshot */
    struct worker **workers;     /* owned array */
    unsigned worker_count;       /* 0 before the first snapshot */
    unsigned asked_workers;      /* what the last snapshot asked for */
    struct snapshot *in_force;   /* borrowed from alive */
    struct snapshot *alive;      /* owned list: published and not freed yet */
    struct candidate publishing; /* its snapshot is in alive */
    struct candidate waiting;    /* the newest that came meanwhile, or could not be begun */
    struct candidate unsaved;    /* only its bytes: in force, not on disk yet */
    uint64_t publication;        /* number of the newest */
    bool is_from_disk;           /* that which is in force */
    bool have_closed;            /* the listening sockets, since every worker accepts no more */
    uint64_t published_at_us;
    bool are_kept;    /* another process has the listening sockets as well */
    unsigned retries; /* of the first snapshot */
    bool cannot_save, is_closed;
    ev_timer retry, save;
    ev_async poke; /* a worker has something to tell */
};

void rollout_init(struct rollout *ro, struct ev_loop *loop, const char *state_dir, unsigned workers,
                  rollout_result_fn *tell, void *owner);

/* After every worker has ended. */
void rollout_fini(struct rollout *ro);

/* What the state directory holds, if anything, is brought into force. Its result is told as any. */
void rollout_start(struct rollout *ro);

/* Is there anything to serve, or about to be? */
bool rollout_is_busy(const struct rollout *ro);

/* A first snapshot that could not be begun is tried again now: what was in its way may be gone. */
void rollout_retry(struct rollout *ro);

/* Before what is kept is taken over: a first snapshot that could not be begun has made breakers and
 * limiters of its own. They go, with the registry, and rollout_retry() compiles it anew, for those
 * that are taken over. False when there is none. */
bool rollout_renew(struct rollout *ro);

/* The control plane is there: what is in force, and stored, is as it wants it. */
void rollout_confirm(struct rollout *ro);

/* A Snapshot message, unpacked and packed; both are borrowed for the call. */
void rollout_take(struct rollout *ro, const Gwp__Snapshot *message, const uint8_t *packed,
                  size_t len);

/* From now on snapshots are refused: the process is leaving. */
void rollout_close(struct rollout *ro);

/* To every worker. Has each of them ended? (None was ever started: yes.) */
void rollout_order(struct rollout *ro, enum worker_order order);
bool rollout_has_ended(const struct rollout *ro);

/* What every worker serves is in force, and told so: for the end, when no poke will be heard. */
void rollout_conclude(struct rollout *ro);

/* How many run, or would run if no snapshot said otherwise. */
unsigned rollout_workers(const struct rollout *ro);

/* Connections of clients, as far as they are known this moment. */
uint64_t rollout_clients(const struct rollout *ro);

uint64_t rollout_snapshots_alive(const struct rollout *ro);
