#include "controlplane/aggregate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

#define MAX_SERIES 200000 /* in each table: 10,000 routes with every method */
#define MAX_STATUSES 64
#define MAX_COUNTERS 512
#define MAX_TARGETS 250000
#define MAX_GONE 32

static void *must(void *memory)
{
    if (!memory)
        log_fatal("aggregate", "out of memory");
    return memory;
}

/* ---- series ---- */

static void series_free(struct series *s)
{
    free(s->key);
    free(s->statuses);
    free(s);
}

static void fini_series(struct table *t)
{
    table_each(slot, t) series_free(slot->item);
    table_fini(t);
}

static void fini_counters(struct table *t)
{
    table_each(slot, t)
    {
        struct named_counter *c = slot->item;
        free(c->name);
        free(c);
    }
    table_fini(t);
}

/* The one of that key; NULL when it is new and there is no room for more. */
static struct series *series_of(struct table *t, struct view key)
{
    struct series *s = table_get(t, key);
    if (s || t->count >= MAX_SERIES)
        return s;
    s = must(calloc(1, sizeof(*s)));
    s->key = must(malloc(key.len + 1));
    memcpy(s->key, key.at, key.len);
    s->key[key.len] = '\0';
    s->route = s->key;
    s->method = s->key + strlen(s->key) + 1;
    table_add(t, (struct view){s->key, key.len}, s);
    return s;
}

/* Where a status is counted; NULL when it is new and there are too many. */
static uint64_t *status_of(struct series *s, uint32_t status)
{
    size_t i = 0;
    while (i < s->status_count && s->statuses[i].status < status)
        i++;
    if (i < s->status_count && s->statuses[i].status == status)
        return &s->statuses[i].count;
    if (s->status_count >= MAX_STATUSES)
        return NULL;
    s->statuses = must(realloc(s->statuses, (s->status_count + 1) * sizeof(*s->statuses)));
    memmove(&s->statuses[i + 1], &s->statuses[i], (s->status_count - i) * sizeof(*s->statuses));
    s->statuses[i] = (struct status_count){status, 0};
    s->status_count++;
    return &s->statuses[i].count;
}

/* What `now` is more than `last`, which becomes `now`. */
static uint64_t advance(uint64_t *last, uint64_t now)
{
    uint64_t more = now > *last ? now - *last : 0;
    *last += more;
    return more;
}

/* ---- sources ---- */

static void source_free(struct source *s)
{
    list_remove(&s->link);
    fini_series(&s->series);
    fini_counters(&s->counters);
    table_each(slot, &s->targets) free(slot->item);
    table_fini(&s->targets);
    free(s->instance_id);
    free(s);
}

static struct source *source_of(struct aggregate *a, const char *instance_id, uint64_t lineage)
{
    struct source *found = NULL;
    list_each (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (strcmp(s->instance_id, instance_id) != 0)
            continue;
        s->is_connected = s->lineage == lineage; /* it counts in one memory at a time */
        if (s->is_connected)
            found = s;
    }
    if (found)
        return found;
    struct source *s = must(calloc(1, sizeof(*s)));
    s->instance_id = must(strdup(instance_id));
    s->lineage = lineage;
    s->is_connected = true;
    list_push_back(&a->sources, &s->link);
    return s;
}

void aggregate_gone(struct aggregate *a, const char *instance_id)
{
    size_t gone = 0;
    list_each (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (strcmp(s->instance_id, instance_id) == 0)
            s->is_connected = false;
        gone += !s->is_connected;
    }
    /* What a source said last is only kept for the case that it comes back. */
    list_each_safe (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (gone <= MAX_GONE)
            return;
        if (s->is_connected)
            continue;
        source_free(s);
        gone--;
    }
}

void aggregate_init(struct aggregate *a)
{
    memset(a, 0, sizeof(*a));
    list_init(&a->sources);
}

void aggregate_fini(struct aggregate *a)
{
    list_each_safe (node, &a->sources)
        source_free(CONTAINER_OF(node, struct source, link));
    fini_series(&a->series);
    fini_counters(&a->counters);
    table_each(slot, &a->routes)
    {
        struct route_total *r = slot->item;
        free(r->route);
        free(r);
    }
    table_fini(&a->routes);
    table_each(slot, &a->targets) free(slot->item);
    table_fini(&a->targets);
}

/* ---- histograms ---- */

/* map[i]: the bucket of `to` that covers all of bucket i of `from`. */
static void map_buckets(const double *from, size_t from_count, const double *to, size_t to_count,
                        size_t map[AGGREGATE_MAX_BUCKETS])
{
    size_t k = 0;
    for (size_t i = 0; i < from_count; i++) {
        while (k < to_count && to[k] < from[i])
            k++;
        map[i] = k;
    }
    map[from_count] = to_count;
}

