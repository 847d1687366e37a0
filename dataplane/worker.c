#include "dataplane/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/http/downstream.h"
#include "dataplane/http/exchange.h"
#include "dataplane/route/limit_redis.h"
#include "proto/base/log.h"

/* Connections taken at one readiness: enough to empty a burst, few enough to leave other workers
 * and clients their turn. */
#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE_S 0.1
#define LAST_ACCEPTS 1024  /* from one socket, when accepting ends */
#define SHED_PAUSE_S 0.005 /* long enough for another worker to close what is idle */
#define IDLER_BY_S 0.05    /* what such a pause is worth while this worker has idle clients too */

struct listener_watch {
    ev_io io;
    struct worker *worker;
    const struct listener
        *listener; /* of the control thread; outlives its adoption by this worker */
};

static double monotonic_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- making room ---- */

/* All workers of the process, so that one which has nothing idle can ask the others. Set before any
 * of them runs. */
static struct worker *_Atomic team[MAX_WORKERS];

/* Without idle ones, one that has got its last answer and is only read on: who goes on sending
 * shall not hold a place that others want. */
static struct downstream *idlest_client(const struct worker *w)
{
    const struct list *from = list_is_empty(&w->idle_clients) ? &w->lingering : &w->idle_clients;
    return list_is_empty(from) ? NULL : CONTAINER_OF(from->next, struct downstream, link);
}

static void tell_idlest(struct worker *w)
{
    struct downstream *c = idlest_client(w);
    atomic_store_explicit(&w->idle_since_s, c ? downstream_idle_since(c) : 0, memory_order_relaxed);
}

static bool shed_client(struct worker *w)
{
    struct downstream *c = idlest_client(w);
    if (!c)
        return false;
    list_remove(&c->link);
    tell_idlest(w); /* nobody shall ask for the next one because of this one */
    downstream_shed(c);
    return true;
}

/* The other worker whose client has been idle longest; NULL if none has been since before that. */
static struct worker *find_idler(const struct worker *w, double since_s)
{
    struct worker *found = NULL;
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        struct worker *other = atomic_load_explicit(&team[i], memory_order_acquire);
        double s = other && other != w
                       ? atomic_load_explicit(&other->idle_since_s, memory_order_relaxed)
                       : 0;
        if (s > 0 && s < since_s) {
            since_s = s;
            found = other;
        }
    }
    return found;
}

static bool ask(struct worker *other)
{
    if (!other)
        return false;
    atomic_fetch_add_explicit(&other->shed_wanted, 1, memory_order_relaxed);
    ev_async_send(other->loop, &other->wake);
    return true;
}

static bool ask_another(const struct worker *w)
{
    return ask(find_idler(w, INFINITY));
}

bool worker_shed(struct worker *w)
{
    return shed_client(w) || upstream_shed(w) || ask_another(w);
}

bool worker_shed_client(struct worker *w)
{
    struct downstream *c = idlest_client(w);
    return ask(find_idler(w, c ? downstream_idle_since(c) : INFINITY)) || shed_client(w);
}

/* What it has no more idle clients for it passes on. */
static void shed_for_others(struct worker *w)
{
    uint32_t wanted = atomic_exchange_explicit(&w->shed_wanted, 0, memory_order_relaxed);
    while (wanted-- > 0 && (shed_client(w) || ask_another(w)))
        ;
}

/* ---- accepting ---- */

static void stop_accepting(struct worker *w)
{
    for (uint32_t i = 0; i < w->watch_count; i++)
        ev_io_stop(w->loop, &w->watches[i].io);
}

static void start_accepting(struct worker *w)
{
    for (uint32_t i = 0; i < w->watch_count; i++)
        ev_io_start(w->loop, &w->watches[i].io);
}

