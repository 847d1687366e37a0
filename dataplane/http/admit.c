#include "dataplane/http/admit.h"

#include "dataplane/http/decide.h"
#include "dataplane/http/request.h"
#include "dataplane/route/limit_redis.h"

#define NS_PER_S 1000000000u

static const struct edits no_edits;

/* ---- asking ---- */

/* Rounded up; a microsecond more than whole ones is rounding too. */
static uint64_t whole_seconds(uint64_t ns)
{
    return (ns + NS_PER_S - 1 - 1000) / NS_PER_S;
}

static uint64_t now_ns(const struct exchange *ex)
{
    return (uint64_t)(worker_now(exchange_worker(ex)) * NS_PER_S);
}

static void count(struct exchange *ex, enum decision which)
{
    ex->limit_said = decision_word(which);
    stats_decision(&exchange_worker(ex)->stats, ex->route_state->slot, which);
}

/* What a verdict means: of this process, of Redis, or of a share. */
static enum reason go_by(struct exchange *ex, const struct limit_subject *who,
                         const struct limit_verdict *v, enum decision allowed,
                         enum decision limited)
{
    struct stats *stats = &exchange_worker(ex)->stats;
    const struct limit_policy *p = ex->route->limit;
    bool observe = p->observe;
    ex->limit = *v;
    ex->limit_known = true;
    limiter_note(p, ex->limit_key, who, !v->allowed, worker_random(exchange_worker(ex)),
                 now_ns(ex));
    if (v->allowed) {
        count(ex, allowed);
        stats_add(stats, STAT_limit_allowed_total, 1);
        return R_SERVED;
    }
    count(ex, observe ? DECISION_observed : limited);
    stats_add(stats, observe ? STAT_limit_observed_total : STAT_limited_total, 1);
    if (observe)
        return R_SERVED;
    ex->retry_after_s = (uint32_t)MIN(MAX(whole_seconds(v->retry_ns), 1), UINT32_MAX);
    return R_LIMITED;
}

/* The next process may be one that never hears from Redis. */
static uint32_t gateways_of(const struct limit_policy *p)
{
    return limiter_gateways(p->limiter,
                            atomic_load_explicit(&p->redis->gateways, memory_order_relaxed));
}

static enum reason go_by_share(struct exchange *ex, const struct limit_policy *p,
                               const struct limit_subject *who)
{
    ex->limit_gateways = gateways_of(p);
    struct limit_policy share = limit_policy_share(p, ex->limit_gateways);
    struct limit_verdict v = limiter_decide(&share, ex->limit_key, now_ns(ex));
    return go_by(ex, who, &v, DECISION_local_allowed, DECISION_local_limited);
}

/* Redis cannot be asked. */
static enum reason go_without_redis(struct exchange *ex, const struct limit_policy *p,
                                    const struct limit_subject *who)
{
    switch (p->on_failure) {
    case LIMITER_LOCAL:
        break;
    case LIMITER_ALLOW:
        count(ex, DECISION_unchecked_allowed);
        return R_SERVED;
    case LIMITER_DENY:
        count(ex, p->observe ? DECISION_observed : DECISION_unchecked_denied);
        if (p->observe)
            return R_SERVED;
        ex->retry_after_s = 1;
        return R_LIMITER_AWAY;
    }
    return go_by_share(ex, p, who);
}

static bool ask_redis(struct exchange *ex, const struct limit_policy *p,
                      const struct limit_subject *who);

static void on_answered(void *owner, const struct limit_verdict *v, bool again)
{
    struct exchange *ex = owner;
    const struct limit_policy *p = ex->route->limit;
    struct limit_subject who = decide_limit_subject(p, &ex->head, ex->client->in, ex->ip);
    ex->limit_ask = NULL;
    if (again && ask_redis(ex, p, &who))
        return;
    if (!v) {
        request_admitted(ex, go_without_redis(ex, p, &who));
        return;
    }
    (void)gateways_of(p);
    if (v->allowed) /* counted here too, whatever the table thinks of it */
        (void)limiter_decide(p, ex->limit_key, now_ns(ex));
    request_admitted(ex, go_by(ex, &who, v, DECISION_allowed, DECISION_limited));
}

