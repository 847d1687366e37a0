/* Hot path in limit_redis_ask(), on_decided() and limit_redis_flush(). */
#include "dataplane/route/limit_redis.h"

#include <assert.h>
#include <stdlib.h>

#include "dataplane/route/redis_link.h"
#include "dataplane/worker.h"
#include "proto/base/log.h"

#define LET_GO_MS 100 /* how often a connection is looked at that is to go */

struct connection {
    struct redis_link link;
    struct limit_redis *owner;
    struct list waiting; /* struct limit_ask, the oldest first */
    uint32_t early;      /* how many of these have not been sent, since it is not UP yet */
};

struct limit_redis {
    struct worker *worker;
    struct connection **at; /* owned, by redis_server.slot; NULL where it has none */
    uint32_t room;
    struct list spare; /* struct limit_ask, owned */
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
    bool is_early; /* not sent */
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
    if (ask->is_early) { /* no reply is owed */
        ask->connection->early--;
        recycle(ask);
    }
}

static void answer_with(struct limit_ask *ask, const struct limit_verdict *v, bool again)
{
    void *owner = ask->owner;
    limit_answered_fn *answered = ask->answered;
    if (!owner)
        return;
    detach(ask);
    answered(owner, v, again);
}

static void answer(struct limit_ask *ask, const struct limit_verdict *v)
{
    answer_with(ask, v, false);
}

void limit_redis_cancel(struct limit_ask **ask)
{
    if (*ask)
        detach(*ask);
    *ask = NULL;
}

static struct limit_ask *first_of(const struct connection *c)
{
    return list_is_empty(&c->waiting) ? NULL
                                      : CONTAINER_OF(c->waiting.next, struct limit_ask, link);
}

/* All who wait have come too early. Those who ask again join the end of the list. */
static void on_won(struct redis_link *link)
{
    struct connection *c = CONTAINER_OF(link, struct connection, link);
    struct limit_ask *ask;
    while ((ask = first_of(c)) && ask->is_early)
        answer_with(ask, NULL, true);
}

/* Who waits is told, and may ask again: in vain, since the link is away by now. */
static void on_lost(struct redis_link *link)
{
    struct connection *c = CONTAINER_OF(link, struct connection, link);
    struct limit_ask *ask;
    while ((ask = first_of(c))) {
        stats_add(&link->worker->stats, STAT_redis_failures_total, ask->is_early ? 0 : 1);
        answer_with(ask, NULL, ask->is_early);
    }
}

/* ---- asking ---- */

static void on_decided(redisAsyncContext *context, void *reply, void *owner);