static void take_spare_fd(struct worker *w)
{
    if (w->spare_fd < 0)
        w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_accept_pause_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct worker *w = timer->data;
    ev_timer_stop(loop, timer);
    take_spare_fd(w); /* another worker may have been quicker when it was given up */
    start_accepting(w);
}

/* Out of descriptors or memory: the connection stays in the backlog, and trying again at once would
 * spin. */
static void pause_accepting(struct worker *w, double seconds)
{
    stop_accepting(w);
    ev_timer_set(&w->accept_pause, seconds, 0);
    ev_timer_start(w->loop, &w->accept_pause);
}

/* Nothing is idle: the spare descriptor is given up for a moment so that the client gets an answer
 * instead of waiting in the backlog. */
static bool refuse_one(struct worker *w, int listening)
{
    if (w->spare_fd < 0)
        return false;
    close(w->spare_fd);
    w->spare_fd = -1;
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        downstream_refuse(w, fd);
    take_spare_fd(w);
    return fd >= 0;
}

/* No descriptor is left for the client that waits. false: no more are accepted for now. */
static bool make_room(struct worker *w, int listening)
{
    struct downstream *c = idlest_client(w);
    if (ask(find_idler(w, c ? downstream_idle_since(c) - IDLER_BY_S : INFINITY))) {
        pause_accepting(w, SHED_PAUSE_S);
        return false;
    }
    if (shed_client(w))
        return true;
    /* Idle connections to backends come last: the client will need one. */
    if (upstream_shed(w) || refuse_one(w, listening))
        return true;
    pause_accepting(w, ACCEPT_PAUSE_S);
    return false;
}

/* accept4() looks for a descriptor before it looks for a client: without one it fails the same
 * whether somebody waits or not. */
static bool somebody_waits(int listening)
{
    struct pollfd p = {.fd = listening, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    struct listener_watch *watch = CONTAINER_OF(io, struct listener_watch, io);
    struct worker *w = watch->worker;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage peer = {.ss_family = AF_UNIX};
        socklen_t len = sizeof(peer);
        int fd = accept4(io->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            downstream_accept(w, fd, (struct sockaddr *)&peer);
            continue;
        }
        if (errno == EAGAIN)
            return;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EMFILE && errno != ENFILE) {
            stats_add(&w->stats, STAT_accept_errors_total, 1);
            pause_accepting(w, ACCEPT_PAUSE_S);
            return;
        }
        if (!somebody_waits(io->fd))
            return;
        stats_add(&w->stats, STAT_accept_errors_total, 1);
        if (!make_room(w, io->fd))
            return;
    }
}

/* Before another thread may close the sockets. libev leaves what is stopped in its epoll set, and
 * takes it out by its number when it fires: by then another descriptor may have that number. So the
 * watchers wait for something that never happens to a listening socket, and go one turn later, when
 * the set says so too. */
static void retire_watches(struct worker *w)
{
    stop_accepting(w);
    for (uint32_t i = 0; i < w->watch_count; i++) {
        ev_io_modify(&w->watches[i].io, EV_WRITE);
        ev_io_start(w->loop, &w->watches[i].io);
    }
    w->retired = w->watches;
    w->retired_count = w->watch_count;
    w->watches = NULL;
    w->watch_count = 0;
    ev_async_send(w->loop, &w->wake);
}

/* At the first wake after the turn in which they were retired. */
static void forget_retired(struct worker *w)
{
    for (uint32_t i = 0; i < w->retired_count; i++)
        ev_io_stop(w->loop, &w->retired[i].io);
    free(w->retired);
    w->retired = NULL;
    w->retired_count = 0;
}

