/* Hot path in redis_link_send(), redis_link_take() and redis_link_flush(): no lock, no log line, no
 * memory but hiredis' own (a callback for each command, and its buffer as it grows), no system call
 * but one write for each turn of the loop in which something was sent, and the reads. */
#include "dataplane/route/redis_link.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/worker.h"

#define STRIKES 3
#define PAUSE_MIN_MS 100
#define PAUSE_MAX_MS 5000
#define GREETING_MIN_MS 25 /* loading scripts takes longer than deciding */

static_assert(REDIS_WORKERS == MAX_WORKERS, "each worker has its state of a server");

/* ---- state ---- */

static uint32_t timeout_of(const struct redis_link *l)
{
    return MAX(l->use ? l->use->timeout_ms : 0, GREETING_MIN_MS);
}

static void set_deadline(struct redis_link *l, uint64_t after_ms)
{
    struct worker *w = l->worker;
    wheel_set(&w->wheel, &l->deadline, worker_now(w), after_ms);
}

static enum stat_id level_of(enum link_state state)
{
    return state == LINK_UP ? STAT_redis_connections_active : STAT_redis_connections_away;
}

/* The one door. */
static void set_state(struct redis_link *l, enum link_state state, enum redis_cause cause)
{
    struct worker *w = l->worker;
    stats_sub(&w->stats, level_of(l->state), 1);
    stats_add(&w->stats, level_of(state), 1);
    l->state = state;
    bool changed = false;
    if (state == LINK_UP)
        changed = redis_server_set(l->server, w->index, REDIS_UP, REDIS_NONE);
    else if (state == LINK_AWAY)
        changed = redis_server_set(l->server, w->index, l->use ? REDIS_AWAY : REDIS_UNUSED, cause);
    if (changed)
        w->tell_control(w->control);
}

/* Without the context, which the caller frees or hiredis does. */
static void go_away(struct redis_link *l, enum redis_cause cause)
{
    struct worker *w = l->worker;
    l->context = NULL;
    l->dirty = l->greeting_is_owed = false;
    l->strikes = 0;
    l->events = 0;
    ev_io_stop(w->loop, &l->io);
    set_state(l, LINK_AWAY, cause);
    l->pause_ms = MIN(MAX(l->pause_ms * 2, PAUSE_MIN_MS), PAUSE_MAX_MS);
    set_deadline(l, l->pause_ms / 2 + worker_random(w) % l->pause_ms);
    l->lost(l);
}

