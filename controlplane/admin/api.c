#include "controlplane/admin/api.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/admin/documents.h"
#include "controlplane/changes.h"
#include "controlplane/admin/metrics.h"
#include "controlplane/admin/pages.h"
#include "controlplane/admin/stream.h"
#include "controlplane/explanation.h"
#include "proto/base/log.h"

#define LIMIT_KEY_MAX_BYTES 1024
#define SOURCE_BYTES 201
#define WAIT_MAX_SECONDS 3600.
#define EXPLAIN_MAX_BYTES (1u << 20)

/* ---- health ---- */

static void get_healthz(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

/* Is there one that takes new requests, and will do so? */
static bool is_served(const struct sessions *ss)
{
    sessions_each(s, ss)
    {
        if (!s->leaving && !s->ending && s->generation > 0)
            return true;
    }
    return false;
}

static void get_readyz(struct request *rq)
{
    const struct admin_context *c = &rq->admin->context;
    json_t *reasons = json_array();
    if (!c->publisher->generations.in_force)
        json_array_append_new(reasons, json_string("no generation in force"));
    if (c->sessions->open_count == 0)
        json_array_append_new(reasons, json_string("no data plane connected"));
    else if (!is_served(c->sessions))
        json_array_append_new(reasons, json_string("no data plane serves: those that are connected "
                                                   "are draining or have no configuration yet"));
    bool serves = true;
    json_t *warnings = document_dead_routes(c, &serves);
    enum ready_routes wanted = rq->admin->ready_routes;
    bool is_why = wanted == READY_ALL ? json_array_size(warnings) > 0
                                      : wanted == READY_ANY && !serves; /* no route can answer */
    if (is_why) {
        json_array_extend(reasons, warnings);
        json_array_clear(warnings);
    }
    bool ready = json_array_size(reasons) == 0;
    request_reply_json(rq, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                       json_pack("{s:s, s:o, s:o}", "status", ready ? "ready" : "not ready",
                                 "reasons", reasons, "warnings", warnings));
}

static void get_metrics(struct request *rq)
{
    size_t len;
    enum exposition_format format = exposition_negotiate(request_header(rq, "Accept"));
    char *text = metrics_print(&rq->admin->context, format, &len);
    request_reply(rq, MHD_HTTP_OK, exposition_content_type(format), text, len);
    request_add_header(rq, "Vary", "Accept");
}

/* ---- what there is ---- */

static void get_status(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_status(&rq->admin->context));
}

static void get_routes(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_routes(&rq->admin->context));
}

static void get_backends(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_backends(&rq->admin->context));
}

static void get_dataplanes(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_dataplanes(&rq->admin->context));
}

static void get_limits(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_limits(&rq->admin->context));
}

/* ---- events ---- */

static bool wants_stream(const struct request *rq)
{
    const char *asked = request_argument(rq, "stream"), *accept = request_header(rq, "Accept");
    return asked ? strcmp(asked, "0") != 0 : accept && strstr(accept, "text/event-stream");
}

/* Whoever was cut off says where it was. */
static uint64_t events_since(const struct request *rq)
{
    const char *given = request_header(rq, "Last-Event-ID");
    uint64_t since = strtoull(given ? given : "0", NULL, 10);
    given = request_argument(rq, "since");
    if (given)
        since = strtoull(given, NULL, 10);
    /* Of a control plane before this one: its numbers mean nothing here. */
    return since > rq->admin->context.events->last ? 0 : since;
}

static void get_events(struct request *rq)
{
    const struct events *es = rq->admin->context.events;
    const char *kind = request_argument(rq, "kind");
    uint64_t since = events_since(rq);
    if (wants_stream(rq)) {
        if (rq->is_head) { /* libmicrohttpd would end a body that there is not */
            request_reply_empty(rq, MHD_HTTP_OK);
            request_add_header(rq, "Content-Type", "text/event-stream");
        } else
            stream_reply(rq, since, kind);
        return;
    }
    json_t *list = json_array();
    for (const struct event *e; (e = events_after(es, since)); since = e->id)
        if (!kind || strcmp(kind, e->kind) == 0)
            json_array_append_new(list, stream_event(e));
    request_reply_json(rq, MHD_HTTP_OK,
                       json_pack("{s:I, s:o}", "last", (json_int_t)es->last, "events", list));
}

