/* Hot path: no allocation (struct and buffers are recycled), no lock, no log line but the access
 * log's, no system call but those of the relays and reads. */
#include "dataplane/http/exchange.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/http/admit.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/reply.h"
#include "dataplane/http/tunnel.h"
#include "dataplane/route/balancer.h"
#include "dataplane/route/router.h"
#include "proto/base/log.h"

/* Room for body bytes behind the head: a read of less would not be worth its system call. */
#define BODY_ROOM_BYTES (16u * 1024)

/* Retries that a worker may have under way however little else it does. */
#define RETRIES_ALWAYS 3

static void choose(struct exchange *ex);
static void answer_ourselves(struct exchange *ex, enum reason r, const char *detail);
static void pass_trailers(struct exchange *ex, struct relay *relay, const struct http1_parser *p,
                          const struct buffer *from);

static struct worker *worker_of(const struct exchange *ex)
{
    return ex->client->worker;
}

const struct server_settings *exchange_settings(const struct exchange *ex)
{
    return ex->snapshot ? &ex->snapshot->server : &worker_of(ex)->snapshot->server;
}

/* ---- begin and end ---- */

struct exchange *exchange_begin(struct downstream *c)
{
    struct worker *w = c->worker;
    struct exchange *ex;
    if (list_is_empty(&w->spare_exchanges)) {
        ex = malloc(sizeof(*ex));
        if (!ex)
            log_fatal("exchange", "out of memory");
    } else {
        ex = CONTAINER_OF(w->spare_exchanges.next, struct exchange, link);
        list_remove(&ex->link);
    }
    memset(ex, 0, offsetof(struct exchange, client_ip));
    list_init(&ex->link);
    ex->client = c;
    ex->replayable = true;
    ex->connect_s = ex->upstream_s = -1;
    http1_parser_init(&ex->request, false, &ex->head, w->snapshot->server.max_headers);
    c->exchange = ex;
    stats_add(&w->stats, STAT_downstream_requests_active, 1);
    return ex;
}

static void write_log(const struct exchange *ex, double now_s)
{
    struct worker *w = worker_of(ex);
    const struct buffer *b = ex->client->in;
    const struct head *h = &ex->head;
    struct access_record record = {
        .time = ex->wall_s,
        .request_id = {ex->request_id, ex->request_id_len},
        .client = {ex->client_ip, ex->client_ip_len},
        .method = h->bytes ? view_of(llhttp_method_name((llhttp_method_t)h->method))
                           : (struct view){NULL, 0},
        .host = head_value(h, b, FIELD_HOST),
        .path = head_view(b, h->target_at, h->target_len),
        .protocol = h->bytes == 0 ? (struct view){NULL, 0}
                    : h->minor    ? (struct view){"HTTP/1.1", 8}
                                  : (struct view){"HTTP/1.0", 8},
        .user_agent = head_value(h, b, FIELD_USER_AGENT),
        .referer = head_value(h, b, FIELD_REFERER),
        .traceparent = head_value(h, b, FIELD_TRACEPARENT),
        .route = view_of(ex->route_state ? ex->route_state->name : NULL),
        .endpoint = view_of(ex->endpoint ? ex->endpoint->text : NULL),
        .generation = ex->generation,
        .status = ex->status,
        .upstream_status = ex->upstream_status,
        .bytes_in = ex->body_in,
        .bytes_out = ex->body_out,
        .duration_s = now_s - ex->started_s,
        .upstream_s = ex->upstream_s,
        .connect_s = ex->connect_s,
        .attempts = ex->attempts,
        .reason = ex->reason,
        .limiter = ex->limit_said,
        .detail = ex->detail,
    };
    access_log_write(w->log, w->log_console, &record, &w->stats);
}

static uint64_t now_ms(const struct exchange *ex)
{
    return (uint64_t)(worker_now(worker_of(ex)) * 1000);
}

/* A breaker of the route has changed its state: the control thread tells it and calls the roster.
 */
static void note_breaker(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    atomic_store_explicit(&ex->route_state->stirred, true, memory_order_release);
    w->tell_control(w->control);
}

/* The breaker's permit goes back, once. */
static void report_attempt(struct exchange *ex, enum verdict verdict, enum reason why)
{
    struct target_state *s = ex->target_state;
    if (ex->permit == 0)
        return;
    unsigned status = why == R_SERVED ? ex->upstream_status : 0;
    if (breaker_report(s->breaker, ex->route->breaker, &s->route->breakers_open, ex->permit,
                       verdict, why, status, now_ms(ex)))
        note_breaker(ex);
    ex->permit = 0;
}

/* What the backend's answer says about it. */
static enum verdict verdict_on_answer(const struct exchange *ex)
{
    const struct breaker_policy *p = ex->route ? ex->route->breaker : NULL;
    if (ex->upstream_status == 0)
        return VERDICT_NONE;
    return (p ? breaker_is_failure_status(p, ex->upstream_status) : ex->upstream_status >= 500)
               ? VERDICT_BAD
               : VERDICT_GOOD;
}

