#include "controlplane/admin/documents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "controlplane/builder.h"
#include "proto/base/log.h"
#include "proto/base/version.h"

static json_t *text_of(const char *text)
{
    char plain[1024];
    json_t *t = json_string(text ? text : "");
    if (t)
        return t;
    snprintf(plain, sizeof(plain), "%s", text);
    for (char *c = plain; *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    return json_string(plain);
}

json_t *document_text(const char *text)
{
    return text_of(text);
}

static json_t *number_of(uint64_t n)
{
    return json_integer((json_int_t)n);
}

json_t *document_time(double seconds)
{
    char text[40];
    struct tm tm;
    time_t whole = (time_t)seconds;
    if (whole == 0)
        return json_string("");
    gmtime_r(&whole, &tm);
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + len, sizeof(text) - len, ".%03dZ", (int)((seconds - (double)whole) * 1000));
    return json_string(text);
}

/* ---- data planes ---- */

static const char *state_of(const struct session *s, uint64_t in_force)
{
    if (in_force > 0 && s->generation == in_force)
        return "in_sync";
    return s->refused && s->sent == in_force ? "refused" : "pending";
}

static json_t *dataplane_of(const struct admin_context *c, const struct session *s)
{
    const struct generation *g = c->publisher->generations.in_force;
    return json_pack(
        "{s:o, s:s, s:o, s:o, s:I, s:I, s:o, s:I, s:s, s:o, s:I, s:I, s:I}", "name",
        text_of(s->name), "role", session_role(s), "instance_id", text_of(s->instance_id),
        "version", text_of(s->version), "pid", (json_int_t)s->pid, "workers",
        (json_int_t)aggregate_reported(c->aggregate, "workers", s->instance_id), "connected_since",
        document_time(s->connected_at), "generation", (json_int_t)s->generation, "state",
        state_of(s, g ? g->number : 0), "reason", text_of(s->reason), "active_connections",
        (json_int_t)aggregate_reported(c->aggregate, "downstream_connections_active",
                                       s->instance_id),
        "requests_total", (json_int_t)aggregate_requests_of(c->aggregate, s->instance_id),
        "rss_bytes", (json_int_t)s->rss_bytes);
}

static json_t *dataplanes(const struct admin_context *c)
{
    json_t *list = json_array();
    sessions_each(s, c->sessions) json_array_append_new(list, dataplane_of(c, s));
    return list;
}

json_t *document_dataplanes(const struct admin_context *c)
{
    return json_pack("{s:o}", "dataplanes", dataplanes(c));
}

/* ---- status ---- */

/* Came it from somebody, and not from the file? */
static bool is_order(enum origin origin)
{
    return origin == ORIGIN_PUSH || origin == ORIGIN_ROLLBACK;
}

/* start.h has the rule. */
static json_t *next_start(const struct admin_context *c)
{
    const struct generation *g = c->publisher->generations.in_force;
    const struct history_entry *e = g ? history_find(&c->publisher->history, g->entry) : NULL;
    if (e && is_order(e->origin))
        return json_sprintf("with generation %llu again, or with %s if its content has changed",
                            (unsigned long long)g->entry, c->path);
    return json_sprintf("with %s", c->path);
}

static json_t *config_of(const struct admin_context *c)
{
    const struct publisher *p = c->publisher;
    const struct generation *g = p->generations.in_force;
    const struct last_reload *last = &p->last_reload;
    char hash[17] = "";
    if (g)
        snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)g->config->hash);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:o, s:s, s:I, s:I, s:I, s:{s:b, s:o, s:o}}", "source",
        text_of(g && is_order(g->origin) ? g->config->source : c->path), "generation",
        number_of(g ? g->number : 0), "accepted_as", number_of(g ? g->entry : 0), "next_start",
        next_start(c), "origin", g ? origin_word(g->origin) : "", "since",
        document_time(g ? (double)g->in_force_ms / 1000 : 0), "hash", hash, "routes",
        (json_int_t)(g ? g->config->route_count : 0), "backends", (json_int_t)(g ? g->backends : 0),
        "endpoints", (json_int_t)(g ? g->endpoints : 0), "last_reload", "ok", (int)last->ok, "at",
        document_time(last->at), "message", text_of(last->message));
}

