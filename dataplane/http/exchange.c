/* Hot path: no allocation (struct and buffers are recycled), no lock, no log line but the access
 * log's, no system call but those of the relays and reads. */
#include "dataplane/http/exchange.h"

#include <stdlib.h>

#include "dataplane/http/admit.h"
#include "dataplane/http/attempt.h"
#include "dataplane/http/decide.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/reply.h"
#include "dataplane/http/response.h"
#include "dataplane/http/tunnel.h"
#include "proto/base/digits.h"
#include "proto/base/log.h"

/* Room for body bytes behind the head: a read of less would not be worth its system call. */
#define BODY_ROOM_BYTES (16u * 1024)

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
    memset(ex, 0, offsetof(struct exchange, request));
    list_init(&ex->link);
    ex->client = c;
    ex->replayable = true;
    ex->connect_s = ex->upstream_s = -1;
    http1_parser_init(&ex->request, false, &ex->head, w->snapshot->server.max_headers);
    c->exchange = ex;
    stats_add(&w->stats, STAT_downstream_requests_active, 1);
    return ex;
}

static void count(const struct exchange *ex, double now_s)
{
    const struct stats_exchange x = {
        .route_slot = ex->route_state ? ex->route_state->slot : STATS_NO_ROUTE,
        .method = method_label(ex->head.method),
        .status = ex->status,
        .reason = ex->reason,
        .generation = ex->generation,
        .seconds = now_s - ex->started_s,
        .upstream_seconds = ex->upstream_s,
    };
    stats_request(&worker_of(ex)->stats, &x);
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
        .traceparent = ex->trace == TRACE_MADE
                           ? (struct view){ex->traceparent, sizeof(ex->traceparent)}
                       : ex->trace == TRACE_RECEIVED ? head_value(h, b, FIELD_TRACEPARENT)
                                                     : (struct view){NULL, 0},
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
        .breaker = ex->breaker_said,
        .detail = ex->detail,
    };
    access_log_write(w->log, w->log_console, &record, &w->stats);
}

/* What went wrong is always logged, of the rest as large a share as is wanted. */
static bool is_logged(const struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    if (log_ring_is_off(w->log))
        return false;
    return w->log_share == UINT64_MAX || ex->reason != R_SERVED || ex->status >= 400 ||
           worker_random(w) < w->log_share;
}

void exchange_let_go_of_snapshot(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    if (!ex->snapshot)
        return;
    bool superseded = ex->snapshot != w->snapshot;
    /* After the last hold is gone the control thread may free a superseded snapshot at once. */
    if (snapshot_unhold(ex->snapshot, w->index) && superseded)
        w->tell_control(w->control);
    ex->snapshot = NULL;
}

/* Counts, logs, and gives back all that was held for the answer. */
static void account(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    if (ex->upstream)
        upstream_close(&ex->upstream);
    attempt_end(ex, R_SERVED);
    admit_cancel(ex);
    if (ex->started_s > 0) {
        double now = worker_now(w);
        count(ex, now);
        if (is_logged(ex))
            write_log(ex, now);
    }
    w->retrying -= ex->retrying;
    exchange_let_go_of_snapshot(ex);
    if (ex->tunnel)
        tunnel_end(ex);
    relay_reset(&ex->to_upstream, &w->buffers);
    relay_reset(&ex->to_client, &w->buffers);
    stats_sub(&w->stats, STAT_downstream_requests_active, 1);
}

static void recycle(struct exchange *ex)
{
    ex->client->exchange = NULL;
    list_push_front(&worker_of(ex)->spare_exchanges, &ex->link);
}

/* The client's connection is the caller's to go on with. */
static void end(struct exchange *ex)
{
    if (ex->request_state != REQ_UNWANTED)
        account(ex);
    recycle(ex);
}

/* ---- bodies that nobody wants ---- */

/* What is still to come of the body is thrown away when it is little, so that keeping the
 * connection depends on the request and not on how it was cut into segments. Not behind "Expect": a
 * client that got its answer instead of 100 need not send a body, and what it sends next could be
 * either (RFC 9110 10.1.1). */
static bool may_skip_body(const struct exchange *ex)
{
    const struct http1_parser *p = &ex->request;
    return ex->keep_client && !ex->client->ended && !ex->head.at[FIELD_EXPECT] &&
           (ex->request_state == REQ_BODY || ex->request_state == REQ_ABANDONED) &&
           (p->framing != FRAMING_LENGTH || p->left <= SKIP_MAX_BYTES);
}