void redis_link_drop(struct redis_link *l, enum redis_cause cause)
{
    redisAsyncContext *context = l->context;
    go_away(l, cause);
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
static void lose(struct redis_link *l, const redisAsyncContext *context)
{
    if (l->context == context)
        go_away(l, l->state == LINK_CONNECTING ? REDIS_CONNECT : cause_of_error(context));
}

void redis_link_take(struct redis_link *l, const redisAsyncContext *context, const void *reply)
{
    if (l->context == context)
        l->reply.owed--;
    if (!reply)
        lose(l, context);
}

void redis_link_strike(struct redis_link *l, enum redis_cause cause)
{
    if (++l->strikes >= STRIKES)
        redis_link_drop(l, cause);
}

void redis_link_succeeded(struct redis_link *l)
{
    l->strikes = l->pause_ms = 0;
}

/* Anywhere in the text: what a command within a script has met may stand behind other words. */
static enum redis_cause cause_of_text(const char *error)
{
    static const struct {
        const char *text;
        enum redis_cause cause;
    } known[] = {
        {"READONLY", REDIS_READONLY},
        {"NOPERM", REDIS_PERMISSION},
        {"protected mode", REDIS_PROTECTED}, /* speaks of passwords too */
        {"WRONGPASS", REDIS_LOGIN},
        {"AUTH", REDIS_LOGIN},
        {"password", REDIS_LOGIN},
        {"DB index", REDIS_DATABASE},
        {"OOM ", REDIS_FULL},
        {"BUSY ", REDIS_BUSY},
        {"LOADING", REDIS_LOADING},
        {"MISCONF", REDIS_NO_WRITES},
        {"NOREPLICAS", REDIS_NO_WRITES},
        {"MOVED ", REDIS_CLUSTER},
        {"CROSSSLOT", REDIS_CLUSTER},
        {"CLUSTERDOWN", REDIS_CLUSTER},
        {"cluster mode", REDIS_CLUSTER},
        {"max number of clients", REDIS_CLIENTS},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strstr(error, known[i].text))
            return known[i].cause;
    return REDIS_ERROR;
}

void redis_link_fault(struct redis_link *l, const char *error)
{
    enum redis_cause cause = cause_of_text(error);
    if (!l->context)
        return;
    if (cause == REDIS_READONLY || cause == REDIS_LOGIN)
        redis_link_drop(l, cause);
    else
        redis_link_strike(l, cause);
}

/* ---- hiredis and the loop ---- */

static void watch(struct redis_link *l, int events)
{
    struct ev_loop *loop = l->worker->loop;
    if (!l->context || l->events == events)
        return;
    ev_io_stop(loop, &l->io);
    l->events = events;
    if (events == 0)
        return;
    ev_io_set(&l->io, l->context->c.fd, events);
    ev_io_start(loop, &l->io);
}

static void want_read(void *connection)
{
    struct redis_link *l = connection;
    watch(l, l->events | EV_READ);
}

static void want_no_read(void *connection)
{
    struct redis_link *l = connection;
    watch(l, l->events & ~EV_READ);
}

/* Called for each command: what is connected writes at the end of the turn, all at once. */
static void want_write(void *connection)
{
    struct redis_link *l = connection;
    if (l->state == LINK_CONNECTING)
        watch(l, l->events | EV_WRITE);
    else
        l->dirty = true;
}

static void want_no_write(void *connection)
{
    struct redis_link *l = connection;
    watch(l, l->events & ~EV_WRITE);
}

static void forget_events(void *connection)
{
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct redis_link *l = io->data;
    redisAsyncContext *context = l->context;
    if (events & EV_WRITE)
        redisAsyncHandleWrite(context);
    if (events & EV_READ && l->context == context)
        redisAsyncHandleRead(context);
    if (l->context == context && limit_reply_is_flooded(context))
        redis_link_drop(l, REDIS_PROTOCOL);
}

void redis_link_flush(struct redis_link *l)
{
    redisAsyncContext *context = l->context;
    if (!l->dirty)
        return;
    l->dirty = false;
    redisAsyncHandleWrite(context);
    if (l->context == context && l->dirty) { /* the socket is full */
        l->dirty = false;
        watch(l, l->events | EV_WRITE);
    }
}

bool redis_link_send(struct redis_link *l, redisCallbackFn *fn, void *owner,
                     const struct command *command)
{
    if (redisAsyncFormattedCommand(l->context, fn, owner, command->at, command->len) != REDIS_OK)
        return false;
    l->reply.owed++;
    return true;
}

/* ---- greeting ---- */

/* The connection that a reply of the greeting is for, unless that is no good: then it is dropped.
 */
static struct redis_link *take_reply(redisAsyncContext *context, const struct limit_reply *r)
{
    struct redis_link *l = context->data;
    bool is_ours = l->context == context;
    redis_link_take(l, context, r);
    if (!r || !is_ours)
        return NULL;
    if (r->kind != REPLY_ERROR)
        return l;
    redis_link_drop(l, cause_of_text(r->parts[0].text));
    return NULL;
}

/* Of AUTH and SELECT. */
static void on_logged_in(redisAsyncContext *context, void *reply, void *unused)
{
    const struct limit_reply *r = reply;
    struct redis_link *l = take_reply(context, r);
    if (l && (r->kind != REPLY_STATUS || strcmp(r->parts[0].text, "OK") != 0))
        redis_link_drop(l, REDIS_PROTOCOL);
}

static bool is_hexadecimal(const struct reply_part *p, size_t len)
{
    return p->kind == REPLY_TEXT && p->len == len && strspn(p->text, "0123456789abcdef") == len;
}

static void on_loaded(redisAsyncContext *context, void *reply, void *sha)
{
    const struct limit_reply *r = reply;
    struct redis_link *l = take_reply(context, r);
    if (!l)
        return;
    if (r->kind == REPLY_TEXT && is_hexadecimal(&r->parts[0], SCRIPT_SHA_BYTES))
        memcpy(sha, r->parts[0].text, SCRIPT_SHA_BYTES);
    else
        redis_link_drop(l, REDIS_PROTOCOL);
}

static uint64_t number_of(const char *digits)
{
    char text[17];
    memcpy(text, digits, 16);
    text[16] = '\0';
    return strtoull(text, NULL, 16);
}

static void take_secret(struct redis_link *l, const char *secret)
{
    memcpy(l->secret, secret, SCRIPT_SECRET_BYTES);
    for (unsigned i = 0; i < LIMIT_SPACES; i++) {
        l->secrets[i][0] = number_of(secret) ^ i;
        l->secrets[i][1] = number_of(secret + 16);
    }
}

/* A list that began after the one that was counted on, when Redis was flushed or came back, may yet
 * lack some: who believed it at once would take too great a share, should Redis go away again. */
static void take_count(struct redis_server *s, const struct limit_reply *r)
{
    int64_t gateways = r->parts[0].number, since = r->parts[2].number, age_ms = r->parts[3].number;
    if (gateways < atomic_load_explicit(&s->gateways, memory_order_relaxed) &&
        since != atomic_load_explicit(&s->listed_since, memory_order_relaxed) &&
        age_ms < SCRIPT_SETTLED_MS)
        return;
    atomic_store_explicit(&s->gateways, (uint32_t)gateways, memory_order_relaxed);
    atomic_store_explicit(&s->listed_since, since, memory_order_relaxed);
}

static bool is_welcome(const struct limit_reply *r)
{
    return r->kind == REPLY_LIST && r->count == 4 && r->parts[0].kind == REPLY_NUMBER &&
           r->parts[0].number >= 1 && r->parts[0].number <= UINT32_MAX &&
           is_hexadecimal(&r->parts[1], SCRIPT_SECRET_BYTES) && r->parts[2].kind == REPLY_NUMBER &&
           r->parts[3].kind == REPLY_NUMBER;
}

static void on_greeted(redisAsyncContext *context, void *reply, void *unused)
{
    const struct limit_reply *r = reply;
    struct redis_link *l = take_reply(context, r);
    if (!l)
        return;
    if (!is_welcome(r)) {
        redis_link_drop(l, REDIS_PROTOCOL);
        return;
    }
    l->greeting_is_owed = false;
    take_secret(l, r->parts[1].text);
    take_count(l->server, r);
    if (l->state == LINK_UP)
        return;
    set_state(l, LINK_UP, REDIS_NONE);
    set_deadline(l, SCRIPT_GREETING_MS);
    l->won(l);
}

static bool send_greeting(struct redis_link *l)
{
    struct command command = command_in(l->command, SCRIPT_COMMAND_BYTES);
    script_write_greeting(&command, l->server->gateway, l->secret);
    l->greeting_is_owed = true;
    l->greeted_s = worker_now(l->worker);
    return redis_link_send(l, on_greeted, NULL, &command);
}

static void on_left(redisAsyncContext *context, void *reply, void *unused)
{
    redis_link_take(context->data, context, reply);
}

/* So that the others need not wait for this one's name to expire. If the socket does not take it,
 * they do; a worker that goes on greets again. */
static void say_farewell(struct redis_link *l)
{
    struct command command = command_in(l->command, SCRIPT_COMMAND_BYTES);
    script_write_farewell(&command, l->server->gateway);
    if (redis_link_send(l, on_left, NULL, &command))
        redisAsyncHandleWrite(l->context);
}

static bool send_login(struct redis_link *l)
{
    char database[16];
    const struct redis_use *use = l->use;
    struct command auth = command_in(l->command, SCRIPT_COMMAND_BYTES);
    if (use->password.len > 0) {
        command_begin(&auth, use->user.len > 0 ? 3 : 2);
        command_part(&auth, view_of("AUTH"));
        if (use->user.len > 0)
            command_part(&auth, use->user);
        command_part(&auth, use->password);
        if (!redis_link_send(l, on_logged_in, NULL, &auth))
            return false;
    }
    if (use->database == 0)
        return true;
    struct command select = command_in(l->command, SCRIPT_COMMAND_BYTES);
    snprintf(database, sizeof(database), "%u", use->database);
    command_begin(&select, 2);
    command_part(&select, view_of("SELECT"));
    command_part(&select, view_of(database));
    return redis_link_send(l, on_logged_in, NULL, &select);
}

static bool send_scripts(struct redis_link *l)
{
    for (unsigned i = 0; i < SCRIPTS; i++) {
        struct command load = command_in(l->command, SCRIPT_COMMAND_BYTES);
        script_write_load(&load, (enum script)i);
        if (!redis_link_send(l, on_loaded, l->sha[i], &load))
            return false;
    }
    return true;
}

/* ---- connecting ---- */

static void on_connected(const redisAsyncContext *context, int status)
{
    struct redis_link *l = context->data;
    if (l->context != context)
        return;
    if (status != REDIS_OK) {
        lose(l, context);
        return;
    }
    set_state(l, LINK_GREETING, REDIS_NONE);
    set_deadline(l, timeout_of(l));
}

static void on_disconnected(const redisAsyncContext *context, int status)
{
    lose(context->data, context);
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

static void attach(struct redis_link *l, redisAsyncContext *context)
{
    l->context = context;
    context->data = context->ev.data = l;
    context->ev.addRead = want_read;
    context->ev.delRead = want_no_read;
    context->ev.addWrite = want_write;
    context->ev.delWrite = want_no_write;
    context->ev.cleanup = forget_events;
    limit_reply_attach(&l->reply, context);
    redisAsyncSetConnectCallback(context, on_connected); /* asks to be told: want_write() */
    redisAsyncSetDisconnectCallback(context, on_disconnected);
    fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
}

static void connect_to(struct redis_link *l, const struct addr *a)
{
    redisAsyncContext *context = open_context(a);
    if (!context || context->err) {
        if (context)
            redisAsyncFree(context);
        go_away(l, REDIS_CONNECT);
        return;
    }
    l->addr = *a;
    set_state(l, LINK_CONNECTING, REDIS_NONE);
    attach(l, context);
    watch(l, EV_WRITE);
    set_deadline(l, timeout_of(l));
    if (!send_login(l) || !send_scripts(l) || !send_greeting(l))
        redis_link_drop(l, REDIS_CONNECT);
}

static void try_connecting(struct redis_link *l)
{
    if (l->use->addr_count == 0)
        go_away(l, REDIS_NO_ADDRESS);
    else
        connect_to(l, &l->use->addrs[l->attempts++ % l->use->addr_count]);
}

/* ---- life ---- */

static bool is_listed(const struct redis_use *use, const struct addr *a)
{
    for (uint32_t i = 0; i < use->addr_count; i++)
        if (addr_equal(&use->addrs[i], a))
            return true;
    return false;
}

void redis_link_use(struct redis_link *l, const struct redis_use *use)
{
    l->use = use;
    if (!use)
        set_deadline(l, 0); /* to be asked what is to become of it */
    else if (l->state == LINK_AWAY && l->pause_ms == 0)
        try_connecting(l); /* it is new */
    else if (l->context && !is_listed(use, &l->addr))
        redis_link_drop(l, REDIS_MOVED);
    else if (l->state == LINK_CONNECTING || l->state == LINK_GREETING)
        set_deadline(l, timeout_of(l));
    else
        set_deadline(l, 0); /* it may have got its first address; if it is up, it greets */
}

static void on_greeting_due(struct redis_link *l)
{
    double waited_s = worker_now(l->worker) - l->greeted_s;
    if (l->greeting_is_owed && waited_s * 1000 >= timeout_of(l)) {
        redis_link_drop(l, REDIS_TIMEOUT);
        return;
    }
    set_deadline(l, SCRIPT_GREETING_MS);
    if (!l->greeting_is_owed && !send_greeting(l))
        redis_link_drop(l, REDIS_CLOSED);
}

void redis_link_on_deadline(struct redis_link *l)
{
    switch (l->state) {
    case LINK_AWAY:
        try_connecting(l);
        break;
    case LINK_CONNECTING:
        redis_link_drop(l, REDIS_CONNECT);
        break;
    case LINK_GREETING:
        redis_link_drop(l, REDIS_TIMEOUT);
        break;
    case LINK_UP:
        on_greeting_due(l);
        break;
    }
}

void redis_link_init(struct redis_link *l, struct worker *w, struct redis_server *server,
                     void (*won)(struct redis_link *link), void (*lost)(struct redis_link *link))
{
    static const char digits[] = "0123456789abcdef";
    memset(l, 0, sizeof(*l));
    l->worker = w;
    l->server = server;
    l->won = won;
    l->lost = lost;
    wheel_entry_init(&l->deadline, DEADLINE_REDIS);
    ev_init(&l->io, on_io);
    l->io.data = l;
    /* Proposed to a Redis that has no secret yet. */
    for (unsigned i = 0; i < SCRIPT_SECRET_BYTES; i++)
        l->secret[i] = i < 16 ? server->gateway[i] : digits[worker_random(w) & 15];
    stats_add(&w->stats, STAT_redis_connections_away, 1);
}

void redis_link_fini(struct redis_link *l)
{
    l->use = NULL;
    if (l->state == LINK_UP)
        say_farewell(l);
    redis_link_drop(l, REDIS_NONE);
    wheel_clear(&l->deadline);
    stats_sub(&l->worker->stats, STAT_redis_connections_away, 1);
}
