#include "dataplane/rollout.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane/cpus.h"
#include "dataplane/state/segment.h"
#include "dataplane/state/snapshot_store.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

/* How soon a first snapshot is tried again whose addresses are taken: at first by a data plane that
 * is being replaced, and clients are refused from when it has gone. */
#define RETRY_SOON_S 0.02
#define RETRIES_SOON 100
#define RETRY_S 0.2
#define SAVE_AGAIN_S 1.

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- candidates ---- */

static void forget_packed(struct candidate *c)
{
    free(c->packed);
    memset(c, 0, sizeof(*c));
}

static void drop(struct rollout *ro, struct candidate *c)
{
    snapshot_free(&c->snapshot, ro->registry);
    forget_packed(c);
    registry_collect(ro->registry);
}

static int compile(struct rollout *ro, struct candidate *c, const Gwp__Snapshot *message,
                   const uint8_t *packed, size_t len, struct err *err)
{
    uint64_t start = now_us();
    memset(c, 0, sizeof(*c));
    c->snapshot = snapshot_compile(message, ro->registry, err);
    if (!c->snapshot)
        return -1;
    c->compile_us = now_us() - start;
    c->packed = malloc(len + 1);
    if (!c->packed)
        log_fatal("rollout", "out of memory: %zu bytes for a snapshot", len);
    memcpy(c->packed, packed, len);
    c->len = len;
    return 0;
}

/* ---- telling ---- */

static void refuse(struct rollout *ro, uint64_t generation, bool dry_run, const char *reason)
{
    struct rollout_result result = {.generation = generation, .dry_run = dry_run, .reason = reason};
    if (!dry_run)
        log_about(LOG_WARN, "rollout",
                  LOG_FIELDS(about_generation(generation), about_cause(reason)),
                  "generation %llu was refused: %s", (unsigned long long)generation, reason);
    ro->tell(ro->owner, &result);
}

static void accept_result(struct rollout *ro, uint64_t generation, bool dry_run,
                          uint64_t compile_us, uint64_t swap_us)
{
    struct rollout_result result = {.generation = generation,
                                    .accepted = true,
                                    .dry_run = dry_run,
                                    .reason = "",
                                    .compile_us = compile_us,
                                    .swap_us = swap_us};
    ro->tell(ro->owner, &result);
}

/* ---- workers ---- */

/* Called by workers, on their threads. */
static void on_told(void *control)
{
    struct rollout *ro = control;
    ev_async_send(ro->loop, &ro->poke);
}

static unsigned workers_for(const struct rollout *ro, const struct snapshot *s)
{
    unsigned wanted = ro->workers_wanted ? ro->workers_wanted : s->server.workers;
    return MIN(wanted ? wanted : cpus_allowed(), MAX_WORKERS);
}

static void prepare_log(struct rollout *ro, const struct snapshot *s)
{
    if (!ro->log)
        ro->log = log_writer_start(workers_for(ro, s));
}

static void start_workers(struct rollout *ro, const struct snapshot *s)
{
    ro->worker_count = workers_for(ro, s);
    ro->workers = calloc(ro->worker_count, sizeof(struct worker *));
    if (!ro->workers)
        log_fatal("rollout", "out of memory");
    for (unsigned i = 0; i < ro->worker_count; i++)
        ro->workers[i] = worker_start(i, ro->lineage, log_writer_ring(ro->log, i), on_told, ro);
}

static void check_worker_count(struct rollout *ro, const struct snapshot *s)
{
    unsigned asked = workers_for(ro, s);
    if (asked != ro->worker_count && asked != ro->asked_workers)
        log_about(
            LOG_WARN, "rollout", LOG_FIELDS(about_generation(s->generation)),
            "generation %llu asks for %u workers; the %u that run stay until the data plane is "
            "restarted",
            (unsigned long long)s->generation, asked, ro->worker_count);
    ro->asked_workers = asked;
}

