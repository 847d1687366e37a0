/* Hot path: no allocation, lock or log line; no system call but upstream.c's and the relay's. */
#include "dataplane/http/attempt.h"

#include <errno.h>

#include "dataplane/http/forward.h"
#include "dataplane/http/request.h"
#include "dataplane/http/tunnel.h"
#include "dataplane/route/balancer.h"

/* Retries that a worker may have under way however little else it does. */
#define RETRIES_ALWAYS 3

/* ---- its outcome ---- */

static uint64_t now_ms(const struct exchange *ex)
{
    return (uint64_t)(worker_now(exchange_worker(ex)) * 1000);
}

/* Of the route's timeout. */
static double left_s(const struct exchange *ex)
{
    return ex->started_s + ex->route->timeout_ms / 1000.0 - worker_now(exchange_worker(ex));
}

/* A breaker of the route has changed its state: the control thread tells it and calls the roster.
 */
static void note_breaker(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    atomic_store_explicit(&ex->route_state->stirred, true, memory_order_release);
    w->tell_control(w->control);
}

/* The breaker's permit goes back, once. */
static void report(struct exchange *ex, enum verdict verdict, enum reason why)
{
    struct target_state *s = ex->target_state;
    if (ex->permit == 0)
        return;
    unsigned status = why == R_SERVED ? ex->upstream_status : 0;
    if (breaker_report(s->breaker, ex->route->breaker, s->route->breakers_open, ex->permit, verdict,
                       why, status, now_ms(ex)))
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

/* `why` is R_SERVED when it was answered. */
static void settle(struct exchange *ex, enum verdict verdict, enum reason why)
{
    if (!ex->target_state)
        return;
    if (ex->connected_s > 0 && ex->response_state != RES_DONE) /* else it was set then */
        ex->upstream_s = worker_now(exchange_worker(ex)) - ex->attempt_s;
    stats_attempt(&exchange_worker(ex)->stats, ex->target_state->slot, verdict == VERDICT_BAD);
    report(ex, verdict, why);
    balancer_done(ex->route, ex->target, ex->target_state, now_ms(ex));
    if (ex->tunnel)
        target_unhold(&ex->target_state);
    ex->last_target = ex->target;
    ex->target = NULL;
    ex->target_state = NULL;
}

void attempt_end(struct exchange *ex, enum reason why)
{
    settle(ex, why == R_SERVED ? verdict_on_answer(ex) : verdict_on_reason(why), why);
}

/* The breaker hears of it before the client does: whoever has seen an answer and asks again,
 * perhaps by another worker, meets the state that it led to. */
void attempt_answered(struct exchange *ex)
{
    ex->response_state = RES_DONE;
    ex->upstream_s = worker_now(exchange_worker(ex)) - ex->attempt_s;
    report(ex, verdict_on_answer(ex), R_SERVED);
}

void attempt_proved(struct exchange *ex)
{
    if (UNLIKELY(ex->permit & BREAKER_PROBE))
        report(ex, verdict_on_answer(ex), R_SERVED);
}

void attempt_granted(struct exchange *ex)
{
    report(ex, VERDICT_GOOD, R_SERVED);
}

/* ---- begin ---- */

/* Nobody can be asked. A failed attempt has the better reason. */
static void give_up(struct exchange *ex, uint64_t retry_ms)
{
    ex->retry_after_s = (uint32_t)MIN((retry_ms + 999) / 1000, UINT32_MAX);
    if (ex->attempts > 0)
        exchange_answer(ex, ex->reason, ex->detail);
    else
        exchange_answer(ex, retry_ms > 0 ? R_BREAKER_OPEN : R_NO_ENDPOINT, NULL);
}

void attempt_start(struct exchange *ex)
{
    const struct route *route = ex->route;
    struct worker *w = exchange_worker(ex);
    struct pick pick = {.now_ms = now_ms(ex),
                        .client = (const uint8_t *)&ex->ip,
                        .client_len = sizeof(ex->ip),
                        .avoid = ex->last_target};
    ex->target = balancer_pick(route, &pick);
    if (pick.moved)
        note_breaker(ex);
    if (!ex->target) {
        if (pick.retry_ms > 0)
            ex->breaker_said = "open";
        give_up(ex, pick.retry_ms);
        return;
    }
    ex->reason = R_SERVED;
    ex->detail = NULL;
    ex->permit = pick.permit;
    if (pick.permit)
        ex->breaker_said = pick.permit & BREAKER_PROBE ? "half_open" : "closed";
    ex->target_state = ex->target->state;
    stats_expect_attempt(&w->stats, ex->route_state->slot, ex->target_state->slot);
    ex->endpoint = ex->target->endpoint;
    ex->attempt_s = worker_now(w);
    ex->connected_s = 0;
    /* A kept connection that failed may have gone stale together with all others: the next attempt
     * makes a new one. */
    bool fresh = ex->attempts++ > 0;
    ex->upstream = upstream_open(w, ex->target->endpoint, ex, route->connect_timeout_ms, fresh);
    if (!ex->upstream &&
        (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
        attempt_end(ex, R_OVERLOAD); /* our own lack, not the backend's */
        exchange_answer(ex, R_OVERLOAD, "no descriptor or memory for a connection to the backend");
    } else if (!ex->upstream) {
        attempt_failed(ex, R_CONNECT_FAILED, NULL);
    } else if (ex->upstream->state == UP_BUSY) {
        uint32_t slot = ex->target_state->slot;
        attempt_connected(ex); /* may end it */
        stats_connection(&w->stats, slot, CONNECTION_REUSED);
    } else {
        ex->where_stale = true;
    }
}

void attempt_connected(struct exchange *ex)
{
    struct worker *w = exchange_worker(ex);
    struct upstream *u = ex->upstream;
    double now = worker_now(w), left = left_s(ex);
    ex->connected_s = now;
    if (!u->reused) {
        ex->connect_s = now - ex->attempt_s;
        stats_connection(&w->stats, ex->target_state->slot, CONNECTION_OPENED);
    }
    if (ex->where_stale || ex->attempts > 1)
        (void)request_find_where(ex); /* it was right before and is right again */
    wheel_set(&w->wheel, &u->deadline, now, left > 0 ? (uint64_t)(left * 1000) : 0);
    http1_parser_init(&ex->response, true, &ex->answer, HEAD_MAX_FIELDS);
    relay_reset(&ex->to_upstream, &w->buffers);
    ex->to_upstream.chunked = ex->head.framing == FRAMING_CHUNKED;
    size_t len = forward_request(ex);
    if (len == 0) {
        attempt_end(ex, R_HEAD_TOO_LARGE);
        exchange_answer(ex, R_HEAD_TOO_LARGE, NULL);
        return;
    }
    relay_put_head(&ex->to_upstream, w->scratch, len);
    if (ex->request_state == REQ_DONE && ex->attempts > 1) {
        relay_put_piece(&ex->to_upstream, ex->replay_at, ex->replay_len, true);
        exchange_pass_trailers(ex, &ex->to_upstream, &ex->request, ex->client->in);
    }
    request_pump(ex);
}

/* ---- failure ---- */

static bool is_idempotent(unsigned method) /* RFC 9110 9.2.2 */
{
    return method == HTTP_GET || method == HTTP_HEAD || method == HTTP_OPTIONS ||
           method == HTTP_TRACE || method == HTTP_PUT || method == HTTP_DELETE;
}

/* Retries must not multiply an outage: at most a fifth of what is under way, but a few always. */
static bool budget_allows(const struct exchange *ex)
{
    const struct worker *w = exchange_worker(ex);
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
    if (!ex->replayable || left_s(ex) <= 0)
        return false;
    if (!is_stale(ex, why) &&
        (ex->attempts > ex->route->retries + ex->met_stale || !budget_allows(ex)))
        return false;
    return why == R_CONNECT_FAILED || why == R_CONNECT_TIMEOUT ||
           (why == R_RESET && ex->to_upstream.sent_bytes == 0) ||
           (why != R_UPSTREAM_TIMEOUT && is_idempotent(ex->head.method));
}

void attempt_failed(struct exchange *ex, enum reason why, const char *detail)
{
    struct worker *w = exchange_worker(ex);
    if (ex->response_state != RES_NONE) {
        exchange_cut(ex, why, detail);
        return;
    }
    bool stale = is_stale(ex, why), retry = may_retry(ex, why);
    /* No answer to a request that the client has not finished sending, and all of it that there is
     * has been passed on. */
    bool awaits_client = why == R_UPSTREAM_TIMEOUT && ex->request_state == REQ_BODY &&
                         relay_is_empty(&ex->to_upstream);
    if (why == R_CONNECT_FAILED || why == R_CONNECT_TIMEOUT) {
        stats_add(&w->stats, STAT_upstream_connect_failures_total, 1);
        stats_connection(&w->stats, ex->target_state->slot, CONNECTION_FAILED);
    }
    if (ex->upstream)
        upstream_close(&ex->upstream);
    settle(ex, (stale && retry) || awaits_client ? VERDICT_NONE : verdict_on_reason(why), why);
    if (!retry) {
        exchange_answer(ex, why, detail);
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
    attempt_start(ex);
}

void attempt_timeout(struct exchange *ex)
{
    bool connecting = ex->upstream->state == UP_CONNECTING;
    if (ex->tunnel) {
        tunnel_timeout(ex);
        return;
    }
    attempt_failed(ex, connecting ? R_CONNECT_TIMEOUT : R_UPSTREAM_TIMEOUT, NULL);
}
