#include "dataplane/control.h"

#include <ev.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/explain.h"
#include "dataplane/keeping.h"
#include "dataplane/report/limit_report.h"
#include "dataplane/report/report.h"
#include "dataplane/report/untold.h"
#include "dataplane/rollout.h"
#include "dataplane/route/limit_redis.h"
#include "dataplane/successor.h"
#include "dataplane/targets.h"
#include "dataplane/uplink.h"
#include "dataplane/watchdog.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/notify.h"

/* How soon a changed breaker is told: many may change at once. */
#define NEWS_S 0.02
#define REPORT_REST 400 /* times as long as one took, until the next: a quarter of a percent */
#define REPORT_REST_MAX_US 5000000

/* How long a control plane that accepts connections may take to say what is to be served. Less than
 * MANNERS_S: who is stopped while another one is started in its place, without a control plane, is
 * there still when that one opens the addresses beside it. */
#define PATIENCE_S 0.75
#define LISTEN_AGAIN_S 0.05

/* For requests under way when the last idle clients of a data plane that was replaced are closed.
 */
#define LAST_MS 1000

/* Clients that go on asking are told to close with their next response, for which they get a second
 * before idle ones are closed: a request may be on its way to us. Looked at so often. */
#define MANNERS_S 1.
#define LOOK_MS 50

#define CONFIRM_S 60.

struct control {
    const struct control_options *options; /* borrowed */
    struct ev_loop *loop;                  /* owned */
    struct uplink uplink;
    struct uplink_events events;
    struct rollout rollout;
    struct targets targets;
    struct keeping keeping;
    struct watchdog watchdog;
    struct report *report; /* owned */
    enum worker_order order;
    bool was_signalled;    /* to end: the next signal means at once */
    double draining_since; /* clock_s() */
    uint32_t grace_ms;     /* of a Drain message; 0 = as the snapshot says */
    ev_timer report_timer, order_timer;
    uint64_t report_after_us; /* not on the timer before that */
    ev_timer news;            /* a report before its time */
    ev_timer patience;        /* for the control plane, at the start */
    bool listens_again;       /* patience is over but for a moment */
    ev_timer alive, confirm;  /* signs of life for the service manager; see rollout_confirm() */
    bool has_started;         /* the stored snapshot was looked at, or is not needed */
    ev_prepare ended;         /* looks whether all is over, once it is ending */
    ev_signal signals[3];
};

/* ---- reports ---- */

static bool emit_report(void *owner, const Gwp__StatsReport *part, struct err *err)
{
    struct control *c = owner;
    return uplink_send(&c->uplink, MSG_STATS_REPORT, &part->base, err);
}

/* Whoever is away hears it when they are back: counters are cumulative. */
static void send_report(struct control *c, bool complete)
{
    const struct stats *workers[MAX_WORKERS];
    struct err err;
    if (!uplink_is_open(&c->uplink) || uplink_is_behind(&c->uplink))
        return;
    for (unsigned i = 0; i < c->rollout.worker_count; i++)
        workers[i] = &c->rollout.workers[i]->stats;
    struct report_request request = {.workers = workers,
                                     .worker_count = c->rollout.worker_count,
                                     .snapshots_alive = rollout_snapshots_alive(&c->rollout),
                                     .complete = complete,
                                     .transitions = c->targets.untold,
                                     .transition_count = c->targets.untold_count,
                                     .emit = emit_report,
                                     .owner = c};
    switch (report_make(c->report, &request, &err)) {
    case REPORT_SENT:
        targets_told(&c->targets);
        break;
    case REPORT_FAILED:
        log_debug("control", "a report was not sent: %s", err.text);
        break;
    case REPORT_LATER:
        break;
    }
}

/* The control plane is away, and will not hear from this process again. */
static void keep_untold(const struct control *c)
{
    const struct stats *workers[MAX_WORKERS];
    const struct rollout *ro = &c->rollout;
    struct err err;
    if (!c->options->state_dir || ro->worker_count == 0 || uplink_is_open(&c->uplink))
        return;
    for (unsigned i = 0; i < ro->worker_count; i++)
        workers[i] = &ro->workers[i]->stats;
    struct names *names = names_adopt(dup(registry_names(ro->registry)->fd), &err);
    struct settlement s = {.workers = workers, .worker_count = ro->worker_count, .names = names};
    if (!names || untold_keep(c->options->state_dir, &s, &err) < 0)
        log_warn("control", "what was counted and not told is lost: %s", err.text);
    if (names)
        names_free(&names);
}