/* ---- publishing ---- */

static int open_listeners(struct rollout *ro, struct snapshot *s, struct err *err)
{
    for (uint32_t i = 0; i < s->listen_count; i++) {
        s->listeners[i] = listener_open(&ro->listeners, &s->listen[i], s->listen_text[i], err);
        if (!s->listeners[i])
            return -1;
    }
    return 0;
}

/* Everything that may fail. What was opened for nothing is closed again: no publication lists it.
 */
static int prepare(struct rollout *ro, struct snapshot *s, struct err *err)
{
    prepare_log(ro, s);
    if (open_listeners(ro, s, err) == 0 && log_writer_set_sink(ro->log, s->access_log.at, err) == 0)
        return 0;
    listener_close_older(&ro->listeners, 1);
    return -1;
}

/* From here on the newest generation is this one, for everybody who compares. */
static void list_all(struct rollout *ro, struct snapshot *s)
{
    ro->publication++;
    for (uint32_t i = 0; i < s->listen_count; i++)
        listener_list(s->listeners[i], ro->publication);
    for (uint32_t i = 0; i < s->endpoint_count; i++)
        atomic_store_explicit(&s->endpoints[i]->listed_by, s->generation, memory_order_relaxed);
}

static bool has_same_buckets(const struct snapshot *a, const struct snapshot *b)
{
    return a->duration_bucket_count == b->duration_bucket_count &&
           memcmp(a->duration_buckets, b->duration_buckets,
                  a->duration_bucket_count * sizeof(double)) == 0;
}

static void publish(struct rollout *ro, struct candidate *c)
{
    struct snapshot *s = c->snapshot;
    if (ro->entering)
        ro->entering(ro->owner);
    snapshot_enter(s, clock_ms());
    if (ro->in_force && ro->recount && !has_same_buckets(ro->in_force, s))
        ro->recount(ro->owner);
    list_all(ro, s);
    log_set((enum log_level)s->log_level, (enum log_format)s->log_format);
    ro->publishing = *c;
    memset(c, 0, sizeof(*c));
    s->next = ro->alive;
    ro->alive = s;
    ro->published_at_us = now_us();
    if (ro->worker_count == 0)
        start_workers(ro, s);
    else
        check_worker_count(ro, s);
    for (unsigned i = 0; i < ro->worker_count; i++)
        worker_publish(ro->workers[i], s);
}

/* The candidate is taken over, whatever comes of it. */
static void begin(struct rollout *ro, struct candidate c)
{
    struct err err;
    if (prepare(ro, c.snapshot, &err) == 0) {
        publish(ro, &c);
        return;
    }
    if (!c.was_refused)
        refuse(ro, c.snapshot->generation, false, err.text);
    if (ro->in_force) {
        drop(ro, &c);
        return;
    }
    c.was_refused = true;
    ro->waiting = c;
    ev_timer_set(&ro->retry, ro->retries++ < RETRIES_SOON ? RETRY_SOON_S : RETRY_S, 0);
    ev_timer_start(ro->loop, &ro->retry);
}

static struct candidate take_waiting(struct rollout *ro)
{
    struct candidate c = ro->waiting;
    memset(&ro->waiting, 0, sizeof(ro->waiting));
    return c;
}

/* Targets of a stored one are not new, they were served before; and there may be nobody to check
 * them. */
static Gwp__Snapshot *unpack(const uint8_t *packed, size_t len, bool is_stored)
{
    Gwp__Snapshot *message = gwp__snapshot__unpack(NULL, len, packed);
    for (size_t i = 0; is_stored && message && i < message->n_routes; i++)
        message->routes[i]->start_down = false;
    return message;
}

bool rollout_renew(struct rollout *ro)
{
    if (!ro->waiting.snapshot || ro->worker_count > 0)
        return false;
    ev_timer_stop(ro->loop, &ro->retry);
    snapshot_free(&ro->waiting.snapshot, ro->registry);
    registry_free(&ro->registry);
    ro->registry = registry_new();
    return true;
}