/* Of targets: an address in two routes counts twice, as it does in the table of backends. */
static json_t *health_of(const struct endpoints *es)
{
    struct target_tally sum = {0};
    size_t dead = 0, routes = es->config ? es->config->route_count : 0;
    for (size_t i = 0; i < routes; i++) {
        struct target_tally one = endpoints_tally(es, i);
        sum.up += one.up;
        sum.down += one.down;
        sum.unknown += one.unknown;
        sum.draining += one.draining;
        dead += one.usable == 0;
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "up", (json_int_t)sum.up, "down",
                     (json_int_t)sum.down, "unknown", (json_int_t)sum.unknown, "draining",
                     (json_int_t)sum.draining, "routes_without_backend", (json_int_t)dead);
}

static json_t *weight_of(uint32_t weight)
{
    return weight > 0 ? number_of(weight) : json_null();
}

static json_t *overrides_of(const struct endpoints *es)
{
    size_t count;
    json_t *list = json_array();
    const struct override **all = overrides_sorted(&es->overrides, &count);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:b, s:o, s:o}", "address", text_of(all[i]->address),
                            "route", all[i]->route[0] ? text_of(all[i]->route) : json_null(),
                            "draining", (int)all[i]->draining, "weight", weight_of(all[i]->weight),
                            "since", document_time(all[i]->since)));
    free(all);
    return list;
}

json_t *document_status(const struct admin_context *c)
{
    double uptime = ev_time() - c->started_at;
    return json_pack("{s:s, s:i, s:f, s:o, s:o, s:o, s:o}", "version", GWP_VERSION, "protocol",
                     GWP_PROTOCOL_MAX, "uptime_seconds", uptime, "config", config_of(c), "health",
                     health_of(c->endpoints), "overrides", overrides_of(c->endpoints), "dataplanes",
                     dataplanes(c));
}

/* ---- routes ---- */

static const char *algorithm_word(enum lb_algorithm algorithm)
{
    static const char *const words[] = {"round_robin", "least_conn", "weighted", "ip_hash"};
    return words[algorithm];
}

static json_t *strings_of(const struct strings *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->count; i++)
        json_array_append_new(list, text_of(s->at[i]));
    return list;
}

static size_t endpoints_of(const struct admin_context *c, const struct route_config *r)
{
    size_t count = 0;
    for (size_t i = 0; i < r->backend_count; i++) {
        const struct strings *ips = resolver_lookup(c->publisher->resolver, r->backends[i].host);
        count += ips ? ips->count : 0;
    }
    return count;
}

static json_t *route_of(const struct admin_context *c, const struct config *cfg,
                        const struct route_config *r)
{
    char place[300];
    snprintf(place, sizeof(place), "%s:%u", cfg->source, r->place.line);
    return json_pack("{s:o, s:o, s:o, s:o, s:s, s:b, s:f, s:I, s:I, s:o, s:I}", "name",
                     text_of(r->name), "host", text_of(r->host), "path_prefix",
                     text_of(r->path_prefix), "methods", strings_of(&r->methods), "algorithm",
                     algorithm_word(r->lb_algorithm), "strip_prefix", (int)r->strip_prefix,
                     "timeout_seconds", r->timeout_ms / 1000., "backends",
                     (json_int_t)r->backend_count, "endpoints", (json_int_t)endpoints_of(c, r),
                     "place", text_of(place), "requests_total",
                     (json_int_t)aggregate_route_requests(c->aggregate, r->name));
}

json_t *document_routes(const struct admin_context *c)
{
    const struct generation *g = c->publisher->generations.in_force;
    json_t *list = json_array();
    for (size_t i = 0; g && i < g->config->route_count; i++)
        json_array_append_new(list, route_of(c, g->config, &g->config->routes[i]));
    return json_pack("{s:o, s:o}", "generation", number_of(g ? g->number : 0), "routes", list);
}

/* ---- backends ---- */

/* What its breaker does, and why. */
static void add_breaker(json_t *document, const struct target_stats *t)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    json_t *breaker =
        json_pack("{s:s, s:o, s:o, s:o}", "breaker", words[MIN(t->breaker_state, 2)],
                  "breaker_since", document_time((double)t->since_ms / 1000), "breaker_until",
                  document_time((double)t->until_ms / 1000), "breaker_cause", text_of(t->cause));
    json_object_update(document, breaker);
    json_decref(breaker);
}

/* NULL: an address that DNS has told since; it is in force in a moment. */
static void add_health(json_t *document, const struct target *t)
{
    const struct check *c = t ? t->check : NULL;
    json_t *health =
        json_pack("{s:s, s:b, s:o, s:o, s:f, s:b, s:o}", "health",
                  health_word(t ? target_verdict(t) : HEALTH_UNKNOWN), "checked", c != NULL,
                  "last_check", document_time(c ? c->checked_at : 0), "reason",
                  text_of(c && c->checked_at > 0 ? c->last.reason : ""), "check_seconds",
                  c ? c->last.seconds : 0., "draining", (int)(t && t->draining), "weight_override",
                  weight_of(t ? t->weight_override : 0));
    json_object_update(document, health);
    json_decref(health);
}