static bool send_ask(struct connection *c, struct limit_ask *ask)
{
    struct redis_link *link = &c->link;
    enum script which = ask->policy->algorithm == LIMITER_BUCKET ? SCRIPT_BUCKET : SCRIPT_WINDOW;
    struct command command = command_in(link->command, sizeof(link->command));
    script_write_decision(&command, ask->by_text ? NULL : link->sha[which], ask->policy, ask->key);
    return redis_link_send(link, on_decided, ask, &command);
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

/* Redis has forgotten the script: it gets the text, and the ask waits on. False: it does not. */
static bool ask_by_text(struct connection *c, struct limit_ask *ask, const char *error)
{
    if (strncmp(error, "NOSCRIPT", 8) != 0 || ask->by_text || !ask->owner)
        return false;
    ask->by_text = true;
    return send_ask(c, ask);
}

static void on_decided(redisAsyncContext *context, void *reply, void *owner)
{
    struct limit_ask *ask = owner;
    struct connection *c = ask->connection;
    struct stats *stats = &c->link.worker->stats;
    const struct limit_reply *r = reply;
    struct limit_verdict v = {0};
    redis_link_take(&c->link, context, r); /* without a reply, tells everybody who waits */
    if (r && r->kind == REPLY_ERROR) {
        if (ask_by_text(c, ask, r->parts[0].text))
            return;
        stats_add(stats, STAT_redis_failures_total, ask->owner ? 1 : 0);
        answer(ask, NULL);
        redis_link_fault(&c->link, r->parts[0].text);
    } else if (r && read_verdict(r, &v)) {
        redis_link_succeeded(&c->link);
        stats_add(stats, STAT_redis_decisions_total, ask->owner ? 1 : 0);
        answer(ask, &v);
    } else if (r) {
        redis_link_drop(&c->link, REDIS_PROTOCOL);
    }
    recycle(ask);
}

static struct connection *connection_of(const struct limit_redis *lr, const struct redis_server *s)
{
    return s->slot < lr->room ? lr->at[s->slot] : NULL;
}

struct limit_ask *limit_redis_ask(struct limit_redis *lr, const struct limit_policy *p,
                                  const struct limit_subject *subject, limit_answered_fn *answered,
                                  void *owner)
{
    struct worker *w = lr->worker;
    struct connection *c = connection_of(lr, p->redis);
    bool is_early = c && redis_link_is_new(&c->link);
    if (!c || (!is_early && !redis_link_is_up(&c->link)) ||
        c->link.reply.owed + c->early >= LIMIT_REDIS_ASKS_MAX)
        return NULL;
    struct limit_ask *ask = take_ask(lr);
    ask->connection = c;
    ask->policy = p;
    ask->answered = answered;
    ask->is_early = is_early;
    if (is_early) {
        c->early++;
    } else {
        ask->key = limit_subject_digest(p, subject, c->link.secrets);
        if (!send_ask(c, ask)) {
            recycle(ask);
            return NULL;
        }
    }
    ask->owner = owner;
    list_push_back(&c->waiting, &ask->link);
    wheel_set(&w->wheel, &ask->deadline, worker_now(w), p->redis_timeout_ms);
    stats_add(&w->stats, STAT_redis_waiting, 1);
    return ask;
}

void limit_redis_flush(struct limit_redis *lr)
{
    for (uint32_t i = 0; i < lr->room; i++) {
        if (!lr->at[i] || !lr->at[i]->link.dirty)
            continue;
        redis_link_flush(&lr->at[i]->link);
        i = UINT32_MAX; /* who was told of a loss may have asked another one: from the start */
    }
}

/* ---- forgetting ---- */

static void forget_free(struct limit_forget *f)
{
    free(f->route);
    free(f);
}

static void on_forgotten(redisAsyncContext *context, void *reply, void *owner)
{
    struct redis_link *link = context->data;
    redis_link_take(link, context, reply);
    forget_free(owner);
}

static void on_swept(redisAsyncContext *context, void *reply, void *owner);

static bool send_sweep(struct redis_link *link, struct limit_forget *f, const char *cursor)
{
    struct command command = command_in(link->command, sizeof(link->command));
    script_write_sweep(&command, f->route, cursor);
    return redis_link_send(link, on_swept, f, &command);
}

static void on_swept(redisAsyncContext *context, void *reply, void *owner)
{
    struct redis_link *link = context->data;
    const struct limit_reply *r = reply;
    redis_link_take(link, context, reply);
    bool is_answer = r && r->kind == REPLY_LIST && r->count == 2 && r->parts[0].kind == REPLY_TEXT;
    char cursor[32];
    if (is_answer && r->parts[0].len < sizeof(cursor) && strcmp(r->parts[0].text, "0") != 0) {
        memcpy(cursor, r->parts[0].text, r->parts[0].len + 1u);
        if (send_sweep(link, owner, cursor))
            return;
    }
    forget_free(owner);
}

static bool carry_out(struct limit_redis *lr, struct limit_forget *f)
{
    struct connection *c = lr ? connection_of(lr, f->server) : NULL;
    if (!c || !redis_link_is_up(&c->link))
        return false;
    if (!f->has_key)
        return send_sweep(&c->link, f, "0");
    struct command command = command_in(c->link.command, sizeof(c->link.command));
    script_write_forget(&command, view_of(f->prefix),
                        limit_subject_digest(&f->policy, &f->who, c->link.secrets));
    return redis_link_send(&c->link, on_forgotten, f, &command);
}

void limit_redis_obey(struct worker *w)
{
    struct limit_forget *f = atomic_exchange_explicit(&w->forget, NULL, memory_order_acquire);
    while (f) {
        struct limit_forget *next = f->next;
        if (!carry_out(w->redis, f))
            forget_free(f);
        f = next;
    }
}

bool limit_redis_forget(struct worker *w, const struct limit_policy *p, const char *route,
                        const struct limit_subject *who)
{
    uint16_t state = atomic_load_explicit(&p->redis->states[w->index], memory_order_relaxed);
    if ((state & 0xff) != REDIS_UP ||
        (who && who->text.len > sizeof(((struct limit_forget *)0)->text)))
        return false;
    struct limit_forget *f = calloc(1, sizeof(*f));
    if (!f || !(f->route = strdup(route)))
        log_fatal("redis", "out of memory");
    f->server = p->redis;
    f->policy.ipv6_prefix = p->ipv6_prefix;
    memcpy(f->prefix, p->redis_prefix.at, p->redis_prefix.len);
    if (who) {
        f->has_key = true;
        f->who = *who;
        f->who.text.at = f->text;
        if (who->text.len > 0)
            memcpy(f->text, who->text.at, who->text.len);
    }
    f->next = atomic_load_explicit(&w->forget, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&w->forget, &f->next, f, memory_order_release,
                                                  memory_order_relaxed))
        ;
    ev_async_send(w->loop, &w->wake);
    return true;
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
    c->owner->at[c->link.server->slot] = NULL;
    redis_link_fini(&c->link);
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

static struct connection *connection_new(struct limit_redis *lr, struct redis_server *server)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (!c)
        log_fatal("redis", "out of memory");
    c->owner = lr;
    list_init(&c->waiting);
    redis_link_init(&c->link, lr->worker, server, on_won, on_lost);
    return c;
}