static void tell_untold(struct control *c)
{
    if (c->options->state_dir && uplink_is_open(&c->uplink) && !uplink_is_behind(&c->uplink))
        untold_tell(c->options->state_dir, emit_report, c);
}

static void on_recount(void *owner)
{
    send_report(owner, false);
}

/* With ten thousand routes a report takes milliseconds of the CPU that requests want: then there
 * are fewer of them. */
static void on_report_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct control *c = timer->data;
    uint64_t began_us = clock_us();
    tell_untold(c);
    if (began_us < c->report_after_us)
        return;
    send_report(c, false);
    c->report_after_us = began_us + MIN((clock_us() - began_us) * REPORT_REST, REPORT_REST_MAX_US);
}

static void on_news_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    send_report(timer->data, false);
}

/* A breaker has changed its state: that is told soon, and what happens meanwhile with it. */
static void on_moved(void *owner)
{
    struct control *c = owner;
    if (!ev_is_active(&c->news))
        ev_timer_set(&c->news, NEWS_S, 0);
    ev_timer_start(c->loop, &c->news);
}

static void on_poked(void *owner)
{
    struct control *c = owner;
    targets_look(&c->targets);
    redis_servers_tell(registry_redis_first(c->rollout.registry));
}

/* ---- messages ---- */

static void on_result(void *owner, const struct rollout_result *r)
{
    struct control *c = owner;
    struct err err;
    if (r->accepted && !r->dry_run)
        targets_entered(&c->targets);
    if (!r->dry_run)
        send_report(c,
                    false); /* what was counted under the old one is told before the new one is */
    Gwp__SnapshotResult result = GWP__SNAPSHOT_RESULT__INIT;
    result.generation = r->generation;
    result.accepted = r->accepted;
    result.reason = (char *)r->reason;
    result.compile_us = r->compile_us;
    result.swap_us = r->swap_us;
    result.dry_run = r->dry_run;
    if (uplink_is_open(&c->uplink) &&
        !uplink_send(&c->uplink, MSG_SNAPSHOT_RESULT, &result.base, &err))
        log_debug("control", "a result was not sent: %s", err.text);
    if (!r->accepted || r->dry_run)
        return;
    watchdog_set(&c->watchdog, c->rollout.in_force->server.watchdog_ms);
    if (c->order == WORKER_RUN)
        notify_manager("READY=1\nMAINPID=%d\nSTATUS=serving generation %llu", (int)getpid(),
                       (unsigned long long)r->generation);
    if (!c->rollout.is_from_disk)
        keeping_settle_down(&c->keeping);
    keeping_tell(&c->keeping);
}

/* Before anything is in force there is nothing to explain by: the asker's patience ends. */
static void on_explained(void *owner, const Gwp__Explanation *answer)
{
    struct control *c = owner;
    struct err err;
    if (!uplink_send(&c->uplink, MSG_EXPLANATION, &answer->base, &err))
        log_debug("control", "an explanation was not sent: %s", err.text);
}

static void explain_to(struct control *c, const Gwp__Explain *question)
{
    if (c->rollout.in_force)
        explain(c->rollout.in_force, question, on_explained, c);
}

static void begin_drain(struct control *c, enum worker_order first, const char *why);

/* The stored snapshot, if nothing better came. Whoever has our addresses gets time to hand them
 * out: the control plane may hang with them, or be away while another data plane, which is to be
 * replaced, has them. */
static void start_from_disk(struct control *c)
{
    c->rollout.listeners.may_join = !uplink_is_open(&c->uplink) && !ev_is_active(&c->patience);
    if (!c->has_started && !rollout_is_busy(&c->rollout))
        rollout_start(&c->rollout);
    c->has_started = true;
}

static void on_alive(struct ev_loop *loop, ev_timer *timer, int events)
{
    notify_manager("WATCHDOG=1");
}

static void on_confirm(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct control *c = timer->data;
    if (uplink_is_open(&c->uplink))
        rollout_confirm(&c->rollout);
}

/* This process may have been held up itself. Then the timer is heard before what the control plane
 * has said long ago: that gets another moment. */
