#include "controlplane/admin/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "proto/base/version.h"

/* What the counters of data planes are: those that are known here by name. Others may come from a
 * newer data plane. */
static const struct {
    const char *name, *help;
} known[] = {
#define COUNTER(name, help) {#name, help},
#define PROCESS_COUNTER(name, help) {#name, help},
#include "proto/counters.def"
#undef COUNTER
};

/* The same for counts of routes, with what their values are. */
static const struct {
    const char *family, *label, *help;
} families[] = {
    {"request_outcomes_total", "reason",
     "Requests by how they ended; all of them, \"ok\" included"},
    {"limit_decisions_total", "decision", "What the route's rate limit said to requests"},
};

static const char *help_of(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].help;
    return "Reported by the data planes under this name";
}

static bool is_metric_name(const char *name)
{
    return name[0] != '\0' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] ==
               '\0';
}

/* A family of which there is one sample. */
static void print_gauge(struct exposition *x, const char *name, const char *help, double value)
{
    exposition_family(x, name, METRIC_GAUGE, help);
    exposition_begin(x, "");
    exposition_number(x, value);
}

static void print_counter(struct exposition *x, const char *name, const char *help, double value)
{
    exposition_family(x, name, METRIC_COUNTER, help);
    exposition_begin(x, "");
    exposition_number(x, value);
}

/* A sample with one label. */
static void print_labelled(struct exposition *x, const char *label, const char *word,
                           uint64_t value)
{
    exposition_begin(x, "");
    exposition_label(x, label, word);
    exposition_count(x, value);
}

/* ---- what data planes report ---- */

static void print_requests(struct aggregate *a, struct exposition *x)
{
    size_t count;
    struct total *const *all = aggregate_totals(a, TOTAL_REQUESTS, &count);
    exposition_family(x, "gateway_requests_total", METRIC_COUNTER,
                      "Requests answered, by route, method and status");
    for (size_t i = 0; i < count; i++) {
        exposition_begin(x, "");
        exposition_label(x, "route", all[i]->words[0]);
        exposition_label(x, "method", all[i]->words[1]);
        exposition_label(x, "status", all[i]->words[2]);
        exposition_count(x, all[i]->values[0]);
    }
}

static bool is_empty(const uint64_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (values[i] > 0)
            return false;
    return true;
}

static void print_durations(struct aggregate *a, struct exposition *x, enum total_kind kind,
                            const struct exposition_bounds *b)
{
    size_t count;
    struct total *const *all = aggregate_totals(a, kind, &count);
    for (size_t i = 0; i < count; i++) {
        if (is_empty(all[i]->values, a->bound_count + 1))
            continue;
        exposition_begin(x, "_bucket");
        exposition_label(x, "route", all[i]->words[0]);
        exposition_label(x, "method", all[i]->words[1]);
        exposition_histogram(x, b, all[i]->values, all[i]->values[a->bound_count + 1]);
    }
}

static const char *generation_label(const struct total *t)
{
    return strcmp(t->words[0], "0") == 0 ? "older" : t->words[0];
}

static void print_generations(struct aggregate *a, struct exposition *x,
                              const struct exposition_bounds *b)
{
    static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx", "other"};
    size_t count;
    struct total *const *all = aggregate_totals(a, TOTAL_GENERATION, &count);
    exposition_family(x, "gateway_generation_requests_total", METRIC_COUNTER,
                      "Requests by the generation of the configuration that they lived under: the "
                      "last three, and all older ones; and by class of status");
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < AGGREGATE_CLASSES; k++) {
            if (all[i]->values[k] == 0)
                continue;
            exposition_begin(x, "");
            exposition_label(x, "generation", generation_label(all[i]));
            exposition_label(x, "class", classes[k]);
            exposition_count(x, all[i]->values[k]);
        }
    }
    exposition_family(x, "gateway_generation_request_duration_seconds", METRIC_HISTOGRAM,
                      "The same, how long they took");
    for (size_t i = 0; i < count; i++) {
        const uint64_t *buckets = all[i]->values + AGGREGATE_CLASSES;
        if (is_empty(buckets, a->bound_count + 1))
            continue;
        exposition_begin(x, "_bucket");
        exposition_label(x, "generation", generation_label(all[i]));
        exposition_histogram(x, b, buckets, buckets[a->bound_count + 1]);
    }
}