static json_t *endpoint_of(const struct admin_context *c, struct arena *a,
                           const struct route_config *r, const struct backend_config *b,
                           const char *ip)
{
    const char *address = builder_address(a, ip, b->port);
    uint64_t id = builder_target_id(r->name, b->url, address);
    struct target_stats t = aggregate_target(c->aggregate, id);
    const struct target *target = endpoints_find(c->endpoints, id);
    json_t *document = json_pack("{s:o, s:I, s:I, s:I}", "address", text_of(address), "active",
                                 (json_int_t)t.active, "requests", (json_int_t)t.requests,
                                 "failures", (json_int_t)t.failures);
    add_breaker(document, &t);
    add_health(document, target);
    return document;
}

static json_t *backend_of(const struct admin_context *c, struct arena *a,
                          const struct route_config *r, const struct backend_config *b)
{
    json_t *list = json_array();
    const struct strings *ips = resolver_lookup(c->publisher->resolver, b->host);
    for (size_t i = 0; ips && i < ips->count; i++)
        json_array_append_new(list, endpoint_of(c, a, r, b, ips->at[i]));
    return json_pack("{s:o, s:I, s:o}", "url", text_of(b->url), "weight", (json_int_t)b->weight,
                     "endpoints", list);
}

json_t *document_backends(const struct admin_context *c)
{
    const struct generation *g = c->publisher->generations.in_force;
    struct arena *a = arena_new(16 * 1024);
    json_t *routes = json_array();
    for (size_t i = 0; g && i < g->config->route_count; i++) {
        const struct route_config *r = &g->config->routes[i];
        json_t *list = json_array();
        for (size_t k = 0; k < r->backend_count; k++)
            json_array_append_new(list, backend_of(c, a, r, &r->backends[k]));
        json_array_append_new(routes,
                              json_pack("{s:o, s:s, s:o}", "name", text_of(r->name), "algorithm",
                                        algorithm_word(r->lb_algorithm), "backends", list));
    }
    arena_free(&a);
    return json_pack("{s:o, s:o}", "generation", number_of(g ? g->number : 0), "routes", routes);
}

/* ---- log levels ---- */

static json_t *ordered_level(const struct log_levels *l, enum log_program program)
{
    return l->of[program].is_ordered ? json_string(log_level_word(l->of[program].level))
                                     : json_null();
}

json_t *document_log_levels(const struct admin_context *c)
{
    const struct generation *g = c->publisher->generations.in_force;
    return json_pack("{s:s, s:o, s:o}", "configured",
                     log_level_word(g ? (enum log_level)g->config->logging.level : LOG_INFO),
                     "controlplane", ordered_level(c->log_levels, PROGRAM_CONTROLPLANE),
                     "dataplane", ordered_level(c->log_levels, PROGRAM_DATAPLANE));
}

/* ---- limits ---- */

/* How often the route's limit has said what. */
static json_t *decisions_of(const struct admin_context *c, const char *route)
{
    size_t count;
    json_t *document = json_object();
    struct total *const *all =
        aggregate_route_counts(c->aggregate, "limit_decisions_total", route, &count);
    for (size_t i = 0; i < count; i++)
        json_object_set_new(document, all[i]->words[2], number_of(all[i]->values[0]));
    return document;
}

static json_t *limit_of(const struct admin_context *c, const struct config *cfg,
                        const struct route_config *r)
{
    static const char *const algorithms[] = {"token_bucket", "sliding_window"};
    static const char *const keys[] = {"ip", "user", "api_key"};
    static const char *const failures[] = {"local", "allow", "deny"};
    const struct rate_limit_config *l = r->rate_limit;
    bool is_shared = l->redis_url[0] != '\0';
    return json_pack("{s:o, s:o, s:s, s:s, s:f, s:I, s:f, s:s, s:I, s:b, s:o, s:o}", "route",
                     text_of(r->name), "place", json_sprintf("%s:%u", cfg->source, l->place.line),
                     "mode", l->mode == LIMIT_OBSERVE ? "observe" : "enforce", "algorithm",
                     algorithms[l->algorithm], "rate", l->rate, "burst", (json_int_t)l->burst,
                     "window_seconds", l->window_ms / 1000., "key_by", keys[l->key_by], "max_keys",
                     (json_int_t)l->max_keys, "redis", (int)is_shared, "on_redis_failure",
                     is_shared ? json_string(failures[l->on_redis_failure]) : json_null(),
                     "decisions", decisions_of(c, r->name));
}