/* ---- pages ---- */

/* Scripts and styles are files of their own, so that nothing else may run in the page. */
#define PAGE_POLICY                                                                                \
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

static void get_page(struct request *rq)
{
    struct page p;
    char *copy = page_find(rq->endpoint->path, &p) ? malloc(p.text.len + 1) : NULL;
    if (!copy)
        log_fatal("api", "no memory for %s, or no such page", rq->endpoint->path);
    memcpy(copy, p.text.at, p.text.len);
    request_reply(rq, MHD_HTTP_OK, p.type, copy, p.text.len);
    request_add_header(rq, "Content-Security-Policy", PAGE_POLICY);
}

/* ---- changes ---- */

static void on_pushed(void *owner, const struct push_outcome *outcome)
{
    static const unsigned statuses[] = {
        [PUSH_ACCEPTED] = MHD_HTTP_OK,       [PUSH_INVALID] = MHD_HTTP_UNPROCESSABLE_CONTENT,
        [PUSH_REFUSED] = MHD_HTTP_CONFLICT,  [PUSH_TIMEOUT] = MHD_HTTP_GATEWAY_TIMEOUT,
        [PUSH_BUSY] = MHD_HTTP_CONFLICT,     [PUSH_FAILED] = MHD_HTTP_INTERNAL_SERVER_ERROR,
        [PUSH_CONFLICT] = MHD_HTTP_CONFLICT, [PUSH_UNKNOWN] = MHD_HTTP_NOT_FOUND,
    };
    request_reply_json(owner, statuses[outcome->verdict], document_outcome(outcome));
}

/* "?wait=SECONDS"; false when it is no number, which has been answered then. */
static bool read_wait(struct request *rq, double *seconds)
{
    const char *text = request_argument(rq, "wait");
    char *end = NULL;
    *seconds = PUBLISHER_ANSWER_SECONDS;
    if (!text)
        return true;
    *seconds = strtod(text, &end);
    if (end != text && *end == '\0' && *seconds >= 0 && *seconds <= WAIT_MAX_SECONDS)
        return true;
    request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument", "wait is a number of seconds, 0 to %.0f",
                 WAIT_MAX_SECONDS);
    return false;
}

/* One line of UTF-8 of less than that many bytes? Nothing else gets into logs and documents. */
static bool is_line(const char *text, size_t bytes)
{
    json_t *t = json_string(text); /* NULL when it is no UTF-8 */
    bool ok = t && json_string_length(t) < bytes;
    for (const char *c = text; ok && *c; c++)
        ok = (unsigned char)*c >= 0x20 && *c != 0x7f;
    json_decref(t);
    return ok;
}

/* Names the text in messages. */
static const char *read_source(const struct request *rq)
{
    const char *source = request_argument(rq, "source");
    return source && *source && is_line(source, SOURCE_BYTES) ? source : "config";
}

static struct view body_of(const struct request *rq)
{
    return (struct view){rq->body ? rq->body : "", rq->body_len};
}

/* "?message=": what the user says about it, one line of text. */
static bool read_message(struct request *rq, char out[HISTORY_MESSAGE_BYTES])
{
    const char *given = request_argument(rq, "message"), *text = given ? given : "";
    bool ok = is_line(text, HISTORY_MESSAGE_BYTES);
    if (ok)
        snprintf(out, HISTORY_MESSAGE_BYTES, "%s", text);
    else
        request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument",
                     "message is one line of text of less than %d bytes", HISTORY_MESSAGE_BYTES);
    return ok;
}

static bool read_number(struct request *rq, const char *name, bool *given, uint64_t *number)
{
    const char *text = request_argument(rq, name);
    *given = text != NULL;
    if (!text)
        return true;
    if (*text && strlen(text) <= 18 && strspn(text, "0123456789") == strlen(text)) {
        *number = strtoull(text, NULL, 10);
        return true;
    }
    request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument", "%s is the number of a generation",
                 name);
    return false;
}