static void compile_renewed(struct rollout *ro)
{
    struct err err;
    struct candidate *c = &ro->waiting;
    Gwp__Snapshot *message = unpack(c->packed, c->len, c->is_stored);
    c->snapshot = message ? snapshot_compile(message, ro->registry, &err) : NULL;
    if (message)
        gwp__snapshot__free_unpacked(message, NULL);
    if (!c->snapshot)
        forget_packed(c);
}

void rollout_retry(struct rollout *ro)
{
    ev_timer_stop(ro->loop, &ro->retry);
    if (ro->waiting.packed && !ro->waiting.snapshot)
        compile_renewed(ro);
    if (ro->waiting.snapshot && !ro->publishing.snapshot)
        begin(ro, take_waiting(ro));
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int events)
{
    rollout_retry(timer->data);
}

bool rollout_is_busy(const struct rollout *ro)
{
    return ro->in_force || ro->publishing.snapshot || ro->waiting.snapshot;
}

/* ---- in force ---- */

static void save_after(struct rollout *ro, double seconds)
{
    ev_timer_stop(ro->loop, &ro->save);
    ev_timer_set(&ro->save, seconds, 0);
    ev_timer_start(ro->loop, &ro->save);
}

static void save(struct rollout *ro)
{
    struct err err;
    if (!ro->unsaved.packed)
        return;
    if (snapshot_store_save(ro->state_dir, ro->unsaved.packed, ro->unsaved.len, &err) < 0) {
        if (!ro->cannot_save)
            log_warn("rollout", "snapshots cannot be kept for a start without control plane: %s",
                     err.text);
        ro->cannot_save = true;
        save_after(ro, SAVE_AGAIN_S);
        return;
    }
    if (ro->cannot_save)
        log_info("rollout", "the snapshot in force is kept again");
    ro->cannot_save = false;
    forget_packed(&ro->unsaved);
}

/* In a turn of its own, when the answer is on its way: the disk may take its time. */
static void on_save(struct ev_loop *loop, ev_timer *timer, int events)
{
    ev_timer_stop(loop, timer);
    save(timer->data);
}

static bool is_served_by_all(const struct rollout *ro, const struct snapshot *s)
{
    for (unsigned i = 0; i < ro->worker_count; i++)
        if (!worker_serves(ro->workers[i], s))
            return false;
    return true;
}

static void finish(struct rollout *ro)
{
    struct candidate c = ro->publishing;
    struct snapshot *s = c.snapshot;
    uint64_t swap_us = now_us() - ro->published_at_us;
    uint64_t previous = ro->in_force ? ro->in_force->generation : 0;
    memset(&ro->publishing, 0, sizeof(ro->publishing));
    ro->in_force = s;
    ro->is_from_disk = c.is_stored;
    listener_close_older(&ro->listeners, ro->publication);
    accept_result(ro, s->generation, false, c.compile_us, swap_us);
    log_about(
        LOG_INFO, "rollout",
        LOG_FIELDS(about_generation(s->generation), about_previous(previous),
                   about_source(s->source.at)),
        "generation %llu is in force%s: %u routes, %u endpoints, compiled in %.1f ms, swapped "
        "in %.1f ms",
        (unsigned long long)s->generation, c.is_stored ? " from the state directory" : "",
        s->route_count, s->endpoint_count, (double)c.compile_us / 1000, (double)swap_us / 1000);
    if (c.is_stored || !ro->state_dir) {
        forget_packed(&c);
    } else {
        forget_packed(&ro->unsaved);
        ro->unsaved = c;
        ro->unsaved.snapshot = NULL;
        save_after(ro, 0);
    }
    if (ro->waiting.snapshot)
        begin(ro, take_waiting(ro));
}