/* Ends that are the backend's fault; the others say nothing about it. */
static enum verdict verdict_on_reason(enum reason why)
{
    return why == R_CONNECT_FAILED || why == R_CONNECT_TIMEOUT || why == R_RESET ||
                   why == R_BAD_RESPONSE || why == R_UPSTREAM_TIMEOUT
               ? VERDICT_BAD
               : VERDICT_NONE;
}

/* The attempt at ex->target is over. `why` is R_SERVED when it was answered. */
static void end_attempt(struct exchange *ex, enum verdict verdict, enum reason why)
{
    if (!ex->target_state)
        return;
    if (ex->connected_s > 0)
        ex->upstream_s = worker_now(worker_of(ex)) - ex->attempt_s;
    stats_attempt(&worker_of(ex)->stats, ex->target_state->slot, verdict == VERDICT_BAD);
    report_attempt(ex, verdict, why);
    balancer_done(ex->route, ex->target, ex->target_state, now_ms(ex));
    if (ex->tunnel)
        target_unhold(&ex->target_state);
    ex->last_target = ex->target;
    ex->target = NULL;
    ex->target_state = NULL;
}

void exchange_let_go_of_snapshot(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    if (!ex->snapshot)
        return;
    report_attempt(ex, VERDICT_GOOD, R_SERVED); /* a tunnel's: it was granted */
    bool superseded = ex->snapshot != w->snapshot;
    /* After the last hold is gone the control thread may free a superseded snapshot at once. */
    if (snapshot_unhold(ex->snapshot, w->index) && superseded)
        w->tell_control(w->control);
    ex->snapshot = NULL;
}

/* Counts, logs, and gives everything back. The client's connection is the caller's to go on with.
 */
static void end(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    if (ex->upstream)
        upstream_close(&ex->upstream);
    end_attempt(ex, verdict_on_answer(ex), R_SERVED);
    if (ex->started_s > 0) {
        double now = worker_now(w);
        stats_request(&w->stats, ex->route_state ? ex->route_state->slot : STATS_NO_ROUTE,
                      method_label(ex->head.method), ex->status, now - ex->started_s);
        if (!log_ring_is_off(w->log))
            write_log(ex, now);
    }
    w->retrying -= ex->retrying;
    exchange_let_go_of_snapshot(ex);
    if (ex->tunnel)
        tunnel_end(ex);
    relay_reset(&ex->to_upstream, &w->buffers);
    relay_reset(&ex->to_client, &w->buffers);
    stats_sub(&w->stats, STAT_downstream_requests_active, 1);
    c->exchange = NULL;
    list_push_front(&w->spare_exchanges, &ex->link);
}

/* The client has got its whole answer. */
void exchange_finish(struct exchange *ex)
{
    struct downstream *c = ex->client;
    bool all_read = ex->request_state == REQ_DONE;
    bool keep = ex->keep_client && all_read;
    if (ex->upstream) {
        bool clean = all_read && relay_is_empty(&ex->to_upstream) && ex->answer.keep_alive;
        upstream_release(&ex->upstream, clean);
    }
    end(ex);
    if (keep)
        downstream_next(c);
    else if (all_read)
        downstream_close(c, false);
    else
        downstream_finish(c);
}

/* The answer has begun and cannot be completed: the client must see that (RFC 9112 8). Only an
 * answer that ends with its connection needs a reset for that; others are visibly short. */
static void cut(struct exchange *ex, enum reason why, const char *detail)
{
    struct downstream *c = ex->client;
    bool reset = !ex->to_client.chunked && ex->answer.framing != FRAMING_LENGTH;
    ex->reason = why;
    ex->detail = detail;
    end_attempt(ex, verdict_on_reason(why), why);
    end(ex);
    downstream_close(c, reset);
}

void exchange_client_gone(struct exchange *ex)
{
    struct downstream *c = ex->client;
    ex->reason = R_CLIENT_CLOSED;
    if (ex->status == 0)
        ex->status = (uint16_t)reason_status(R_CLIENT_CLOSED);
    end_attempt(ex, VERDICT_NONE, R_SERVED);
    end(ex);
    downstream_close(c, false);
}

/* ---- answering ourselves ---- */

static bool is_id_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

/* The client's own id if it is harmless in headers and logs, else 128 random bits. */
static void name_request(struct exchange *ex)
{
    static const char digits[] = "0123456789abcdef";
    struct view given = head_value(&ex->head, ex->client->in, FIELD_REQUEST_ID);
    bool sane = given.len > 0 && given.len <= REQUEST_ID_MAX_BYTES;
    for (size_t i = 0; sane && i < given.len; i++)
        sane = is_id_byte(given.at[i]);
    if (sane) {
        memcpy(ex->request_id, given.at, given.len);
        ex->request_id_len = (uint8_t)given.len;
        return;
    }
    uint64_t random[2] = {worker_random(worker_of(ex)), worker_random(worker_of(ex))};
    for (unsigned i = 0; i < 32; i++)
        ex->request_id[i] = digits[random[i / 16] >> (i % 16 * 4) & 15];
    ex->request_id_len = 32;
}

