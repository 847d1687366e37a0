/* Hot path: no allocation, lock or log line; no system call but the reads' and the relay's. */
#include "dataplane/http/response.h"

#include "dataplane/http/attempt.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/tunnel.h"

/* Does its Connection name more than the connection's end? Which trailers are named cannot be told
 * any more when they come. */
static bool names_fields(const struct head *h, const struct buffer *b)
{
    static const struct view close = {"close", 5}, keep = {"keep-alive", 10};
    for (unsigned i = 0; h->at[FIELD_CONNECTION] && i < h->field_count; i++) {
        struct view value = field_value(b, &h->fields[i]);
        if (h->fields[i].id == FIELD_CONNECTION && !view_equal_nocase(value, close) &&
            !view_equal_nocase(value, keep))
            return true;
    }
    return false;
}

/* Is it an answer in place of the rest of the request, so that the connection will end behind it?
 * Then the client is told (RFC 9110 10.1.1). Others may go on beside a long upload and end after
 * it. */
static bool ends_early(const struct exchange *ex)
{
    bool unasked = ex->head.at[FIELD_EXPECT] && ex->interim_bytes == 0;
    return ex->request_state != REQ_DONE && (unasked || ex->answer.status >= 400) &&
           !exchange_may_skip_body(ex);
}

static void start_response(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    struct head *h = &ex->answer;
    ex->upstream_status = h->status;
    stats_expect_end(&w->stats, ex->route_state->slot, method_label(ex->head.method));
    bool open_ended = h->framing == FRAMING_CHUNKED || h->framing == FRAMING_UNTIL_CLOSE;
    if (open_ended && ex->client_http10)
        ex->keep_client = false;
    if (w->draining || downstream_is_at_end(ex->client) || ends_early(ex))
        ex->keep_client = false;
    ex->to_client.chunked = open_ended && !ex->client_http10;
    ex->trailers_named = h->framing == FRAMING_CHUNKED && names_fields(h, ex->upstream->in);
    http1_parse_start_body(&ex->response, (enum framing)h->framing, h->content_length);
    size_t len = forward_response(ex);
    if (len == 0) {
        attempt_failed(ex, R_BAD_RESPONSE, "the head is too large");
        return;
    }
    ex->status = h->status;
    ex->response_state = RES_BODY;
    relay_put_head(&ex->to_client, w->scratch, len);
    response_pump(ex);
}

/* 1xx: passed on to those who know them, then the head that counts is awaited (RFC 9110 15.2). All
 * heads of an answer together are bounded like one: who goes on with interim ones never answers. */