static bool ask_redis(struct exchange *ex, const struct limit_policy *p,
                      const struct limit_subject *who)
{
    struct worker *w = exchange_worker(ex);
    ex->limit_ask = w->redis ? limit_redis_ask(w->redis, p, who, on_answered, ex) : NULL;
    if (!ex->limit_ask)
        stats_add(&w->stats, STAT_redis_unasked_total, 1);
    return ex->limit_ask;
}

bool admit_request(struct exchange *ex, enum reason *r)
{
    const struct limit_policy *p = ex->route->limit;
    *r = R_SERVED;
    if (!p)
        return true;
    struct limit_subject who = decide_limit_subject(p, &ex->head, ex->client->in, ex->ip);
    ex->limit_gateways = 1;
    ex->limit_key = limiter_key(p, &who);
    if (!p->redis) {
        struct limit_verdict v = limiter_decide(p, ex->limit_key, now_ns(ex));
        *r = go_by(ex, &who, &v, DECISION_allowed, DECISION_limited);
        return true;
    }
    if (ask_redis(ex, p, &who))
        return false;
    *r = go_without_redis(ex, p, &who);
    return true;
}

void admit_cancel(struct exchange *ex)
{
    if (ex->limit_ask)
        limit_redis_cancel(&ex->limit_ask);
}

/* ---- telling ---- */

bool admit_tells(const struct exchange *ex)
{
    return ex->limit_known && ex->route && ex->route->limit->headers && !ex->route->limit->observe;
}

bool admit_is_field(struct view name)
{
    static const struct view names[] = {
        {"RateLimit", 9},          {"RateLimit-Policy", 16},
        {"X-RateLimit-Limit", 17}, {"X-RateLimit-Remaining", 21},
        {"X-RateLimit-Reset", 17},
    };
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (view_equal_nocase(name, names[i]))
            return true;
    return false;
}

static void write_number_field(struct head_writer *w, const struct edits *edits, struct view name,
                               uint64_t value)
{
    if (edits_drop(edits, name))
        return;
    write_view(w, name);
    write_literal(w, ": ");
    write_number(w, value);
    write_literal(w, "\r\n");
}

static void write_policy(struct head_writer *w, const struct exchange *ex,
                         const struct limit_policy *p)
{
    if (ex->limit_gateways <= 1) {
        write_field(w, view_of("RateLimit-Policy"), p->announced);
        return;
    }
    write_literal(w, "RateLimit-Policy: ");
    write_view(w, p->label);
    write_literal(w, ";q=");
    write_number(w, p->quota);
    write_literal(w, ";w=");
    write_number(w, p->window_s);
    write_literal(w, ";share=");
    write_number(w, ex->limit_gateways);
    write_literal(w, "\r\n");
}

static void write_fields(struct head_writer *w, const struct exchange *ex,
                         const struct edits *edits)
{
    const struct limit_policy *p = ex->route->limit;
    struct limit_policy share;
    /* The draft wants t to be the same point in time as Retry-After, where that stands too. */
    uint64_t reset_s = ex->limit.allowed ? whole_seconds(ex->limit.reset_ns) : ex->retry_after_s;
    if (ex->limit_gateways > 1) {
        share = limit_policy_share(p, ex->limit_gateways);
        p = &share;
    }
    if (!edits_drop(edits, VIEW("RateLimit-Policy")))
        write_policy(w, ex, p);
    if (!edits_drop(edits, VIEW("RateLimit"))) {
        write_literal(w, "RateLimit: ");
        write_view(w, p->label);
        write_literal(w, ";r=");
        write_number(w, ex->limit.remaining);
        write_literal(w, ";t=");
        write_number(w, reset_s);
        write_literal(w, "\r\n");
    }
    write_number_field(w, edits, VIEW("X-RateLimit-Limit"), p->quota);
    write_number_field(w, edits, VIEW("X-RateLimit-Remaining"), ex->limit.remaining);
    write_number_field(w, edits, VIEW("X-RateLimit-Reset"), reset_s);
}

void admit_write_fields(struct head_writer *w, const struct exchange *ex)
{
    if (admit_tells(ex))
        write_fields(w, ex, &ex->route->response_edits);
}

void admit_write_reply(struct head_writer *w, const struct exchange *ex)
{
    if (admit_tells(ex))
        write_fields(w, ex, &no_edits);
}
