#include "dataplane/http/upstream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/http/attempt.h"
#include "dataplane/http/request.h"
#include "dataplane/http/response.h"
#include "proto/base/log.h"

static void on_ready(struct transport *t, int events);

static struct upstream *take_spare(struct worker *w)
{
    struct upstream *u;
    if (list_is_empty(&w->spare_upstreams)) {
        u = calloc(1, sizeof(*u));
        if (!u)
            log_fatal("upstream", "out of memory");
        list_init(&u->link);
        return u;
    }
    u = CONTAINER_OF(w->spare_upstreams.next, struct upstream, link);
    list_remove(&u->link);
    return u;
}

static struct upstream *connect_new(struct worker *w, struct endpoint *e, struct exchange *ex,
                                    uint32_t connect_timeout_ms)
{
    const int kind = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int one = 1, fd = socket(e->addr.sa.any.sa_family, kind, 0);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && worker_shed(w))
        fd = socket(e->addr.sa.any.sa_family, kind, 0);
    if (fd < 0)
        return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, &e->addr.sa.any, e->addr.len) < 0 && errno != EINPROGRESS) {
        int saved = errno;
        close(fd);
        errno = saved;
        return NULL;
    }
    struct upstream *u = take_spare(w);
    transport_init(&u->io, fd, on_ready);
    u->worker = w;
    u->endpoint = e;
    u->exchange = ex;
    u->in = NULL;
    u->state = UP_CONNECTING;
    u->reused = u->filled = false;
    wheel_entry_init(&u->deadline, DEADLINE_UPSTREAM);
    wheel_set(&w->wheel, &u->deadline, worker_now(w), connect_timeout_ms);
    transport_watch(&u->io, w->loop, EV_WRITE);
    stats_add(&w->stats, STAT_upstream_connections_total, 1);
    stats_add(&w->stats, STAT_upstream_connections_active, 1);
    return u;
}

/* Not one of which there is news in this very turn: its end, which a request that may not be sent
 * twice would not survive, or bytes that would be taken for an answer. */
static struct upstream *take_idle(struct worker *w, struct endpoint *e)
{
    struct upstream *u;
    while ((u = upstream_pool_take(&w->pool, e))) {
        u->state = UP_BUSY;
        stats_sub(&w->stats, STAT_upstream_connections_idle, 1);
        if (!transport_has_news(&u->io))
            return u;
        upstream_close(&u);
    }
    return NULL;
}

struct upstream *upstream_open(struct worker *w, struct endpoint *e, struct exchange *ex,
                               uint32_t connect_timeout_ms, bool fresh)
{
    struct upstream *u = fresh ? NULL : take_idle(w, e);
    if (!u)
        return connect_new(w, e, ex, connect_timeout_ms);
    u->exchange = ex;
    wheel_pause(&u->deadline);
    stats_add(&w->stats, STAT_upstream_reused_total, 1);
    return u;
}

/* The whole checklist of reuse: in step, nothing left over, still wanted. */
static bool may_reuse(const struct upstream *u)
{
    const struct worker *w = u->worker;
    bool in_step = !u->in || u->in->parsed == u->in->used;
    bool listed = atomic_load_explicit(&u->endpoint->listed_by, memory_order_relaxed) >=
                  w->snapshot->generation;
    return in_step && listed && !w->draining;
}

void upstream_release(struct upstream **up, bool clean)
{
    struct upstream *u = *up;
    struct worker *w = u->worker;
    if (!clean || !may_reuse(u) || !upstream_pool_put(&w->pool, u)) {
        upstream_close(up);
        return;
    }
    *up = NULL;
    u->state = UP_IDLE;
    u->exchange = NULL;
    u->filled = false;
    u->reused = true;
    buffer_give(&w->buffers, &u->in);
    transport_watch(&u->io, w->loop,
                    EV_READ); /* armed already, as a rule: its end shall be noticed */
    wheel_set(&w->wheel, &u->deadline, worker_now(w), UPSTREAM_IDLE_MS);
    stats_add(&w->stats, STAT_upstream_connections_idle, 1);
}

void upstream_close(struct upstream **up)
{
    struct upstream *u = *up;
    struct worker *w = u->worker;
    *up = NULL;
    if (u->state == UP_IDLE) {
        upstream_pool_remove(&w->pool, u);
        stats_sub(&w->stats, STAT_upstream_connections_idle, 1);
    }
    u->state = UP_CLOSED;
    u->exchange = NULL;
    transport_close(&u->io, w->loop);
    wheel_clear(&u->deadline);
    buffer_give(&w->buffers, &u->in);
    stats_sub(&w->stats, STAT_upstream_connections_active, 1);
    list_push_back(&w->dead_upstreams, &u->link);
}

void upstream_recycle(struct upstream *u)
{
    list_remove(&u->link);
    list_push_front(&u->worker->spare_upstreams, &u->link);
}

void upstream_sweep(struct worker *w)
{
    for (uint32_t i = 0; i < w->pool.slot_count; i++) {
        list_each_safe (node, &w->pool.slots[i].idle) {
            struct upstream *u = CONTAINER_OF(node, struct upstream, link);
            if (atomic_load_explicit(&u->endpoint->listed_by, memory_order_relaxed) <
                w->snapshot->generation)
                upstream_close(&u);
        }
    }
}

bool upstream_shed(struct worker *w)
{
    for (uint32_t i = 0; i < w->pool.slot_count; i++) {
        if (w->pool.slots[i].count == 0)
            continue;
        struct upstream *u = CONTAINER_OF(w->pool.slots[i].idle.prev, struct upstream, link);
        upstream_close(&u);
        return true;
    }
    return false;
}

void upstream_on_deadline(struct upstream *u)
{
    if (u->state == UP_IDLE)
        upstream_close(&u);
    else
        attempt_timeout(u->exchange);
}

static void on_connect(struct upstream *u)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(transport_fd(&u->io), SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error) {
        attempt_failed(u->exchange, R_CONNECT_FAILED, NULL);
        return;
    }
    u->state = UP_BUSY;
    transport_watch(&u->io, u->worker->loop, EV_READ);
    attempt_connected(u->exchange);
}

static void on_ready(struct transport *t, int events)
{
    struct upstream *u = CONTAINER_OF(t, struct upstream, io);
    switch ((enum upstream_state)u->state) {
    case UP_CONNECTING:
        on_connect(u);
        break;
    case UP_BUSY:
        if (events & EV_WRITE)
            request_pump(u->exchange);
        /* That may have ended the exchange and closed or pooled the connection. */
        if (events & EV_READ && u->state == UP_BUSY)
            response_readable(u->exchange);
        break;
    case UP_IDLE: /* the end, or bytes that nobody asked for */
        upstream_close(&u);
        break;
    case UP_CLOSED:
        break;
    }
}
