/* Hot path in limit_redis_ask(), on_decided() and limit_redis_flush(): no lock, no log line; no
 * system call but one write for each turn of the loop in which something was asked, and the reads.
 *
 * hiredis frees a context either when told to, or by itself when its connection ends; both call the
 * callbacks of all that is owed, without a reply. `connection.context` is nulled first in either
 * case: a callback that finds another context there is of one that is being freed, and only gives
 * its memory back. */
#include "dataplane/route/limit_redis.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/route/limit_reply.h"
#include "dataplane/route/limit_script.h"
#include "dataplane/worker.h"
#include "proto/base/log.h"

#define STRIKES 3
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 5000
#define GREETING_MIN_MS 25 /* loading scripts takes longer than deciding */

enum connection_state { CONN_AWAY, CONN_CONNECTING, CONN_GREETING, CONN_UP };

struct connection {
    struct limit_redis *owner;
    struct redis_server *server;
    const struct redis_use *use; /* of the worker's snapshot; NULL: let go when nobody waits */
    enum connection_state state;
    redisAsyncContext *context; /* owned; NULL when AWAY */
    struct addr addr;           /* that it is connected to */
    ev_io io;
    int events;
    bool dirty;                  /* there is something to write at the end of the turn */
    bool greeting_is_owed;       /* when UP */
    struct wheel_entry deadline; /* AWAY: the next attempt; UP: the next greeting; else patience */
    double greeted_s;
    struct list waiting; /* struct limit_ask, the oldest first */
    struct limit_reply reply;
    char sha[SCRIPTS][SCRIPT_SHA_BYTES];
    char secret[SCRIPT_SECRET_BYTES];
    uint64_t secrets[LIMIT_SPACES][2]; /* made of it */
    uint32_t strikes, pause_ms, attempts;
};

struct limit_redis {
    struct worker *worker;
    struct connection **at; /* owned, by redis_server.slot; NULL where it has none */
    uint32_t room;
    struct list spare; /* struct limit_ask, owned */
    char command[SCRIPT_COMMAND_BYTES];
};

struct limit_ask {
    struct list link; /* of connection.waiting, of limit_redis.spare, or of none: a reply is owed */
    struct wheel_entry deadline;
    struct connection *connection;
    const struct limit_policy *policy; /* borrowed while it has an owner */
    struct digest128 key;
    limit_answered_fn *answered;
    void *owner; /* NULL: nobody waits for it any more */
    bool by_text;
};

/* ---- asks ---- */

static struct limit_ask *take_ask(struct limit_redis *lr)
{
    struct limit_ask *ask;
    if (list_is_empty(&lr->spare)) {
        ask = malloc(sizeof(*ask));
        if (!ask)
            log_fatal("redis", "out of memory");
    } else {
        ask = CONTAINER_OF(lr->spare.next, struct limit_ask, link);
        list_remove(&ask->link);
    }
    memset(ask, 0, sizeof(*ask));
    list_init(&ask->link);
    wheel_entry_init(&ask->deadline, DEADLINE_ASK);
    return ask;
}

static void recycle(struct limit_ask *ask)
{
    assert(!ask->owner);
    list_push_front(&ask->connection->owner->spare, &ask->link);
}

/* Nobody waits for it any more. */
static void detach(struct limit_ask *ask)
{
    struct limit_redis *lr = ask->connection->owner;
    if (!ask->owner)
        return;
    ask->owner = NULL;
    list_remove(&ask->link);
    wheel_clear(&ask->deadline);
    stats_sub(&lr->worker->stats, STAT_redis_waiting, 1);
}

static void answer(struct limit_ask *ask, const struct limit_verdict *v)
{
    void *owner = ask->owner;
    limit_answered_fn *answered = ask->answered;
    if (!owner)
        return;
    detach(ask);
    answered(owner, v);
}

void limit_redis_cancel(struct limit_ask **ask)
{
    if (*ask)
        detach(*ask);
    *ask = NULL;
}

/* ---- state ---- */

static uint32_t timeout_of(const struct connection *c)
{
    return MAX(c->use ? c->use->timeout_ms : 0, GREETING_MIN_MS);
}

static void set_deadline(struct connection *c, uint64_t after_ms)
{
    struct worker *w = c->owner->worker;
    wheel_set(&w->wheel, &c->deadline, worker_now(w), after_ms);
}

