#include "dataplane/report/limit_report.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/arena.h"

#define REPORT_BYTES (1024u * 1024)
#define HASH_DIGITS 12

/* ---- keys as people see them ---- */

static char *hash_text(struct arena *a, uint64_t hash)
{
    return arena_printf(a, "#%012llx", (unsigned long long)(hash >> (64 - 4 * HASH_DIGITS)));
}

static char *address_text(struct arena *a, const struct limit_policy *p, struct ip ip)
{
    char text[INET6_ADDRSTRLEN];
    ip_format(ip, text);
    if (ip_is_v4(ip) || p->ipv6_prefix >= 128)
        return arena_printf(a, "%s", text);
    return arena_printf(a, "%s/%u", text, p->ipv6_prefix);
}

/* What is no visible ASCII could garble a terminal, or no JSON would carry it. */
static char *user_text(struct arena *a, const struct sketch_entry *e)
{
    size_t len = MIN(e->len, sizeof(e->text));
    char *text = arena_alloc(a, len + 4);
    for (size_t i = 0; i < len; i++)
        text[i] = e->text[i] > ' ' && e->text[i] <= '~' ? e->text[i] : '?';
    memcpy(text + len, "...", 4);
    if (len == e->len)
        text[len] = '\0';
    return text;
}

static char *key_text(struct arena *a, const struct limit_policy *p, const struct sketch_entry *e)
{
    if (e->len == 0)
        return address_text(a, p, e->ip);
    return p->key_by == LIMITER_BY_API_KEY ? hash_text(a, e->hash) : user_text(a, e);
}

/* ---- the report ---- */

static size_t put_keys(struct arena *a, const struct limit_policy *p, enum limiter_sketch which,
                       Gwp__LimitedKey ***out)
{
    struct sketch_entry entries[SKETCH_ENTRIES];
    size_t count = MIN(sketch_read(limiter_sketch(p->limiter, which), entries), LIMIT_REPORT_KEYS);
    *out = arena_array(a, count, sizeof(**out));
    for (size_t i = 0; i < count; i++) {
        Gwp__LimitedKey *key = (*out)[i] = arena_alloc(a, sizeof(*key));
        gwp__limited_key__init(key);
        key->key = key_text(a, p, &entries[i]);
        key->requests = which == LIMITER_BUSIEST ? entries[i].count : 0;
        key->limited = entries[i].limited;
    }
    return count;
}

static Gwp__RouteLimits *put_route(struct arena *a, const struct route *r)
{
    Gwp__RouteLimits *m = arena_alloc(a, sizeof(*m));
    gwp__route_limits__init(m);
    m->route = (char *)r->name.at;
    m->n_busiest = put_keys(a, r->limit, LIMITER_BUSIEST, &m->busiest);
    m->n_most_limited = put_keys(a, r->limit, LIMITER_MOST_LIMITED, &m->most_limited);
    return m;
}

void limit_report_make(const struct snapshot *s, const Gwp__LimitsRequest *request,
                       limit_report_send_fn *send, void *owner)
{
    struct arena *arena = arena_new(64 * 1024);
    Gwp__LimitsReport report = GWP__LIMITS_REPORT__INIT;
    size_t bytes = 0;
    report.sequence = request->sequence;
    report.routes = arena_array(arena, s ? s->route_count : 0, sizeof(*report.routes));
    for (uint32_t i = 0; s && i < s->route_count; i++) {
        const struct route *r = &s->routes[i];
        if (!r->limit || (request->route[0] && strcmp(request->route, r->name.at) != 0))
            continue;
        Gwp__RouteLimits *m = put_route(arena, r);
        bytes += protobuf_c_message_get_packed_size(&m->base) + 8;
        report.truncated = report.truncated || bytes > REPORT_BYTES;
        if (m->n_busiest > 0 && !report.truncated)
            report.routes[report.n_routes++] = m;
    }
    send(owner, &report);
    arena_free(&arena);
}

/* ---- forgetting ---- */

struct reset {
    const struct route *route;
    const struct limit_policy *policy;
    limit_report_forget_fn *forget;
    void *owner;
    Gwp__LimitsReport *report;
};

static void forget(struct reset *t, const struct limit_subject *who)
{
    const struct limit_policy *p = t->policy;
    t->report->forgotten +=
        who ? limiter_forget(p->limiter, limiter_key(p, who)) : limiter_forget_all(p->limiter);
    if (p->redis && !t->forget(t->owner, p, t->route->name.at, who))
        t->report->redis_away = true;
}

/* A key as it is shown: which one that is, the sketches remember. */
static void forget_shown(struct reset *t, const char *key)
{
    struct arena *arena = arena_new(4096);
    for (unsigned which = 0; which < LIMITER_SKETCHES; which++) {
        struct sketch_entry entries[SKETCH_ENTRIES];
        struct sketch *sketch = limiter_sketch(t->policy->limiter, (enum limiter_sketch)which);
        uint32_t count = sketch_read(sketch, entries);
        for (uint32_t i = 0; i < count; i++) {
            const struct sketch_entry *e = &entries[i];
            if (strcmp(key_text(arena, t->policy, e), key) != 0)
                continue;
            if (e->len <= sizeof(e->text)) {
                forget(t, &(struct limit_subject){e->ip, {e->text, e->len}});
            } else { /* too long to be remembered whole: only by its digest here */
                t->report->forgotten += limiter_forget(t->policy->limiter, e->key);
                t->report->redis_away = t->report->redis_away || t->policy->redis;
            }
        }
    }
    arena_free(&arena);
}

/* An address counts where the header with the key is missing, too. */
static void forget_key(struct reset *t, const char *key)
{
    struct view text = view_of(key);
    size_t slash = strcspn(key, "/");
    struct ip ip;
    if (ip_parse((struct view){key, slash}, &ip))
        forget(t, &(struct limit_subject){.ip = ip});
    if (t->policy->key_by != LIMITER_BY_IP) {
        forget(t, &(struct limit_subject){.text = text});
        forget_shown(t, key);
    }
}

void limit_report_reset(const struct snapshot *s, const Gwp__LimitsReset *reset,
                        limit_report_forget_fn *forget_in_redis, limit_report_send_fn *send,
                        void *owner)
{
    Gwp__LimitsReport report = GWP__LIMITS_REPORT__INIT;
    report.sequence = reset->sequence;
    for (uint32_t i = 0; s && i < s->route_count; i++) {
        const struct route *r = &s->routes[i];
        if (!r->limit || strcmp(reset->route, r->name.at) != 0)
            continue;
        struct reset t = {r, r->limit, forget_in_redis, owner, &report};
        if (reset->key[0])
            forget_key(&t, reset->key);
        else
            forget(&t, NULL);
    }
    send(owner, &report);
}