static void remap(struct table *t, const size_t *map, size_t count)
{
    table_each(slot, t)
    {
        struct series *s = slot->item;
        uint64_t moved[AGGREGATE_MAX_BUCKETS] = {0};
        for (size_t i = 0; i < count; i++)
            moved[map[i]] += s->buckets[i];
        memcpy(s->buckets, moved, sizeof(moved));
    }
}

void aggregate_set_bounds(struct aggregate *a, const double *bounds, size_t count)
{
    size_t map[AGGREGATE_MAX_BUCKETS];
    count = MIN(count, COUNT_OF(a->bounds));
    if (count == a->bound_count && memcmp(a->bounds, bounds, count * sizeof(*bounds)) == 0)
        return;
    map_buckets(a->bounds, a->bound_count, bounds, count, map);
    remap(&a->series, map, a->bound_count + 1);
    list_each (node, &a->sources)
        remap(&CONTAINER_OF(node, struct source, link)->series, map, a->bound_count + 1);
    memcpy(a->bounds, bounds, count * sizeof(*bounds));
    a->bound_count = count;
}

/* ---- taking a report ---- */

static void take_buckets(struct series *total, struct series *last, const Gwp__RouteSeries *now,
                         const size_t *map, size_t map_count)
{
    uint64_t counts[AGGREGATE_MAX_BUCKETS] = {0};
    for (size_t i = 0; i < MIN(now->n_buckets, map_count); i++)
        counts[map[i]] += now->buckets[i];
    for (size_t i = 0; i < AGGREGATE_MAX_BUCKETS; i++)
        total->buckets[i] += advance(&last->buckets[i], counts[i]);
    if (now->sum_seconds > last->sum_seconds) {
        total->sum_seconds += now->sum_seconds - last->sum_seconds;
        last->sum_seconds = now->sum_seconds;
    }
}

static void count_route(struct aggregate *a, const char *route, uint64_t more)
{
    struct route_total *r = table_get(&a->routes, view_of(route));
    if (!r) {
        r = must(calloc(1, sizeof(*r)));
        r->route = must(strdup(route));
        table_add(&a->routes, view_of(r->route), r);
    }
    r->requests += more;
}

static void take_series(struct aggregate *a, struct source *source, const Gwp__RouteSeries *now,
                        const size_t *map, size_t map_count)
{
    char key[1024];
    size_t route_len = strlen(now->route), method_len = strlen(now->method);
    if (route_len + method_len + 1 > sizeof(key))
        return;
    memcpy(key, now->route, route_len + 1);
    memcpy(key + route_len + 1, now->method, method_len);
    struct view k = {key, route_len + 1 + method_len};
    struct series *total = series_of(&a->series, k), *last = series_of(&source->series, k);
    if (!total || !last) {
        if (!a->is_full)
            log_warn("aggregate",
                     "more than %d series of routes and methods; new ones are not counted",
                     MAX_SERIES);
        a->is_full = true;
        return;
    }
    uint64_t more = 0;
    for (size_t i = 0; i < now->n_statuses; i++) {
        uint64_t *to = status_of(total, now->statuses[i]->status);
        uint64_t *from = status_of(last, now->statuses[i]->status);
        if (!to || !from)
            continue;
        uint64_t step = advance(from, now->statuses[i]->count);
        *to += step;
        more += step;
    }
    source->requests += more;
    count_route(a, total->route, more);
    take_buckets(total, last, now, map, map_count);
}

static bool ends_in_total(const char *name)
{
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, "_total") == 0;
}

static struct named_counter *counter_of(struct table *t, const char *name)
{
    struct named_counter *c = table_get(t, view_of(name));
    if (c || t->count >= MAX_COUNTERS)
        return c;
    c = must(calloc(1, sizeof(*c)));
    c->name = must(strdup(name));
    table_add(t, view_of(c->name), c);
    return c;
}

static void take_counter(struct aggregate *a, struct source *source, const Gwp__Counter *now)
{
    struct named_counter *last = counter_of(&source->counters, now->name);
    if (!last)
        return;
    if (!ends_in_total(now->name)) {
        last->value = now->value;
        return;
    }
    struct named_counter *total = counter_of(&a->counters, now->name);
    if (total)
        total->value += advance(&last->value, now->value);
}

static struct view id_key(const uint64_t *id)
{
    return (struct view){(const char *)id, sizeof(*id)};
}