/* Sorted by family: those that are not known have their values under "value". */
static void print_route_counts(struct aggregate *a, struct exposition *x)
{
    char name[256] = "";
    const char *family = "", *label = "";
    size_t count;
    struct total *const *all = aggregate_totals(a, TOTAL_COUNT, &count);
    for (size_t i = 0; i < count; i++) {
        if (!is_metric_name(all[i]->words[0]))
            continue;
        if (strcmp(family, all[i]->words[0]) != 0) {
            const char *help = "Reported by the data planes under this name";
            family = all[i]->words[0];
            label = "value";
            for (size_t k = 0; k < COUNT_OF(families); k++) {
                if (strcmp(families[k].family, family) == 0) {
                    label = families[k].label;
                    help = families[k].help;
                }
            }
            snprintf(name, sizeof(name), "gateway_%.200s", family);
            exposition_family(x, name, METRIC_COUNTER, help);
        }
        exposition_begin(x, "");
        exposition_label(x, "route", all[i]->words[1]);
        exposition_label(x, label, all[i]->words[2]);
        exposition_count(x, all[i]->values[0]);
    }
}

static void print_counters(struct aggregate *a, struct exposition *x)
{
    size_t count;
    struct total *const *all = aggregate_totals(a, TOTAL_COUNTER, &count);
    for (size_t i = 0; i < count; i++) {
        char name[256];
        /* The gateway's own word for its requests is the family above. */
        if (!is_metric_name(all[i]->words[0]) || strcmp(all[i]->words[0], "requests_total") == 0)
            continue;
        snprintf(name, sizeof(name), "gateway_%.200s", all[i]->words[0]);
        exposition_family(x, name, METRIC_COUNTER, help_of(all[i]->words[0]));
        exposition_single(x, all[i]->values[0]);
    }
}

static bool only_grows(const char *name)
{
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, "_total") == 0;
}

static void print_levels(const struct aggregate *a, struct exposition *x)
{
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        char name[256];
        if (only_grows(known[i].name))
            continue;
        snprintf(name, sizeof(name), "gateway_%.200s", known[i].name);
        exposition_family(x, name, METRIC_GAUGE, known[i].help);
        exposition_single(x, aggregate_reported(a, known[i].name, NULL));
    }
}

void metrics_print_aggregate(struct aggregate *a, struct exposition *x)
{
    struct exposition_bounds b;
    exposition_bounds_init(&b, x->format, a->bounds, a->bound_count);
    print_requests(a, x);
    exposition_family(x, "gateway_request_duration_seconds", METRIC_HISTOGRAM,
                      "Time from a request's first byte to the last byte of its response");
    print_durations(a, x, TOTAL_DURATION, &b);
    exposition_family(x, "gateway_upstream_duration_seconds", METRIC_HISTOGRAM,
                      "Of that, the time from choosing the last backend to the last byte it sent");
    print_durations(a, x, TOTAL_UPSTREAM, &b);
    print_route_counts(a, x);
    print_generations(a, x, &b);
    exposition_family(x, "gateway_active_connections", METRIC_GAUGE, "Client connections open now");
    exposition_single(x, aggregate_reported(a, "downstream_connections_active", NULL));
    print_counters(a, x);
    print_levels(a, x);
}

/* ---- configuration and data planes ---- */

static void print_config(const struct admin_context *c, struct exposition *x)
{
    const struct publisher *p = c->publisher;
    const struct generation *g = p->generations.in_force;
    print_gauge(x, "gateway_config_generation", "Generation of the configuration in force",
                g ? (double)g->number : 0);
    print_gauge(x, "gateway_config_in_force_timestamp_seconds", "When it came into force",
                g ? (double)g->in_force_ms / 1000 : 0);
    print_gauge(x, "gateway_config_last_reload_success",
                "1 if the last configuration came into force, 0 if it was refused",
                p->last_reload.ok);
    print_gauge(x, "gateway_config_last_reload_timestamp_seconds",
                "When the last configuration was tried", p->last_reload.at);
    exposition_family(x, "gateway_build_info", METRIC_GAUGE,
                      "1, with the version of the control plane as label");
    print_labelled(x, "version", GWP_VERSION, 1);
}

/* One sample for each data plane that the condition is true of. */
#define EACH_DATAPLANE_WHERE(c, x, metric, type, help, s, condition, value)                        \
    do {                                                                                           \
        exposition_family(x, metric, type, help);                                                  \
        sessions_each(s, (c)->sessions)                                                            \
        {                                                                                          \
            if (!(condition))                                                                      \
                continue;                                                                          \
            exposition_begin(x, "");                                                               \
            exposition_label(x, "dataplane", s->name);                                             \
            exposition_label(x, "instance_id", s->instance_id);                                    \
            exposition_number(x, (double)(value));                                                 \
        }                                                                                          \
    } while (0)

