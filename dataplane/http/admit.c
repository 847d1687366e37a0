#include "dataplane/http/admit.h"

#define NS_PER_S 1000000000u

static const struct edits no_edits;

/* ---- asking ---- */

/* Rounded up; a microsecond more than whole ones is rounding too. */
static uint64_t whole_seconds(uint64_t ns)
{
    return (ns + NS_PER_S - 1 - 1000) / NS_PER_S;
}

/* The first field of that name; empty if there is none. Known names are found at once. */
static struct view find_value(const struct head *h, const struct buffer *b, struct view name)
{
    enum field_id id = field_find(name);
    if (id != FIELD_OTHER)
        return head_value(h, b, id);
    for (unsigned i = 0; i < h->field_count; i++)
        if (h->fields[i].id == FIELD_OTHER && view_equal_nocase(field_name(b, &h->fields[i]), name))
            return field_value(b, &h->fields[i]);
    return (struct view){NULL, 0};
}

static struct digest128 key_of(const struct exchange *ex, const struct limit_policy *p)
{
    struct view value = {NULL, 0};
    if (p->key_by != LIMITER_BY_IP)
        value = find_value(&ex->head, ex->client->in, p->header);
    return value.len > 0 ? limiter_key_of_text(p, value) : limiter_key_of_ip(p, ex->ip);
}

enum reason admit_request(struct exchange *ex)
{
    const struct limit_policy *p = ex->route->limit;
    struct stats *stats = &ex->client->worker->stats;
    if (!p)
        return R_SERVED;
    uint64_t now_ns = (uint64_t)(worker_now(ex->client->worker) * NS_PER_S);
    ex->limit = limiter_decide(p, key_of(ex, p), now_ns);
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

static void write_fields(struct head_writer *w, const struct exchange *ex,
                         const struct edits *edits)
{
    const struct limit_policy *p = ex->route->limit;
    uint64_t reset_s = whole_seconds(ex->limit.reset_ns);
    if (!edits_drop(edits, VIEW("RateLimit-Policy")))
        write_field(w, VIEW("RateLimit-Policy"), p->announced);
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