static enum stat_id level_of(enum connection_state state)
{
    return state == CONN_UP ? STAT_redis_connections_active : STAT_redis_connections_away;
}

/* The one door. */
static void set_state(struct connection *c, enum connection_state state, enum redis_cause cause)
{
    struct worker *w = c->owner->worker;
    stats_sub(&w->stats, level_of(c->state), 1);
    stats_add(&w->stats, level_of(state), 1);
    c->state = state;
    bool changed = false;
    if (state == CONN_UP)
        changed = redis_server_set(c->server, w->index, REDIS_UP, REDIS_NONE);
    else if (state == CONN_AWAY)
        changed = redis_server_set(c->server, w->index, c->use ? REDIS_AWAY : REDIS_UNUSED, cause);
    if (changed)
        w->tell_control(w->control);
}

/* Without the context, which the caller frees or hiredis does. Whoever waits is told. */
static void go_away(struct connection *c, enum redis_cause cause)
{
    struct worker *w = c->owner->worker;
    c->context = NULL;
    c->dirty = c->greeting_is_owed = false;
    c->strikes = 0;
    c->events = 0;
    ev_io_stop(w->loop, &c->io);
    set_state(c, CONN_AWAY, cause);
    c->pause_ms = MIN(MAX(c->pause_ms * 2, PAUSE_MIN_MS), PAUSE_MAX_MS);
    set_deadline(c, c->pause_ms / 2 + worker_random(w) % c->pause_ms);
    while (!list_is_empty(&c->waiting)) {
        stats_add(&w->stats, STAT_redis_failures_total, 1);
        answer(CONTAINER_OF(c->waiting.next, struct limit_ask, link), NULL);
    }
}

static void drop(struct connection *c, enum redis_cause cause)
{
    redisAsyncContext *context = c->context;
    go_away(c, cause);
    if (context)
        redisAsyncFree(context);
}

static enum redis_cause cause_of_error(const redisAsyncContext *context)
{
    switch (context->err) {
    case REDIS_ERR_PROTOCOL:
    case REDIS_ERR_OOM: /* limit_reply.c found no place for it */
    case REDIS_ERR_OTHER:
        return REDIS_PROTOCOL;
    default:
        return REDIS_CLOSED;
    }
}

/* hiredis is about to free the context. */
static void lost(struct connection *c, const redisAsyncContext *context)
{
    if (c->context == context)
        go_away(c, c->state == CONN_CONNECTING ? REDIS_CONNECT : cause_of_error(context));
}

/* A failure that another connection may not cure. */
static void strike(struct connection *c, enum redis_cause cause)
{
    if (++c->strikes >= STRIKES)
        drop(c, cause);
}

/* ---- hiredis and the loop ---- */

static void watch(struct connection *c, int events)
{
    struct ev_loop *loop = c->owner->worker->loop;
    if (!c->context || c->events == events)
        return;
    ev_io_stop(loop, &c->io);
    c->events = events;
    if (events == 0)
        return;
    ev_io_set(&c->io, c->context->c.fd, events);
    ev_io_start(loop, &c->io);
}

static void want_read(void *connection)
{
    struct connection *c = connection;
    watch(c, c->events | EV_READ);
}

static void want_no_read(void *connection)
{
    struct connection *c = connection;
    watch(c, c->events & ~EV_READ);
}

/* Called for each command: what is connected writes at the end of the turn, all at once. */
static void want_write(void *connection)
{
    struct connection *c = connection;
    if (c->state == CONN_CONNECTING)
        watch(c, c->events | EV_WRITE);
    else
        c->dirty = true;
}

static void want_no_write(void *connection)
{
    struct connection *c = connection;
    watch(c, c->events & ~EV_WRITE);
}

static void forget_events(void *connection)
{
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct connection *c = io->data;
    redisAsyncContext *context = c->context;
    if (events & EV_WRITE)
        redisAsyncHandleWrite(context);
    if (events & EV_READ && c->context == context)
        redisAsyncHandleRead(context);
    if (c->context == context && limit_reply_is_flooded(context))
        drop(c, REDIS_PROTOCOL);
}

static void write_out(struct connection *c)
{
    redisAsyncContext *context = c->context;
    c->dirty = false;
    redisAsyncHandleWrite(context);
    if (c->context == context && c->dirty) { /* the socket is full */
        c->dirty = false;
        watch(c, c->events | EV_WRITE);
    }
}