/* From here on the exchange lives under one snapshot, has a name and is counted. */
static void adopt(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    ex->snapshot = w->snapshot;
    snapshot_hold(ex->snapshot, w->index);
    ex->generation = ex->snapshot->generation;
    ex->started_s = worker_now(w);
    ex->wall_s = worker_wall(w);
    (void)downstream_peer(ex->client, &ex->ip);
    ex->client_ip_len = (uint8_t)downstream_ip(ex->client, ex->client_ip);
    name_request(ex);
    ex->client->requests++;
}

/* A body that is not wanted: fine if all of it is here already, else the connection cannot go on.
 */
static void discard_body(struct exchange *ex)
{
    if (ex->request_state == REQ_BODY &&
        http1_parse_body(&ex->request, ex->client->in) == PARSE_DONE)
        ex->request_state = REQ_DONE;
    if (ex->request_state != REQ_DONE)
        ex->keep_client = false;
}

static void flush_own(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    switch (relay_flush(&ex->to_client, &c->io, NULL, &w->buffers)) {
    case IO_OK:
        exchange_finish(ex);
        break;
    case IO_AGAIN:
        transport_watch(&c->io, w->loop, transport_watched(&c->io) | EV_WRITE);
        wheel_set(&w->wheel, &c->deadline, worker_now(w), exchange_settings(ex)->write_timeout_ms);
        break;
    default:
        exchange_client_gone(ex);
    }
}

static void answer_ourselves(struct exchange *ex, enum reason r, const char *detail)
{
    struct worker *w = worker_of(ex);
    if (!ex->snapshot)
        adopt(ex);
    if (ex->upstream)
        upstream_close(&ex->upstream);
    if (reason_closes(r))
        ex->keep_client = false;
    discard_body(ex);
    ex->reason = r;
    ex->detail = detail;
    ex->status = (uint16_t)reason_status(r);
    ex->response_state = RES_OWN;
    stats_add(&w->stats, STAT_rejected_total, 1);
    relay_reset(&ex->to_client, &w->buffers);
    relay_put_head(&ex->to_client, w->scratch, reply_write(ex, r));
    flush_own(ex);
}

/* ---- the request's head ---- */

/* The target is what is too long when it fills the bound by itself, or has not ended within it. */
static enum reason too_large(const struct exchange *ex)
{
    const struct head *h = &ex->head;
    bool unfinished = h->bytes == 0 && h->field_count == 0 && ex->request.name_end == 0;
    return unfinished || h->target_len >= exchange_settings(ex)->max_header_bytes
               ? R_TARGET_TOO_LONG
               : R_HEAD_TOO_LARGE;
}

static void grow_for_head(struct exchange *ex)
{
    struct downstream *c = ex->client;
    uint32_t max = exchange_settings(ex)->max_header_bytes;
    if (c->in->used >= max) {
        answer_ourselves(ex, too_large(ex), NULL);
        return;
    }
    if (buffer_room(c->in) == 0)
        buffer_grow(&c->worker->buffers, &c->in,
                    c->in->size < BUFFER_MEDIUM_BYTES ? BUFFER_MEDIUM_BYTES : max + 4096);
}

static void strip_port(struct view *host)
{
    const char *colon = host->len > 0 ? memrchr(host->at, ':', host->len) : NULL;
    const char *bracket = host->len > 0 ? memrchr(host->at, ']', host->len) : NULL;
    if (colon && (!bracket || colon > bracket))
        host->len = (size_t)(colon - host->at);
}

enum reason exchange_find_where(struct exchange *ex)
{
    const struct head *h = &ex->head;
    const struct buffer *b = ex->client->in;
    ex->where_stale = false;
    enum reason r = target_parse(head_view(b, h->target_at, h->target_len), h->method,
                                 worker_of(ex)->target_scratch, &ex->where, &ex->detail);
    if (r != R_SERVED)
        return r;
    if (ex->where.authority.len > 0 && !http1_is_host(ex->where.authority)) {
        ex->detail = "the target's authority is not a host";
        return R_BAD_REQUEST;
    }
    ex->host = ex->where.authority.len > 0 ? ex->where.authority : head_value(h, b, FIELD_HOST);
    strip_port(&ex->host);
    return R_SERVED;
}