#define EACH_DATAPLANE(c, x, metric, type, help, s, value)                                         \
    EACH_DATAPLANE_WHERE(c, x, metric, type, help, s, true, value)

/* Before its first report nothing is known of its process: a counter that began at 0 once more
 * would have stepped back. */
#define EACH_PROCESS(c, x, metric, type, help, member)                                             \
    EACH_DATAPLANE_WHERE(c, x, metric, type, help, s,                                              \
                         aggregate_process((c)->aggregate, s->instance_id),                        \
                         aggregate_process((c)->aggregate, s->instance_id)->member)

static void print_dataplanes(const struct admin_context *c, struct exposition *x)
{
    const struct fd_keeper_view kept = fd_keeper_look(c->keeper);
    print_gauge(x, "gateway_dataplanes_connected", "Data planes that are connected",
                (double)c->sessions->open_count);
    print_gauge(x, "gateway_kept_sockets", "Listening sockets that data planes have left",
                (double)kept.sockets);
    print_gauge(x, "gateway_kept_segments", "Memory segments that data planes have left",
                (double)kept.segments);
    print_gauge(x, "gateway_stand_in", "1 while the control plane answers in place of data planes",
                kept.stands_in);
    print_counter(x, "gateway_stand_in_responses_total",
                  "Requests answered 503 because no data plane was there", (double)kept.answered);
    exposition_family(x, "gateway_dataplane_info", METRIC_GAUGE,
                      "1 for each connected data plane, with its version as label");
    sessions_each(s, c->sessions)
    {
        exposition_begin(x, "");
        exposition_label(x, "dataplane", s->name);
        exposition_label(x, "instance_id", s->instance_id);
        exposition_label(x, "version", s->version);
        exposition_count(x, 1);
    }
    EACH_DATAPLANE_WHERE(c, x, "gateway_dataplane_generation", METRIC_GAUGE,
                         "Generation that the data plane serves, unless it is draining", s,
                         !s->leaving, s->generation);
    EACH_DATAPLANE(c, x, "gateway_control_channel_lag_seconds", METRIC_GAUGE,
                   "How long the data plane's last heartbeat was under way", s, s->lag_seconds);
    EACH_PROCESS(c, x, "gateway_dataplane_resident_memory_bytes", METRIC_GAUGE,
                 "Resident memory of the data plane", rss_bytes);
    EACH_PROCESS(c, x, "gateway_dataplane_open_fds", METRIC_GAUGE,
                 "Open descriptors of the data plane", open_fds);
    EACH_PROCESS(c, x, "gateway_dataplane_start_time_seconds", METRIC_GAUGE,
                 "When the data plane's process began", started_seconds);
    EACH_PROCESS(c, x, "gateway_dataplane_cpu_seconds_total", METRIC_COUNTER,
                 "CPU time of the data plane's process", cpu_seconds);
}

/* One sample for each data plane and Redis. */
static void print_redis(const struct admin_context *c, struct exposition *x, const char *metric,
                        const char *help, bool tells_gateways)
{
    size_t count;
    exposition_family(x, metric, METRIC_GAUGE, help);
    sessions_each(s, c->sessions)
    {
        const struct redis_stats *redis = aggregate_redis(c->aggregate, s->instance_id, &count);
        for (size_t i = 0; i < count; i++) {
            exposition_begin(x, "");
            exposition_label(x, "dataplane", s->name);
            exposition_label(x, "instance_id", s->instance_id);
            exposition_label(x, "redis", redis[i].name);
            exposition_count(x, tells_gateways ? redis[i].gateways : !redis[i].away);
        }
    }
}

static void print_redises(const struct admin_context *c, struct exposition *x)
{
    print_redis(c, x, "gateway_redis_up", "1 while the data plane counts limits in that Redis",
                false);
    print_redis(
        c, x, "gateway_redis_gateways",
        "Gateways that the data plane has last seen alive on that Redis: the limit is divided "
        "by them while it is away",
        true);
}

/* ---- this process ---- */

static double own_rss_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double own_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    double count = 0;
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* ".", ".." and the directory itself */
}

static void print_process(const struct admin_context *c, struct exposition *x)
{
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    /* What the processes before this one took is kept with the other counts, up to their last
     * scrape: the sum never steps back. */
    ledger_count *kept = ledger_find(c->ledger, "cpu_nanoseconds");
    static uint64_t counted_ns;
    uint64_t now_ns = (uint64_t)cpu.tv_sec * 1000000000 + (uint64_t)cpu.tv_nsec;
    ledger_add(kept, now_ns - counted_ns);
    counted_ns = now_ns;
    print_counter(x, "process_cpu_seconds_total", "CPU time of the control plane",
                  (double)ledger_read(kept) / 1e9);
    print_gauge(x, "process_resident_memory_bytes", "Resident memory of the control plane",
                own_rss_bytes());
    print_gauge(x, "process_open_fds", "Open descriptors of the control plane", own_fds());
    print_gauge(x, "process_start_time_seconds", "When the control plane began", c->started_at);
}

