#include "controlplane/explanation.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/defs.h"

/* Heads may hold bytes that are no UTF-8: those become "?". */
static json_t *text_of(const char *text, size_t len)
{
    text = text ? text : "";
    json_t *t = json_stringn(text, len);
    if (t)
        return t;
    char *copy = strndup(text, len);
    for (char *c = copy; copy && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    t = json_string(copy ? copy : "");
    free(copy);
    return t;
}

static json_t *string_of(const char *text)
{
    return text_of(text, strlen(text));
}

static json_t *place_of(const Gwp__Explanation *e, const Gwp__Place *p)
{
    return p && p->line > 0 ? json_sprintf("%s:%u", e->source, p->line) : json_null();
}

static json_t *seconds_of(uint64_t ms)
{
    return json_real((double)ms / 1000);
}

static json_t *limit_of(const Gwp__Explanation *e)
{
    const Gwp__Explanation__Limit *l = e->limit;
    if (!l)
        return json_null();
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:I, s:I, s:I, s:o, s:o}", "place",
        place_of(e, l->place), "algorithm", string_of(l->algorithm), "key_by", string_of(l->key_by),
        "key", string_of(l->key), "keyed_by_header", (int)l->keyed_by_header, "allowed",
        (int)l->allowed, "observe", (int)l->observe, "remaining", (json_int_t)l->remaining, "quota",
        (json_int_t)l->quota, "window_seconds", (json_int_t)l->window_s, "retry_seconds",
        seconds_of(l->retry_ms), "reset_seconds", seconds_of(l->reset_ms));
}

static json_t *candidate_of(const Gwp__Explanation *e, const Gwp__Explanation__Candidate *c)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:b, s:b, s:b, s:s, s:b, s:b}", "address",
                     string_of(c->address), "url", string_of(c->url), "place",
                     place_of(e, c->place), "weight", (json_int_t)c->weight, "active",
                     (json_int_t)c->active, "max_connections", (json_int_t)c->max_connections,
                     "healthy", (int)!c->unhealthy, "draining", (int)c->draining, "starting",
                     (int)c->starting, "breaker", words[MIN(c->breaker_state, 2)], "usable",
                     (int)c->usable, "chosen", (int)c->chosen);
}

static json_t *chosen_of(const Gwp__Explanation *e)
{
    for (size_t i = 0; i < e->n_candidates; i++)
        if (e->candidates[i]->chosen)
            return string_of(e->candidates[i]->address);
    return json_null();
}

json_t *explanation_document(const Gwp__Explanation *e)
{
    json_t *candidates = json_array();
    for (size_t i = 0; i < e->n_candidates; i++)
        json_array_append_new(candidates, candidate_of(e, e->candidates[i]));
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, "
        "s:o}",
        "generation", (json_int_t)e->generation, "reason", string_of(e->reason), "status",
        e->status > 0 ? json_integer(e->status) : json_null(), "detail", string_of(e->detail),
        "client", string_of(e->client), "peer_trusted", (int)e->peer_trusted, "host",
        string_of(e->host), "path", string_of(e->path), "route",
        *e->route ? string_of(e->route) : json_null(), "place", place_of(e, e->place), "algorithm",
        string_of(e->algorithm), "panic", (int)e->panic, "limit", limit_of(e), "breaker_place",
        place_of(e, e->breaker_place), "chosen", chosen_of(e), "candidates", candidates,
        "forwarded", text_of((const char *)e->forwarded.data, e->forwarded.len), "retry_seconds",
        seconds_of(e->retry_ms));
}
