#include "dataplane/http/admit.h"

#include "dataplane/http/decide.h"

#define NS_PER_S 1000000000u

static const struct edits no_edits;

/* ---- asking ---- */

/* Rounded up; a microsecond more than whole ones is rounding too. */
static uint64_t whole_seconds(uint64_t ns)
{
    return (ns + NS_PER_S - 1 - 1000) / NS_PER_S;
}

enum reason admit_request(struct exchange *ex)
{
    const struct limit_policy *p = ex->route->limit;
    struct stats *stats = &ex->client->worker->stats;
    if (!p)
        return R_SERVED;
    struct view value;
    uint64_t now_ns = (uint64_t)(worker_now(ex->client->worker) * NS_PER_S);
    ex->limit =
        limiter_decide(p, decide_limit_key(p, &ex->head, ex->client->in, ex->ip, &value), now_ns);
    if (ex->limit.allowed) {
        ex->limit_said = "allowed";
        stats_add(stats, STAT_limit_allowed_total, 1);
        stats_decision(stats, ex->route_state->slot, DECISION_allowed);
        return R_SERVED;
    }
    ex->limit_said = p->observe ? "observed" : "limited";
    stats_add(stats, p->observe ? STAT_limit_observed_total : STAT_limited_total, 1);
    stats_decision(stats, ex->route_state->slot, p->observe ? DECISION_observed : DECISION_limited);
    if (p->observe)
        return R_SERVED;
    ex->retry_after_s = (uint32_t)MIN(whole_seconds(ex->limit.retry_ns), UINT32_MAX);
    return R_LIMITED;
}

/* ---- telling ---- */

bool admit_tells(const struct exchange *ex)
{
    return ex->limit_said && ex->route && ex->route->limit->headers && !ex->route->limit->observe;
}

bool admit_is_field(struct view name)
{
    static const char *const names[] = {"RateLimit", "RateLimit-Policy", "X-RateLimit-Limit",
                                        "X-RateLimit-Remaining", "X-RateLimit-Reset"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (view_equal_nocase(name, view_of(names[i])))
            return true;
    return false;
}

static void write_number_field(struct head_writer *w, const struct edits *edits, const char *name,
                               uint64_t value)
{
    if (edits_drop(edits, view_of(name)))
        return;
    write_view(w, view_of(name));
    write_literal(w, ": ");
    write_number(w, value);
    write_literal(w, "\r\n");
}

static void write_fields(struct head_writer *w, const struct exchange *ex,
                         const struct edits *edits)
{
    const struct limit_policy *p = ex->route->limit;
    uint64_t reset_s = whole_seconds(ex->limit.reset_ns);
    if (!edits_drop(edits, view_of("RateLimit-Policy")))
        write_field(w, view_of("RateLimit-Policy"), p->announced);
    if (!edits_drop(edits, view_of("RateLimit"))) {
        write_literal(w, "RateLimit: ");
        write_view(w, p->label);
        write_literal(w, ";r=");
        write_number(w, ex->limit.remaining);
        write_literal(w, ";t=");
        write_number(w, reset_s);
        write_literal(w, "\r\n");
    }
    write_number_field(w, edits, "X-RateLimit-Limit", p->quota);
    write_number_field(w, edits, "X-RateLimit-Remaining", ex->limit.remaining);
    write_number_field(w, edits, "X-RateLimit-Reset", reset_s);
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