static enum reason find_route(struct exchange *ex)
{
    static const struct view root = {"/", 1};
    struct view path = ex->where.path.at[0] == '*' ? root : ex->where.path;
    enum reason r = router_find(ex->snapshot->router, ex->host, path, ex->head.method, &ex->route,
                                &ex->allowed);
    if (r != R_SERVED)
        return r;
    ex->route_state = ex->route->state;
    ex->max_body_bytes = ex->route->max_body_bytes;
    ex->response_idle_ms = ex->route->response_idle_timeout_ms;
    if (ex->route->max_body_bytes > 0 && ex->head.framing == FRAMING_LENGTH &&
        ex->head.content_length > ex->route->max_body_bytes)
        return R_BODY_TOO_LARGE;
    return R_SERVED;
}

/* Who the client is: the peer, or whom a trusted peer names. */
static void find_client(struct exchange *ex)
{
    const struct cidr_list *trusted = &ex->snapshot->server.trusted_proxies;
    if (trusted->count == 0 || !downstream_peer(ex->client, &ex->ip) ||
        !cidr_list_contains(trusted, ex->ip))
        return;
    ex->peer_trusted = true;
    ex->ip = client_addr_find(ex->ip, trusted, &ex->head, ex->client->in);
    ex->client_ip_len = (uint8_t)ip_format(ex->ip, ex->client_ip);
}

static void on_head(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct head *h = &ex->head;
    adopt(ex);
    c->in->keep = c->in->parsed;
    enum reason r = h->bytes > ex->snapshot->server.max_header_bytes
                        ? too_large(ex)
                        : http1_check_request(h, c->in, &ex->detail);
    if (r == R_SERVED) {
        find_client(ex);
        uint32_t most = ex->snapshot->server.max_requests_per_connection;
        ex->client_http10 = h->minor == 0;
        ex->keep_client =
            h->keep_alive && !c->worker->draining && (most == 0 || c->requests < most);
        http1_parse_start_body(&ex->request, (enum framing)h->framing, h->content_length);
        ex->request_state = ex->request.message_done ? REQ_DONE : REQ_BODY;
        ex->upgrade = tunnel_may_upgrade(h, c->in);
        r = exchange_find_where(ex);
    }
    if (r == R_SERVED)
        r = find_route(ex);
    if (r == R_SERVED)
        r = admit_request(ex);
    if (r != R_SERVED) {
        answer_ourselves(ex, r, ex->detail);
        return;
    }
    wheel_pause(&c->deadline); /* the body's deadline begins when it is waited for */
    choose(ex);
}

static void parse_head(struct exchange *ex)
{
    switch (http1_parse_head(&ex->request, ex->client->in)) {
    case PARSE_HEAD:
        on_head(ex);
        break;
    case PARSE_AGAIN:
        grow_for_head(ex);
        break;
    default:
        if (ex->request.too_large)
            answer_ourselves(ex, too_large(ex), NULL);
        else
            answer_ourselves(ex, ex->request.reason, ex->request.detail);
    }
}

void exchange_client_bytes(struct exchange *ex)
{
    if (ex->request_state == REQ_HEAD)
        parse_head(ex);
    else if (ex->request_state == REQ_BODY && ex->response_state != RES_OWN && ex->upstream &&
             ex->upstream->state == UP_BUSY)
        exchange_pump_request(ex);
}

/* ---- attempts ---- */

/* Nobody can be asked. A failed attempt has the better reason. */
static void give_up(struct exchange *ex, uint64_t retry_ms)
{
    ex->retry_after_s = (uint32_t)MIN((retry_ms + 999) / 1000, UINT32_MAX);
    if (ex->attempts > 0)
        answer_ourselves(ex, ex->reason, ex->detail);
    else
        answer_ourselves(ex, retry_ms > 0 ? R_BREAKER_OPEN : R_NO_ENDPOINT, NULL);
}