/* What all changes have in common. false: it has been answered. */
static bool read_push(struct request *rq, struct push *push)
{
    const char *dry_run = request_argument(rq, "dry_run");
    push->dry_run = dry_run && strcmp(dry_run, "0") != 0;
    push->done = on_pushed;
    push->owner = rq;
    request_user(rq, push->user, sizeof(push->user));
    return read_wait(rq, &push->wait_seconds) && read_message(rq, push->message) &&
           read_number(rq, "if_generation", &push->has_expected, &push->expected);
}

static void post_config(struct request *rq)
{
    struct push push = {.origin = ORIGIN_PUSH};
    snprintf(push.source, sizeof(push.source), "%s", read_source(rq));
    if (read_push(rq, &push))
        intake_push(rq->admin->context.publisher, &push, body_of(rq));
}

static void post_reload(struct request *rq)
{
    struct push push = {.origin = ORIGIN_RELOAD};
    if (read_push(rq, &push))
        intake_reload(rq->admin->context.publisher, &push);
}

/* ---- generations ---- */

static void get_generations(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_history(&rq->admin->context));
}

/* "current" is the one in force. NULL: it has been answered that there is none such. */
static const struct history_entry *find_entry(struct request *rq, const char *word)
{
    const struct publisher *p = rq->admin->context.publisher;
    const struct generation *g = p->generations.in_force;
    const struct history_entry *e;
    if (strcmp(word, "current") == 0)
        e = history_find(&p->history, g ? g->entry : 0);
    else if (strcmp(word, "previous") == 0)
        e = history_before(&p->history, g ? g->entry : 0);
    else /* the one in force may have been given another number since */
        e = history_find(&p->history, g && strtoull(word, NULL, 10) == g->number
                                          ? g->entry
                                          : strtoull(word, NULL, 10));
    if (!e)
        request_fail(rq, MHD_HTTP_NOT_FOUND, "unknown_generation",
                     "there is no generation %.40s in the history; gwpctl history lists them",
                     word);
    return e;
}

static void post_rollback(struct request *rq)
{
    struct push push = {.origin = ORIGIN_ROLLBACK};
    const struct history_entry *e = NULL;
    uint64_t number;
    bool given;
    if (!read_push(rq, &push) || !read_number(rq, "generation", &given, &number) ||
        (given && !(e = find_entry(rq, request_argument(rq, "generation")))))
        return;
    intake_rollback(rq->admin->context.publisher, &push, e ? e->number : 0);
}

/* Its text, owned by the caller. NULL: it has been answered. */
static char *read_entry(struct request *rq, const struct history_entry *e)
{
    struct err err;
    char *text = history_read(&rq->admin->context.publisher->history, e, &err);
    if (!text)
        request_fail(rq, MHD_HTTP_INTERNAL_SERVER_ERROR, "failed", "%s", err.text);
    return text;
}

static void get_generation(struct request *rq)
{
    const struct history_entry *e = find_entry(rq, rq->argument);
    char *text = e ? read_entry(rq, e) : NULL;
    if (text)
        request_reply_json(rq, MHD_HTTP_OK, document_entry(&rq->admin->context, e, text));
    free(text);
}

/* One side of a comparison: "body", or a generation. NULL: it has been answered. */
static struct config *load_side(struct request *rq, const char *word)
{
    struct diagnostics d;
    const struct history_entry *e = NULL;
    struct config *cfg = NULL;
    char *text = NULL;
    bool is_body = strcmp(word, "body") == 0;
    if (!is_body && (!(e = find_entry(rq, word)) || !(text = read_entry(rq, e))))
        return NULL;
    diagnostics_init(&d);
    cfg = config_load(is_body ? read_source(rq) : e->source,
                      is_body ? body_of(rq) : (struct view){text, e->bytes}, &d);
    if (!cfg)
        request_reply_json(rq, MHD_HTTP_UNPROCESSABLE_CONTENT, document_validity(&d));
    diagnostics_fini(&d);
    free(text);
    return cfg;
}

