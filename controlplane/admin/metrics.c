#include "controlplane/admin/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static const char *help_of(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].help;
    return "Reported by the data planes under this name";
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and line feed are escaped. */
static void put_label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            fputs("\\n", out);
        else if (*value == '\\' || *value == '"')
            fprintf(out, "\\%c", *value);
        else
            fputc(*value, out);
    }
    fputc('"', out);
}

static void put_series(FILE *out, const char *name, const struct series *s)
{
    fprintf(out, "%s{", name);
    put_label(out, "route", s->route);
    fputc(',', out);
    put_label(out, "method", s->method);
}

/* ---- what data planes report ---- */

static void print_requests(const struct series *const *all, size_t count, FILE *out)
{
    head(out, "gateway_requests_total", "counter",
         "Requests answered, by route, method and status");
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < all[i]->status_count; k++) {
            const struct status_count *status = &all[i]->statuses[k];
            put_series(out, "gateway_requests_total", all[i]);
            fprintf(out, ",status=\"%" PRIu32 "\"} %" PRIu64 "\n", status->status, status->count);
        }
    }
}

static void print_histogram(const struct aggregate *a, const struct series *s, FILE *out)
{
    uint64_t sum = 0;
    for (size_t i = 0; i <= a->bound_count; i++) {
        sum += s->buckets[i];
        put_series(out, "gateway_request_duration_seconds_bucket", s);
        if (i < a->bound_count)
            fprintf(out, ",le=\"%.10g\"} %" PRIu64 "\n", a->bounds[i], sum);
        else
            fprintf(out, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
    }
    put_series(out, "gateway_request_duration_seconds_sum", s);
    fprintf(out, "} %.9g\n", s->sum_seconds);
    put_series(out, "gateway_request_duration_seconds_count", s);
    fprintf(out, "} %" PRIu64 "\n", sum);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct named_counter *const *)a)->name,
                  (*(struct named_counter *const *)b)->name);
}

static bool is_metric_name(const char *name)
{
    return name[0] != '\0' &&
           name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")] ==
               '\0';
}

static void print_counters(const struct aggregate *a, FILE *out)
{
    size_t count = 0;
    const struct named_counter **all = malloc((a->counters.count + 1) * sizeof(void *));
    if (!all)
        log_fatal("metrics", "out of memory");
    table_each(slot, &a->counters) all[count++] = slot->item;
    qsort(all, count, sizeof(void *), by_name);
    for (size_t i = 0; i < count; i++) {
        char name[256];
        /* The gateway's own word for its requests is the family above. */
        if (!is_metric_name(all[i]->name) || strcmp(all[i]->name, "requests_total") == 0)
            continue;
        snprintf(name, sizeof(name), "gateway_%.200s", all[i]->name);
        head(out, name, "counter", help_of(all[i]->name));
        fprintf(out, "%s %" PRIu64 "\n", name, all[i]->value);
    }
    free(all);
}

static bool only_grows(const char *name)
{
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, "_total") == 0;
}

static void print_levels(const struct aggregate *a, FILE *out)
{
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        char name[256];
        if (only_grows(known[i].name))
            continue;
        snprintf(name, sizeof(name), "gateway_%.200s", known[i].name);
        head(out, name, "gauge", known[i].help);
        fprintf(out, "%s %" PRIu64 "\n", name, aggregate_reported(a, known[i].name, NULL));
    }
}

void metrics_print_aggregate(const struct aggregate *a, FILE *out)
{
    size_t count;
    struct series **all = aggregate_sorted(a, &count);
    print_requests((const struct series *const *)all, count, out);
    head(out, "gateway_request_duration_seconds", "histogram",
         "Time from a request's first byte to the last byte of its response");
    for (size_t i = 0; i < count; i++)
        print_histogram(a, all[i], out);
    free(all);
    head(out, "gateway_active_connections", "gauge", "Client connections open now");
    fprintf(out, "gateway_active_connections %" PRIu64 "\n",
            aggregate_reported(a, "downstream_connections_active", NULL));
    print_counters(a, out);
    print_levels(a, out);
}