/* REQ_UNWANTED: the answer is sent and accounted for; the head is forgotten as well. */
static void skip_body(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    uint32_t before = c->in->parsed;
    enum parse_status status = http1_parse_body(&ex->request, c->in);
    uint32_t skipped = c->in->parsed - before;
    if (status == PARSE_DONE) {
        end(ex);
        downstream_next(c);
    } else if (status == PARSE_BAD || skipped > ex->skip_left) {
        end(ex);
        downstream_finish(c);
    } else {
        ex->skip_left -= skipped;
        buffer_consume(c->in, c->in->parsed);
        if (c->filled || buffer_room(c->in) == 0)
            buffer_grow(&w->buffers, &c->in, BUFFER_MEDIUM_BYTES);
        downstream_resume(c);
        wheel_set(&w->wheel, &c->deadline, worker_now(w), exchange_settings(ex)->read_timeout_ms);
    }
}

void exchange_finish(struct exchange *ex)
{
    struct downstream *c = ex->client;
    bool all_read = ex->request_state == REQ_DONE;
    bool keep = ex->keep_client && all_read, skip = may_skip_body(ex);
    if (ex->upstream) {
        bool clean = all_read && relay_is_empty(&ex->to_upstream) && ex->answer.keep_alive;
        upstream_release(&ex->upstream, clean);
    }
    if (skip) {
        account(ex);
        ex->request_state = REQ_UNWANTED;
        ex->skip_left = SKIP_MAX_BYTES;
        skip_body(ex);
        return;
    }
    end(ex);
    if (keep)
        downstream_next(c);
    else if (all_read)
        downstream_close(c, false);
    else
        downstream_finish(c);
}

/* Only an answer that ends with its connection needs a reset to be seen as cut short; others are
 * visibly so. */
void exchange_cut(struct exchange *ex, enum reason why, const char *detail)
{
    struct downstream *c = ex->client;
    bool reset = !ex->to_client.chunked && ex->answer.framing != FRAMING_LENGTH;
    ex->reason = why;
    ex->detail = detail;
    attempt_end(ex, why);
    end(ex);
    downstream_close(c, reset);
}

void exchange_client_gone(struct exchange *ex)
{
    struct downstream *c = ex->client;
    if (ex->request_state == REQ_UNWANTED) {
        end(ex);
        downstream_close(c, false);
        return;
    }
    ex->reason = R_CLIENT_CLOSED;
    if (ex->status == 0)
        ex->status = (uint16_t)reason_status(R_CLIENT_CLOSED);
    attempt_end(ex, R_CLIENT_CLOSED);
    end(ex);
    downstream_close(c, false);
}

void exchange_pass_trailers(struct exchange *ex, struct relay *relay, const struct http1_parser *p,
                            const struct buffer *from)
{
    struct worker *w = worker_of(ex);
    if (p->framing == FRAMING_CHUNKED && relay->chunked && http1_trailers(p)->count > 0)
        relay_put_trailers(
            relay, w->target_scratch,
            forward_trailers(http1_trailers(p), from, w->target_scratch, w->scratch_bytes),
            &w->buffers);
}

/* ---- the client's end ---- */

/* Does the client still owe room for what the backend has said? Then its deadline is that of
 * writing, and nothing more is read from the backend. */
static bool client_is_full(const struct exchange *ex)
{
    return ex->response_state != RES_NONE && !relay_is_empty(&ex->to_client);
}

void exchange_rest_client(struct exchange *ex)
{
    struct downstream *c = ex->client;
    if (client_is_full(ex))
        return;
    if (c->ended)
        wheel_set(&c->worker->wheel, &c->deadline, worker_now(c->worker), HALF_CLOSED_MS);
    else
        wheel_pause(&c->deadline);
}

/* Is it certain that the body's end is not among what was received? */
static bool body_is_short(const struct exchange *ex)
{
    const struct buffer *in = ex->client->in;
    uint32_t left = in->used - in->parsed;
    return ex->request_state != REQ_DONE &&
           (left == 0 || (ex->request.framing == FRAMING_LENGTH && ex->request.left > left));
}