static void post_diff(struct request *rq)
{
    const char *from = request_argument(rq, "from"), *to = request_argument(rq, "to");
    struct config *before = load_side(rq, from ? from : "previous");
    struct config *now = before ? load_side(rq, to ? to : "current") : NULL;
    if (now) {
        struct changes changes = compare_configs(before, now, now->arena);
        request_reply_json(rq, MHD_HTTP_OK, changes_document(&changes, before, now));
    }
    config_free(&before);
    config_free(&now);
}

static void post_validate(struct request *rq)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load(read_source(rq), body_of(rq), &d);
    request_reply_json(rq, cfg ? MHD_HTTP_OK : MHD_HTTP_UNPROCESSABLE_CONTENT,
                       document_validity(&d));
    config_free(&cfg);
    diagnostics_fini(&d);
}

/* ---- explaining ---- */

static void on_explained(void *owner, const Gwp__Explanation *answer, const char *why)
{
    if (answer)
        request_reply_json(owner, MHD_HTTP_OK, explanation_document(answer));
    else
        request_fail(owner, MHD_HTTP_SERVICE_UNAVAILABLE, "no_answer", "%s", why);
}

/* The body is the head of a request, as a client would send it. */
static void post_explain(struct request *rq)
{
    const char *client = request_argument(rq, "client");
    if (rq->body_len > EXPLAIN_MAX_BYTES || (client && strlen(client) > 64))
        request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument",
                     "a head has at most %u bytes, a client is an address", EXPLAIN_MAX_BYTES);
    else
        inquiries_ask(rq->admin->context.inquiries, body_of(rq), client ? client : "", on_explained,
                      rq);
}

/* ---- log levels ---- */

static void get_log_levels(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, document_log_levels(&rq->admin->context));
}

static void post_log_level(struct request *rq)
{
    static const char *const programs[] = {"controlplane", "dataplane"};
    const char *program = request_argument(rq, "program"), *level = request_argument(rq, "level");
    bool any = false;
    for (size_t i = 0; level && i < COUNT_OF(programs); i++)
        if (!program || strcmp(program, programs[i]) == 0)
            any = log_levels_order(rq->admin->context.log_levels, (enum log_program)i, level);
    if (any)
        get_log_levels(rq);
    else
        request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument",
                     "level is debug, info, warn, error or default; program is controlplane, "
                     "dataplane, or left out for both");
}

/* ---- orders about data planes ---- */

static void on_succession(void *owner, const struct succession_outcome *o)
{
    static const struct {
        unsigned status;
        const char *code;
    } answers[] = {
        [SUCCESSION_UNKNOWN] = {MHD_HTTP_NOT_FOUND, "unknown_data_plane"},
        [SUCCESSION_BUSY] = {MHD_HTTP_CONFLICT, "busy"},
        [SUCCESSION_FAILED] = {MHD_HTTP_UNPROCESSABLE_CONTENT, "failed"},
        [SUCCESSION_TIMEOUT] = {MHD_HTTP_GATEWAY_TIMEOUT, "timeout"},
    };
    struct request *rq = owner;
    if (o->verdict == SUCCESSION_DONE)
        request_reply_json(rq, MHD_HTTP_OK,
                           json_pack("{s:s, s:I, s:I}", "name", o->name, "old_pid",
                                     (json_int_t)o->old_pid, "new_pid", (json_int_t)o->new_pid));
    else
        request_fail(rq, answers[o->verdict].status, answers[o->verdict].code, "%s", o->message);
}

/* What is started runs as the data plane does: only who could do that anyway may name a program. */
static void post_replace(struct request *rq)
{
    const char *binary = request_argument(rq, "binary");
    double seconds;
    if (!read_wait(rq, &seconds))
        return;
    if (binary && !rq->may_write)
        request_fail(rq, MHD_HTTP_FORBIDDEN, "forbidden",
                     "a program can only be named over the private admin socket");
    else
        succession_begin(rq->admin->context.succession, rq->argument, binary ? binary : "", seconds,
                         on_succession, rq);
}