/* ---- endpoints ---- */

/* An endpoint of a route. Backends that differ only in their base paths have it together, since two
 * samples may not carry the same labels. */
struct endpoint_line {
    const char *route, *address;
    bool has_breaker, is_up, is_draining;
    uint32_t weight; /* in effect */
    struct target_stats sum;
};

struct endpoint_lines {
    struct endpoint_line *at;
    size_t count;
};

static void add_to_line(struct endpoint_line *line, const struct target_stats *t)
{
    struct target_stats *sum = &line->sum;
    sum->requests += t->requests;
    sum->failures += t->failures;
    sum->active += t->active;
    for (size_t i = 0; i < COUNT_OF(sum->connections); i++)
        sum->connections[i] += t->connections[i];
    if (t->breaker_state == 1 || sum->breaker_state == 0) /* open is worse than half-open */
        sum->breaker_state = t->breaker_state;
    for (unsigned i = 0; i < AGGREGATE_BREAKER_STATES; i++)
        sum->moved_to[i] += t->moved_to[i];
}

static void gather_route(const struct admin_context *c, size_t r, struct endpoint_lines *lines)
{
    const struct endpoints *es = c->endpoints;
    const struct route_config *route = &es->config->routes[r];
    const struct target_span *span = &es->spans[r];
    struct table by_address; /* -> struct endpoint_line */
    table_init(&by_address);
    for (size_t i = span->first; i < span->first + span->count; i++) {
        const struct target *t = &es->targets[i];
        struct target_stats stats = aggregate_target(c->aggregate, t->id);
        struct endpoint_line *line = table_get(&by_address, view_of(t->address));
        if (!line) {
            line = &lines->at[lines->count++];
            line->route = route->name;
            line->address = t->address;
            line->has_breaker = route->circuit_breaker && route->circuit_breaker->enabled;
            line->is_up = true;
            if (span->count > 1)
                table_add(&by_address, view_of(t->address), line);
        }
        line->is_up = line->is_up && target_counts_as_up(t);
        line->is_draining = t->draining; /* ordered by address, so the same for all of it */
        line->weight = t->weight_override ? t->weight_override : t->backend->weight;
        add_to_line(line, &stats);
    }
    table_fini(&by_address);
}

static struct endpoint_lines gather_lines(const struct admin_context *c)
{
    const struct endpoints *es = c->endpoints;
    struct endpoint_lines lines = {.at = calloc(es->count + 1, sizeof(*lines.at))};
    if (!lines.at)
        log_fatal("metrics", "out of memory");
    for (size_t r = 0; es->config && r < es->config->route_count; r++)
        gather_route(c, r, &lines);
    return lines;
}

static void begin_line(struct exposition *x, const struct endpoint_line *line)
{
    exposition_begin(x, "");
    exposition_label(x, "route", line->route);
    exposition_label(x, "endpoint", line->address);
}

#define EACH_LINE(lines, x, name, type, help, line, wanted, value)                                 \
    do {                                                                                           \
        exposition_family(x, name, type, help);                                                    \
        for (const struct endpoint_line *line = (lines)->at; line < (lines)->at + (lines)->count;  \
             line++) {                                                                             \
            if (!(wanted))                                                                         \
                continue;                                                                          \
            begin_line(x, line);                                                                   \
            exposition_count(x, value);                                                            \
        }                                                                                          \
    } while (0)

static void print_endpoint_counts(const struct endpoint_lines *lines, struct exposition *x)
{
    static const char *const results[] = {"opened", "reused", "failed"};
    EACH_LINE(lines, x, "gateway_endpoint_requests_total", METRIC_COUNTER,
              "Attempts at the endpoint that have ended", line, line->sum.requests > 0,
              line->sum.requests);
    EACH_LINE(lines, x, "gateway_endpoint_failures_total", METRIC_COUNTER,
              "Of these, those that were the endpoint's failure", line, line->sum.failures > 0,
              line->sum.failures);
    EACH_LINE(lines, x, "gateway_endpoint_requests_active", METRIC_GAUGE,
              "Requests under way at the endpoint", line,
              line->sum.requests > 0 || line->sum.active, line->sum.active);
    exposition_family(x, "gateway_endpoint_connections_total", METRIC_COUNTER,
                      "Connections to the endpoint: opened, reused for a request, or failed");
    for (size_t i = 0; i < lines->count; i++) {
        for (size_t k = 0; k < COUNT_OF(results); k++) {
            if (lines->at[i].sum.connections[k] == 0)
                continue;
            begin_line(x, &lines->at[i]);
            exposition_label(x, "result", results[k]);
            exposition_count(x, lines->at[i].sum.connections[k]);
        }
    }
}