void limit_redis_flush(struct limit_redis *lr)
{
    for (uint32_t i = 0; i < lr->room; i++) {
        if (!lr->at[i] || !lr->at[i]->dirty)
            continue;
        write_out(lr->at[i]);
        i = UINT32_MAX; /* who was told of a failure may have asked another one: from the start */
    }
}

static bool send_command(struct connection *c, redisCallbackFn *fn, void *owner,
                         const struct command *command)
{
    if (redisAsyncFormattedCommand(c->context, fn, owner, command->at, command->len) != REDIS_OK)
        return false;
    c->reply.owed++;
    return true;
}

/* ---- greeting ---- */

static enum redis_cause cause_of_text(const char *error)
{
    if (strstr(error, "READONLY"))
        return REDIS_READONLY;
    if (strncmp(error, "NOAUTH", 6) == 0 || strncmp(error, "WRONGPASS", 9) == 0 ||
        strncmp(error, "NOPERM", 6) == 0 || strstr(error, "password") || strstr(error, "AUTH"))
        return REDIS_LOGIN;
    return REDIS_ERROR;
}

/* The connection that a reply of the greeting is for, unless that is no good: then it is dropped.
 */
static struct connection *take_reply(redisAsyncContext *context, const struct limit_reply *r)
{
    struct connection *c = context->data;
    if (c->context != context)
        return NULL;
    c->reply.owed--;
    if (!r) {
        lost(c, context);
        return NULL;
    }
    if (r->kind != REPLY_ERROR)
        return c;
    drop(c, cause_of_text(r->parts[0].text));
    return NULL;
}

/* Of AUTH and SELECT. */
static void on_logged_in(redisAsyncContext *context, void *reply, void *unused)
{
    const struct limit_reply *r = reply;
    struct connection *c = take_reply(context, r);
    if (c && (r->kind != REPLY_STATUS || strcmp(r->parts[0].text, "OK") != 0))
        drop(c, REDIS_PROTOCOL);
}

static bool is_hexadecimal(const struct reply_part *p, size_t len)
{
    return p->kind == REPLY_TEXT && p->len == len &&
           strspn(p->text, "0123456789abcdef") == len;
}

static void on_loaded(redisAsyncContext *context, void *reply, void *sha)
{
    const struct limit_reply *r = reply;
    struct connection *c = take_reply(context, r);
    if (!c)
        return;
    if (r->kind == REPLY_TEXT && is_hexadecimal(&r->parts[0], SCRIPT_SHA_BYTES))
        memcpy(sha, r->parts[0].text, SCRIPT_SHA_BYTES);
    else
        drop(c, REDIS_PROTOCOL);
}

static uint64_t number_of(const char *digits)
{
    char text[17];
    memcpy(text, digits, 16);
    text[16] = '\0';
    return strtoull(text, NULL, 16);
}

static void take_secret(struct connection *c, const char *secret)
{
    memcpy(c->secret, secret, SCRIPT_SECRET_BYTES);
    for (unsigned i = 0; i < LIMIT_SPACES; i++) {
        c->secrets[i][0] = number_of(secret) ^ i;
        c->secrets[i][1] = number_of(secret + 16);
    }
}

static void on_greeted(redisAsyncContext *context, void *reply, void *unused)
{
    const struct limit_reply *r = reply;
    struct connection *c = take_reply(context, r);
    if (!c)
        return;
    if (r->kind != REPLY_LIST || r->count != 2 || r->parts[0].kind != REPLY_NUMBER ||
        r->parts[0].number < 1 || r->parts[0].number > UINT32_MAX ||
        !is_hexadecimal(&r->parts[1], SCRIPT_SECRET_BYTES)) {
        drop(c, REDIS_PROTOCOL);
        return;
    }
    c->greeting_is_owed = false;
    take_secret(c, r->parts[1].text);
    atomic_store_explicit(&c->server->gateways, (uint32_t)r->parts[0].number, memory_order_relaxed);
    if (c->state == CONN_UP)
        return;
    set_state(c, CONN_UP, REDIS_NONE);
    set_deadline(c, SCRIPT_GREETING_MS);
}

