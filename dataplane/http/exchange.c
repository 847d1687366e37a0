/* Hot path: no allocation (struct and buffers are recycled), no lock, no log line but the access
 * log's, no system call but those of the relays and reads. */
#include "dataplane/http/exchange.h"

#include <stdlib.h>

#include "dataplane/http/admit.h"
#include "dataplane/http/attempt.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/reply.h"
#include "dataplane/http/request.h"
#include "dataplane/http/response.h"
#include "dataplane/http/tunnel.h"
#include "proto/base/digits.h"
#include "proto/base/log.h"

const struct server_settings *exchange_settings(const struct exchange *ex)
{
    return ex->snapshot ? &ex->snapshot->server : &exchange_worker(ex)->snapshot->server;
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
    ex->began_s = worker_now(w);
    http1_parser_init(&ex->request, false, &ex->head, w->snapshot->server.max_headers);
    c->exchange = ex;
    stats_add(&w->stats, STAT_downstream_requests_active, 1);
    return ex;
}

static void count(const struct exchange *ex, double now_s)
{
    const struct stats_exchange x = {
        .route_slot = ex->route_state ? ex->route_state->slot : STATS_NO_ROUTE,
        .method = ex->head.target_len > 0 ? method_label(ex->head.method) : METHOD_OTHER,
        .status = ex->status,
        .reason = ex->reason,
        .generation = ex->generation,
        .seconds = now_s - ex->began_s,
        .upstream_seconds = ex->upstream_s,
    };
    stats_request(&exchange_worker(ex)->stats, &x);
}

static void write_log(const struct exchange *ex, double now_s)
{
    struct worker *w = exchange_worker(ex);
    const struct buffer *b = ex->client->in;
    const struct head *h = &ex->head;
    struct access_record record = {
        .time = ex->wall_s,
        .request_id = {ex->request_id, ex->request_id_len},
        .client = {ex->client_ip, ex->client_ip_len},
        .method = h->target_len > 0 ? head_method(h, b) : (struct view){NULL, 0},
        .host = head_value(h, b, FIELD_HOST),
        .path = head_view(b, h->target_at, h->target_len),
        .protocol = h->bytes == 0 || h->major != 1 ? (struct view){NULL, 0}
                    : h->minor                     ? (struct view){"HTTP/1.1", 8}
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
        .duration_s = now_s - ex->began_s,
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
    struct worker *w = exchange_worker(ex);
    if (log_ring_is_off(w->log))
        return false;
    return w->log_share == UINT64_MAX || ex->reason != R_SERVED || ex->status >= 400 ||
           worker_random(w) < w->log_share;
}

void exchange_let_go_of_snapshot(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
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
    list_push_front(&exchange_worker(ex)->spare_exchanges, &ex->link);
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
bool exchange_may_skip_body(const struct exchange *ex)
{
    const struct http1_parser *p = &ex->request;
    return ex->keep_client && !ex->client->ended && !ex->head.at[FIELD_EXPECT] &&
           (ex->request_state == REQ_BODY || ex->request_state == REQ_ABANDONED) &&
           (p->framing != FRAMING_LENGTH || p->left <= SKIP_MAX_BYTES);
}

void exchange_skip_body(struct exchange *ex)
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

/* Closing with bytes of the client's unread, or reset by some that come later, the kernel forgets
 * what it has not sent yet (RFC 9112 9.6). */
static bool may_be_destroyed(const struct exchange *ex)
{
    const struct buffer *in = ex->client->in;
    return !ex->tunnel && (in->parsed < in->used || ex->body_out > SURELY_SENT_BYTES);
}

void exchange_finish(struct exchange *ex)
{
    struct downstream *c = ex->client;
    bool all_read = ex->request_state == REQ_DONE;
    bool keep = ex->keep_client && all_read, skip = exchange_may_skip_body(ex);
    bool at_ease = all_read && !may_be_destroyed(ex);
    if (ex->upstream) {
        bool clean = all_read && relay_is_empty(&ex->to_upstream) && ex->answer.keep_alive;
        upstream_release(&ex->upstream, clean);
    }
    if (skip) {
        account(ex);
        ex->request_state = REQ_UNWANTED;
        ex->skip_left = SKIP_MAX_BYTES;
        exchange_skip_body(ex);
        return;
    }
    end(ex);
    if (keep)
        downstream_next(c);
    else if (at_ease)
        downstream_end(c);
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
    if (ex->request_state != REQ_UNWANTED) { /* else it has got its answer */
        ex->reason = R_CLIENT_CLOSED;
        if (ex->status == 0)
            ex->status = (uint16_t)reason_status(R_CLIENT_CLOSED);
        attempt_end(ex, R_CLIENT_CLOSED);
    }
    end(ex);
    downstream_close(c, false);
}

void exchange_pass_trailers(struct exchange *ex, struct relay *relay, const struct http1_parser *p,
                            const struct buffer *from)
{
    struct worker *w = exchange_worker(ex);
    const struct head *h = p == &ex->request ? &ex->head : NULL; /* the answer's is gone */
    if (p->framing != FRAMING_CHUNKED || !relay->chunked || http1_trailers(p)->count == 0 ||
        (!h && ex->trailers_named))
        return;
    const struct edits *edits = h ? &ex->route->request_edits : &ex->route->response_edits;
    size_t len =
        forward_trailers(http1_trailers(p), from, h, edits, w->target_scratch, w->scratch_bytes);
    relay_put_trailers(relay, w->target_scratch, len, &w->buffers);
}

/* ---- the client's end ---- */

bool exchange_client_is_full(const struct exchange *ex)
{
    return ex->response_state != RES_NONE && !relay_is_empty(&ex->to_client);
}

void exchange_rest_client(struct exchange *ex)
{
    struct downstream *c = ex->client;
    if (exchange_client_is_full(ex))
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
    digits_hex(ex->request_id, worker_random(exchange_worker(ex)));
    digits_hex(ex->request_id + 16, worker_random(exchange_worker(ex)));
    ex->request_id_len = 32;
}

void exchange_adopt(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
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

enum io_status exchange_flush_client(struct exchange *ex, const struct buffer *source)
{
    struct worker *w = exchange_worker(ex);
    uint64_t before = ex->to_client.sent_bytes;
    enum io_status status = relay_flush(&ex->to_client, &ex->client->io, source, &w->buffers);
    stats_add(&w->stats, STAT_sent_bytes_total, ex->to_client.sent_bytes - before);
    return status;
}

static void flush_own(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct worker *w = c->worker;
    ex->to_client.ends = !ex->keep_client;
    switch (exchange_flush_client(ex, NULL)) {
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
    if (status == PARSE_BAD || (ex->request_state != REQ_DONE && !exchange_may_skip_body(ex)))
        ex->keep_client = false;
}

void exchange_answer(struct exchange *ex, enum reason r, const char *detail)
{
    struct worker *w = exchange_worker(ex);
    admit_cancel(ex);
    if (!ex->snapshot)
        exchange_adopt(ex);
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

/* ---- the client's socket and time ---- */

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
    } else if (c->ended && !exchange_client_is_full(ex)) {
        give_up_on_client(ex);
    } else if (ex->response_state == RES_NONE) {
        request_refuse_body(ex, R_CLIENT_TIMEOUT, "the body stopped coming");
    } else {
        exchange_cut(ex, R_CLIENT_TIMEOUT,
                     exchange_client_is_full(ex) ? "the client does not read"
                                                 : "the body stopped coming");
    }
}
