/* limit_redis: decisions made in Redis, for limits that several gateways share. Each worker has one
 * connection to each Redis of its snapshot (redis_link.h); where that is not up, limit_redis_ask()
 * says so at once; but while the first attempt to connect is under way, whoever asks waits for
 * that, so that a data plane that starts does not let pass what others have counted. Waiting is
 * bounded: in time by the policy's timeout (to a tick of the wheel), for each of the two, in number
 * by LIMIT_REDIS_ASKS_MAX for each connection.
 *
 * One worker's. Hot path: our own memory is recycled; what hiredis allocates is told there. */
#pragma once

#include "dataplane/io/wheel.h"
#include "dataplane/route/limit_script.h"

#define LIMIT_REDIS_ASKS_MAX 4096

struct worker;
struct snapshot;
struct limit_redis; /* a worker's connections */
struct limit_ask;   /* a request that waits */

/* `v` is borrowed for the call; NULL: there is no decision, the policy's on_redis_failure counts,
 * unless `again`: it is to ask again, now that it is known whether Redis can be asked. */
typedef void limit_answered_fn(void *owner, const struct limit_verdict *v, bool again);

struct limit_redis *limit_redis_new(struct worker *w);
void limit_redis_free(struct limit_redis **lr); /* nobody waits any more */

/* The worker lives under that snapshot now: connects to what is new in it, lets go of what is not
 * in it any more as soon as nobody waits for it. */
void limit_redis_adopt(struct limit_redis *lr, const struct snapshot *s);

/* Asks; `answered` is called once, later, unless the ask is cancelled. NULL when Redis is not asked
 * now. The policy must stay until then. */
struct limit_ask *limit_redis_ask(struct limit_redis *lr, const struct limit_policy *p,
                                  const struct limit_subject *subject, limit_answered_fn *answered,
                                  void *owner);

/* Its owner goes; what Redis will say counts there, and is not heard here. Nulls *ask. */
void limit_redis_cancel(struct limit_ask **ask);

/* The worker's turn ends: what was asked in it goes out. */
void limit_redis_flush(struct limit_redis *lr);

/* An order to forget a route's keys in Redis: one (`has_key`), or all. From the control thread to
 * any worker whose connection is up, which carries it out as far as that stays so. */
struct limit_forget {
    struct limit_forget *next; /* of worker.forget */
    const struct redis_server *server;
    struct limit_policy policy; /* only what a digest is made with */
    char prefix[SCRIPT_PREFIX_BYTES];
    bool has_key;
    struct limit_subject who; /* its text is `text` */
    char text[1024];
    char *route; /* owned */
};

/* Control thread: hands it to the worker; false when its connection to that Redis is not up. `who`
 * may be NULL. */
bool limit_redis_forget(struct worker *w, const struct limit_policy *p, const char *route,
                        const struct limit_subject *who);

/* The worker has been woken: takes what is in worker.forget. */
void limit_redis_obey(struct worker *w);

/* Of the worker's wheel: DEADLINE_REDIS or DEADLINE_ASK. */
void limit_redis_on_deadline(struct limit_redis *lr, struct wheel_entry *e);
