#include "controlplane/limit_query.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

#define KEYS 20 /* of a list */

/* A data plane is told from another by its session, until that is gone. */
struct limit_query {
    struct list link; /* of limit_queries.open */
    struct limit_queries *queries;
    uint64_t sequence;
    const struct session *asked[SESSION_MAX]; /* those that have not answered */
    size_t asked_count, waiting, answered;
    bool is_reset, truncated, redis_away;
    uint64_t forgotten;
    json_t
        *routes;  /* owned: {route: {"busiest": {key: [requests, limited]}, "most_limited": ...}} */
    json_t *head; /* owned: what a reset answers with, or all that is answered */
    ev_timer patience;
    limit_query_done_fn *done;
    void *owner;
};

/* ---- merging ---- */

static json_t *member(json_t *object, const char *name)
{
    json_t *found = json_object_get(object, name);
    if (!found) {
        found = json_object();
        json_object_set_new(object, name, found);
    }
    return found;
}

static json_int_t count_of(const json_t *counts, size_t which)
{
    return json_integer_value(json_array_get(counts, which));
}

static void add_keys(json_t *list, Gwp__LimitedKey *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const Gwp__LimitedKey *k = keys[i];
        const json_t *before = json_object_get(list, k->key);
        json_object_set_new(list, k->key,
                            json_pack("[I, I]", count_of(before, 0) + (json_int_t)k->requests,
                                      count_of(before, 1) + (json_int_t)k->limited));
    }
}

static void merge(struct limit_query *q, const Gwp__LimitsReport *r)
{
    for (size_t i = 0; i < r->n_routes; i++) {
        const Gwp__RouteLimits *route = r->routes[i];
        json_t *mine = member(q->routes, route->route);
        add_keys(member(mine, "busiest"), route->busiest, route->n_busiest);
        add_keys(member(mine, "most_limited"), route->most_limited, route->n_most_limited);
    }
    q->truncated = q->truncated || r->truncated;
    q->forgotten += r->forgotten;
    q->redis_away = q->redis_away || r->redis_away;
}

/* ---- the document ---- */

static json_int_t rank_of(json_t *key)
{
    json_int_t requests = json_integer_value(json_object_get(key, "requests"));
    return requests ? requests : json_integer_value(json_object_get(key, "limited"));
}

static int by_rank(const void *a, const void *b)
{
    json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    json_int_t left = rank_of(x), right = rank_of(y);
    return (left < right) - (left > right);
}

static json_t *top_of(json_t *list)
{
    size_t count = 0;
    json_t **sorted = calloc(json_object_size(list) + 1, sizeof(*sorted)), *out = json_array();
    const char *key;
    json_t *counts;
    if (!sorted)
        log_fatal("limits", "out of memory");
    json_object_foreach(list, key, counts) sorted[count++] =
        json_pack("{s:s, s:I, s:I}", "key", key, "requests", count_of(counts, 0), "limited",
                  count_of(counts, 1));
    qsort(sorted, count, sizeof(*sorted), by_rank);
    for (size_t i = 0; i < count; i++) {
        if (i < KEYS)
            json_array_append_new(out, sorted[i]);
        else
            json_decref(sorted[i]);
    }
    free(sorted);
    return out;
}

static json_t *document_of(struct limit_query *q)
{
    if (q->head && !q->is_reset)
        return json_incref(q->head);
    json_t *planes = json_pack("{s:I, s:I}", "asked", (json_int_t)q->asked_count, "answered",
                               (json_int_t)q->answered);
    const char *name;
    json_t *route, *routes;
    if (q->is_reset) {
        json_object_set_new(q->head, "forgotten", json_integer((json_int_t)q->forgotten));
        json_object_set_new(q->head, "redis_away", json_boolean(q->redis_away));
        json_object_set_new(q->head, "dataplanes", planes);
        return json_incref(q->head);
    }
    routes = json_array();
    json_object_foreach(q->routes, name, route)
        json_array_append_new(routes, json_pack("{s:s, s:o, s:o}", "route", name, "busiest",
                                                top_of(member(route, "busiest")), "most_limited",
                                                top_of(member(route, "most_limited"))));
    return json_pack("{s:o, s:b, s:o}", "routes", routes, "truncated", q->truncated, "dataplanes",
                     planes);
}

/* ---- life of a query ---- */