/* Only for a target whose breaker has moved: most never do. */
static void take_moves(struct aggregate *a, struct target_stats *last, const Gwp__TargetStats *now)
{
    const uint64_t moved_to[] = {now->breaker_closed, now->breaker_opened,
                                 now->breaker_half_opened};
    struct target_total *total = table_get(&a->targets, id_key(&now->target_id));
    if (moved_to[0] + moved_to[1] + moved_to[2] == 0)
        return;
    if (!total && a->targets.count < MAX_TARGETS) {
        total = must(calloc(1, sizeof(*total)));
        total->id = now->target_id;
        table_add(&a->targets, id_key(&total->id), total);
    }
    for (unsigned i = 0; total && i < AGGREGATE_BREAKER_STATES; i++)
        total->moved_to[i] += advance(&last->moved_to[i], moved_to[i]);
}

/* Targets come and go with what DNS says. When their table is full it begins anew: all that is in
 * it is repeated by the reports to come. */
static void take_target(struct aggregate *a, struct source *source, const Gwp__TargetStats *now)
{
    struct view key = {(const char *)&now->target_id, sizeof(now->target_id)};
    struct target_stats *t = table_get(&source->targets, key);
    if (!t && source->targets.count >= MAX_TARGETS) {
        table_each(slot, &source->targets) free(slot->item);
        table_clear(&source->targets);
    }
    if (!t) {
        t = must(calloc(1, sizeof(*t)));
        t->id = now->target_id;
        table_add(&source->targets, (struct view){(const char *)&t->id, sizeof(t->id)}, t);
    }
    t->requests = now->requests;
    t->failures = now->failures;
    t->active = now->active;
    t->breaker_state = now->breaker_state;
    t->since_ms = now->breaker_since_ms;
    t->until_ms = now->breaker_until_ms;
    snprintf(t->cause, sizeof(t->cause), "%s", now->breaker_cause);
    take_moves(a, t, now);
}

void aggregate_take(struct aggregate *a, const char *instance_id, const Gwp__StatsReport *r)
{
    struct source *source = source_of(a, instance_id, r->lineage);
    size_t map[AGGREGATE_MAX_BUCKETS];
    size_t bounds = MIN(r->n_duration_buckets_seconds, COUNT_OF(a->bounds));
    map_buckets(r->duration_buckets_seconds, bounds, a->bounds, a->bound_count, map);
    for (size_t i = 0; i < r->n_routes; i++)
        take_series(a, source, r->routes[i], map, bounds + 1);
    for (size_t i = 0; i < r->n_counters; i++)
        take_counter(a, source, r->counters[i]);
    for (size_t i = 0; i < r->n_targets; i++)
        take_target(a, source, r->targets[i]);
}

/* ---- reading ---- */

uint64_t aggregate_route_requests(const struct aggregate *a, const char *route)
{
    const struct route_total *r = table_get(&a->routes, view_of(route));
    return r ? r->requests : 0;
}

/* Whether a source is wanted: of the connected ones all, or those of one instance. */
static bool counts(const struct source *s, const char *instance_id)
{
    return s->is_connected && (!instance_id || strcmp(s->instance_id, instance_id) == 0);
}

uint64_t aggregate_reported(const struct aggregate *a, const char *name, const char *instance_id)
{
    uint64_t sum = 0;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        const struct named_counter *c =
            counts(s, instance_id) ? table_get(&s->counters, view_of(name)) : NULL;
        sum += c ? c->value : 0;
    }
    return sum;
}

uint64_t aggregate_requests_of(const struct aggregate *a, const char *instance_id)
{
    uint64_t sum = 0;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        sum += counts(s, instance_id) ? s->requests : 0;
    }
    return sum;
}

struct target_stats aggregate_target(const struct aggregate *a, uint64_t id)
{
    struct target_stats sum = {.id = id};
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        const struct target_stats *t =
            s->is_connected ? table_get(&s->targets, (struct view){(const char *)&id, sizeof(id)})
                            : NULL;
        if (!t)
            continue;
        sum.requests += t->requests;
        sum.failures += t->failures;
        sum.active += t->active;
        if (t->breaker_state == 1 || sum.breaker_state == 0) { /* open is worse than half-open */
            sum.breaker_state = t->breaker_state;
            sum.since_ms = t->since_ms;
            sum.until_ms = t->until_ms;
            memcpy(sum.cause, t->cause, sizeof(sum.cause));
        }
    }
    const struct target_total *total = table_get(&a->targets, id_key(&id));
    if (total)
        memcpy(sum.moved_to, total->moved_to, sizeof(sum.moved_to));
    return sum;
}

static int by_key(const void *a, const void *b)
{
    const struct series *x = *(struct series *const *)a, *y = *(struct series *const *)b;
    int order = strcmp(x->route, y->route);
    return order != 0 ? order : strcmp(x->method, y->method);
}

struct series **aggregate_sorted(const struct aggregate *a, size_t *count)
{
    struct series **list = must(malloc((a->series.count + 1) * sizeof(struct series *)));
    *count = 0;
    table_each(slot, &a->series) list[(*count)++] = slot->item;
    qsort(list, *count, sizeof(struct series *), by_key);
    return list;
}