/* ---- what the control plane knows ---- */

static void print_own(const struct admin_context *c, FILE *out)
{
    const struct publisher *p = c->publisher;
    const struct generation *g = p->generations.in_force;
    head(out, "gateway_config_generation", "gauge", "Generation of the configuration in force");
    fprintf(out, "gateway_config_generation %" PRIu64 "\n", g ? g->number : 0);
    head(out, "gateway_config_last_reload_success", "gauge",
         "1 if the last configuration came into force, 0 if it was refused");
    fprintf(out, "gateway_config_last_reload_success %d\n", p->last_reload.ok);
    head(out, "gateway_config_last_reload_timestamp_seconds", "gauge",
         "When the last configuration was tried");
    fprintf(out, "gateway_config_last_reload_timestamp_seconds %.3f\n", p->last_reload.at);
    head(out, "gateway_dataplanes_connected", "gauge", "Data planes that are connected");
    fprintf(out, "gateway_dataplanes_connected %zu\n", c->sessions->open_count);
    head(out, "gateway_build_info", "gauge", "1, with the version as label");
    fprintf(out, "gateway_build_info{version=\"%s\"} 1\n", GWP_VERSION);
}

/* ---- breakers ---- */

/* An endpoint of a route. Backends that differ only in their base paths have it together, since two
 * samples may not carry the same labels. */
struct breaker_line {
    const char *route, *address;
    uint32_t state;
    uint64_t moved_to[AGGREGATE_BREAKER_STATES];
};

struct breaker_lines {
    struct breaker_line *at;
    size_t count;
};

static void add_to_line(struct breaker_line *line, const struct target_stats *t)
{
    if (t->breaker_state == 1 || line->state == 0) /* open is worse than half-open */
        line->state = t->breaker_state;
    for (unsigned i = 0; i < AGGREGATE_BREAKER_STATES; i++)
        line->moved_to[i] += t->moved_to[i];
}

/* Of all routes that have a breaker. */
static struct breaker_lines gather_lines(const struct admin_context *c)
{
    const struct endpoints *es = c->endpoints;
    struct breaker_lines lines = {.at = calloc(es->count + 1, sizeof(*lines.at))};
    if (!lines.at)
        log_fatal("metrics", "out of memory");
    for (size_t r = 0; es->config && r < es->config->route_count; r++) {
        const struct route_config *route = &es->config->routes[r];
        const struct target_span *span = &es->spans[r];
        struct table by_address; /* -> struct breaker_line */
        if (!route->circuit_breaker || !route->circuit_breaker->enabled)
            continue;
        table_init(&by_address);
        for (size_t i = span->first; i < span->first + span->count; i++) {
            const struct target *t = &es->targets[i];
            struct target_stats stats = aggregate_target(c->aggregate, t->id);
            struct breaker_line *line = table_get(&by_address, view_of(t->address));
            if (!line) {
                line = &lines.at[lines.count++];
                line->route = route->name;
                line->address = t->address;
                table_add(&by_address, view_of(t->address), line);
            }
            add_to_line(line, &stats);
        }
        table_fini(&by_address);
    }
    return lines;
}

static void put_line(FILE *out, const char *name, const struct breaker_line *line)
{
    fprintf(out, "%s{", name);
    put_label(out, "route", line->route);
    fputc(',', out);
    put_label(out, "endpoint", line->address);
}

static void print_breakers(const struct admin_context *c, FILE *out)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    struct breaker_lines lines = gather_lines(c);
    head(out, "gateway_breaker_state", "gauge",
         "State of the endpoint's circuit breaker: 0 closed, 1 open, 2 half-open");
    for (size_t i = 0; i < lines.count; i++) {
        put_line(out, "gateway_breaker_state", &lines.at[i]);
        fprintf(out, "} %" PRIu32 "\n", lines.at[i].state);
    }
    head(out, "gateway_breaker_transitions_total", "counter",
         "Changes of the endpoint's circuit breaker, by the state it entered");
    for (size_t i = 0; i < lines.count; i++) {
        for (unsigned to = 0; to < AGGREGATE_BREAKER_STATES; to++) {
            put_line(out, "gateway_breaker_transitions_total", &lines.at[i]);
            fprintf(out, ",to=\"%s\"} %" PRIu64 "\n", words[to], lines.at[i].moved_to[to]);
        }
    }
    free(lines.at);
}

