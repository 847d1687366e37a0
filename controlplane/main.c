/* gwp-controlplane: one thread, one loop; wires the modules together. */
#include <ev.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "controlplane/admin/admin.h"
#include "controlplane/aggregate.h"
#include "controlplane/config/diagnostics.h"
#include "controlplane/config/schema.h"
#include "controlplane/config/watcher.h"
#include "controlplane/endpoints.h"
#include "controlplane/fd_keeper.h"
#include "controlplane/inquiry.h"
#include "controlplane/ledger.h"
#include "controlplane/limit_query.h"
#include "controlplane/log_levels.h"
#include "controlplane/publisher.h"
#include "controlplane/session.h"
#include "controlplane/succession.h"
#include "controlplane/start.h"
#include "proto/base/log.h"
#include "proto/base/notify.h"
#include "proto/base/options.h"
#include "proto/base/version.h"

#define AGAIN_SECONDS 1.

struct controlplane {
    struct ev_loop *loop;
    const char *config, *socket, *state_dir, *admin_socket, *dns_servers; /* options; borrowed */
    double keep_seconds;
    bool check, reference;
    struct ledger ledger;
    struct events events;
    struct log_levels log_levels;
    struct aggregate aggregate;
    struct sessions sessions;
    struct publisher publisher;
    struct endpoints endpoints;
    struct limit_queries limits;
    struct inquiries inquiries;
    struct fd_keeper keeper;
    struct succession succession;
    struct admin admin;
    struct watcher watcher;
    ev_signal terminate, interrupt, hangup;
    ev_timer alive; /* signs of life for the service manager */
    ev_timer again; /* what could not be kept */
};

/* ---- between the modules ---- */

static void on_opened(void *owner, struct session *s)
{
    struct controlplane *cp = owner;
    log_levels_opened(&cp->log_levels, s);
    fd_keeper_opened(&cp->keeper, s, cp->publisher.generations.in_force != NULL);
    endpoints_opened(&cp->endpoints, s);
    publisher_opened(&cp->publisher, s);
}

static int on_listeners(void *owner, struct session *s, const Gwp__Listeners *m, const int *fds,
                        unsigned fd_count, struct err *err)
{
    struct controlplane *cp = owner;
    int result = fd_keeper_take(&cp->keeper, s, m, fds, fd_count, err);
    if (result == 0)
        succession_served(&cp->succession, s);
    return result;
}

static void on_replaced(void *owner, struct session *s, const Gwp__ReplaceResult *r)
{
    struct controlplane *cp = owner;
    succession_started(&cp->succession, s, r);
}

static void on_result(void *owner, struct session *s, const Gwp__SnapshotResult *r)
{
    struct controlplane *cp = owner;
    publisher_result(&cp->publisher, s, r);
    fd_keeper_answered(&cp->keeper, s);
    if (r->accepted && !r->dry_run)
        endpoints_accepted(&cp->endpoints, s);
}

/* As the data plane has logged it; here for those who only read this log. */
static void log_transition(const struct controlplane *cp, const struct session *s,
                           const Gwp__BreakerTransition *t)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    const struct generation *g = cp->publisher.generations.in_force;
    const char *source = g ? g->config->source : cp->config;
    const char *from = words[MIN(t->from, 2)], *to = words[MIN(t->to, 2)];
    uint32_t line = t->place ? t->place->line : 0;
    log_about(t->to == 1 ? LOG_WARN : LOG_INFO, "breaker",
              LOG_FIELDS(about_route(t->route), about_endpoint(t->endpoint), about_from(from),
                         about_to(to), about_cause(t->cause), about_source(source),
                         about_line(line), about_dataplane(s->name)),
              "%.200s/%.200s %s -> %s: %.200s, %s:%u (data plane %s)", t->route, t->endpoint, from,
              to, t->cause, source, line, s->name);
}

