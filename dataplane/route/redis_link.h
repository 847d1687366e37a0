/* redis_link: a worker's connection to one Redis, on its own loop through hiredis; nothing here
 * waits, and no name is looked up.
 *
 *   AWAY --pause over--> CONNECTING --> GREETING --logged in, scripts loaded, registered--> UP
 *   UP --closed, nonsense, read-only; three failures or timeouts in a row--> AWAY
 *   CONNECTING, GREETING --failed, or redis_timeout_ms over--> AWAY
 *
 * Only in UP may it be asked. The pause grows from 0.1 to 5 s, at random by half, and is short
 * again after a success. In UP the worker greets once a second, so that Redis knows which gateways
 * are alive, and a dead connection is noticed without requests; it says when it leaves.
 *
 * Commands of one turn of the loop leave in one write at its end, and answers that have come
 * together are read together.
 *
 * hiredis frees a context either when told to, or by itself when its connection ends; both call the
 * callbacks of all that is owed, without a reply. `context` is nulled first in either case: a
 * callback that finds another context there is of one that is being freed. */
#pragma once

#include <ev.h>

#include "dataplane/io/wheel.h"
#include "dataplane/route/limit_reply.h"
#include "dataplane/route/limit_script.h"
#include "dataplane/route/redis_server.h"

struct worker;

enum link_state { LINK_AWAY, LINK_CONNECTING, LINK_GREETING, LINK_UP };

struct redis_link {
    struct worker *worker;
    struct redis_server *server;
    const struct redis_use *use;           /* of the worker's snapshot; NULL: connect no more */
    void (*won)(struct redis_link *link);  /* it is UP */
    void (*lost)(struct redis_link *link); /* it has gone AWAY: nothing that is owed will come */
    enum link_state state;
    redisAsyncContext *context; /* owned; NULL when AWAY */
    struct addr addr;           /* that it is connected to */
    ev_io io;
    int events;
    bool dirty;                  /* there is something to write at the end of the turn */
    bool greeting_is_owed;       /* when UP */
    struct wheel_entry deadline; /* AWAY: the next attempt; UP: the next greeting; else patience */
    double greeted_s;
    struct limit_reply reply;
    char sha[SCRIPTS][SCRIPT_SHA_BYTES];
    char secret[SCRIPT_SECRET_BYTES];
    uint64_t secrets[LIMIT_SPACES][2]; /* made of it */
    uint32_t strikes, pause_ms, attempts;
    char command[SCRIPT_COMMAND_BYTES]; /* what is being sent */
};

/* AWAY; redis_link_use() begins. */
void redis_link_init(struct redis_link *l, struct worker *w, struct redis_server *server,
                     void (*won)(struct redis_link *link), void (*lost)(struct redis_link *link));
void redis_link_fini(struct redis_link *l);

/* What the worker's snapshot says of it. */
void redis_link_use(struct redis_link *l, const struct redis_use *use);

static inline bool redis_link_is_up(const struct redis_link *l)
{
    return l->state == LINK_UP;
}

/* Its first attempt is under way: it may be worth waiting for. */
static inline bool redis_link_is_new(const struct redis_link *l)
{
    return l->pause_ms == 0 && (l->state == LINK_CONNECTING || l->state == LINK_GREETING);
}

/* False when hiredis does not take it. `fn` is called once, with a struct limit_reply, or NULL when
 * the link is lost: it begins with redis_link_take(). */
bool redis_link_send(struct redis_link *l, redisCallbackFn *fn, void *owner,
                     const struct command *command);

/* An answer has come, or none will: notes what is owed, and the loss. */
void redis_link_take(struct redis_link *l, const redisAsyncContext *context, const void *reply);

/* It is given up. */
void redis_link_drop(struct redis_link *l, enum redis_cause cause);
/* It may be given up: a failure that another connection might not cure, and what ends a row of
 * them. */
void redis_link_strike(struct redis_link *l, enum redis_cause cause);
void redis_link_succeeded(struct redis_link *l);
/* An error was answered: one or the other. */
void redis_link_fault(struct redis_link *l, const char *error);

/* The worker's turn ends. */
void redis_link_flush(struct redis_link *l);

/* Of the worker's wheel; for a link that has a use. */
void redis_link_on_deadline(struct redis_link *l);
