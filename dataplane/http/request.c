/* Hot path: no allocation, lock or log line; no system call but the relay's. */
#include "dataplane/http/request.h"

#include "dataplane/http/admit.h"
#include "dataplane/http/attempt.h"
#include "dataplane/http/decide.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/tunnel.h"

/* Room for body bytes behind the head: a read of less would not be worth its system call. */
#define BODY_ROOM_BYTES (16u * 1024)

/* ---- its head ---- */

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

enum reason request_find_where(struct exchange *ex)
{
    ex->where_stale = false;
    return decide_where(&ex->head, ex->client->in, exchange_worker(ex)->target_scratch, &ex->where,
                        &ex->host, &ex->detail);
}

static enum reason find_route(struct exchange *ex)
{
    enum reason r =
        decide_route(ex->snapshot, &ex->head, &ex->where, ex->host, &ex->route, &ex->allowed);
    if (ex->route) {
        PREFETCH(ex->route->targets);
        PREFETCH(ex->route->state);
        ex->route_state = ex->route->state;
        ex->max_body_bytes = ex->route->max_body_bytes;
        ex->response_idle_ms = ex->route->response_idle_timeout_ms;
    }
    return r;
}

/* Who the client is: the peer, or whom a trusted peer names. */
static void find_client(struct exchange *ex)
{
    if (ex->client->family == AF_UNIX ||
        !decide_client(ex->snapshot, &ex->head, ex->client->in, &ex->ip))
        return;
    ex->peer_trusted = true;
    ex->client_ip_len = (uint8_t)ip_format(ex->ip, ex->client_ip);
}

static void find_trace(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    ex->trace = (uint8_t)trace_check(&ex->head, ex->client->in);
    if (ex->trace != TRACE_NONE || !ex->snapshot->server.makes_traces)
        return;
    const uint64_t random[3] = {worker_random(w), worker_random(w), worker_random(w)};
    trace_make(random, ex->traceparent);
    ex->trace = TRACE_MADE;
}

/* The head is in order: what it says of the connection, and of the body that follows. */
static void take_head(struct exchange *ex)
{
    const struct downstream *c = ex->client;
    const struct head *h = &ex->head;
    uint32_t most = ex->snapshot->server.max_requests_per_connection;
    find_client(ex);
    ex->client_http10 = h->minor == 0;
    ex->keep_client = h->keep_alive && !c->worker->draining && (most == 0 || c->requests < most);
    http1_parse_start_body(&ex->request, (enum framing)h->framing, h->content_length);
    ex->request_state = ex->request.message_done ? REQ_DONE : REQ_BODY;
    ex->upgrade = tunnel_may_upgrade(h, c->in);
    find_trace(ex);
}

/* All that can be said about a request by its head alone. */
static enum reason judge(struct exchange *ex)
{
    struct buffer *in = ex->client->in;
    enum reason r;
    if (ex->head.bytes > ex->snapshot->server.max_header_bytes)
        return too_large(ex);
    if ((r = http1_check_request(&ex->head, in, &ex->detail)) != R_SERVED)
        return r;
    take_head(ex);
    if ((r = http1_count_forwards(&ex->head, in, &ex->detail)) != R_SERVED ||
        (r = request_find_where(ex)) != R_SERVED)
        return r;
    return find_route(ex);
}

static void on_head(struct exchange *ex)
{
    struct buffer *in = ex->client->in;
    exchange_adopt(ex);
    in->keep = in->parsed;
    enum reason r = judge(ex);
    if (r == R_SERVED && !admit_request(ex, &r)) {
        exchange_rest_client(ex);
        ex->where_stale = true; /* what comes meanwhile may move it */
        return;
    }
    request_admitted(ex, r);
}

void request_admitted(struct exchange *ex, enum reason r)
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

void request_readable(struct exchange *ex)
{
    if (ex->request_state == REQ_HEAD)
        parse_head(ex);
    else if (ex->request_state == REQ_BODY && ex->response_state != RES_OWN && ex->upstream &&
             ex->upstream->state == UP_BUSY)
        request_pump(ex);
    else if (ex->request_state == REQ_UNWANTED)
        exchange_skip_body(ex);
}

/* ---- its body ---- */

void request_refuse_body(struct exchange *ex, enum reason r, const char *detail)
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
        request_refuse_body(ex, R_BAD_REQUEST, p->detail);
        return false;
    }
    ex->body_in += p->piece_len;
    if (ex->max_body_bytes > 0 && ex->body_in > ex->max_body_bytes) {
        request_refuse_body(ex, R_BODY_TOO_LARGE, NULL);
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
    return ex->response_state <= RES_BODY && !exchange_client_is_full(ex) ? EV_READ : 0;
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
    if (!exchange_client_is_full(ex))
        wheel_set(&w->wheel, &c->deadline, worker_now(w), exchange_settings(ex)->read_timeout_ms);
}

void request_pump(struct exchange *ex)
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