/* ---- health ---- */

/* A route may list one address in several backends: then its series is 0 when one of them is down,
 * since two samples may not carry the same labels. */
static void print_endpoint_health(const struct endpoints *es, FILE *out)
{
    head(out, "gateway_endpoint_health", "gauge",
         "1 for an endpoint that counts as healthy, 0 for one that does not");
    for (size_t r = 0; es->config && r < es->config->route_count; r++) {
        const struct target_span *span = &es->spans[r];
        struct table first; /* by address -> struct target */
        table_init(&first);
        for (size_t pass = 0; pass < 2; pass++) {
            for (size_t i = span->first; i < span->first + span->count; i++) {
                struct target *t = &es->targets[i];
                const struct target *said = table_get(&first, view_of(t->address));
                /* Those that are down come first, so that theirs is the word that counts. */
                if (said || target_counts_as_up(t) != (pass == 1))
                    continue;
                table_add(&first, view_of(t->address), t);
                fputs("gateway_endpoint_health{", out);
                put_label(out, "route", t->route->name);
                fputc(',', out);
                put_label(out, "endpoint", t->address);
                fprintf(out, "} %d\n", target_counts_as_up(t));
            }
        }
        table_fini(&first);
    }
}

static void print_checks(const struct health *h, FILE *out)
{
    uint64_t count = 0;
    head(out, "gateway_health_checks_total", "counter", "Health checks made, by result");
    for (int i = 0; i < PROBE_RESULT_COUNT; i++) {
        uint64_t made = ledger_read(h->counts[i]);
        count += made;
        fprintf(out, "gateway_health_checks_total{result=\"%s\"} %" PRIu64 "\n",
                probe_word((enum probe_result)i), made);
    }
    head(out, "gateway_health_verdicts_total", "counter",
         "Verdicts of health checks that differed from the one before, by what they are");
    fprintf(out, "gateway_health_verdicts_total{to=\"up\"} %" PRIu64 "\n", ledger_read(h->to_up));
    fprintf(out, "gateway_health_verdicts_total{to=\"down\"} %" PRIu64 "\n",
            ledger_read(h->to_down));
    head(out, "gateway_health_check_duration_seconds", "summary", "How long health checks took");
    fprintf(out, "gateway_health_check_duration_seconds_sum %.9g\n",
            (double)ledger_read(h->nanoseconds) / 1e9);
    fprintf(out, "gateway_health_check_duration_seconds_count %" PRIu64 "\n", count);
}

static void print_lookups(struct ledger *l, FILE *out)
{
    head(out, "gateway_dns_lookups_total", "counter", "Look-ups of backends' names, by result");
    fprintf(out, "gateway_dns_lookups_total{result=\"ok\"} %" PRIu64 "\n",
            ledger_read(ledger_find(l, RESOLVER_COUNT_OK)));
    fprintf(out, "gateway_dns_lookups_total{result=\"failed\"} %" PRIu64 "\n",
            ledger_read(ledger_find(l, RESOLVER_COUNT_FAILED)));
    head(out, "gateway_dns_changes_total", "counter",
         "Look-ups whose addresses were others than before");
    fprintf(out, "gateway_dns_changes_total %" PRIu64 "\n",
            ledger_read(ledger_find(l, RESOLVER_COUNT_CHANGES)));
}

char *metrics_print(const struct admin_context *c, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (!out)
        log_fatal("metrics", "out of memory");
    metrics_print_aggregate(c->aggregate, out);
    print_own(c, out);
    print_breakers(c, out);
    print_endpoint_health(c->endpoints, out);
    print_checks(&c->endpoints->health, out);
    print_lookups(c->ledger, out);
    if (fclose(out) != 0)
        log_fatal("metrics", "out of memory");
    return text;
}