/* ---- orders about endpoints ---- */

static void on_document(void *owner, json_t *document)
{
    request_reply_json(owner, MHD_HTTP_OK, document);
}

/* Answered when it is in effect. */
static void carry_out(struct request *rq, enum order_kind kind, uint32_t weight)
{
    static const unsigned statuses[] = {
        [ORDER_UNKNOWN] = MHD_HTTP_NOT_FOUND, [ORDER_CONFLICT] = MHD_HTTP_CONFLICT};
    static const char *const codes[] = {
        [ORDER_UNKNOWN] = "unknown_endpoint", [ORDER_CONFLICT] = "conflict"};
    char user[HISTORY_USER_BYTES];
    const struct order order = {kind, rq->argument, request_argument(rq, "route"), weight, user};
    struct endpoints *es = rq->admin->context.endpoints;
    struct err err;
    request_user(rq, user, sizeof(user));
    enum order_result result = endpoints_order(es, &order, &err);
    if (result == ORDER_DONE)
        limit_query_settle(rq->admin->context.limits, document_ordered(es, &order, err.text),
                           on_document, rq);
    else
        request_fail(rq, statuses[result], codes[result], "%s", err.text);
}

static void post_drain(struct request *rq)
{
    carry_out(rq, ORDER_DRAIN, 0);
}

static void delete_drain(struct request *rq)
{
    carry_out(rq, ORDER_UNDRAIN, 0);
}

static void post_weight(struct request *rq)
{
    const char *text = request_argument(rq, "weight");
    char *end = NULL;
    unsigned long weight = text ? strtoul(text, &end, 10) : 0;
    if (!text || text[0] < '0' || text[0] > '9' || *end || weight < 1 ||
        weight > ORDER_WEIGHT_MAX) {
        request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument", "weight is a number, 1 to %d",
                     ORDER_WEIGHT_MAX);
        return;
    }
    carry_out(rq, ORDER_WEIGHT, (uint32_t)weight);
}

static void delete_weight(struct request *rq)
{
    carry_out(rq, ORDER_WEIGHT, 0);
}

static void post_breaker_reset(struct request *rq)
{
    carry_out(rq, ORDER_RESET_BREAKER, 0);
}

/* ---- rate limits ---- */

/* Is there such a route with a limit? Else that has been answered. */
static bool has_limit(struct request *rq, const char *name)
{
    const struct generation *g = rq->admin->context.publisher->generations.in_force;
    for (size_t i = 0; g && i < g->config->route_count; i++) {
        const struct route_config *r = &g->config->routes[i];
        if (strcmp(r->name, name) != 0)
            continue;
        if (r->rate_limit)
            return true;
        request_fail(rq, MHD_HTTP_CONFLICT, "no_limit", "route \"%.200s\" has no rate limit", name);
        return false;
    }
    request_fail(rq, MHD_HTTP_NOT_FOUND, "unknown_route", "there is no route \"%.200s\"", name);
    return false;
}

static void get_limit_clients(struct request *rq)
{
    const char *route = request_argument(rq, "route");
    if (!route || has_limit(rq, route))
        limit_query_ask(rq->admin->context.limits, route ? route : "", on_document, rq);
}

static void post_limits_reset(struct request *rq)
{
    const char *route = request_argument(rq, "route"), *key = request_argument(rq, "key");
    if (!route || (key && (!*key || strlen(key) > LIMIT_KEY_MAX_BYTES)))
        request_fail(rq, MHD_HTTP_BAD_REQUEST, "bad_argument",
                     "route is to be named, and a key is 1 to %d bytes long", LIMIT_KEY_MAX_BYTES);
    else if (has_limit(rq, route))
        limit_query_reset(rq->admin->context.limits, route, key ? key : "", on_document, rq);
}

/* ---- the table ---- */