static void print_breakers(const struct endpoint_lines *lines, struct exposition *x)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    EACH_LINE(lines, x, "gateway_breaker_state", METRIC_GAUGE,
              "State of the endpoint's circuit breaker: 0 closed, 1 open, 2 half-open", line,
              line->has_breaker, line->sum.breaker_state);
    exposition_family(x, "gateway_breaker_transitions_total", METRIC_COUNTER,
                      "Changes of the endpoint's circuit breaker, by the state it entered");
    for (size_t i = 0; i < lines->count; i++) {
        const struct endpoint_line *line = &lines->at[i];
        /* From its first request on, with zeros: a first change is seen as one. */
        if (!line->has_breaker || (line->sum.requests == 0 && line->sum.moved_to[1] == 0))
            continue;
        for (unsigned to = 0; to < AGGREGATE_BREAKER_STATES; to++) {
            begin_line(x, line);
            exposition_label(x, "to", words[to]);
            exposition_count(x, line->sum.moved_to[to]);
        }
    }
}

static void print_endpoints(const struct admin_context *c, struct exposition *x)
{
    struct endpoint_lines lines = gather_lines(c);
    print_endpoint_counts(&lines, x);
    print_breakers(&lines, x);
    EACH_LINE(&lines, x, "gateway_endpoint_health", METRIC_GAUGE,
              "1 for an endpoint that counts as healthy, 0 for one that does not", line, true,
              line->is_up);
    EACH_LINE(&lines, x, "gateway_endpoint_draining", METRIC_GAUGE,
              "1 for an endpoint that gets no new requests by order", line, true,
              line->is_draining);
    EACH_LINE(&lines, x, "gateway_endpoint_weight", METRIC_GAUGE,
              "Weight of the endpoint: as ordered, else as configured", line, true, line->weight);
    free(lines.at);
}

/* ---- health checks and names ---- */

static void print_checks(const struct health *h, struct exposition *x)
{
    uint64_t count = 0;
    exposition_family(x, "gateway_health_checks_total", METRIC_COUNTER,
                      "Health checks made, by result");
    for (int i = 0; i < PROBE_RESULT_COUNT; i++) {
        uint64_t made = ledger_read(h->counts[i]);
        count += made;
        print_labelled(x, "result", probe_word((enum probe_result)i), made);
    }
    exposition_family(
        x, "gateway_health_verdicts_total", METRIC_COUNTER,
        "Verdicts of health checks that differed from the one before, by what they are");
    print_labelled(x, "to", "up", ledger_read(h->to_up));
    print_labelled(x, "to", "down", ledger_read(h->to_down));
    exposition_family(x, "gateway_health_check_duration_seconds", METRIC_SUMMARY,
                      "How long health checks took");
    exposition_begin(x, "_sum");
    exposition_number(x, (double)ledger_read(h->nanoseconds) / 1e9);
    exposition_begin(x, "_count");
    exposition_count(x, count);
}

static void print_lookups(struct ledger *l, struct exposition *x)
{
    exposition_family(x, "gateway_dns_lookups_total", METRIC_COUNTER,
                      "Look-ups of backends' names, by result");
    print_labelled(x, "result", "ok", ledger_read(ledger_find(l, RESOLVER_COUNT_OK)));
    print_labelled(x, "result", "failed", ledger_read(ledger_find(l, RESOLVER_COUNT_FAILED)));
    exposition_family(x, "gateway_dns_changes_total", METRIC_COUNTER,
                      "Look-ups whose addresses were others than before");
    exposition_single(x, ledger_read(ledger_find(l, RESOLVER_COUNT_CHANGES)));
}

char *metrics_print(const struct admin_context *c, enum exposition_format format, size_t *len)
{
    struct exposition x;
    exposition_init(&x, format);
    metrics_print_aggregate(c->aggregate, &x);
    print_config(c, &x);
    print_dataplanes(c, &x);
    print_redises(c, &x);
    print_process(c, &x);
    print_endpoints(c, &x);
    print_checks(&c->endpoints->health, &x);
    print_lookups(c->ledger, &x);
    return exposition_finish(&x, len);
}