static void make_room(struct limit_redis *lr, uint32_t slots)
{
    if (slots <= lr->room)
        return;
    struct connection **more = realloc(lr->at, slots * sizeof(struct connection *));
    if (!more)
        log_fatal("redis", "out of memory");
    memset(more + lr->room, 0, (slots - lr->room) * sizeof(struct connection *));
    lr->at = more;
    lr->room = slots;
}

/* All links lose what the old snapshot said first: telling a loss may look at any of them. */
void limit_redis_adopt(struct limit_redis *lr, const struct snapshot *s)
{
    for (uint32_t i = 0; i < lr->room; i++)
        if (lr->at[i])
            redis_link_use(&lr->at[i]->link, NULL);
    for (uint32_t i = 0; i < s->redis_count; i++) {
        uint32_t slot = s->redis[i].server->slot;
        make_room(lr, slot + 1);
        if (!lr->at[slot])
            lr->at[slot] = connection_new(lr, s->redis[i].server);
        redis_link_use(&lr->at[slot]->link, &s->redis[i]);
    }
}

/* ---- time ---- */

static void on_link_deadline(struct connection *c)
{
    struct worker *w = c->link.worker;
    if (c->link.use)
        redis_link_on_deadline(&c->link);
    else if (list_is_empty(&c->waiting))
        connection_free(c);
    else
        wheel_set(&w->wheel, &c->link.deadline, worker_now(w), LET_GO_MS);
}

static void on_ask_deadline(struct limit_ask *ask)
{
    struct connection *c = ask->connection;
    bool was_sent = !ask->is_early;
    stats_add(&c->link.worker->stats, STAT_redis_timeouts_total, was_sent ? 1 : 0);
    answer(ask, NULL);
    if (was_sent && c->link.context)
        redis_link_strike(&c->link, REDIS_TIMEOUT);
}

void limit_redis_on_deadline(struct limit_redis *lr, struct wheel_entry *e)
{
    if (e->kind == DEADLINE_ASK)
        on_ask_deadline(CONTAINER_OF(e, struct limit_ask, deadline));
    else
        on_link_deadline(
            CONTAINER_OF(CONTAINER_OF(e, struct redis_link, deadline), struct connection, link));
}