void exchange_client_ended(struct exchange *ex)
{
    if (ex->request_state == REQ_HEAD || ex->request_state == REQ_UNWANTED ||
        (ex->response_state != RES_OWN && body_is_short(ex)))
        exchange_client_gone(ex);
    else
        exchange_rest_client(ex);
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
    struct view given = head_value(&ex->head, ex->client->in, FIELD_REQUEST_ID);
    bool sane = given.len > 0 && given.len <= REQUEST_ID_MAX_BYTES;
    for (size_t i = 0; sane && i < given.len; i++)
        sane = is_id_byte(given.at[i]);
    if (sane) {
        memcpy(ex->request_id, given.at, given.len);
        ex->request_id_len = (uint8_t)given.len;
        return;
    }
    digits_hex(ex->request_id, worker_random(worker_of(ex)));
    digits_hex(ex->request_id + 16, worker_random(worker_of(ex)));
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

/* All of a body that is not wanted may be here already. */
static void look_for_end(struct exchange *ex)
{
    enum parse_status status = PARSE_AGAIN;
    if (ex->request_state == REQ_BODY || ex->request_state == REQ_ABANDONED)
        status = http1_parse_body(&ex->request, ex->client->in);
    if (status == PARSE_DONE)
        ex->request_state = REQ_DONE;
    if (status == PARSE_BAD || (ex->request_state != REQ_DONE && !may_skip_body(ex)))
        ex->keep_client = false;
}

void exchange_answer(struct exchange *ex, enum reason r, const char *detail)
{
    struct worker *w = worker_of(ex);
    admit_cancel(ex);
    if (!ex->snapshot)
        adopt(ex);
    if (ex->upstream)
        upstream_close(&ex->upstream);
    if (reason_closes(r) || downstream_is_at_end(ex->client))
        ex->keep_client = false;
    look_for_end(ex);
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
        exchange_answer(ex, too_large(ex), NULL);
        return;
    }
    if (buffer_room(c->in) == 0)
        buffer_grow(&c->worker->buffers, &c->in,
                    c->in->size < BUFFER_MEDIUM_BYTES ? BUFFER_MEDIUM_BYTES : max + 4096);
}

enum reason exchange_find_where(struct exchange *ex)
{
    ex->where_stale = false;
    return decide_where(&ex->head, ex->client->in, worker_of(ex)->target_scratch, &ex->where,
                        &ex->host, &ex->detail);
}

static enum reason find_route(struct exchange *ex)
{
    enum reason r =
        decide_route(ex->snapshot, &ex->head, &ex->where, ex->host, &ex->route, &ex->allowed);
    if (ex->route) {
        ex->route_state = ex->route->state;
        ex->max_body_bytes = ex->route->max_body_bytes;
        ex->response_idle_ms = ex->route->response_idle_timeout_ms;
    }
    return r;
}

/* Who the client is: the peer, or whom a trusted peer names. */
static void find_client(struct exchange *ex)
{
    if (ex->snapshot->server.trusted_proxies.count == 0 || !downstream_peer(ex->client, &ex->ip) ||
        !decide_client(ex->snapshot, &ex->head, ex->client->in, &ex->ip))
        return;
    ex->peer_trusted = true;
    ex->client_ip_len = (uint8_t)ip_format(ex->ip, ex->client_ip);
}

static void find_trace(struct exchange *ex)
{
    struct worker *w = worker_of(ex);
    ex->trace = (uint8_t)trace_check(&ex->head, ex->client->in);
    if (ex->trace != TRACE_NONE || !ex->snapshot->server.makes_traces)
        return;
    const uint64_t random[3] = {worker_random(w), worker_random(w), worker_random(w)};
    trace_make(random, ex->traceparent);
    ex->trace = TRACE_MADE;
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
        find_trace(ex);
        r = http1_count_forwards(h, c->in, &ex->detail);
    }
    if (r == R_SERVED)
        r = exchange_find_where(ex);
    if (r == R_SERVED)
        r = find_route(ex);
    if (r == R_SERVED && !admit_request(ex, &r)) {
        exchange_rest_client(ex);
        ex->where_stale = true; /* what comes meanwhile may move it */
        return;
    }
    exchange_admitted(ex, r);
}