static bool send_greeting(struct connection *c)
{
    struct command command = command_in(c->owner->command, SCRIPT_COMMAND_BYTES);
    script_write_greeting(&command, redis_gateway_id(), c->secret);
    c->greeting_is_owed = true;
    c->greeted_s = worker_now(c->owner->worker);
    return send_command(c, on_greeted, NULL, &command);
}

static bool send_login(struct connection *c)
{
    char database[16];
    const struct redis_use *use = c->use;
    struct command auth = command_in(c->owner->command, SCRIPT_COMMAND_BYTES);
    if (use->password.len > 0) {
        command_begin(&auth, use->user.len > 0 ? 3 : 2);
        command_part(&auth, view_of("AUTH"));
        if (use->user.len > 0)
            command_part(&auth, use->user);
        command_part(&auth, use->password);
        if (!send_command(c, on_logged_in, NULL, &auth))
            return false;
    }
    if (use->database == 0)
        return true;
    struct command select = command_in(c->owner->command, SCRIPT_COMMAND_BYTES);
    snprintf(database, sizeof(database), "%u", use->database);
    command_begin(&select, 2);
    command_part(&select, view_of("SELECT"));
    command_part(&select, view_of(database));
    return send_command(c, on_logged_in, NULL, &select);
}

static bool send_scripts(struct connection *c)
{
    for (unsigned i = 0; i < SCRIPTS; i++) {
        struct command load = command_in(c->owner->command, SCRIPT_COMMAND_BYTES);
        script_write_load(&load, (enum script)i);
        if (!send_command(c, on_loaded, c->sha[i], &load))
            return false;
    }
    return true;
}

/* ---- connecting ---- */

static void on_connected(const redisAsyncContext *context, int status)
{
    struct connection *c = context->data;
    if (c->context != context)
        return;
    if (status != REDIS_OK) {
        lost(c, context);
        return;
    }
    set_state(c, CONN_GREETING, REDIS_NONE);
    set_deadline(c, timeout_of(c));
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    lost(context->data, context);
}

static redisAsyncContext *open_context(const struct addr *a)
{
    char ip[ADDR_TEXT_BYTES];
    if (a->sa.any.sa_family == AF_UNIX)
        return redisAsyncConnectUnix(a->sa.un.sun_path);
    addr_format_ip(a, ip); /* a literal address: hiredis looks nothing up */
    in_port_t port = a->sa.any.sa_family == AF_INET ? a->sa.in4.sin_port : a->sa.in6.sin6_port;
    return redisAsyncConnect(ip, ntohs(port));
}

static void attach(struct connection *c, redisAsyncContext *context)
{
    c->context = context;
    context->data = context->ev.data = c;
    context->ev.addRead = want_read;
    context->ev.delRead = want_no_read;
    context->ev.addWrite = want_write;
    context->ev.delWrite = want_no_write;
    context->ev.cleanup = forget_events;
    limit_reply_attach(&c->reply, context);
    redisAsyncSetConnectCallback(context, on_connected); /* asks to be told: want_write() */
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
}

static void connect_to(struct connection *c, const struct addr *a)
{
    redisAsyncContext *context = open_context(a);
    if (!context || context->err) {
        if (context)
            redisAsyncFree(context);
        go_away(c, REDIS_CONNECT);
        return;
    }
    c->addr = *a;
    set_state(c, CONN_CONNECTING, REDIS_NONE);
    attach(c, context);
    watch(c, EV_WRITE);
    set_deadline(c, timeout_of(c));
    if (!send_login(c) || !send_scripts(c) || !send_greeting(c))
        drop(c, REDIS_CONNECT);
}

static void try_connecting(struct connection *c)
{
    if (c->use->addr_count == 0)
        go_away(c, REDIS_NO_ADDRESS);
    else
        connect_to(c, &c->use->addrs[c->attempts++ % c->use->addr_count]);
}

/* ---- which connections ---- */

struct limit_redis *limit_redis_new(struct worker *w)
{
    struct limit_redis *lr = calloc(1, sizeof(*lr));
    if (!lr)
        log_fatal("redis", "out of memory");
    lr->worker = w;
    list_init(&lr->spare);
    return lr;
}

static void connection_free(struct connection *c)
{
    struct worker *w = c->owner->worker;
    c->use = NULL;
    drop(c, REDIS_NONE);
    wheel_clear(&c->deadline);
    stats_sub(&w->stats, STAT_redis_connections_away, 1);
    c->owner->at[c->server->slot] = NULL;
    free(c);
}

