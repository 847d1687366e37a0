#include "controlplane/admin/api.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/admin/documents.h"
#include "controlplane/admin/metrics.h"
#include "proto/base/log.h"

#define WAIT_MAX_SECONDS 60.

/* ---- health ---- */

static void get_healthz(struct request *rq)
{
    request_reply_json(rq, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

static void get_readyz(struct request *rq)
{
    const struct admin_context *c = &rq->admin->context;
    json_t *reasons = json_array();
    if (!c->publisher->generations.in_force)
        json_array_append_new(reasons, json_string("no generation in force"));
    if (c->sessions->open_count == 0)
        json_array_append_new(reasons, json_string("no data plane connected"));
    bool serves = true;
    json_t *warnings = document_dead_routes(c, &serves);
    if (!serves) { /* not one route can answer: then that is why */
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

/* ---- changes ---- */

static void on_pushed(void *owner, const struct push_outcome *outcome)
{
    static const unsigned statuses[] = {
        [PUSH_ACCEPTED] = MHD_HTTP_OK,      [PUSH_INVALID] = MHD_HTTP_UNPROCESSABLE_CONTENT,
        [PUSH_REFUSED] = MHD_HTTP_CONFLICT, [PUSH_TIMEOUT] = MHD_HTTP_GATEWAY_TIMEOUT,
        [PUSH_BUSY] = MHD_HTTP_CONFLICT,    [PUSH_FAILED] = MHD_HTTP_INTERNAL_SERVER_ERROR,
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

/* Names the text in messages; what could garble a log line does not get into one. */
static const char *read_source(const struct request *rq)
{
    const char *source = request_argument(rq, "source");
    if (!source || !*source || strlen(source) > 200)
        return "config";
    for (const char *c = source; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return "config";
    return source;
}

static struct view body_of(const struct request *rq)
{
    return (struct view){rq->body ? rq->body : "", rq->body_len};
}

static void post_config(struct request *rq)
{
    const char *dry_run = request_argument(rq, "dry_run");
    struct push push = {.origin = ORIGIN_PUSH,
                        .source = read_source(rq),
                        .dry_run = dry_run && strcmp(dry_run, "0") != 0,
                        .done = on_pushed,
                        .owner = rq};
    if (read_wait(rq, &push.wait_seconds))
        publisher_push(rq->admin->context.publisher, &push, body_of(rq));
}

static void post_reload(struct request *rq)
{
    struct push push = {.origin = ORIGIN_RELOAD, .done = on_pushed, .owner = rq};
    if (read_wait(rq, &push.wait_seconds))
        publisher_reload(rq->admin->context.publisher, &push);
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

/* ---- orders about endpoints ---- */

static void carry_out(struct request *rq, enum order_kind kind, uint32_t weight)
{
    static const unsigned statuses[] = {[ORDER_DONE] = MHD_HTTP_OK,
                                        [ORDER_UNKNOWN] = MHD_HTTP_NOT_FOUND,
                                        [ORDER_CONFLICT] = MHD_HTTP_CONFLICT};
    static const char *const codes[] = {
        [ORDER_DONE] = "", [ORDER_UNKNOWN] = "unknown_endpoint", [ORDER_CONFLICT] = "conflict"};
    const struct order order = {kind, rq->argument, request_argument(rq, "route"), weight};
    struct endpoints *es = rq->admin->context.endpoints;
    struct err err;
    enum order_result result = endpoints_order(es, &order, &err);
    if (result == ORDER_DONE)
        request_reply_json(rq, statuses[result], document_ordered(es, &order, err.text));
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

/* ---- the table ---- */

/* Validation reads, but its messages may quote what ${VAR} stands for here: so it is not for
 * everybody. */
static const struct endpoint endpoints[] = {
    {"GET", "/healthz", READ, get_healthz},
    {"GET", "/readyz", READ, get_readyz},
    {"GET", "/metrics", READ, get_metrics},
    {"GET", "/backends", READ, get_backends},
    {"GET", "/api/v1/status", READ, get_status},
    {"GET", "/api/v1/routes", READ, get_routes},
    {"GET", "/api/v1/backends", READ, get_backends},
    {"GET", "/api/v1/dataplanes", READ, get_dataplanes},
    {"POST", "/api/v1/config", WRITE, post_config},
    {"POST", "/api/v1/validate", WRITE, post_validate},
    {"POST", "/api/v1/reload", WRITE, post_reload},
    {"POST", "/api/v1/endpoints/{address}/drain", WRITE, post_drain},
    {"DELETE", "/api/v1/endpoints/{address}/drain", WRITE, delete_drain},
    {"POST", "/api/v1/endpoints/{address}/weight", WRITE, post_weight},
    {"DELETE", "/api/v1/endpoints/{address}/weight", WRITE, delete_weight},
    {"POST", "/api/v1/endpoints/{address}/breaker/reset", WRITE, post_breaker_reset},
};

/* Does the path fit? What stands for "{address}" goes to `argument`, which is "" when it is too
 * long: no address is. */
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
    return NULL;
}
