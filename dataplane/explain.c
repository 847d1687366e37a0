#include "dataplane/explain.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/http/decide.h"
#include "dataplane/http/forward.h"
#include "dataplane/http/http1_check.h"
#include "dataplane/http/request.h"
#include "dataplane/http/tunnel.h"
#include "dataplane/route/balancer.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#define NS_PER_MS 1000000u
#define INPUT_MAX_BYTES (64u << 20)

/* An exchange that is never begun: its client, its worker's scratch and its buffer are stand-ins,
 * so that what it would do can be asked of the functions that would do it. */
struct rehearsal {
    struct worker worker;
    struct downstream client;
    struct exchange ex;
    const struct snapshot *snapshot; /* borrowed */
    struct arena *arena;             /* owned: the answer */
    Gwp__Explanation *out;
};

static void *zeroed(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory)
        log_fatal("explain", "out of memory");
    return memory;
}

static char *text_of(struct rehearsal *x, struct view v)
{
    return arena_copy(x->arena, v);
}

static Gwp__Place *place_of(struct rehearsal *x, uint32_t line)
{
    Gwp__Place *p = arena_alloc(x->arena, sizeof(*p));
    gwp__place__init(p);
    p->line = line;
    return p;
}

/* ---- setting the stage ---- */

static enum reason take_client(struct rehearsal *x, const char *text)
{
    struct ip ip;
    struct downstream *c = &x->client;
    if (!ip_parse(view_of(*text ? text : "127.0.0.1"), &ip)) {
        x->ex.detail = "the client's address is none";
        return R_BAD_REQUEST;
    }
    c->family = ip_is_v4(ip) ? AF_INET : AF_INET6;
    char shown[INET6_ADDRSTRLEN];
    ip_format(ip, shown);
    inet_pton(c->family, shown, c->ip);
    x->ex.ip = ip;
    x->ex.client_ip_len = (uint8_t)downstream_ip(c, x->ex.client_ip);
    return R_SERVED;
}

static struct rehearsal *rehearsal_new(const struct snapshot *s, const Gwp__Explain *q)
{
    struct rehearsal *x = zeroed(sizeof(*x));
    struct exchange *ex = &x->ex;
    x->snapshot = s;
    x->arena = arena_new(16 * 1024);
    x->worker.snapshot = (struct snapshot *)s;
    x->worker.now_s = (double)clock_us() / 1e6;
    x->worker.scratch_bytes = s->server.max_header_bytes + RESPONSE_HEAD_MAX_BYTES + q->head.len;
    x->worker.scratch = zeroed(x->worker.scratch_bytes);
    x->worker.target_scratch = zeroed(x->worker.scratch_bytes);
    x->client.worker = &x->worker;
    x->client.in = zeroed(sizeof(struct buffer) + q->head.len + 1);
    x->client.in->size = x->client.in->used = (uint32_t)q->head.len;
    if (q->head.len > 0)
        memcpy(x->client.in->data, q->head.data, q->head.len);
    ex->client = &x->client;
    ex->snapshot = (struct snapshot *)s;
    ex->request_id_len =
        (uint8_t)snprintf(ex->request_id, sizeof(ex->request_id), "made-for-each-request");
    http1_parser_init(&ex->request, false, &ex->head, s->server.max_headers);
    x->out = arena_alloc(x->arena, sizeof(*x->out));
    gwp__explanation__init(x->out);
    return x;
}

static void rehearsal_free(struct rehearsal **xp)
{
    struct rehearsal *x = *xp;
    *xp = NULL;
    free(x->client.in);
    free(x->worker.scratch);
    free(x->worker.target_scratch);
    arena_free(&x->arena);
    free(x);
}

/* ---- deciding ---- */

static enum reason read_head(struct rehearsal *x)
{
    struct exchange *ex = &x->ex;
    enum reason r;
    switch (http1_parse_head(&ex->request, x->client.in)) {
    case PARSE_HEAD:
        if (ex->head.bytes > x->snapshot->server.max_header_bytes)
            return R_HEAD_TOO_LARGE;
        r = http1_check_request(&ex->head, x->client.in, &ex->detail);
        return r == R_SERVED ? http1_count_forwards(&ex->head, x->client.in, &ex->detail) : r;
    case PARSE_BAD:
        ex->detail = ex->request.detail;
        return ex->request.reason;
    default:
        ex->detail = "the head is not complete: it ends with an empty line";
        return R_BAD_REQUEST;
    }
}