json_t *document_limits(const struct admin_context *c)
{
    const struct generation *g = c->publisher->generations.in_force;
    json_t *list = json_array();
    for (size_t i = 0; g && i < g->config->route_count; i++)
        if (g->config->routes[i].rate_limit)
            json_array_append_new(list, limit_of(c, g->config, &g->config->routes[i]));
    return json_pack("{s:o, s:o}", "generation", number_of(g ? g->number : 0), "limits", list);
}

/* ---- orders, and what is left to serve ---- */

json_t *document_dead_routes(const struct admin_context *c, bool *serves)
{
    const struct endpoints *es = c->endpoints;
    json_t *list = json_array();
    size_t count = es->config ? es->config->route_count : 0;
    for (size_t i = 0; i < count; i++) {
        struct target_tally tally = endpoints_tally(es, i);
        if (tally.usable > 0)
            continue;
        json_array_append_new(
            list, json_sprintf("route %s has no healthy backend: %zu of %zu endpoints down, %zu "
                               "not checked yet, %zu draining",
                               es->config->routes[i].name, tally.down, tally.count, tally.unknown,
                               tally.draining));
    }
    *serves = count == 0 || json_array_size(list) < count;
    return list;
}

json_t *document_ordered(const struct endpoints *es, const struct order *order, const char *unkept)
{
    char address[ADDR_TEXT_BYTES] = "";
    json_t *targets = json_array();
    bool is_address = endpoints_normalize(order->address, address);
    for (size_t i = 0; is_address && i < es->count; i++) {
        const struct target *t = &es->targets[i];
        if (strcmp(t->address, address) != 0 ||
            (order->route && strcmp(order->route, t->route->name) != 0))
            continue;
        json_array_append_new(
            targets,
            json_pack("{s:o, s:o, s:b, s:o, s:I}", "route", text_of(t->route->name), "url",
                      text_of(t->backend->url), "draining", (int)t->draining, "weight_override",
                      weight_of(t->weight_override), "weight", (json_int_t)t->backend->weight));
    }
    json_t *document = json_pack("{s:s, s:o, s:o, s:I}", "address", address, "route",
                                 order->route ? text_of(order->route) : json_null(), "targets",
                                 targets, "dataplanes", (json_int_t)es->sessions->open_count);
    if (unkept[0])
        json_object_set_new(
            document, "note",
            json_sprintf("in effect, but lost if the control plane ends before it can be "
                         "kept: %s",
                         unkept));
    return document;
}

/* ---- diagnostics and outcomes ---- */

static json_t *diagnostics_of(const struct diagnostics *d, bool warnings_only)
{
    json_t *list = json_array();
    for (size_t i = 0; d && i < d->count; i++) {
        const struct diagnostic *one = &d->at[i];
        bool is_error = one->severity == SEVERITY_ERROR;
        if (warnings_only && is_error)
            continue;
        json_array_append_new(
            list,
            json_pack("{s:s, s:o, s:I, s:I, s:I, s:o, s:o}", "severity",
                      is_error ? "error" : "warning", "source", text_of(d->source), "line",
                      (json_int_t)one->place.line, "column", (json_int_t)one->place.column,
                      "length", (json_int_t)one->length, "message", text_of(one->message),
                      "suggestion", one->suggestion ? text_of(one->suggestion) : json_null()));
    }
    return list;
}

static json_t *printed(const struct diagnostics *d)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        log_fatal("documents", "out of memory");
    diagnostics_print(d, out, false);
    if (fclose(out) != 0)
        log_fatal("documents", "out of memory");
    json_t *t = text_of(text);
    free(text);
    return t;
}

json_t *document_validity(const struct diagnostics *d)
{
    json_t *document = json_pack("{s:b, s:o, s:o}", "valid", d->errors == 0, "diagnostics",
                                 diagnostics_of(d, false), "text", printed(d));
    if (d->errors == 0)
        return document;
    json_object_set_new(document, "error", json_string("invalid_config"));
    json_object_set_new(
        document, "message",
        json_sprintf("%s has %zu error%s", d->source, d->errors, d->errors == 1 ? "" : "s"));
    return document;
}