static void accept_from(struct worker *w, int listening)
{
    struct sockaddr_storage peer;
    for (int n = 0; n < LAST_ACCEPTS; n++) {
        socklen_t len = sizeof(peer);
        peer.ss_family = AF_UNIX;
        int fd = accept4(listening, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        downstream_accept(w, fd, (struct sockaddr *)&peer);
    }
}

static void watch_listeners(struct worker *w)
{
    /* Who waits at a socket that is left is served: nobody else may be there to do it. */
    for (uint32_t i = 0; i < w->watch_count; i++)
        accept_from(w, w->watches[i].listener->fd);
    retire_watches(w);
    w->watch_count = w->snapshot->listen_count;
    w->watches = calloc(w->watch_count ? w->watch_count : 1, sizeof(*w->watches));
    if (!w->watches)
        log_fatal("worker", "out of memory");
    for (uint32_t i = 0; i < w->watch_count; i++) {
        struct listener_watch *watch = &w->watches[i];
        watch->worker = w;
        watch->listener = w->snapshot->listeners[i];
        ev_io_init(&watch->io, on_connection, watch->listener->fd, EV_READ);
    }
    if (!ev_is_active(&w->accept_pause))
        start_accepting(w);
}

/* ---- snapshots and orders ---- */

static bool same_listeners(const struct worker *w, const struct snapshot *s)
{
    if (w->watch_count != s->listen_count)
        return false;
    for (uint32_t i = 0; i < s->listen_count; i++)
        if (w->watches[i].listener != s->listeners[i])
            return false;
    return true;
}

/* Heads are written here before they are sent: room for the largest, either way, and for what the
 * gateway adds. */
static void fit_scratch(struct worker *w)
{
    size_t bytes = MAX(w->snapshot->server.max_header_bytes, RESPONSE_HEAD_MAX_BYTES) + 8192;
    if (bytes <= w->scratch_bytes)
        return;
    free(w->scratch);
    free(w->target_scratch);
    w->scratch = malloc(bytes);
    w->target_scratch = malloc(bytes);
    if (!w->scratch || !w->target_scratch)
        log_fatal("worker", "out of memory: %zu bytes of scratch", bytes);
    w->scratch_bytes = bytes;
}

/* As configured, or as descriptors allow: a reserve stays for backends, files and the control
 * plane. */
static uint32_t max_clients(const struct snapshot *s)
{
    struct rlimit files;
    if (s->server.max_connections > 0)
        return s->server.max_connections;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur > UINT32_MAX)
        return UINT32_MAX;
    return (uint32_t)(files.rlim_cur - MIN(files.rlim_cur / 2, MAX(files.rlim_cur / 8, 64)));
}

/* The hazard pointer of worker.h. From the store to `adopted` on, the old snapshot may be freed at
 * any time. */
static void adopt_snapshot(struct worker *w)
{
    struct snapshot *s;
    do {
        s = atomic_load_explicit(&w->published, memory_order_acquire);
        atomic_store_explicit(&w->adopted, s, memory_order_seq_cst);
    } while (s != atomic_load_explicit(&w->published, memory_order_seq_cst));
    if (!s || s == w->snapshot)
        return;
    w->snapshot = s;
    w->log_console = s->log_format == LOG_CONSOLE;
    w->log_share =
        s->access_log_sample >= 1 ? UINT64_MAX : (uint64_t)(s->access_log_sample * 0x1p63) * 2;
    upstream_pool_resize(&w->pool, s->endpoint_slots);
    stats_set_bounds(&w->stats, s->duration_buckets, s->duration_bucket_count);
    stats_enter_generation(&w->stats, s->generation);
    w->max_clients = max_clients(s);
    fit_scratch(w);
    if (!same_listeners(w, s) &&
        atomic_load_explicit(&w->order, memory_order_relaxed) < WORKER_YIELD)
        watch_listeners(w);
    upstream_sweep(w);
    if (s->redis_count > 0 && !w->redis)
        w->redis = limit_redis_new(w);
    if (w->redis)
        limit_redis_adopt(w->redis, s);
}

/* Not before the listeners of the one before are out of this worker's hands. */
static void tell_serving(struct worker *w)
{
    if (w->retired || w->snapshot == atomic_load_explicit(&w->serving, memory_order_relaxed))
        return;
    atomic_store_explicit(&w->serving, w->snapshot, memory_order_release);
    w->tell_control(w->control);
}

