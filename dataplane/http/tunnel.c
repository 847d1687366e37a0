#include "dataplane/http/tunnel.h"

#include <sys/socket.h>

#include "dataplane/http/attempt.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/request.h"
#include "dataplane/http/response.h"

static bool is_http_protocol(struct view value)
{
    static const struct view h2c = {"h2c", 3}, h2 = {"h2", 2}, http = {"http/", 5};
    if (http1_has_token(value, h2c) || http1_has_token(value, h2))
        return true;
    for (size_t i = 0; i + http.len <= value.len; i++)
        if (strncasecmp(value.at + i, http.at, http.len) == 0)
            return true;
    return false;
}

bool tunnel_may_upgrade(const struct head *h, const struct buffer *b)
{
    static const struct view upgrade = {"upgrade", 7};
    return h->at[FIELD_UPGRADE] && !(h->repeated >> FIELD_UPGRADE & 1) && h->minor > 0 &&
           http1_lists_token(h, b, FIELD_CONNECTION, upgrade) &&
           !is_http_protocol(head_value(h, b, FIELD_UPGRADE));
}

void tunnel_start(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    size_t len = forward_switch(ex);
    if (len == 0) {
        attempt_failed(ex, R_BAD_RESPONSE, "the head is too large");
        return;
    }
    ex->upstream_status = ex->status = ex->answer.status;
    ex->keep_client = false;
    ex->answer.keep_alive = false;
    ex->replayable = false;
    endpoint_hold(ex->endpoint);
    target_hold(ex->target_state);
    ex->tunnel = true;
    ex->max_body_bytes = 0;
    attempt_granted(ex);
    exchange_let_go_of_snapshot(ex);
    ex->route = NULL;
    ex->target = ex->last_target = NULL;
    stats_add(&w->stats, STAT_upgrades_total, 1);
    stats_add(&w->stats, STAT_tunnels_active, 1);

    ex->request_state = REQ_BODY;
    ex->response_state = RES_BODY;
    ex->request.framing = FRAMING_UNTIL_CLOSE;
    ex->request.message_done = false;
    ex->to_upstream.chunked = false; /* as the request's body may have been */
    http1_parse_start_body(&ex->response, FRAMING_UNTIL_CLOSE, 0);
    relay_put_head(&ex->to_client, w->scratch, len);
    struct downstream *c = ex->client;
    response_pump(ex);
    /* That may have ended it; if not, the client may have sent something behind its request
     * already. */
    if (c->exchange == ex && c->state == DOWN_OPEN && ex->request_state == REQ_BODY)
        request_pump(ex);
}

void tunnel_await(struct exchange *ex)
{
    struct downstream *c = ex->client;
    struct upstream *u = ex->upstream;
    struct worker *w = c->worker;
    if (ex->request_state == REQ_BODY && relay_is_empty(&ex->to_upstream)) {
        /* It had ended its side before the tunnel began; what it sent behind its request goes
         * first. */
        if (downstream_is_at_end(c)) {
            tunnel_client_end(ex);
            return;
        }
        downstream_resume(c);
    }
    if (ex->response_state == RES_BODY && relay_is_empty(&ex->to_client)) {
        transport_watch(&u->io, w->loop, transport_watched(&u->io) | EV_READ);
        if (u->in && u->in->used == 0)
            buffer_give(&w->buffers, &u->in); /* thousands of quiet tunnels shall cost little */
    }
    wheel_pause(&c->deadline);
    wheel_set(&w->wheel, &u->deadline, worker_now(w), ex->response_idle_ms);
}

static void end_when_both_have(struct exchange *ex)
{
    if (ex->request_state != REQ_BODY && ex->response_state == RES_DONE)
        exchange_finish(ex);
    else
        wheel_set(&exchange_worker(ex)->wheel, &ex->upstream->deadline,
                  worker_now(exchange_worker(ex)), ex->response_idle_ms);
}

/* Nobody reads while a relay is not empty, so when an end is read everything before it has been
 * sent on. */
void tunnel_client_end(struct exchange *ex)
{
    ex->request_state = REQ_DONE;
    downstream_pause(ex->client);
    shutdown(transport_fd(&ex->upstream->io), SHUT_WR);
    end_when_both_have(ex);
}

void tunnel_upstream_end(struct exchange *ex)
{
    struct upstream *u = ex->upstream;
    attempt_answered(ex);
    transport_watch(&u->io, u->worker->loop, transport_watched(&u->io) & ~EV_READ);
    shutdown(transport_fd(&ex->client->io), SHUT_WR);
    end_when_both_have(ex);
}

void tunnel_timeout(struct exchange *ex)
{
    ex->reason = R_UPSTREAM_TIMEOUT;
    ex->detail = "the upgraded connection was idle too long";
    ex->request_state = REQ_DONE;
    exchange_finish(ex);
}

void tunnel_end(struct exchange *ex)
{
    endpoint_unhold(&ex->endpoint);
    stats_sub(&exchange_worker(ex)->stats, STAT_tunnels_active, 1);
}
