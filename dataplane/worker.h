/* worker: one thread with one libev loop: its turn, its clock, its deadlines, its recycled memory,
 * its current snapshot. All that a worker owns is touched by its thread only, but for the members
 * marked atomic.
 *
 * Publishing, without a lock: the control thread stores the new snapshot in `published` and wakes
 * the worker. The worker stores what it is about to use in `adopted` and looks at `published`
 * again; only if that has not moved does it use it (a hazard pointer). So a snapshot that is
 * neither published nor adopted by anybody, and under which nobody holds a request, is out of
 * reach: the control thread may free it. */
#pragma once

#include <ev.h>
#include <pthread.h>
#include <stdatomic.h>

#include "dataplane/http/date.h"
#include "dataplane/http/upstream_pool.h"
#include "dataplane/io/transport.h"
#include "dataplane/io/buffer.h"
#include "dataplane/io/wheel.h"
#include "dataplane/report/access_log.h"
#include "dataplane/report/log_writer.h"
#include "dataplane/report/stats.h"
#include "dataplane/state/snapshot.h"
#include "proto/base/list.h"

struct listener_watch; /* worker.c: this worker's watcher on one listening socket */

enum worker_order {
    WORKER_RUN,   /* serve */
    WORKER_QUIET, /* still accept, but tell keep-alive clients to close */
    WORKER_YIELD, /* another process accepts: no more here; clients are told at their next request,
                     and the worker ends with the last of them */
    WORKER_DRAIN, /* accept what waits and no more, finish what is in flight, then end */
    WORKER_STOP   /* end now */
};

/* While draining: for the first request of who came last, and for one more of who could not be
 * told. */
#define WORKER_FRESH_MS 300

/* The one signal that workers take: see watchdog.h. */
#define WORKER_STACK_SIGNAL SIGUSR2

/* What a wheel_entry of the worker's wheel is embedded in. */
enum deadline_kind { DEADLINE_DOWNSTREAM, DEADLINE_UPSTREAM, DEADLINE_REDIS, DEADLINE_ASK };

struct worker {
    unsigned index;
    struct ev_loop *loop; /* owned */
    pthread_t thread;

    /* ---- between the control thread and this worker ---- */
    struct snapshot *_Atomic published; /* written by the control thread */
    struct snapshot *_Atomic adopted;   /* written by this worker */
    struct snapshot *_Atomic serving;   /* adopted, and its listeners and buckets are in use */
    _Atomic int order;                  /* enum worker_order, written by the control thread */
    _Atomic uint32_t ping; /* written by the control thread: how often it has asked for a sign */
    _Atomic uint32_t pong; /* written by this worker: which of these it has seen */
    _Atomic bool accepts_no_more; /* and will not again; written by this worker */
    _Atomic uint32_t shed_wanted; /* so many idle clients other workers want it to close */
    _Atomic double idle_since_s;  /* of its client that is idle longest, 0 = none; written by this
                                   * worker at the end of its turns, and before it sheds one */
    _Atomic bool ended;           /* the thread has left its loop */
    ev_async wake;                /* "look at published and order" */
    struct limit_forget *_Atomic forget; /* orders to forget limits, limit_redis.h */
    void (*tell_control)(
        void *control); /* "a snapshot was adopted or let go, or I have ended"; async-safe */
    void *control;

    /* ---- this worker's alone ---- */
    struct snapshot *snapshot; /* the current one: adopted */
    struct wheel wheel;
    struct buffer_stock buffers;
    struct upstream_pool pool;
    struct stats stats;
    struct limit_redis *redis; /* owned; NULL until a snapshot has one */
    struct log_ring *log;      /* of the log writer */
    bool log_console;
    uint64_t log_share;       /* of what went well: when a random number is less; all ones = all */
    struct list clients;      /* downstream connections with a request under way */
    struct list idle_clients; /* and those without, the one that is idle longest first */
    struct list lingering;    /* and those that got their last answer */
    struct list dead_clients; /* closed in this turn, recycled at its end */
    struct list dead_upstreams;
    struct list spare_exchanges; /* recycled, owned; likewise the next two */
    struct list spare_clients;
    struct list spare_upstreams;
    uint32_t client_count; /* in the first three */
    uint32_t max_clients;  /* of the process: beyond it room is made, or clients are refused */
    uint32_t retrying;     /* exchanges beyond their first attempt */
    int spare_fd;          /* given up for a moment to refuse a client when descriptors run out */
    struct listener_watch *watches; /* owned array */
    uint32_t watch_count;
    struct listener_watch *retired; /* owned array; gone with the next wake */
    uint32_t retired_count;
    bool draining; /* order is QUIET or more */
    double now_s;  /* monotonic, taken once per turn */
    struct date date;
    ev_timer tick;    /* the wheel's next deadline */
    double tick_at_s; /* when that is, on now_s' clock; negative = not running */
    ev_timer accept_pause;
    uint64_t random[2]; /* for request ids */
    char *scratch;      /* owned; heads are written here before they are sent */
    size_t scratch_bytes;
    char *target_scratch; /* owned; a normalised target; as large as scratch */
};

/* Makes the worker and starts its thread. Ends the program if it cannot. `log` is this worker's
 * ring; `lineage` that of the counters of all workers. */
struct worker *worker_start(unsigned index, uint64_t lineage, struct log_ring *log,
                            void (*tell_control)(void *), void *control);

/* Control thread: hand over a snapshot; order. Both wake the worker. */
void worker_publish(struct worker *w, struct snapshot *s);
void worker_order(struct worker *w, enum worker_order order);

/* Control thread: asks for a sign of life; has the last one that was asked for come? */
void worker_ping(struct worker *w);
bool worker_has_answered(const struct worker *w);

/* Control thread, after WORKER_STOP or a finished drain: waits for the thread and frees everything.
 */
void worker_join(struct worker **w);

/* Has this worker nothing of an older snapshot in use but its requests? Control thread. */
bool worker_serves(const struct worker *w, const struct snapshot *s);

/* Does any part of this worker still reach that snapshot? Control thread. */
bool worker_reaches(const struct worker *w, const struct snapshot *s);

/* Makes room for a descriptor that is needed now: closes the client or the connection to a backend
 * that is idle longest of this worker's, or tells another worker to, which takes a moment. false:
 * nothing is idle anywhere. */
bool worker_shed(struct worker *w);

/* Makes room under server.max_connections: the client that is idle longest of all goes, at once or
 * as soon as its worker is told. false: nobody is idle. */
bool worker_shed_client(struct worker *w);

/* Has this worker been told to finish what is in flight and end? Its own thread. */
static inline bool worker_is_leaving(const struct worker *w)
{
    return w->draining && atomic_load_explicit(&w->order, memory_order_relaxed) >= WORKER_DRAIN;
}

/* Monotonic seconds, for deadlines and durations: a clock that is set does not touch them. */
static inline double worker_now(const struct worker *w)
{
    return w->now_s;
}

/* Seconds of wall clock, for logs. */
static inline double worker_wall(const struct worker *w)
{
    return ev_now(w->loop);
}

/* A random number that tells requests apart; not for secrets (xoroshiro128+). */
static inline uint64_t worker_random(struct worker *w)
{
    uint64_t a = w->random[0], b = w->random[1], sum = a + b;
    b ^= a;
    w->random[0] = (a << 24 | a >> 40) ^ b ^ (b << 16);
    w->random[1] = b << 37 | b >> 27;
    return sum;
}