/* Validation and comparing read, but their messages may quote what ${VAR} stands for here, and
 * configurations may hold secrets; lists of clients name them: so these are not for everybody. */
static const struct endpoint endpoints[] = {
    {"GET", "/healthz", READ, get_healthz},
    {"GET", "/readyz", READ, get_readyz},
    {"GET", "/metrics", READ, get_metrics},
    {"GET", "/backends", READ, get_backends},
    {"GET", "/api/v1/status", READ, get_status},
    {"GET", "/api/v1/routes", READ, get_routes},
    {"GET", "/api/v1/backends", READ, get_backends},
    {"GET", "/api/v1/dataplanes", READ, get_dataplanes},
    {"GET", "/api/v1/limits", READ, get_limits},
    {"GET", "/api/v1/events", READ, get_events},
    {"GET", "/api/v1/loglevel", READ, get_log_levels},
    {"POST", "/api/v1/loglevel", WRITE, post_log_level},
    {"GET", "/api/v1/openapi.yaml", READ, get_page},
    {"GET", "/", READ, get_page},
    {"GET", "/dashboard.js", READ, get_page},
    {"GET", "/dashboard.css", READ, get_page},
    {"POST", "/api/v1/dataplanes/{name}/replace", WRITE, post_replace},
    {"POST", "/api/v1/config", WRITE, post_config},
    {"POST", "/api/v1/validate", WRITE, post_validate},
    {"POST", "/api/v1/reload", WRITE, post_reload},
    {"POST", "/api/v1/rollback", WRITE, post_rollback},
    {"GET", "/api/v1/generations", READ, get_generations},
    {"GET", "/api/v1/generations/{number}", WRITE, get_generation},
    {"POST", "/api/v1/diff", WRITE, post_diff},
    {"POST", "/api/v1/explain", WRITE, post_explain},
    {"POST", "/api/v1/endpoints/{address}/drain", WRITE, post_drain},
    {"DELETE", "/api/v1/endpoints/{address}/drain", WRITE, delete_drain},
    {"POST", "/api/v1/endpoints/{address}/weight", WRITE, post_weight},
    {"DELETE", "/api/v1/endpoints/{address}/weight", WRITE, delete_weight},
    {"POST", "/api/v1/endpoints/{address}/breaker/reset", WRITE, post_breaker_reset},
    {"GET", "/api/v1/limits/clients", WRITE, get_limit_clients},
    {"POST", "/api/v1/limits/reset", WRITE, post_limits_reset},
};

/* Does the path fit? What stands for "{...}" goes to `argument`, which is "" when it is too
 * long: no address or number is. */
static bool fits(const char *pattern, const char *path, char argument[API_ARGUMENT_BYTES])
{
    const char *open = strchr(pattern, '{');
    if (!open)
        return strcmp(pattern, path) == 0;
    size_t before = (size_t)(open - pattern);
    const char *behind = strchr(open, '}') + 1;
    if (strncmp(pattern, path, before) != 0)
        return false;
    size_t len = strcspn(path + before, "/");
    if (len == 0 || strcmp(path + before + len, behind) != 0)
        return false;
    if (len >= API_ARGUMENT_BYTES)
        len = 0;
    memcpy(argument, path + before, len);
    argument[len] = '\0';
    return true;
}

const struct endpoint *api_find(const char *method, const char *path, char allowed[64],
                                char argument[API_ARGUMENT_BYTES])
{
    size_t used = 0;
    bool is_head = strcmp(method, "HEAD") == 0;
    allowed[0] = argument[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(endpoints); i++) {
        const struct endpoint *e = &endpoints[i];
        if (!fits(e->path, path, argument))
            continue;
        if (strcmp(e->method, is_head ? "GET" : method) == 0)
            return e;
        used += (size_t)snprintf(allowed + used, 64 - used, "%s%s%s", used ? ", " : "", e->method,
                                 strcmp(e->method, "GET") == 0 ? ", HEAD" : "");
    }
    if (used > 0)
        snprintf(allowed + used, 64 - used, ", OPTIONS");
    return NULL;
}