static void on_patience(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct control *c = timer->data;
    if (c->listens_again) {
        start_from_disk(c);
        return;
    }
    c->listens_again = true;
    ev_timer_set(timer, LISTEN_AGAIN_S, 0);
    ev_timer_start(loop, timer);
}

/* Who leaves anything to go on with leaves breakers. */
static bool is_to_go_on_with(const Gwp__Listeners *list)
{
    for (size_t i = 0; i < list->n_segments; i++)
        if (strcmp(list->segments[i]->kind, "breakers") == 0)
            return true;
    return false;
}

static int take_kept(struct control *c, const struct message *m, struct err *err)
{
    const Gwp__Listeners *list = (const Gwp__Listeners *)(const void *)m->body;
    bool complete = false;
    if (is_to_go_on_with(list) && rollout_renew(&c->rollout)) {
        report_free(&c->report);
        c->report = report_new(c->rollout.registry);
    }
    if (keeping_take(&c->keeping, list, m->fds, m->fd_count, &complete, err) < 0)
        return -1;
    if (!complete)
        return 0;
    rollout_retry(&c->rollout);
    if (!list->snapshot_follows)
        start_from_disk(c);
    return 0;
}

static void on_mended(void *owner)
{
    struct control *c = owner;
    targets_look_at_all(&c->targets);
}

static void on_entering(void *owner)
{
    struct control *c = owner;
    targets_entering(&c->targets);
}

static void send_limits(void *owner, const Gwp__LimitsReport *report)
{
    struct control *c = owner;
    struct err err;
    if (uplink_is_open(&c->uplink) &&
        !uplink_send(&c->uplink, MSG_LIMITS_REPORT, &report->base, &err))
        log_debug("control", "a report of limits was not sent: %s", err.text);
}

/* Any worker that is connected will do. */
static bool forget_in_redis(void *owner, const struct limit_policy *p, const char *route,
                            const struct limit_subject *who)
{
    struct control *c = owner;
    for (unsigned i = 0; i < c->rollout.worker_count; i++)
        if (limit_redis_forget(c->rollout.workers[i], p, route, who))
            return true;
    return false;
}

/* Its numbers are ours; a later release may have more. */
static void take_log_level(const Gwp__LogLevel *order)
{
    enum log_level level = (enum log_level)MIN((unsigned)order->level, LOG_ERROR);
    log_override(!order->as_configured, level);
    log_info("control", "the log level is ordered: %s",
             order->as_configured ? "as configured" : log_level_word(level));
}

static void replace(struct control *c, const Gwp__Replace *order)
{
    struct err err = {""};
    Gwp__ReplaceResult result = GWP__REPLACE_RESULT__INIT;
    pid_t pid = successor_start(order->binary, c->options->argv, &err);
    if (pid > 0)
        log_about(LOG_INFO, "control", LOG_FIELDS(about_process((uint64_t)pid)),
                  "the successor was started: process %d", (int)pid);
    else
        log_about(LOG_ERROR, "control", LOG_FIELDS(about_cause(err.text)), "no successor: %s",
                  err.text);
    result.pid = (uint64_t)pid;
    result.reason = err.text;
    if (!uplink_send(&c->uplink, MSG_REPLACE_RESULT, &result.base, &err))
        log_debug("control", "a result was not sent: %s", err.text);
}

static int on_message(void *owner, const struct message *m, struct err *err)
{
    struct control *c = owner;
    if (m->type == MSG_LISTENERS)
        return take_kept(c, m, err);
    for (unsigned i = 0; i < m->fd_count; i++)
        close(m->fds[i]); /* no other message brings descriptors */
    switch (m->type) {
    case MSG_SNAPSHOT:
        rollout_take(&c->rollout, (const Gwp__Snapshot *)(const void *)m->body, m->payload, m->len);
        return 0;
    case MSG_ENDPOINT_STATE:
        if (!rollout_is_busy(&c->rollout)) {
            targets_take_early(&c->targets, m->payload, m->len);
            return 0;
        }
        targets_take(&c->targets, (const Gwp__EndpointState *)(const void *)m->body);
        return 0;
    case MSG_EXPLAIN:
        explain_to(c, (const Gwp__Explain *)(const void *)m->body);
        return 0;
    case MSG_STATS_REQUEST:
        send_report(c, ((const Gwp__StatsRequest *)(const void *)m->body)->complete);
        return 0;
    case MSG_LOG_LEVEL: {
        const Gwp__LogLevel *order = (const Gwp__LogLevel *)(const void *)m->body;
        take_log_level(order);
        return 0;
    }
    case MSG_REPLACE:
        replace(c, (const Gwp__Replace *)(const void *)m->body);
        return 0;
    case MSG_DRAIN: {
        const Gwp__Drain *drain = (const Gwp__Drain *)(const void *)m->body;
        c->grace_ms = drain->grace_ms;
        begin_drain(c, drain->replaced ? WORKER_YIELD : WORKER_QUIET,
                    drain->reason[0] ? drain->reason : "the control plane asked for it");
        return 0;
    }
    case MSG_LIMITS_REQUEST:
        limit_report_make(c->rollout.in_force, (const Gwp__LimitsRequest *)(const void *)m->body,
                          send_limits, c);
        return 0;
    case MSG_LIMITS_RESET:
        limit_report_reset(c->rollout.in_force, (const Gwp__LimitsReset *)(const void *)m->body,
                           forget_in_redis, send_limits, c);
        return 0;
    default: /* kept for later versions */
        return 0;
    }
}