static bool pass_interim(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    struct buffer *in = ex->upstream->in;
    if (ex->answer.status == 101) {
        bool asked = ex->upgrade && ex->answer.at[FIELD_UPGRADE];
        if (asked && ex->request_state == REQ_DONE && relay_is_empty(&ex->to_upstream))
            tunnel_start(ex);
        else if (asked)
            attempt_failed(ex, R_BAD_RESPONSE, "a change of protocol before the request's end");
        else
            attempt_failed(ex, R_BAD_RESPONSE, "an unasked change of protocol");
        return false;
    }
    ex->interim_bytes += ex->answer.bytes;
    if (ex->interim_bytes > RESPONSE_HEAD_MAX_BYTES) {
        attempt_failed(ex, R_BAD_RESPONSE, "too many interim answers");
        return false;
    }
    size_t len = ex->client_http10 ? 0 : forward_interim(ex);
    buffer_consume(in, in->parsed);
    http1_parser_init(&ex->response, true, &ex->answer, HEAD_MAX_FIELDS);
    if (len == 0 || !relay_is_empty(&ex->to_client))
        return true;
    ex->replayable = false; /* it reaches the client */
    relay_put_head(&ex->to_client, w->scratch, len);
    switch (exchange_flush_client(ex, NULL)) {
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
                attempt_failed(ex, R_BAD_RESPONSE, "the head is too large");
            else if (buffer_room(u->in) == 0)
                buffer_grow(&u->worker->buffers, &u->in, BUFFER_LARGE_BYTES);
            return;
        case PARSE_HEAD:
            break;
        default:
            attempt_failed(ex, R_BAD_RESPONSE, ex->response.detail);
            return;
        }
        if (http1_check_response(&ex->answer, u->in, ex->head.method, &ex->detail) != R_SERVED) {
            attempt_failed(ex, R_BAD_RESPONSE, ex->detail);
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
    attempt_proved(ex);
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
    struct worker *w = exchange_worker(ex);
    struct upstream *u = ex->upstream;
    attempt_proved(ex);
    transport_watch(&u->io, w->loop, transport_watched(&u->io) | EV_READ);
    wheel_set(&w->wheel, &u->deadline, worker_now(w), ex->response_idle_ms);
    if (ex->client->ended)
        exchange_rest_client(ex);
}

/* Malformed behind its head. As long as nothing of it has been sent, that can still be told by a
 * status; after that only by cutting it off. */
static void refuse(struct exchange *ex, const char *detail)
{
    if (!relay_head_is_unsent(&ex->to_client)) {
        exchange_cut(ex, R_BAD_RESPONSE, detail);
        return;
    }
    relay_reset(&ex->to_client, &exchange_worker(ex)->buffers);
    ex->response_state = RES_NONE;
    ex->status = ex->upstream_status = 0;
    ex->body_out = 0;
    attempt_failed(ex, R_BAD_RESPONSE, detail);
}

/* A body that has ended by its own framing, and something behind it: one of them is a lie. Of what
 * should have no body (HEAD, 204, 304) some backends send one; that is only thrown away. */
static bool has_too_much(const struct exchange *ex)
{
    const struct buffer *in = ex->upstream->in;
    return in->parsed < in->used && ex->response.framing != FRAMING_NONE;
}

static bool next_response_piece(struct exchange *ex, bool *starved)
{
    struct http1_parser *p = &ex->response;
    enum parse_status status = http1_parse_body(p, ex->upstream->in);
    if (status == PARSE_BAD) {
        refuse(ex, p->detail);
        return false;
    }
    if (status == PARSE_DONE && relay_head_is_unsent(&ex->to_client) && has_too_much(ex)) {
        refuse(ex, "bytes behind a complete answer");
        return false;
    }
    *starved = status == PARSE_AGAIN;
    ex->body_out += p->piece_len;
    if (status == PARSE_DONE)
        attempt_answered(ex);
    relay_put_piece(&ex->to_client, p->piece_at, p->piece_len, status == PARSE_DONE);
    if (status == PARSE_DONE)
        exchange_pass_trailers(ex, &ex->to_client, p, ex->upstream->in);
    return true;
}

void response_pump(struct exchange *ex)
{
    for (bool starved = false; !starved;) {
        if (ex->response_state == RES_BODY && relay_piece_is_gone(&ex->to_client) &&
            !next_response_piece(ex, &starved))
            return;
        ex->to_client.ends = ex->response_state == RES_DONE && !ex->keep_client;
        switch (exchange_flush_client(ex, ex->upstream->in)) {
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

/* The backend has closed: the end of a body that has no other, or a failure. */
static void on_upstream_end(struct exchange *ex)
{
    if (ex->tunnel) {
        tunnel_upstream_end(ex);
    } else if (ex->response_state == RES_BODY && ex->answer.framing == FRAMING_UNTIL_CLOSE) {
        attempt_answered(ex);
        relay_put_piece(&ex->to_client, 0, 0, true);
        response_pump(ex);
    } else if (ex->response_state == RES_NONE) {
        bool silent = !ex->upstream->in || ex->upstream->in->used == 0;
        attempt_failed(ex, silent ? R_RESET : R_BAD_RESPONSE,
                       "it closed before its answer was complete");
    } else {
        attempt_failed(ex, R_RESET, "it closed in the middle of its answer");
    }
}

void response_readable(struct exchange *ex)
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
            response_pump(ex);
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        on_upstream_end(ex);
        break;
    case IO_ERROR:
        attempt_failed(ex, R_RESET, "it reset the connection");
        break;
    }
}