static bool is_reached(const struct rollout *ro, const struct snapshot *s)
{
    if (s == ro->in_force || s == ro->publishing.snapshot)
        return true;
    for (unsigned i = 0; i < ro->worker_count; i++)
        if (worker_reaches(ro->workers[i], s))
            return true;
    return false;
}

static void reap(struct rollout *ro)
{
    bool freed = false;
    for (struct snapshot **at = &ro->alive; *at;) {
        struct snapshot *s = *at;
        if (is_reached(ro, s)) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        snapshot_free(&s, ro->registry);
        freed = true;
    }
    if (freed)
        registry_collect(ro->registry);
}

/* Once no worker accepts any more, nobody shall wait here for nothing. */
static void close_listeners(struct rollout *ro)
{
    if (ro->have_closed || ro->worker_count == 0)
        return;
    for (unsigned i = 0; i < ro->worker_count; i++)
        if (!atomic_load_explicit(&ro->workers[i]->accepts_no_more, memory_order_acquire))
            return;
    listener_close_fds(&ro->listeners);
    ro->have_closed = true;
}

void rollout_conclude(struct rollout *ro)
{
    while (ro->publishing.snapshot && is_served_by_all(ro, ro->publishing.snapshot))
        finish(ro);
}

static void on_poke(struct ev_loop *loop, ev_async *poke, int events)
{
    struct rollout *ro = poke->data;
    rollout_conclude(ro);
    if (ro->poked)
        ro->poked(ro->owner);
    reap(ro);
    close_listeners(ro);
}

/* ---- taking ---- */

static void take_dry_run(struct rollout *ro, const Gwp__Snapshot *message)
{
    struct err err;
    uint64_t start = now_us();
    struct snapshot *s = snapshot_compile(message, ro->registry, &err);
    if (s)
        accept_result(ro, message->generation, true, now_us() - start, 0);
    else
        refuse(ro, message->generation, true, err.text);
    snapshot_free(&s, ro->registry);
}

static void supersede_waiting(struct rollout *ro, uint64_t generation)
{
    struct candidate c = take_waiting(ro);
    struct err why;
    if (!c.snapshot) {
        forget_packed(&c);
        return;
    }
    err_set(&why, "superseded by generation %llu", (unsigned long long)generation);
    if (!c.was_refused)
        refuse(ro, c.snapshot->generation, false, why.text);
    drop(ro, &c);
}

static bool is_held(const struct rollout *ro, const Gwp__Snapshot *message)
{
    const struct snapshot *s = ro->in_force;
    return s && !ro->publishing.snapshot && !ro->listeners.is_split &&
           s->generation == message->generation && s->content_hash == message->content_hash &&
           s->created_ms == message->created_ms;
}

static void take(struct rollout *ro, const Gwp__Snapshot *message, const uint8_t *packed,
                 size_t len, bool is_stored)
{
    struct err err;
    struct candidate c;
    if (compile(ro, &c, message, packed, len, &err) < 0) {
        refuse(ro, message->generation, false, err.text);
        return;
    }
    c.is_stored = is_stored;
    supersede_waiting(ro, message->generation);
    if (ro->publishing.snapshot)
        ro->waiting = c;
    else
        begin(ro, c);
}

void rollout_take(struct rollout *ro, const Gwp__Snapshot *message, const uint8_t *packed,
                  size_t len)
{
    if (message->dry_run)
        take_dry_run(ro, message);
    else if (ro->is_closed)
        refuse(ro, message->generation, false, "this data plane is shutting down");
    else if (is_held(ro, message))
        accept_result(ro, message->generation, false, 0, 0);
    else
        take(ro, message, packed, len, false);
}

static uint8_t *load(const struct rollout *ro, size_t *len)
{
    struct err err;
    if (!ro->state_dir)
        return NULL;
    double age = snapshot_store_age(ro->state_dir);
    if (ro->max_age_s > 0 && age > ro->max_age_s) {
        log_warn("rollout",
                 "the stored snapshot is not used: it was last confirmed %.0f s ago, and may be "
                 "%.0f s old",
                 age, ro->max_age_s);
        return NULL;
    }
    uint8_t *packed = snapshot_store_load(ro->state_dir, len, &err);
    if (!packed && err.text[0])
        log_warn("rollout", "the stored snapshot is not used: %s", err.text);
    return packed;
}