static void on_greet(void *owner, Gwp__Hello *hello)
{
    const struct control *c = owner;
    const struct snapshot *s = c->rollout.in_force;
    hello->workers = rollout_workers(&c->rollout);
    if (s) {
        hello->generation = s->generation;
        hello->content_hash = s->content_hash;
    }
}

static void on_opened(void *owner, const Gwp__Welcome *welcome)
{
    struct control *c = owner;
    ev_timer_stop(c->loop, &c->report_timer);
    if (welcome->report_interval_ms > 0) {
        double interval = welcome->report_interval_ms / 1000.;
        ev_timer_set(&c->report_timer, interval, interval);
        ev_timer_start(c->loop, &c->report_timer);
    }
    keeping_opened(&c->keeping, welcome);
    send_report(c, true);
}

static void on_absent(void *owner)
{
    struct control *c = owner;
    keeping_lost(&c->keeping);
    rollout_retry(&c->rollout); /* in the middle of a list, nobody else would */
    start_from_disk(c);
}

/* ---- the end ---- */

/* Looked at before the loop sleeps: every worker that ends pokes the loop. */
static void on_maybe_ended(struct ev_loop *loop, ev_prepare *ended, int events)
{
    struct control *c = ended->data;
    if (rollout_has_ended(&c->rollout))
        ev_break(loop, EVBREAK_ALL);
}

static void set_order(struct control *c, enum worker_order order, uint32_t next_after_ms)
{
    c->order = order;
    rollout_order(&c->rollout, order);
    if (order >= WORKER_YIELD) {
        rollout_close(&c->rollout);
        if (!c->keeping.is_leaving)
            keeping_leave(&c->keeping);
    }
    ev_timer_stop(c->loop, &c->order_timer);
    if (order == WORKER_STOP)
        return;
    ev_timer_set(&c->order_timer, next_after_ms / 1000., 0);
    ev_timer_start(c->loop, &c->order_timer);
}

/* Its settings hold for clients that are there: they may be served under it before it is in force.
 */
static const struct snapshot *newest(const struct control *c)
{
    const struct snapshot *coming = c->rollout.publishing.snapshot;
    return coming ? coming : c->rollout.in_force;
}

static uint32_t grace_of(const struct control *c)
{
    const struct snapshot *s = newest(c);
    return c->grace_ms ? c->grace_ms : s ? s->server.shutdown_grace_ms : 0;
}

static void on_order_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct control *c = timer->data;
    uint32_t grace_ms = grace_of(c);
    if (c->order == WORKER_QUIET && rollout_clients(&c->rollout) > 0 &&
        clock_s() - c->draining_since < MANNERS_S) {
        ev_timer_set(timer, LOOK_MS / 1000., 0);
        ev_timer_start(loop, timer);
        return;
    }
    if (c->order < WORKER_DRAIN) {
        set_order(c, WORKER_DRAIN, c->order == WORKER_QUIET ? grace_ms : LAST_MS);
        return;
    }
    log_warn("control", "requests were still under way after %u ms: they are cut off", grace_ms);
    set_order(c, WORKER_STOP, 0);
}

/* Who stops this process may not know that it has been replaced, and that it was told so: then
 * idle clients are not waited for any longer, but what is in flight is finished all the same. */