void limit_redis_free(struct limit_redis **lrp)
{
    struct limit_redis *lr = *lrp;
    *lrp = NULL;
    if (!lr)
        return;
    for (uint32_t i = 0; i < lr->room; i++)
        if (lr->at[i])
            connection_free(lr->at[i]);
    list_each_safe (node, &lr->spare) {
        free(CONTAINER_OF(node, struct limit_ask, link));
    }
    free(lr->at);
    free(lr);
}

static void make_room(struct limit_redis *lr, uint32_t slots)
{
    if (slots <= lr->room)
        return;
    lr->at = realloc(lr->at, slots * sizeof(struct connection *));
    if (!lr->at)
        log_fatal("redis", "out of memory");
    memset(lr->at + lr->room, 0, (slots - lr->room) * sizeof(struct connection *));
    lr->room = slots;
}

static struct connection *connection_new(struct limit_redis *lr, struct redis_server *server)
{
    static const char digits[] = "0123456789abcdef";
    struct worker *w = lr->worker;
    struct connection *c = calloc(1, sizeof(*c));
    if (!c)
        log_fatal("redis", "out of memory");
    c->owner = lr;
    c->server = server;
    list_init(&c->waiting);
    wheel_entry_init(&c->deadline, DEADLINE_REDIS);
    ev_init(&c->io, on_io);
    c->io.data = c;
    /* Proposed to a Redis that has no secret yet. */
    const char *gateway = redis_gateway_id();
    for (unsigned i = 0; i < SCRIPT_SECRET_BYTES; i++)
        c->secret[i] = i < 16 ? gateway[i] : digits[worker_random(w) & 15];
    stats_add(&w->stats, STAT_redis_connections_away, 1);
    return c;
}

static bool is_listed(const struct redis_use *use, const struct addr *a)
{
    for (uint32_t i = 0; i < use->addr_count; i++)
        if (addr_equal(&use->addrs[i], a))
            return true;
    return false;
}

static void use_server(struct limit_redis *lr, const struct redis_use *use)
{
    struct redis_server *server = use->server;
    make_room(lr, server->slot + 1);
    struct connection *c = lr->at[server->slot];
    if (!c) {
        c = lr->at[server->slot] = connection_new(lr, server);
        c->use = use;
        try_connecting(c);
        return;
    }
    c->use = use;
    if (c->context && !is_listed(use, &c->addr))
        drop(c, REDIS_MOVED);
    else if (c->state == CONN_AWAY)
        set_deadline(c, 0); /* it may have got its first address */
}

void limit_redis_adopt(struct limit_redis *lr, const struct snapshot *s)
{
    for (uint32_t i = 0; i < lr->room; i++)
        if (lr->at[i])
            lr->at[i]->use = NULL;
    for (uint32_t i = 0; i < s->redis_count; i++)
        use_server(lr, &s->redis[i]);
    for (uint32_t i = 0; i < lr->room; i++)
        if (lr->at[i] && !lr->at[i]->use)
            set_deadline(lr->at[i], 0);
}

/* ---- time ---- */

static void on_greeting_due(struct connection *c)
{
    double waited_s = worker_now(c->owner->worker) - c->greeted_s;
    if (c->greeting_is_owed && waited_s * 1000 >= timeout_of(c)) {
        drop(c, REDIS_TIMEOUT);
        return;
    }
    set_deadline(c, SCRIPT_GREETING_MS);
    if (!c->greeting_is_owed && !send_greeting(c))
        drop(c, REDIS_CLOSED);
}

static void on_connection_deadline(struct connection *c)
{
    if (!c->use) {
        if (list_is_empty(&c->waiting))
            connection_free(c);
        else
            set_deadline(c, SCRIPT_GREETING_MS);
        return;
    }
    switch (c->state) {
    case CONN_AWAY:
        try_connecting(c);
        break;
    case CONN_CONNECTING:
        drop(c, REDIS_CONNECT);
        break;
    case CONN_GREETING:
        drop(c, REDIS_TIMEOUT);
        break;
    case CONN_UP:
        on_greeting_due(c);
        break;
    }
}

static void on_ask_deadline(struct limit_ask *ask)
{
    struct connection *c = ask->connection;
    stats_add(&c->owner->worker->stats, STAT_redis_timeouts_total, 1);
    answer(ask, NULL);
    strike(c, REDIS_TIMEOUT);
}