static void finish(struct limit_query *q)
{
    ev_timer_stop(q->queries->loop, &q->patience);
    list_remove(&q->link);
    q->done(q->owner, document_of(q));
    json_decref(q->routes);
    json_decref(q->head);
    free(q);
}

static void on_patience_over(struct ev_loop *loop, ev_timer *w, int revents)
{
    finish(w->data);
}

static struct limit_query *query_new(struct limit_queries *qs, limit_query_done_fn *done,
                                     void *owner)
{
    struct limit_query *q = calloc(1, sizeof(*q));
    if (!q)
        log_fatal("limits", "out of memory");
    q->queries = qs;
    q->sequence = ++qs->sequence;
    q->done = done;
    q->owner = owner;
    q->routes = json_object();
    list_push_back(&qs->open, &q->link);
    ev_timer_init(&q->patience, on_patience_over, LIMIT_QUERY_SECONDS, 0.);
    q->patience.data = q;
    ev_timer_start(qs->loop, &q->patience);
    return q;
}

static void send_to_all(struct limit_query *q, enum msg_type type, const ProtobufCMessage *m)
{
    sessions_each(s, q->queries->sessions)
    {
        if (!s->tells_limits || q->asked_count == SESSION_MAX)
            continue;
        q->asked[q->asked_count++] = s;
        q->waiting++;
        session_send(s, type, m, NULL, 0);
    }
    if (q->waiting == 0)
        finish(q);
}

void limit_query_ask(struct limit_queries *qs, const char *route, limit_query_done_fn *done,
                     void *owner)
{
    struct limit_query *q = query_new(qs, done, owner);
    Gwp__LimitsRequest m = GWP__LIMITS_REQUEST__INIT;
    m.sequence = q->sequence;
    m.route = (char *)route;
    send_to_all(q, MSG_LIMITS_REQUEST, &m.base);
}

void limit_query_reset(struct limit_queries *qs, const char *route, const char *key,
                       limit_query_done_fn *done, void *owner)
{
    struct limit_query *q = query_new(qs, done, owner);
    Gwp__LimitsReset m = GWP__LIMITS_RESET__INIT;
    q->is_reset = true;
    /* An API key is not repeated. */
    q->head = json_pack("{s:s, s:b}", "route", route, "all", key[0] == '\0');
    m.sequence = q->sequence;
    m.route = (char *)route;
    m.key = (char *)key;
    send_to_all(q, MSG_LIMITS_RESET, &m.base);
}

void limit_query_settle(struct limit_queries *qs, json_t *document, limit_query_done_fn *done,
                        void *owner)
{
    struct limit_query *q = query_new(qs, done, owner);
    Gwp__LimitsReset m = GWP__LIMITS_RESET__INIT;
    q->head = document;
    m.sequence = q->sequence;
    send_to_all(q, MSG_LIMITS_RESET, &m.base);
}

/* It has answered, or never will. False: it was not asked, or has answered already. */
static bool tick_off(struct limit_query *q, const struct session *s)
{
    for (size_t i = 0; i < q->asked_count; i++) {
        if (q->asked[i] != s)
            continue;
        q->asked[i] = NULL;
        q->waiting--;
        return true;
    }
    return false;
}

void limit_queries_take(struct limit_queries *qs, struct session *s, const Gwp__LimitsReport *r)
{
    list_each_safe (node, &qs->open) {
        struct limit_query *q = CONTAINER_OF(node, struct limit_query, link);
        if (q->sequence != r->sequence || !tick_off(q, s))
            continue;
        q->answered++;
        merge(q, r);
        if (q->waiting == 0)
            finish(q);
    }
}

void limit_queries_gone(struct limit_queries *qs, struct session *s)
{
    list_each_safe (node, &qs->open) {
        struct limit_query *q = CONTAINER_OF(node, struct limit_query, link);
        if (tick_off(q, s) && q->waiting == 0)
            finish(q);
    }
}

void limit_queries_init(struct limit_queries *qs, struct ev_loop *loop, struct sessions *sessions)
{
    memset(qs, 0, sizeof(*qs));
    qs->loop = loop;
    qs->sessions = sessions;
    list_init(&qs->open);
}

void limit_queries_fini(struct limit_queries *qs)
{
    if (!qs->loop)
        return;
    list_each_safe (node, &qs->open)
        finish(CONTAINER_OF(node, struct limit_query, link));
}