static void tell_limit(struct rehearsal *x, const struct limit_verdict *v, struct view key)
{
    static const char *const keys[] = {"ip", "user", "api_key"};
    const struct limit_policy *p = x->ex.route->limit;
    Gwp__Explanation__Limit *l = arena_alloc(x->arena, sizeof(*l));
    gwp__explanation__limit__init(l);
    l->place = place_of(x, p->line);
    l->algorithm = (char *)(p->algorithm == LIMITER_BUCKET ? "token_bucket" : "sliding_window");
    l->key_by = (char *)keys[p->key_by];
    l->keyed_by_header = key.len > 0;
    l->key = text_of(x, key.len > 0 ? key : (struct view){x->ex.client_ip, x->ex.client_ip_len});
    l->allowed = v->allowed;
    l->observe = p->observe;
    l->remaining = v->remaining;
    l->quota = p->quota;
    l->window_s = p->window_s;
    l->retry_ms = (v->retry_ns + NS_PER_MS - 1) / NS_PER_MS;
    l->reset_ms = (v->reset_ns + NS_PER_MS - 1) / NS_PER_MS;
    x->out->limit = l;
}

static enum reason ask_limit(struct rehearsal *x)
{
    struct exchange *ex = &x->ex;
    const struct limit_policy *p = ex->route->limit;
    if (!p)
        return R_SERVED;
    struct limit_subject who = decide_limit_subject(p, &ex->head, x->client.in, ex->ip);
    struct limit_verdict v = limiter_peek(p, limiter_key(p, &who), clock_us() * 1000);
    tell_limit(x, &v, who.text);
    return v.allowed || p->observe ? R_SERVED : R_LIMITED;
}

static enum reason choose(struct rehearsal *x)
{
    struct exchange *ex = &x->ex;
    struct pick pick = {
        .now_ms = clock_ms(), .client = (const uint8_t *)&ex->ip, .client_len = sizeof(ex->ip)};
    ex->target = balancer_foresee(ex->route, &pick);
    x->out->retry_ms = ex->target ? 0 : pick.retry_ms;
    if (ex->target)
        return R_SERVED;
    return pick.retry_ms > 0 ? R_BREAKER_OPEN : R_NO_ENDPOINT;
}

/* As on_head() of exchange.c, step by step. */
static enum reason decide(struct rehearsal *x, const char *client)
{
    struct exchange *ex = &x->ex;
    enum reason r = take_client(x, client);
    if (r == R_SERVED)
        r = read_head(x);
    if (r != R_SERVED)
        return r;
    ex->peer_trusted = decide_client(x->snapshot, &ex->head, x->client.in, &ex->ip);
    if (ex->peer_trusted)
        ex->client_ip_len = (uint8_t)ip_format(ex->ip, ex->client_ip);
    ex->upgrade = tunnel_may_upgrade(&ex->head, x->client.in);
    ex->trace = (uint8_t)trace_check(&ex->head, x->client.in);
    if (ex->trace == TRACE_NONE && x->snapshot->server.makes_traces) {
        trace_make((const uint64_t[]){1, 1, 1}, ex->traceparent); /* each request has its own */
        ex->trace = TRACE_MADE;
    }
    r = request_find_where(ex);
    if (r == R_SERVED)
        r = decide_route(x->snapshot, &ex->head, &ex->where, ex->host, &ex->route, &ex->allowed);
    if (r == R_SERVED)
        r = ask_limit(x);
    return r == R_SERVED ? choose(x) : r;
}

/* ---- telling ---- */

static uint64_t wall_of(uint64_t monotonic_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t wall = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    return monotonic_ms > 0 ? wall + monotonic_ms - clock_ms() : 0;
}

static Gwp__Explanation__Candidate *tell_candidate(struct rehearsal *x, const struct target *t)
{
    const struct route *route = x->ex.route;
    const struct target_state *s = t->state;
    struct breaker_view breaker = {0};
    struct pick pick = {.now_ms = clock_ms(), .is_foreseen = true};
    Gwp__Explanation__Candidate *c = arena_alloc(x->arena, sizeof(*c));
    gwp__explanation__candidate__init(c);
    if (route->breaker && s->breaker)
        breaker_look(s->breaker, &breaker);
    c->target_id = s->id;
    c->url = text_of(x, t->url);
    c->address = t->endpoint->text;
    c->place = place_of(x, t->line);
    c->weight = roster_weight(t);
    c->active = atomic_load(&s->active);
    c->max_connections = t->max_connections;
    c->unhealthy = atomic_load(&s->unhealthy);
    c->draining = atomic_load(&s->draining);
    c->starting = roster_ramp(route, t, pick.now_ms) < 1u << 16;
    c->breaker_state = breaker.state;
    c->breaker_until_ms = wall_of(breaker.until_ms);
    c->usable = balancer_admit(route, t, &pick);
    c->chosen = t == x->ex.target;
    return c;
}