void limit_redis_on_deadline(struct limit_redis *lr, struct wheel_entry *e)
{
    if (e->kind == DEADLINE_ASK)
        on_ask_deadline(CONTAINER_OF(e, struct limit_ask, deadline));
    else
        on_connection_deadline(CONTAINER_OF(e, struct connection, deadline));
}

/* ---- asking ---- */

static void on_decided(redisAsyncContext *context, void *reply, void *owner);

static bool send_ask(struct connection *c, struct limit_ask *ask)
{
    enum script which = ask->policy->algorithm == LIMITER_BUCKET ? SCRIPT_BUCKET : SCRIPT_WINDOW;
    struct command command = command_in(c->owner->command, SCRIPT_COMMAND_BYTES);
    script_write_decision(&command, ask->by_text ? NULL : c->sha[which], ask->policy, ask->key);
    return send_command(c, on_decided, ask, &command);
}

/* {allowed, remaining, us until one passes, us until all is back}; false: it is something else. */
static bool read_verdict(const struct limit_reply *r, struct limit_verdict *v)
{
    if (r->kind != REPLY_LIST || r->count != 4)
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (r->parts[i].kind != REPLY_NUMBER || r->parts[i].number < 0)
            return false;
    if (r->parts[0].number > 1)
        return false;
    v->allowed = r->parts[0].number == 1;
    v->remaining = (uint64_t)r->parts[1].number;
    v->retry_ns = MIN((uint64_t)r->parts[2].number, UINT64_MAX / 2000) * 1000;
    v->reset_ns = MIN((uint64_t)r->parts[3].number, UINT64_MAX / 2000) * 1000;
    return true;
}

/* An error. false: the ask goes out once more, and still waits. */
static bool take_error(struct connection *c, struct limit_ask *ask, const char *error)
{
    if (strncmp(error, "NOSCRIPT", 8) == 0 && !ask->by_text) {
        if (!ask->owner) /* nobody cares, and its policy may be gone */
            return true;
        ask->by_text = true;
        if (send_ask(c, ask))
            return false;
    }
    stats_add(&c->owner->worker->stats, STAT_redis_failures_total, 1);
    answer(ask, NULL);
    if (!c->context)
        return true;
    enum redis_cause cause = cause_of_text(error);
    if (cause == REDIS_ERROR)
        strike(c, cause);
    else
        drop(c, cause);
    return true;
}

static void on_decided(redisAsyncContext *context, void *reply, void *owner)
{
    struct connection *c = context->data;
    struct limit_ask *ask = owner;
    const struct limit_reply *r = reply;
    struct limit_verdict v = {0};
    if (c->context == context)
        c->reply.owed--;
    if (!r) {
        lost(c, context); /* tells everybody who waits, this one too */
    } else if (r->kind == REPLY_ERROR) {
        if (!take_error(c, ask, r->parts[0].text))
            return;
    } else if (read_verdict(r, &v)) {
        c->strikes = c->pause_ms = 0;
        stats_add(&c->owner->worker->stats, STAT_redis_decisions_total, ask->owner ? 1 : 0);
        answer(ask, &v);
    } else {
        drop(c, REDIS_PROTOCOL);
    }
    recycle(ask);
}

struct limit_ask *limit_redis_ask(struct limit_redis *lr, const struct limit_policy *p,
                                  const struct limit_subject *subject, limit_answered_fn *answered,
                                  void *owner)
{
    struct worker *w = lr->worker;
    struct connection *c = p->redis->slot < lr->room ? lr->at[p->redis->slot] : NULL;
    if (!c || c->state != CONN_UP || c->reply.owed >= LIMIT_REDIS_ASKS_MAX)
        return NULL;
    struct limit_ask *ask = take_ask(lr);
    ask->connection = c;
    ask->policy = p;
    ask->key = limit_subject_digest(p, subject, c->secrets);
    ask->answered = answered;
    if (!send_ask(c, ask)) {
        recycle(ask);
        return NULL;
    }
    ask->owner = owner;
    list_push_back(&c->waiting, &ask->link);
    wheel_set(&w->wheel, &ask->deadline, worker_now(w), p->redis_timeout_ms);
    stats_add(&w->stats, STAT_redis_waiting, 1);
    return ask;
}