static void on_report(void *owner, struct session *s, const Gwp__StatsReport *r)
{
    struct controlplane *cp = owner;
    aggregate_take(&cp->aggregate, s->instance_id, r);
    if (r->settled && !r->more)
        fd_keeper_settled(&cp->keeper, r->lineage);
    for (size_t i = 0; i < r->n_transitions; i++)
        log_transition(cp, s, r->transitions[i]);
}

static void on_limits(void *owner, struct session *s, const Gwp__LimitsReport *r)
{
    struct controlplane *cp = owner;
    limit_queries_take(&cp->limits, s, r);
}

static void on_gone(void *owner, struct session *s)
{
    struct controlplane *cp = owner;
    aggregate_gone(&cp->aggregate, s->instance_id);
    limit_queries_gone(&cp->limits, s);
    publisher_gone(&cp->publisher, s);
    fd_keeper_gone(&cp->keeper, s);
    succession_gone(&cp->succession, s);
}

static void on_explained(void *owner, const Gwp__Explanation *e)
{
    struct controlplane *cp = owner;
    inquiries_answered(&cp->inquiries, e);
}

static void on_in_force(void *owner, const struct config *cfg)
{
    struct controlplane *cp = owner;
    log_set((enum log_level)cfg->logging.level,
            cfg->logging.format == CONFIG_LOG_JSON ? LOG_JSON : LOG_CONSOLE);
    aggregate_set_bounds(&cp->aggregate, cfg->duration_buckets, cfg->duration_bucket_count);
    admin_apply(&cp->admin, &cfg->admin);
}

static void on_committed(void *owner, const struct generation *g)
{
    struct controlplane *cp = owner;
    aggregate_enter_generation(&cp->aggregate, g->number);
    endpoints_apply(&cp->endpoints, g->config, g->number, resolver_lookup, cp->publisher.resolver);
    fd_keeper_configured(&cp->keeper, &g->config->server.addr);
}

static void on_file_changed(void *owner)
{
    struct controlplane *cp = owner;
    intake_file_changed(&cp->publisher);
}

/* ---- signals ---- */

static void on_stop(struct ev_loop *loop, ev_signal *w, int revents)
{
    log_info("main", "stopping on %s", strsignal(w->signum));
    ev_break(loop, EVBREAK_ALL);
}

static void on_hangup(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct controlplane *cp = w->data;
    struct push push = {.origin = ORIGIN_RELOAD, .wait_seconds = PUBLISHER_ANSWER_SECONDS};
    intake_reload(&cp->publisher, &push);
}

static void on_alive(struct ev_loop *loop, ev_timer *timer, int revents)
{
    notify_manager("WATCHDOG=1");
}

static void on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct controlplane *cp = timer->data;
    publisher_keep_again(&cp->publisher);
    endpoints_keep_again(&cp->endpoints);
}

static void start_signals_and_timers(struct controlplane *cp)
{
    double interval = notify_watchdog_seconds();
    ev_timer_init(&cp->alive, on_alive, interval, interval);
    if (interval > 0)
        ev_timer_start(cp->loop, &cp->alive);
    ev_timer_init(&cp->again, on_again, AGAIN_SECONDS, AGAIN_SECONDS);
    cp->again.data = cp;
    ev_timer_start(cp->loop, &cp->again);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN); /* to whoever rotates logs both programs are one */
    ev_signal_init(&cp->terminate, on_stop, SIGTERM);
    ev_signal_init(&cp->interrupt, on_stop, SIGINT);
    ev_signal_init(&cp->hangup, on_hangup, SIGHUP);
    cp->hangup.data = cp;
    ev_signal_start(cp->loop, &cp->terminate);
    ev_signal_start(cp->loop, &cp->interrupt);
    ev_signal_start(cp->loop, &cp->hangup);
}

/* ---- life ---- */