/* Whoever waits when accepting ends is served: nobody else may be there to do it. */
static void accept_waiting(struct worker *w)
{
    for (uint32_t i = 0; i < w->snapshot->listen_count; i++)
        accept_from(w, w->snapshot->listeners[i]->fd);
}

static bool has_sent_something(const struct downstream *c)
{
    char byte;
    return recv(transport_fd(&c->io), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* A request that is there, though not read yet, is answered; who has only just come gets a moment
 * to send one. */
static void close_idle_clients(struct worker *w)
{
    list_each_safe (node, &w->idle_clients) {
        struct downstream *c = CONTAINER_OF(node, struct downstream, link);
        if (has_sent_something(c))
            continue;
        if (c->requests == 0)
            wheel_set(&w->wheel, &c->deadline, worker_now(w), WORKER_FRESH_MS);
        else
            downstream_close(c, false);
    }
}

/* For good. The control thread may close the sockets when it sees this. */
static void end_accepting(struct worker *w)
{
    atomic_store_explicit(&w->accepts_no_more, true, memory_order_release);
    w->tell_control(w->control);
}

/* Takes two wakes; after the first one this returns false. */
static bool has_let_go_of_listeners(struct worker *w)
{
    ev_timer_stop(w->loop, &w->accept_pause);
    if (!w->retired && w->watch_count > 0)
        retire_watches(w);
    return !w->retired;
}

static void close_all_clients(struct worker *w)
{
    while (!list_is_empty(&w->clients))
        exchange_stop(CONTAINER_OF(w->clients.next, struct downstream, link)->exchange);
    while (!list_is_empty(&w->idle_clients))
        downstream_close(idlest_client(w), false);
    while (!list_is_empty(&w->lingering))
        downstream_close(CONTAINER_OF(w->lingering.next, struct downstream, link), false);
}

static void obey(struct worker *w)
{
    switch ((enum worker_order)atomic_load_explicit(&w->order, memory_order_acquire)) {
    case WORKER_RUN:
        break;
    case WORKER_QUIET:
        w->draining = true;
        break;
    case WORKER_YIELD:
        w->draining = true;
        if (has_let_go_of_listeners(w))
            end_accepting(w);
        break;
    case WORKER_DRAIN:
        w->draining = true;
        if (!has_let_go_of_listeners(w))
            break;
        if (!atomic_load_explicit(&w->accepts_no_more, memory_order_relaxed))
            accept_waiting(w);
        end_accepting(w);
        close_idle_clients(w);
        break;
    case WORKER_STOP:
        w->draining = true;
        stop_accepting(w); /* nothing that is pending touches them any more */
        end_accepting(w);
        close_all_clients(w);
        ev_break(w->loop, EVBREAK_ALL);
        break;
    }
}

static void on_wake(struct ev_loop *loop, ev_async *wake, int events)
{
    struct worker *w = wake->data;
    uint32_t ping = atomic_load_explicit(&w->ping, memory_order_relaxed);
    atomic_store_explicit(&w->pong, ping, memory_order_relaxed);
    forget_retired(w);
    adopt_snapshot(w);
    obey(w);
    tell_serving(w);
    limit_redis_obey(w);
    shed_for_others(w);
}

/* ---- the turn ---- */

static void on_deadline(void *owner, struct wheel_entry *e);

/* Called by libev right after epoll_wait. */
static void begin_turn(struct ev_loop *loop) EV_NOEXCEPT
{
    struct worker *w = ev_userdata(loop);
    w->now_s = monotonic_s();
}

static void on_tick(struct ev_loop *loop, ev_timer *tick, int events)
{
    struct worker *w = tick->data;
    w->tick_at_s = -1;
    ev_timer_stop(loop, tick);
    wheel_turn(&w->wheel, w->now_s, on_deadline, w);
}

/* Wakes in time for the next deadline. A timer that comes too early is harmless, so it is only
 * moved when it must be. */
static void arm_tick(struct worker *w)
{
    if (w->tick_at_s >= 0 && !w->wheel.placed)
        return; /* nothing that could be due sooner */
    w->wheel.placed = false;
    double in_s = wheel_next_s(&w->wheel, w->now_s);
    if (in_s < 0)
        return;
    double at_s = w->now_s + in_s;
    if (w->tick_at_s >= 0 && w->tick_at_s <= at_s + 0.001)
        return;
    ev_timer_stop(w->loop, &w->tick);
    ev_timer_set(&w->tick, in_s + 0.001, 0);
    ev_timer_start(w->loop, &w->tick);
    w->tick_at_s = at_s;
}

/* Last in a turn: what was closed in it is out of everybody's hands now. */
static void end_turn(struct worker *w)
{
    if (w->redis)
        limit_redis_flush(w->redis); /* may close something: before the dead are taken away */
    while (!list_is_empty(&w->dead_clients))
        downstream_recycle(CONTAINER_OF(w->dead_clients.next, struct downstream, link));
    while (!list_is_empty(&w->dead_upstreams))
        upstream_recycle(CONTAINER_OF(w->dead_upstreams.next, struct upstream, link));
    tell_idlest(w);
    arm_tick(w);
    if (atomic_load_explicit(&w->accepts_no_more, memory_order_relaxed) && w->client_count == 0)
        ev_break(w->loop, EVBREAK_ALL);
}

/* In libev's place: what is pending is done, then the turn is over. Watchers of kind check and
 * prepare would do the same, at the price of two more events in each turn. */
static void take_turn(struct ev_loop *loop)
{
    ev_invoke_pending(loop);
    end_turn(ev_userdata(loop));
}

static void on_deadline(void *owner, struct wheel_entry *e)
{
    struct worker *w = owner;
    switch ((enum deadline_kind)e->kind) {
    case DEADLINE_UPSTREAM:
        upstream_on_deadline(CONTAINER_OF(e, struct upstream, deadline));
        break;
    case DEADLINE_DOWNSTREAM:
        downstream_on_deadline(CONTAINER_OF(e, struct downstream, deadline));
        break;
    case DEADLINE_REDIS:
    case DEADLINE_ASK:
        limit_redis_on_deadline(w->redis, e);
        break;
    }
}

/* ---- life ---- */

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    sigset_t all;
    snprintf(name, sizeof(name), "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    sigfillset(&all); /* signals are the control thread's */
    sigdelset(&all, WORKER_STACK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    w->now_s = monotonic_s();
    wheel_init(&w->wheel, w->now_s);
    on_wake(w->loop, &w->wake, 0);
    ev_run(w->loop, 0);
    /* Idle connections to backends are all that may be left. */
    limit_redis_free(&w->redis);
    limit_redis_obey(w); /* what came too late is given up */
    w->draining = true;
    for (uint32_t i = 0; i < w->pool.slot_count; i++) {
        list_each_safe (node, &w->pool.slots[i].idle) {
            struct upstream *u = CONTAINER_OF(node, struct upstream, link);
            upstream_close(&u);
        }
    }
    end_turn(w);
    atomic_store_explicit(&w->adopted, NULL, memory_order_release);
    atomic_store_explicit(&w->ended, true, memory_order_release);
    w->tell_control(w->control);
    return NULL;
}

static void init_watchers(struct worker *w)
{
    ev_async_init(&w->wake, on_wake);
    w->wake.data = w;
    ev_async_start(w->loop, &w->wake);
    ev_set_userdata(w->loop, w);
    ev_set_loop_release_cb(w->loop, NULL, begin_turn);
    ev_set_invoke_pending_cb(w->loop, take_turn);
    ev_timer_init(&w->tick, on_tick, 0, 0);
    w->tick.data = w;
    w->tick_at_s = -1;
    ev_timer_init(&w->accept_pause, on_accept_pause_over, 0, 0);
    w->accept_pause.data = w;
}

struct worker *worker_start(unsigned index, uint64_t lineage, struct log_ring *log,
                            void (*tell_control)(void *), void *control)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (!w || !(w->loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV)))
        log_fatal("worker", "worker %u could not be started: no memory or no epoll", index);
    w->index = index;
    w->log = log;
    w->tell_control = tell_control;
    w->control = control;
    list_init(&w->clients);
    list_init(&w->idle_clients);
    list_init(&w->lingering);
    list_init(&w->dead_clients);
    list_init(&w->dead_upstreams);
    list_init(&w->spare_clients);
    list_init(&w->spare_upstreams);
    list_init(&w->spare_exchanges);
    buffer_stock_init(&w->buffers);
    stats_init(&w->stats, index, lineage);
    if (getrandom(w->random, sizeof(w->random), 0) != (ssize_t)sizeof(w->random))
        w->random[0] = (uint64_t)time(NULL) ^ (uint64_t)index << 32 ^ 1;
    w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    init_watchers(w);
    atomic_store_explicit(&team[index], w, memory_order_release);
    int error = pthread_create(&w->thread, NULL, run, w);
    if (error)
        log_fatal("worker", "the thread of worker %u could not be started: %s", index,
                  strerror(error));
    return w;
}

void worker_publish(struct worker *w, struct snapshot *s)
{
    atomic_store_explicit(&w->published, s, memory_order_seq_cst);
    ev_async_send(w->loop, &w->wake);
}

void worker_order(struct worker *w, enum worker_order order)
{
    atomic_store_explicit(&w->order, order, memory_order_release);
    ev_async_send(w->loop, &w->wake);
}

void worker_ping(struct worker *w)
{
    atomic_fetch_add_explicit(&w->ping, 1, memory_order_relaxed);
    ev_async_send(w->loop, &w->wake);
}

bool worker_has_answered(const struct worker *w)
{
    return atomic_load_explicit(&w->pong, memory_order_relaxed) ==
           atomic_load_explicit(&w->ping, memory_order_relaxed);
}

bool worker_serves(const struct worker *w, const struct snapshot *s)
{
    return atomic_load_explicit(&w->serving, memory_order_acquire) == s ||
           atomic_load_explicit(&w->ended, memory_order_acquire);
}

bool worker_reaches(const struct worker *w, const struct snapshot *s)
{
    /* In this order: a worker lets go of `adopted` only after it has counted what it still holds.
     */
    return atomic_load_explicit(&w->published, memory_order_seq_cst) == s ||
           atomic_load_explicit(&w->adopted, memory_order_seq_cst) == s ||
           atomic_load_explicit(&s->holds[w->index].requests, memory_order_acquire) > 0;
}

#define FREE_LIST(list, type)                                                                      \
    list_each_safe (node, list) {                                                                  \
        free(CONTAINER_OF(node, type, link));                                                      \
    }

void worker_join(struct worker **wp)
{
    struct worker *w = *wp;
    *wp = NULL;
    pthread_join(w->thread, NULL);
    atomic_store_explicit(&team[w->index], NULL, memory_order_release);
    FREE_LIST(&w->spare_clients, struct downstream)
    FREE_LIST(&w->spare_upstreams, struct upstream)
    FREE_LIST(&w->spare_exchanges, struct exchange)
    upstream_pool_fini(&w->pool);
    buffer_stock_fini(&w->buffers);
    stats_fini(&w->stats);
    if (w->spare_fd >= 0)
        close(w->spare_fd);
    ev_loop_destroy(w->loop);
    free(w->watches);
    free(w->retired);
    free(w->scratch);
    free(w->target_scratch);
    free(w);
}