static void tell_route(struct rehearsal *x)
{
    static const char *const algorithms[] = {"round_robin", "least_conn", "weighted", "ip_hash"};
    const struct route *route = x->ex.route;
    Gwp__Explanation *out = x->out;
    out->route = text_of(x, route->name);
    out->place = place_of(x, route->line);
    out->algorithm = (char *)algorithms[route->algorithm];
    out->panic = atomic_load(&route->roster->panic);
    if (route->breaker)
        out->breaker_place = place_of(x, route->breaker->line);
    out->candidates = arena_array(x->arena, route->target_count, sizeof(*out->candidates));
    for (uint32_t i = 0; i < route->target_count; i++)
        out->candidates[out->n_candidates++] = tell_candidate(x, &route->targets[i]);
}

static void tell(struct rehearsal *x, enum reason r)
{
    struct exchange *ex = &x->ex;
    Gwp__Explanation *out = x->out;
    size_t len = r == R_SERVED ? forward_request(ex) : 0;
    if (r == R_SERVED && len == 0)
        r = R_HEAD_TOO_LARGE;
    out->generation = x->snapshot->generation;
    out->source = text_of(x, x->snapshot->source);
    out->reason = (char *)reason_word(r);
    out->status = r == R_SERVED ? 0 : reason_status(r);
    out->detail = (char *)(ex->detail ? ex->detail : r == R_SERVED ? "" : reason_message(r));
    out->client = text_of(x, (struct view){ex->client_ip, ex->client_ip_len});
    out->peer_trusted = ex->peer_trusted;
    out->host = text_of(x, ex->host);
    out->path = text_of(x, ex->where.path);
    out->forwarded = (ProtobufCBinaryData){len, (uint8_t *)x->worker.scratch};
    if (ex->route)
        tell_route(x);
}

void explain(const struct snapshot *s, const Gwp__Explain *question, explain_fn *answer,
             void *owner)
{
    struct rehearsal *x = rehearsal_new(s, question);
    tell(x, decide(x, question->client));
    x->out->id = question->id;
    answer(owner, x->out);
    rehearsal_free(&x);
}

/* ---- once ---- */

static uint8_t *read_part(FILE *in, uint32_t *len)
{
    if (fread(len, sizeof(*len), 1, in) != 1 || *len > INPUT_MAX_BYTES)
        return NULL;
    uint8_t *part = zeroed(*len + 1);
    if (fread(part, 1, *len, in) == *len)
        return part;
    free(part);
    return NULL;
}

static void write_answer(void *owner, const Gwp__Explanation *answer)
{
    size_t len = gwp__explanation__get_packed_size(answer);
    uint8_t *packed = zeroed(len + 1);
    gwp__explanation__pack(answer, packed);
    if (fwrite(packed, 1, len, owner) != len || fflush(owner) != 0)
        log_error("explain", "the answer could not be written");
    free(packed);
}

static int explain_parts(const Gwp__Snapshot *message, const Gwp__Explain *question)
{
    struct err err;
    struct registry *registry = registry_new();
    struct snapshot *s = snapshot_compile(message, registry, &err);
    if (s) {
        snapshot_enter(s, clock_ms());
        explain(s, question, write_answer, stdout);
    } else {
        log_error("explain", "%s", err.text);
    }
    int result = s ? EXIT_SUCCESS : EXIT_FAILURE;
    snapshot_free(&s, registry);
    registry_free(&registry);
    return result;
}

int explain_once(void)
{
    uint32_t lens[2] = {0, 0};
    uint8_t *parts[2] = {NULL, NULL};
    for (size_t i = 0; i < 2; i++)
        parts[i] = read_part(stdin, &lens[i]);
    Gwp__Snapshot *message = parts[0] ? gwp__snapshot__unpack(NULL, lens[0], parts[0]) : NULL;
    Gwp__Explain *question = parts[1] ? gwp__explain__unpack(NULL, lens[1], parts[1]) : NULL;
    int result = EXIT_FAILURE;
    if (message && question)
        result = explain_parts(message, question);
    else
        log_error("explain", "standard input is not a snapshot and a question");
    if (message)
        gwp__snapshot__free_unpacked(message, NULL);
    if (question)
        gwp__explain__free_unpacked(question, NULL);
    free(parts[0]);
    free(parts[1]);
    return result;
}