/* A broken file is told whole, on stderr. */
static int check(const struct controlplane *cp)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load_file(cp->config, &d);
    diagnostics_print(&d, stderr, isatty(STDERR_FILENO));
    diagnostics_fini(&d);
    if (!cfg)
        return EXIT_FAILURE;
    config_print_validity(cfg, stdout);
    config_free(&cfg);
    return EXIT_SUCCESS;
}

static int open_admin(struct controlplane *cp, const struct config *cfg, struct err *err)
{
    const char *admin_socket = cp->admin_socket ? cp->admin_socket : cfg->admin.socket;
    struct admin_context context = {.publisher = &cp->publisher,
                                    .sessions = &cp->sessions,
                                    .aggregate = &cp->aggregate,
                                    .endpoints = &cp->endpoints,
                                    .limits = &cp->limits,
                                    .inquiries = &cp->inquiries,
                                    .ledger = &cp->ledger,
                                    .events = &cp->events,
                                    .log_levels = &cp->log_levels,
                                    .keeper = &cp->keeper,
                                    .succession = &cp->succession,
                                    .started_at = ev_time(),
                                    .path = cp->config};
    return admin_init(&cp->admin, cp->loop, admin_socket, &cfg->admin, &context, err);
}

static void close_all(struct controlplane *cp)
{
    inquiries_fini(&cp->inquiries);
    endpoints_fini(&cp->endpoints); /* borrows from the configuration */
    limit_queries_fini(&cp->limits);
    publisher_fini(&cp->publisher);
    succession_fini(&cp->succession);
    admin_fini(&cp->admin);
    sessions_fini(&cp->sessions);
    fd_keeper_fini(&cp->keeper);
    watcher_fini(&cp->watcher);
    aggregate_fini(&cp->aggregate);
}

static void serve(struct controlplane *cp, struct start *start)
{
    log_about(LOG_INFO, "main",
              LOG_FIELDS(about_version(GWP_VERSION), about_process((uint64_t)getpid()),
                         about_address(cp->socket)),
              "version %s, process %d: data planes on %s, configuration %s", GWP_VERSION,
              (int)getpid(), cp->socket, cp->config);
    start_signals_and_timers(cp);
    watcher_init(&cp->watcher, cp->loop, cp->config, on_file_changed, cp);
    publisher_begin(&cp->publisher, start);
    intake_file_changed(&cp->publisher); /* since it was read, before it was watched */
    notify_manager("READY=1");
    ev_run(cp->loop, 0);
    notify_manager("STOPPING=1");
}

/* The socket is ours: nobody else is at work in the state directory. */
static int run_with_state(struct controlplane *cp)
{
    const struct resolver_setup names = {cp->dns_servers, &cp->ledger};
    struct publisher *p = &cp->publisher;
    struct start start = {0};
    struct err err;
    int result = EXIT_FAILURE;
    aggregate_init(&cp->aggregate, cp->state_dir);
    limit_queries_init(&cp->limits, cp->loop, &cp->sessions);
    inquiries_init(&cp->inquiries, cp->loop, &cp->sessions);
    endpoints_init(&cp->endpoints, cp->loop, &cp->sessions, &cp->ledger, cp->state_dir);
    fd_keeper_init(&cp->keeper, cp->loop, &cp->sessions, cp->keep_seconds,
                   ledger_find(&cp->ledger, "stand_in_responses"));
    succession_init(&cp->succession, cp->loop, &cp->sessions);
    if (publisher_init(p, cp->loop, cp->config, cp->state_dir, &names, &cp->sessions, &err) < 0) {
        log_error("main", "%s", err.text);
    } else if (start_choose(&start, cp->config, &p->generations, &p->history, stderr) == 0) {
        const struct logging_config *logging = &start.config->logging;
        log_set((enum log_level)logging->level,
                logging->format == CONFIG_LOG_JSON ? LOG_JSON : LOG_CONSOLE);
        p->in_force = on_in_force;
        p->committed = on_committed;
        p->owner = cp;
        result = open_admin(cp, start.config, &err) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        if (result == EXIT_SUCCESS)
            serve(cp, &start);
        else
            log_error("main", "%s", err.text);
    }
    close_all(cp);
    start_free(&start);
    return result;
}