static json_t *answers_of(const struct push_outcome *o)
{
    json_t *list = json_array();
    for (size_t i = 0; i < o->answer_count; i++) {
        const struct answer *a = &o->answers[i];
        json_t *accepted =
            a->state == ANSWER_PENDING ? json_null() : json_boolean(a->state == ANSWER_ACCEPTED);
        json_array_append_new(
            list,
            json_pack("{s:o, s:o, s:o, s:o, s:I, s:I}", "name", text_of(a->name), "instance_id",
                      text_of(a->instance_id), "accepted", accepted, "reason", text_of(a->reason),
                      "compile_us", (json_int_t)a->compile_us, "swap_us", (json_int_t)a->swap_us));
    }
    return list;
}

static json_t *sentences_of(const struct changes *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->count; i++)
        json_array_append_new(list, text_of(c->at[i].sentence));
    if (c->dropped > 0)
        json_array_append_new(list, json_sprintf("%zu more changes", c->dropped));
    return list;
}

static json_t *accepted_outcome(const struct push_outcome *o)
{
    json_t *document =
        json_pack("{s:I, s:I, s:b, s:b, s:o, s:o, s:o}", "generation", (json_int_t)o->generation,
                  "previous", (json_int_t)o->previous, "dry_run", (int)o->dry_run, "unchanged",
                  (int)o->unchanged, "changes", sentences_of(&o->changes), "warnings",
                  diagnostics_of(o->diagnostics, true), "dataplanes", answers_of(o));
    if (o->diagnostics && o->diagnostics->count > 0)
        json_object_set_new(document, "text", printed(o->diagnostics));
    if (o->unkept && o->unkept[0])
        json_object_set_new(document, "note",
                            json_sprintf("in force, but lost if the control plane ends before it "
                                         "can be kept: %s",
                                         o->unkept));
    else if (o->answer_count == 0 && !o->unchanged)
        json_object_set_new(document, "note",
                            json_string("no data plane is connected: the configuration was checked "
                                        "by the control plane alone"));
    return document;
}

json_t *document_outcome(const struct push_outcome *o)
{
    static const char *const codes[] = {
        [PUSH_ACCEPTED] = "",         [PUSH_INVALID] = "invalid_config",
        [PUSH_REFUSED] = "refused",   [PUSH_TIMEOUT] = "timeout",
        [PUSH_BUSY] = "busy",         [PUSH_FAILED] = "failed",
        [PUSH_CONFLICT] = "conflict", [PUSH_UNKNOWN] = "unknown_generation"};
    if (o->verdict == PUSH_ACCEPTED)
        return accepted_outcome(o);
    json_t *document =
        json_pack("{s:s, s:o}", "error", codes[o->verdict], "message", text_of(o->message));
    if (o->verdict == PUSH_INVALID) {
        json_object_set_new(document, "diagnostics", diagnostics_of(o->diagnostics, false));
        json_object_set_new(document, "text", printed(o->diagnostics));
    } else if (o->verdict == PUSH_CONFLICT) {
        json_object_set_new(document, "in_force", number_of(o->in_force));
    } else if (o->verdict == PUSH_REFUSED || o->verdict == PUSH_TIMEOUT) {
        json_object_set_new(document, "generation", number_of(o->generation));
        json_object_set_new(document, "in_force", number_of(o->in_force));
        json_object_set_new(document, "dataplanes", answers_of(o));
    }
    return document;
}

/* ---- generations ---- */

static json_t *entry_of(const struct admin_context *c, const struct history_entry *e)
{
    const struct generation *g = c->publisher->generations.in_force;
    char hash[17];
    snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)e->hash);
    return json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:s, s:I, s:b}", "generation",
                     number_of(e->number), "at", document_time((double)e->time_ms / 1000), "origin",
                     origin_word(e->origin), "again", e->again ? number_of(e->again) : json_null(),
                     "user", text_of(e->user), "message", text_of(e->message), "source",
                     text_of(e->source), "hash", hash, "bytes", (json_int_t)e->bytes, "in_force",
                     (int)(g && g->entry == e->number));
}

json_t *document_history(const struct admin_context *c)
{
    const struct history *h = &c->publisher->history;
    json_t *list = json_array();
    for (size_t i = h->count; i > 0; i--)
        json_array_append_new(list, entry_of(c, &h->at[i - 1]));
    return json_pack("{s:o}", "generations", list);
}

json_t *document_entry(const struct admin_context *c, const struct history_entry *e,
                       const char *text)
{
    json_t *document = entry_of(c, e);
    json_object_set_new(document, "text", text_of(text));
    return document;
}