static void choose(struct exchange *ex)
{
    const struct route *route = ex->route;
    struct worker *w = worker_of(ex);
    struct pick pick = {.now_ms = now_ms(ex),
                        .client = (const uint8_t *)&ex->ip,
                        .client_len = sizeof(ex->ip),
                        .avoid = ex->last_target};
    ex->target = balancer_pick(route, &pick);
    if (pick.moved)
        note_breaker(ex);
    if (!ex->target) {
        give_up(ex, pick.retry_ms);
        return;
    }
    ex->reason = R_SERVED;
    ex->detail = NULL;
    ex->permit = pick.permit;
    ex->target_state = ex->target->state;
    ex->endpoint = ex->target->endpoint;
    ex->attempt_s = worker_now(w);
    ex->connected_s = 0;
    /* A kept connection that failed may have gone stale together with all others: the next attempt
     * makes a new one. */
    bool fresh = ex->attempts++ > 0;
    ex->upstream = upstream_open(w, ex->target->endpoint, ex, route->connect_timeout_ms, fresh);
    if (!ex->upstream &&
        (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        end_attempt(ex, VERDICT_NONE, R_SERVED); /* our own lack, not the backend's */
        answer_ourselves(ex, R_OVERLOAD, "no descriptor or memory for a connection to the backend");
    } else if (!ex->upstream)
        exchange_upstream_failed(ex, R_CONNECT_FAILED, NULL);
    else if (ex->upstream->state == UP_BUSY)
        exchange_connected(ex);
    else
        ex->where_stale = true;
}

void exchange_connected(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    struct upstream *u = ex->upstream;
    double now = worker_now(w), left_s = ex->started_s + ex->route->timeout_ms / 1000.0 - now;
    ex->connected_s = now;
    if (!u->reused)
        ex->connect_s = now - ex->attempt_s;
    if (ex->where_stale || ex->attempts > 1)
        (void)exchange_find_where(ex); /* it was right before and is right again */
    wheel_set(&w->wheel, &u->deadline, now, left_s > 0 ? (uint64_t)(left_s * 1000) : 0);
    http1_parser_init(&ex->response, true, &ex->answer, HEAD_MAX_FIELDS);
    relay_reset(&ex->to_upstream, &w->buffers);
    ex->to_upstream.chunked = ex->head.framing == FRAMING_CHUNKED;
    size_t len = forward_request(ex);
    if (len == 0) {
        end_attempt(ex, VERDICT_NONE, R_SERVED);
        answer_ourselves(ex, R_HEAD_TOO_LARGE, NULL);
        return;
    }
    relay_put_head(&ex->to_upstream, w->scratch, len);
    if (ex->request_state == REQ_DONE && ex->attempts > 1) {
        relay_put_piece(&ex->to_upstream, ex->replay_at, ex->replay_len, true);
        pass_trailers(ex, &ex->to_upstream, &ex->request, ex->client->in);
    }
    exchange_pump_request(ex);
}

static bool is_idempotent(unsigned method) /* RFC 9110 9.2.2 */
{
    return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_OPTIONS ||
           method == HTTP_TRACE || method == HTTP_PUT || method == HTTP_DELETE;
}

/* Retries must not multiply an outage: at most a fifth of what is under way, but a few always. */
static bool budget_allows(const struct exchange *ex)
{
    const struct worker *w = worker_of(ex);
    uint64_t budget = MAX(w->stats.counters[STAT_downstream_requests_active] / 5, RETRIES_ALWAYS);
    return ex->retrying || w->retrying < budget;
}

/* A kept connection that ended without a byte of an answer was closed before the request came, as a
 * rule. That is nobody's fault: it uses up neither the route's retries nor the budget. It cannot
 * multiply an outage, since the next attempt makes a new connection, and only connections that have
 * served a request are kept. */
static bool is_stale(const struct exchange *ex, enum reason why)
{
    const struct upstream *u = ex->upstream;
    return u && u->reused && why == R_RESET && (!u->in || u->in->used == 0);
}

/* May the request be sent again? Only while the whole of it is here and nothing reached the client.
 * A connection that failed, or took nothing, carried nothing; after that the backend may have seen
 * the request, and it must be one that may be repeated. */
static bool may_retry(const struct exchange *ex, enum reason why)
{
    double left_s = ex->started_s + ex->route->timeout_ms / 1000.0 - worker_now(worker_of(ex));
    if (!ex->replayable || left_s <= 0)
        return false;
    if (!is_stale(ex, why) &&
        (ex->attempts > ex->route->retries + ex->met_stale || !budget_allows(ex)))
        return false;
    return why == R_CONNECT_FAILED || why == R_CONNECT_TIMEOUT ||
           (why == R_RESET && ex->to_upstream.sent_bytes == 0) ||
           (why != R_UPSTREAM_TIMEOUT && is_idempotent(ex->head.method));
}

void exchange_upstream_failed(struct exchange *ex, enum reason why, const char *detail)
{
    struct worker *w = worker_of(ex);
    if (ex->response_state != RES_NONE) {
        cut(ex, why, detail);
        return;
    }
    bool stale = is_stale(ex, why), retry = may_retry(ex, why);
    /* No answer to a request that the client has not finished sending, and all of it that there is
     * has been passed on. */
    bool awaits_client = why == R_UPSTREAM_TIMEOUT && ex->request_state == REQ_BODY &&
                         relay_is_empty(&ex->to_upstream);
    if (why == R_CONNECT_FAILED || why == R_CONNECT_TIMEOUT)
        stats_add(&w->stats, STAT_upstream_connect_failures_total, 1);
    if (ex->upstream)
        upstream_close(&ex->upstream);
    end_attempt(ex, (stale && retry) || awaits_client ? VERDICT_NONE : verdict_on_reason(why), why);
    if (!retry) {
        answer_ourselves(ex, why, detail);
        return;
    }
    if (stale) {
        ex->met_stale = true;
        ex->last_target = NULL; /* the same target is as good as any */
    } else {
        w->retrying += !ex->retrying;
        ex->retrying = true;
    }
    ex->reason = why; /* should there be nobody else to try */
    ex->detail = detail;
    stats_add(&w->stats, STAT_retries_total, 1);
    choose(ex);
}

void exchange_upstream_timeout(struct exchange *ex)
{
    bool connecting = ex->upstream->state == UP_CONNECTING;
    if (ex->tunnel) {
        tunnel_timeout(ex);
        return;
    }
    exchange_upstream_failed(ex, connecting ? R_CONNECT_TIMEOUT : R_UPSTREAM_TIMEOUT, NULL);
}

void exchange_stop(struct exchange *ex)
{
    struct downstream *c = ex->client;
    static const char why[] = "the time to finish was over";
    if (ex->request_state == REQ_HEAD) {
        exchange_client_gone(ex); /* has not asked for anything yet: not logged */
        return;
    }
    if (ex->response_state == RES_NONE) {
        answer_ourselves(ex, R_DRAINING, why);
        if (c->exchange != ex)
            return;
    }
    if (!ex->tunnel) {
        cut(ex, R_DRAINING, why);
        return;
    }
    ex->reason = R_DRAINING;
    ex->detail = why;
    end(ex);
    downstream_close(c, false);
}

/* ---- request body: client -> backend ---- */

/* Trailers travel on where the next hop's framing has a place for them, else they end here (RFC
 * 9110 6.5.1). */
static void pass_trailers(struct exchange *ex, struct relay *relay, const struct http1_parser *p,
                          const struct buffer *from)
{
    struct worker *w = worker_of(ex);
    if (p->framing == FRAMING_CHUNKED && relay->chunked && http1_trailers(p)->count > 0)
        relay_put_trailers(
            relay, w->target_scratch,
            forward_trailers(http1_trailers(p), from, w->target_scratch, w->scratch_bytes),
            &w->buffers);
}

/* The client's fault in the middle of its body. */
static void refuse_body(struct exchange *ex, enum reason r, const char *detail)
{
    if (ex->response_state != RES_NONE) {
        cut(ex, r, detail);
        return;
    }
    if (ex->upstream)
        upstream_close(&ex->upstream);
    end_attempt(ex, VERDICT_NONE, R_SERVED);
    ex->request_state = REQ_ABANDONED;
    answer_ourselves(ex, r, detail);
}

/* Takes the next piece out of the client's buffer. false: the exchange is over or has gone another
 * way. */
static bool next_request_piece(struct exchange *ex, bool *starved)
{
    struct buffer *in = ex->client->in;
    enum parse_status status = http1_parse_body(&ex->request, in);
    const struct http1_parser *p = &ex->request;
    if (status == PARSE_BAD) {
        refuse_body(ex, R_BAD_REQUEST, p->detail);
        return false;
    }
    ex->body_in += p->piece_len;
    if (ex->max_body_bytes > 0 && ex->body_in > ex->max_body_bytes) {
        refuse_body(ex, R_BODY_TOO_LARGE, NULL);
        return false;
    }
    *starved = status == PARSE_AGAIN;
    if (status == PARSE_DONE) {
        ex->request_state = REQ_DONE;
        ex->replay_at = p->piece_at;
        ex->replay_len = p->piece_len;
    }
    relay_put_piece(&ex->to_upstream, p->piece_at, p->piece_len, status == PARSE_DONE);
    if (status == PARSE_DONE)
        pass_trailers(ex, &ex->to_upstream, p, in);
    return true;
}

/* Does the client still owe room for what the backend has said? Then its deadline is that of
 * writing, and nothing more is read from the backend. */
static bool client_is_full(const struct exchange *ex)
{
    return ex->response_state != RES_NONE && !relay_is_empty(&ex->to_client);
}

/* What the backend's connection is watched for while the request is on its way. */
static int reading(const struct exchange *ex)
{
    return ex->response_state <= RES_BODY && !client_is_full(ex) ? EV_READ : 0;
}

/* More of the body is to come: makes room and waits for it. */
static void await_body(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    if (ex->tunnel) {
        tunnel_await(ex);
        return;
    }
    if (c->filled &&
        c->in->size < BUFFER_LARGE_BYTES) /* all of it went out: the backend keeps up */
        buffer_grow(&w->buffers, &c->in, BUFFER_LARGE_BYTES);
    else if (buffer_room(c->in) < BODY_ROOM_BYTES)
        buffer_grow(&w->buffers, &c->in, MAX(BUFFER_MEDIUM_BYTES, c->in->used + BODY_ROOM_BYTES));
    downstream_resume(c);
    if (!client_is_full(ex))
        wheel_set(&w->wheel, &c->deadline, worker_now(w), exchange_settings(ex)->read_timeout_ms);
}

void exchange_pump_request(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    struct upstream *u = ex->upstream;
    for (bool starved = false; !starved;) {
        if (ex->request_state == REQ_BODY && relay_piece_is_gone(&ex->to_upstream) &&
            !next_request_piece(ex, &starved))
            return;
        switch (relay_flush(&ex->to_upstream, &u->io, c->in, &w->buffers)) {
        case IO_OK:
            transport_watch(&u->io, w->loop, reading(ex));
            break;
        case IO_AGAIN:
            transport_watch(&u->io, w->loop, reading(ex) | EV_WRITE);
            if (!client_is_full(ex))
                wheel_pause(&c->deadline);
            downstream_pause(c);
            return;
        default:
            /* A kept connection that was closed meanwhile takes nothing at all: try another. */
            if (ex->replayable && ex->to_upstream.sent_bytes == 0) {
                exchange_upstream_failed(ex, R_RESET, "it closed a kept connection");
                return;
            }
            /* It takes no more. It may have answered already; if not, reading will tell. */
            ex->request_state = REQ_ABANDONED;
            ex->replayable = false;
            relay_reset(&ex->to_upstream, &w->buffers);
            transport_watch(&u->io, w->loop, reading(ex));
            return;
        }
        if (ex->request_state != REQ_BODY)
            break;
        ex->replayable = false;
        buffer_compact(c->in);
    }
    if (ex->request_state == REQ_BODY) {
        await_body(ex);
    } else {
        if (!client_is_full(ex))
            wheel_pause(&c->deadline);
        downstream_resume(c); /* to notice when the client goes away */
    }
}

void exchange_upstream_writable(struct exchange *ex)
{
    exchange_pump_request(ex);
}

/* ---- response: backend -> client ---- */

static void start_response(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    struct head *h = &ex->answer;
    ex->upstream_status = h->status;
    bool open_ended = h->framing == FRAMING_CHUNKED || h->framing == FRAMING_UNTIL_CLOSE;
    if (open_ended && ex->client_http10)
        ex->keep_client = false;
    if (w->draining)
        ex->keep_client = false;
    ex->to_client.chunked = open_ended && !ex->client_http10;
    http1_parse_start_body(&ex->response, (enum framing)h->framing, h->content_length);
    size_t len = forward_response(ex);
    if (len == 0) {
        exchange_upstream_failed(ex, R_BAD_RESPONSE, "the head is too large");
        return;
    }
    ex->status = h->status;
    ex->response_state = RES_BODY;
    relay_put_head(&ex->to_client, w->scratch, len);
    exchange_pump_response(ex);
}

/* 1xx: passed on to those who know them, then the head that counts is awaited (RFC 9110 15.2). */
static bool pass_interim(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    struct buffer *in = ex->upstream->in;
    if (ex->answer.status == 101) {
        if (ex->upgrade && ex->answer.at[FIELD_UPGRADE])
            tunnel_start(ex);
        else
            exchange_upstream_failed(ex, R_BAD_RESPONSE, "an unasked change of protocol");
        return false;
    }
    size_t len = ex->client_http10 ? 0 : forward_interim(ex);
    buffer_consume(in, in->parsed);
    http1_parser_init(&ex->response, true, &ex->answer, HEAD_MAX_FIELDS);
    if (len == 0 || !relay_is_empty(&ex->to_client))
        return true;
    relay_put_head(&ex->to_client, w->scratch, len);
    switch (relay_flush(&ex->to_client, &ex->client->io, NULL, &w->buffers)) {
    case IO_OK:
        return true;
    case IO_AGAIN: /* a client that cannot take an interim head is not reading: it need not have the
                      rest of it */
    default:
        exchange_client_gone(ex);
        return false;
    }
}

/* RES_NONE: looks for a head. Returns when there is nothing more to do in this turn. */
static void parse_response_head(struct exchange *ex)
{
    struct upstream *u = ex->upstream;
    while (ex->response_state == RES_NONE) {
        switch (http1_parse_head(&ex->response, u->in)) {
        case PARSE_AGAIN:
            if (u->in->used >= RESPONSE_HEAD_MAX_BYTES)
                exchange_upstream_failed(ex, R_BAD_RESPONSE, "the head is too large");
            else if (buffer_room(u->in) == 0)
                buffer_grow(&u->worker->buffers, &u->in, BUFFER_LARGE_BYTES);
            return;
        case PARSE_HEAD:
            break;
        default:
            exchange_upstream_failed(ex, R_BAD_RESPONSE, ex->response.detail);
            return;
        }
        if (http1_check_response(&ex->answer, u->in, ex->head.method, &ex->detail) != R_SERVED) {
            exchange_upstream_failed(ex, R_BAD_RESPONSE, ex->detail);
            return;
        }
        if (ex->answer.status >= 200) {
            start_response(ex);
            return;
        }
        if (!pass_interim(ex) || u->in->used == 0)
            return;
    }
}

/* Everything is sent, or the client takes no more for now. */
static void wait_for_client(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    transport_watch(&c->io, w->loop, transport_watched(&c->io) | EV_WRITE);
    wheel_set(&w->wheel, &c->deadline, worker_now(w), exchange_settings(ex)->write_timeout_ms);
    if (ex->upstream) {
        transport_watch(&ex->upstream->io, w->loop,
                        transport_watched(&ex->upstream->io) & ~EV_READ);
        wheel_pause(&ex->upstream->deadline);
    }
}

static void await_response_body(struct exchange *ex)
{
    if (ex->tunnel) {
        tunnel_await(ex);
        return;
    }
    struct worker *w = worker_of(ex);
    struct upstream *u = ex->upstream;
    transport_watch(&u->io, w->loop, transport_watched(&u->io) | EV_READ);
    wheel_set(&w->wheel, &u->deadline, worker_now(w), ex->response_idle_ms);
}

static bool next_response_piece(struct exchange *ex, bool *starved)
{
    struct http1_parser *p = &ex->response;
    enum parse_status status = http1_parse_body(p, ex->upstream->in);
    if (status == PARSE_BAD) {
        cut(ex, R_BAD_RESPONSE, p->detail);
        return false;
    }
    *starved = status == PARSE_AGAIN;
    ex->body_out += p->piece_len;
    if (status == PARSE_DONE)
        ex->response_state = RES_DONE;
    relay_put_piece(&ex->to_client, p->piece_at, p->piece_len, status == PARSE_DONE);
    if (status == PARSE_DONE)
        pass_trailers(ex, &ex->to_client, p, ex->upstream->in);
    return true;
}

void exchange_pump_response(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    for (bool starved = false; !starved;) {
        if (ex->response_state == RES_BODY && relay_piece_is_gone(&ex->to_client) &&
            !next_response_piece(ex, &starved))
            return;
        switch (relay_flush(&ex->to_client, &c->io, ex->upstream->in, &w->buffers)) {
        case IO_OK:
            break;
        case IO_AGAIN:
            wait_for_client(ex);
            return;
        default:
            exchange_client_gone(ex);
            return;
        }
        if (ex->response_state == RES_DONE) {
            exchange_finish(ex);
            return;
        }
        buffer_compact(ex->upstream->in);
    }
    await_response_body(ex);
}

void exchange_client_writable(struct exchange *ex)
{
    struct downstream *c = ex->client;
    transport_watch(&c->io, c->worker->loop, transport_watched(&c->io) & ~EV_WRITE);
    if (ex->request_state == REQ_BODY && !ex->tunnel)
        wheel_set(&c->worker->wheel, &c->deadline, worker_now(c->worker),
                  exchange_settings(ex)->read_timeout_ms);
    else
        wheel_pause(&c->deadline);
    if (ex->response_state == RES_OWN)
        flush_own(ex);
    else if (ex->response_state != RES_NONE)
        exchange_pump_response(ex);
}

/* The backend has closed: the end of a body that has no other, or a failure. */
static void on_upstream_end(struct exchange *ex)
{
    if (ex->tunnel) {
        tunnel_upstream_end(ex);
    } else if (ex->response_state == RES_BODY && ex->answer.framing == FRAMING_UNTIL_CLOSE) {
        ex->response_state = RES_DONE;
        relay_put_piece(&ex->to_client, 0, 0, true);
        exchange_pump_response(ex);
    } else if (ex->response_state == RES_NONE) {
        bool silent = !ex->upstream->in || ex->upstream->in->used == 0;
        exchange_upstream_failed(ex, silent ? R_RESET : R_BAD_RESPONSE,
                                 "it closed before its answer was complete");
    } else {
        exchange_upstream_failed(ex, R_RESET, "it closed in the middle of its answer");
    }
}

void exchange_upstream_readable(struct exchange *ex)
{
    struct upstream *u = ex->upstream;
    struct worker *w = u->worker;
    size_t got;
    if (!u->in)
        u->in = buffer_take(&w->buffers, BUFFER_MEDIUM_BYTES);
    else if (u->filled && u->in->used == 0) /* all of it went out: the client keeps up */
        buffer_grow(&w->buffers, &u->in, BUFFER_LARGE_BYTES);
    size_t room = buffer_room(u->in);
    switch (transport_read(&u->io, u->in->data + u->in->used, room, &got)) {
    case IO_OK:
        u->filled = got == room;
        u->in->used += (uint32_t)got;
        if (ex->response_state == RES_NONE)
            parse_response_head(ex);
        else
            exchange_pump_response(ex);
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        on_upstream_end(ex);
        break;
    case IO_ERROR:
        exchange_upstream_failed(ex, R_RESET, "it reset the connection");
        break;
    }
}

void exchange_client_timeout(struct exchange *ex)
{
    if (ex->request_state == REQ_HEAD)
        answer_ourselves(ex, R_CLIENT_TIMEOUT, "the head was not complete in time");
    else if (ex->response_state == RES_NONE)
        refuse_body(ex, R_CLIENT_TIMEOUT, "the body stopped coming");
    else
        cut(ex, R_CLIENT_TIMEOUT,
            client_is_full(ex) ? "the client does not read" : "the body stopped coming");
}