void rollout_confirm(struct rollout *ro)
{
    if (ro->state_dir && ro->in_force && !ro->is_from_disk && !ro->unsaved.packed)
        snapshot_store_confirm(ro->state_dir);
}

void rollout_start(struct rollout *ro)
{
    size_t len;
    uint8_t *packed = load(ro, &len);
    if (!packed)
        return;
    Gwp__Snapshot *message = unpack(packed, len, true);
    if (message && !message->dry_run)
        take(ro, message, packed, len, true);
    else
        log_warn("rollout", "the stored snapshot is not used: it is malformed");
    if (message)
        gwp__snapshot__free_unpacked(message, NULL);
    free(packed);
}

/* ---- the end ---- */

void rollout_close(struct rollout *ro)
{
    struct candidate c = take_waiting(ro);
    ro->is_closed = true;
    ev_timer_stop(ro->loop, &ro->retry);
    drop(ro, &c);
}

void rollout_order(struct rollout *ro, enum worker_order order)
{
    for (unsigned i = 0; i < ro->worker_count; i++)
        worker_order(ro->workers[i], order);
}

bool rollout_has_ended(const struct rollout *ro)
{
    for (unsigned i = 0; i < ro->worker_count; i++)
        if (!atomic_load_explicit(&ro->workers[i]->ended, memory_order_acquire))
            return false;
    return true;
}

unsigned rollout_workers(const struct rollout *ro)
{
    if (ro->worker_count > 0)
        return ro->worker_count;
    return ro->workers_wanted ? ro->workers_wanted : MIN(cpus_allowed(), MAX_WORKERS);
}

uint64_t rollout_clients(const struct rollout *ro)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < ro->worker_count; i++)
        count += stats_counter(&ro->workers[i]->stats, STAT_downstream_connections_active);
    return count;
}

uint64_t rollout_snapshots_alive(const struct rollout *ro)
{
    uint64_t count = 0;
    for (const struct snapshot *s = ro->alive; s; s = s->next)
        count++;
    return count;
}

/* ---- life ---- */

void rollout_init(struct rollout *ro, struct ev_loop *loop, const char *state_dir, unsigned workers,
                  rollout_result_fn *tell, void *owner)
{
    memset(ro, 0, sizeof(*ro));
    ro->loop = loop;
    ro->state_dir = state_dir;
    ro->workers_wanted = workers;
    ro->tell = tell;
    ro->owner = owner;
    ro->registry = registry_new();
    ro->lineage = segment_new_lineage();
    listener_set_init(&ro->listeners);
    ev_timer_init(&ro->retry, on_retry, 0, 0);
    ev_timer_init(&ro->save, on_save, 0, 0);
    ev_async_init(&ro->poke, on_poke);
    ro->retry.data = ro->save.data = ro->poke.data = ro;
    ev_async_start(loop, &ro->poke);
}

void rollout_fini(struct rollout *ro)
{
    rollout_close(ro);
    save(ro);
    forget_packed(&ro->unsaved);
    ev_timer_stop(ro->loop, &ro->save);
    ev_async_stop(ro->loop, &ro->poke);
    for (unsigned i = 0; i < ro->worker_count; i++)
        worker_join(&ro->workers[i]);
    free(ro->workers);
    forget_packed(&ro->publishing);
    for (struct snapshot *s = ro->alive, *next; s; s = next) {
        next = s->next;
        snapshot_free(&s, ro->registry);
    }
    log_writer_stop(&ro->log);
    listener_set_fini(&ro->listeners, ro->are_kept);
    registry_free(&ro->registry);
}