static void begin_drain(struct control *c, enum worker_order first, const char *why)
{
    const struct snapshot *s = newest(c);
    if (c->order != WORKER_RUN && !(c->order == WORKER_YIELD && first == WORKER_QUIET))
        return;
    log_about(LOG_INFO, "control", LOG_FIELDS(about_cause(why)),
              "shutting down: %s; what is in flight is finished first", why);
    if (first != WORKER_YIELD) { /* else the service goes on, in another process */
        notify_manager("STOPPING=1");
        uplink_tell_end(&c->uplink);
    }
    ev_prepare_start(c->loop, &c->ended);
    c->draining_since = clock_s();
    uint32_t wait_ms = s ? s->server.drain_delay_ms : 0;
    if (first == WORKER_YIELD)
        wait_ms = grace_of(c);
    set_order(c, first, wait_ms);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    struct control *c = w->data;
    if (w->signum == SIGUSR1) {
        if (c->rollout.log)
            log_writer_reopen(c->rollout.log);
        return;
    }
    if (!c->was_signalled) {
        c->was_signalled = true;
        begin_drain(c, WORKER_QUIET, w->signum == SIGTERM ? "SIGTERM" : "SIGINT");
        return;
    }
    log_info("control", "a second signal: ending at once");
    set_order(c, WORKER_STOP, 0);
}

/* ---- life ---- */

static void init_watchers(struct control *c)
{
    static const int numbers[COUNT_OF(((struct control *)0)->signals)] = {SIGTERM, SIGINT, SIGUSR1};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        ev_signal_init(&c->signals[i], on_signal, numbers[i]);
        c->signals[i].data = c;
        ev_signal_start(c->loop, &c->signals[i]);
    }
    ev_timer_init(&c->report_timer, on_report_timer, 0, 0);
    ev_timer_init(&c->order_timer, on_order_timer, 0, 0);
    ev_timer_init(&c->news, on_news_timer, 0, 0);
    ev_timer_init(&c->patience, on_patience, PATIENCE_S, 0);
    c->patience.data = c;
    double interval = notify_watchdog_seconds();
    ev_timer_init(&c->alive, on_alive, interval, interval);
    if (interval > 0)
        ev_timer_start(c->loop, &c->alive);
    ev_timer_init(&c->confirm, on_confirm, CONFIRM_S, CONFIRM_S);
    c->confirm.data = c;
    ev_timer_start(c->loop, &c->confirm);
    ev_prepare_init(&c->ended, on_maybe_ended);
    c->news.data = c;
    c->report_timer.data = c->order_timer.data = c->ended.data = c;
}

int control_run(const struct control_options *o)
{
    struct control c = {.order = WORKER_RUN, .options = o};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);  /* it asks for another configuration, which comes without asking */
    signal(SIGCHLD, SIG_IGN); /* a successor that dies early is nobody's zombie */
    c.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (!c.loop)
        log_fatal("control", "no event loop");
    c.events = (struct uplink_events){.greet = on_greet,
                                      .opened = on_opened,
                                      .absent = on_absent,
                                      .message = on_message,
                                      .owner = &c};
    init_watchers(&c);
    rollout_init(&c.rollout, c.loop, o->state_dir, o->workers, on_result, &c);
    c.rollout.max_age_s = o->max_age_s;
    c.rollout.recount = on_recount;
    watchdog_init(&c.watchdog, &c.rollout);
    c.rollout.poked = on_poked;
    c.rollout.entering = on_entering;
    targets_init(&c.targets, &c.rollout, on_moved, &c);
    c.report = report_new(c.rollout.registry);
    keeping_init(&c.keeping, &c.rollout, &c.uplink, on_mended, &c);
    keeping_take_inherited(&c.keeping);
    uplink_start(&c.uplink, c.loop, o->socket, o->name, &c.events);
    ev_timer_start(c.loop, &c.patience);
    ev_run(c.loop, 0);
    rollout_conclude(&c.rollout);
    send_report(&c, false); /* the last counts */
    keep_untold(&c);
    uplink_stop(&c.uplink);
    keeping_fini(&c.keeping);
    watchdog_fini(&c.watchdog);
    report_free(&c.report);
    targets_fini(&c.targets);
    rollout_fini(&c.rollout);
    ev_loop_destroy(c.loop);
    log_info("control", "ended");
    return 0;
}