static int run(struct controlplane *cp)
{
    const struct session_events events = {.opened = on_opened,
                                          .result = on_result,
                                          .report = on_report,
                                          .limits = on_limits,
                                          .gone = on_gone,
                                          .listeners = on_listeners,
                                          .replaced = on_replaced,
                                          .owner = cp,
                                          .explained = on_explained};
    struct err err;
    int result = EXIT_FAILURE;
    cp->loop = ev_default_loop(EVFLAG_AUTO);
    if (!cp->loop)
        log_fatal("main", "no event loop");
    events_init(&cp->events);
    ledger_init(&cp->ledger, cp->state_dir);
    log_levels_init(&cp->log_levels, &cp->sessions);
    if (sessions_init(&cp->sessions, cp->loop, cp->socket, &events, &err) == 0)
        result = run_with_state(cp);
    else
        log_error("main", "%s", err.text);
    ledger_fini(&cp->ledger);
    events_fini(&cp->events);
    ev_loop_destroy(cp->loop);
    return result;
}

static int parse_keep_seconds(const char *text, double *seconds, struct err *err)
{
    char *end;
    *seconds = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(*seconds >= 1 && *seconds <= 86400))
        return err_set(err, "option --keep-seconds wants a number from 1 to 86400, not \"%s\"",
                       text);
    return 0;
}

/* What data planes leave here is descriptors. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("main", "the limit of open descriptors could not be raised to %llu",
                 (unsigned long long)limit.rlim_max);
}

int main(int argc, char **argv)
{
    static struct controlplane cp;
    const char *keep_seconds;
    struct err err;
    const struct option_row rows[] = {
        {"config", "GWP_CONFIG", "/etc/gwp/gateway.yaml", "FILE", "the configuration", &cp.config,
         NULL},
        {"socket", "GWP_SOCKET", "/run/gwp/control.sock", "PATH", "where data planes connect",
         &cp.socket, NULL},
        {"state-dir", "GWP_STATE_DIR", "/var/lib/gwp", "DIR", "what is kept over restarts",
         &cp.state_dir, NULL},
        {"admin-socket", "GWP_ADMIN_SOCKET", NULL, "PATH",
         "private admin socket, before admin.socket of the configuration", &cp.admin_socket, NULL},
        {"keep-seconds", "GWP_KEEP_SECONDS", "600", "N",
         "how long sockets are kept that no data plane comes for", &keep_seconds, NULL},
        {"dns-servers", "GWP_DNS_SERVERS", NULL, "LIST",
         "name servers instead of those of /etc/resolv.conf, as 10.0.0.2,10.0.0.3:5353",
         &cp.dns_servers, NULL},
        {"check", NULL, NULL, NULL, "check the configuration and exit", NULL, &cp.check},
        {"reference", NULL, NULL, NULL, "print every key of the configuration and exit", NULL,
         &cp.reference},
    };
    const struct option_table options = {"gwp-controlplane",
                                         "reads the configuration and directs the data planes",
                                         rows, COUNT_OF(rows)};
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, like a full disk */
    log_init("gwp-controlplane", LOG_INFO, LOG_CONSOLE);
    int parsed = options_parse(&options, argc, argv, &err);
    if (parsed == 0)
        parsed = parse_keep_seconds(keep_seconds, &cp.keep_seconds, &err);
    if (parsed != 0) {
        if (parsed < 0)
            fprintf(stderr, "gwp-controlplane: %s\n", err.text);
        return parsed < 0 ? EX_USAGE : EXIT_SUCCESS;
    }
    if (cp.reference) {
        schema_print_reference(stdout);
        return EXIT_SUCCESS;
    }
    if (cp.check)
        return check(&cp);
    raise_descriptor_limit();
    return run(&cp);
}