void exchange_admitted(struct exchange *ex, enum reason r)
{
    if (r != R_SERVED) {
        exchange_answer(ex, r, ex->detail);
        return;
    }
    exchange_rest_client(ex); /* the body's deadline begins when it is waited for */
    attempt_start(ex);
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
            exchange_answer(ex, too_large(ex), NULL);
        else
            exchange_answer(ex, ex->request.reason, ex->request.detail);
    }
}

void exchange_client_bytes(struct exchange *ex)
{
    if (ex->request_state == REQ_HEAD)
        parse_head(ex);
    else if (ex->request_state == REQ_BODY && ex->response_state != RES_OWN && ex->upstream &&
             ex->upstream->state == UP_BUSY)
        exchange_pump_request(ex);
    else if (ex->request_state == REQ_UNWANTED)
        skip_body(ex);
}

void exchange_stop(struct exchange *ex)
{
    struct downstream *c = ex->client;
    static const char why[] = "the time to finish was over";
    if (ex->request_state == REQ_HEAD || ex->request_state == REQ_UNWANTED) {
        exchange_client_gone(ex); /* has not asked for anything yet, or has its answer */
        return;
    }
    if (ex->response_state == RES_NONE) {
        exchange_answer(ex, R_DRAINING, why);
        if (c->exchange != ex)
            return;
    }
    if (!ex->tunnel) {
        exchange_cut(ex, R_DRAINING, why);
        return;
    }
    ex->reason = R_DRAINING;
    ex->detail = why;
    end(ex);
    downstream_close(c, false);
}

/* ---- request body: client -> backend ---- */

/* The client's fault in the middle of its body. */
static void refuse_body(struct exchange *ex, enum reason r, const char *detail)
{
    if (ex->response_state != RES_NONE) {
        exchange_cut(ex, r, detail);
        return;
    }
    if (ex->upstream)
        upstream_close(&ex->upstream);
    attempt_end(ex, r);
    ex->request_state = REQ_ABANDONED;
    exchange_answer(ex, r, detail);
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
        exchange_pass_trailers(ex, &ex->to_upstream, p, in);
    return true;
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
    if (c->ended) {
        exchange_client_gone(ex);
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
            exchange_rest_client(ex);
            downstream_pause(c);
            return;
        default:
            /* A kept connection that was closed meanwhile takes nothing at all: try another. */
            if (ex->replayable && ex->to_upstream.sent_bytes == 0) {
                attempt_failed(ex, R_RESET, "it closed a kept connection");
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
        exchange_rest_client(ex);
        downstream_resume(c); /* to notice when the client goes away */
    }
}

/* ---- the client can take more ---- */

void exchange_client_writable(struct exchange *ex)
{
    struct downstream *c = ex->client;
    transport_watch(&c->io, c->worker->loop, transport_watched(&c->io) & ~EV_WRITE);
    if (ex->request_state == REQ_BODY && !ex->tunnel && !c->ended)
        wheel_set(&c->worker->wheel, &c->deadline, worker_now(c->worker),
                  exchange_settings(ex)->read_timeout_ms);
    else
        exchange_rest_client(ex);
    if (ex->response_state == RES_OWN)
        flush_own(ex);
    else if (ex->response_state != RES_NONE)
        response_pump(ex);
}

/* It has ended its side, and there is nothing to send by which a client that is still there could
 * be told from one that is not. */
static void give_up_on_client(struct exchange *ex)
{
    if (ex->response_state == RES_NONE)
        exchange_client_gone(ex);
    else
        exchange_cut(ex, R_CLIENT_CLOSED, "the client had ended its side, and no more came for it");
}

void exchange_client_timeout(struct exchange *ex)
{
    struct downstream *c = ex->client;
    if (ex->request_state == REQ_HEAD) {
        exchange_answer(ex, R_CLIENT_TIMEOUT, "the head was not complete in time");
    } else if (ex->request_state == REQ_UNWANTED) {
        end(ex);
        downstream_finish(c);
    } else if (c->ended && !client_is_full(ex)) {
        give_up_on_client(ex);
    } else if (ex->response_state == RES_NONE) {
        refuse_body(ex, R_CLIENT_TIMEOUT, "the body stopped coming");
    } else {
        exchange_cut(ex, R_CLIENT_TIMEOUT,
                     client_is_full(ex) ? "the client does not read" : "the body stopped coming");
    }
}
