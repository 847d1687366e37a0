#include "controlplane/aggregate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/renewal.h"
#include "proto/base/log.h"

#define BREAKERS_OF_BYTES 128
#define MAX_LEVELS 512
#define MAX_TARGETS 250000
#define MAX_GONE 32
#define REWRITE_BYTES ((size_t)8 * 1024 * 1024)
#define REWRITE_GENERATIONS 1000 /* rows more than were left by the last rewriting */
#define NS_PER_S 1e9
#define MAX_SECONDS 1.8e10 /* as many nanoseconds as 64 bits hold: 570 years of waiting clients */

static void *must(void *memory)
{
    if (!memory)
        log_fatal("aggregate", "out of memory");
    return memory;
}

static bool ends_in_total(const char *name)
{
    size_t len = strlen(name);
    return len > 6 && strcmp(name + len - 6, "_total") == 0;
}

/* What `now` is more than `last`, which becomes `now`. */
static uint64_t advance(uint64_t *last, uint64_t now)
{
    uint64_t more = now > *last ? now - *last : 0;
    *last += more;
    return more;
}

static uint64_t nanoseconds(double seconds)
{
    return seconds > 0 && seconds < MAX_SECONDS ? (uint64_t)(seconds * NS_PER_S) : 0;
}

/* ---- sources ---- */

static struct source *source_new(struct aggregate *a, uint64_t lineage)
{
    struct source *s = must(calloc(1, sizeof(*s)));
    s->lineage = lineage;
    s->instance_id = must(strdup(""));
    list_push_back(&a->sources, &s->link);
    return s;
}

static struct source *find_source(const struct aggregate *a, uint64_t lineage)
{
    list_each (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (s->lineage == lineage)
            return s;
    }
    return NULL;
}

static void forget_redis(struct source *s)
{
    for (size_t i = 0; i < s->redis_count; i++)
        free(s->redis[i].name);
    free(s->redis);
    s->redis = NULL;
    s->redis_count = 0;
}

static void forget_levels(struct source *s)
{
    forget_redis(s);
    table_each(slot, &s->levels)
    {
        struct named_level *level = slot->item;
        free(level->name);
        free(level);
    }
    table_each(slot, &s->targets) free(slot->item);
    table_fini(&s->levels);
    table_fini(&s->targets);
}

static void source_free(struct source *s)
{
    list_remove(&s->link);
    forget_levels(s);
    table_fini(&s->rows);
    free(s->instance_id);
    free(s);
}

/* The one that this instance counts in now; it counts in one memory at a time. */
static struct source *source_of(struct aggregate *a, const char *instance_id, uint64_t lineage)
{
    struct source *s = find_source(a, lineage);
    list_each (node, &a->sources) {
        struct source *other = CONTAINER_OF(node, struct source, link);
        if (other->lineage != lineage && strcmp(other->instance_id, instance_id) == 0)
            other->is_connected = false;
    }
    if (!s)
        s = source_new(a, lineage);
    if (strcmp(s->instance_id, instance_id) != 0) {
        free(s->instance_id);
        s->instance_id = must(strdup(instance_id));
        forget_levels(s);
    }
    if (!s->is_connected) {
        list_remove(&s->link);
        list_push_back(&a->sources, &s->link);
    }
    s->is_connected = true;
    return s;
}

/* ---- the tallies ---- */

static void take_row_back(struct aggregate *a, struct tally *r)
{
    struct view key = tallies_key(r);
    struct total_key as;
    if (key.len < 3 || key.len > sizeof(as.at) || key.at[key.len - 1] != '\0' ||
        r->count != totals_values((enum total_kind)key.at[0], a->bound_count))
        return;
    struct source *s = find_source(a, r->owner);
    if (!s)
        s = source_new(a, r->owner);
    if (table_get(&s->rows, key))
        return;
    table_add(&s->rows, key, r);
    totals_count_as(&a->totals, key, &as);
    struct total *t = totals_at(&a->totals, total_key_view(&as), r->count);
    for (size_t i = 0; t && i < t->count; i++)
        t->values[i] += r->values[i];
    if (t && t->kind == TOTAL_REQUESTS) {
        s->requests += r->values[0];
        totals_count_route(&a->totals, t->words[0], r->values[0]);
    }
}

/* All that the tallies's rows say, anew. */
static void reload(struct aggregate *a)
{
    totals_clear(&a->totals);
    a->generation_rows = 0;
    list_each (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        table_fini(&s->rows);
        s->requests = 0;
    }
    tallies_each(r, &a->tallies)
    {
        if (renewal_is_bounds(r)) {
            a->bound_count = r->count;
            memcpy(a->bounds, r->values, r->count * sizeof(double));
        } else if (r->key_len > 1 && tallies_key(r).at[0] == TOTAL_GENERATION) {
            totals_note_generation(&a->totals, strtoull(tallies_key(r).at + 1, NULL, 10));
            a->generation_rows++;
        }
    }
    tallies_each(r, &a->tallies) take_row_back(a, r);
}

static size_t count_gone(const struct aggregate *a)
{
    size_t gone = 0;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        gone += !s->is_connected && s->lineage != 0;
    }
    return gone;
}

static void drop_folded(struct aggregate *a, size_t folded)
{
    list_each_safe (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (folded == 0)
            return;
        if (s->is_connected || s->lineage == 0)
            continue;
        source_free(s);
        folded--;
    }
}

/* Lineages that went long ago are added up. Those that went lately may come back: after a start of
 * this process that is every one that counts. */
static void renew(struct aggregate *a, const double *bounds, size_t bound_count)
{
    size_t gone = count_gone(a), folded = gone > MAX_GONE ? gone - MAX_GONE : 0, i = 0;
    uint64_t *lineages = must(calloc(folded + 1, sizeof(*lineages)));
    struct err err;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        if (i < folded && !s->is_connected && s->lineage != 0)
            lineages[i++] = s->lineage;
    }
    const struct renewal renewal = {
        {a->bounds, a->bound_count}, {bounds, bound_count}, lineages, folded};
    int result = renewal_write(&a->tallies, &renewal, &err);
    if (result < 0) {
        tallies_give_up_file(&a->tallies, &err);
        result = renewal_write(&a->tallies, &renewal, &err);
    }
    free(lineages);
    if (result < 0)
        log_fatal("aggregate", "%s", err.text);
    drop_folded(a, folded);
    reload(a);
}

static void tidy(struct aggregate *a)
{
    if (count_gone(a) <= 2 * MAX_GONE && a->tallies.used < a->rewrite_bytes &&
        a->generation_rows < a->rewrite_generations)
        return;
    renew(a, a->bounds, a->bound_count);
    a->rewrite_bytes = MAX(REWRITE_BYTES, a->tallies.used * 2);
    a->rewrite_generations = a->generation_rows + REWRITE_GENERATIONS;
}

/* ---- life ---- */

void aggregate_init(struct aggregate *a, const char *state_dir)
{
    memset(a, 0, sizeof(*a));
    list_init(&a->sources);
    a->rewrite_bytes = REWRITE_BYTES;
    a->rewrite_generations = REWRITE_GENERATIONS;
    tallies_open(&a->tallies, state_dir, "counts");
    reload(a);
    tidy(a);
}

void aggregate_fini(struct aggregate *a)
{
    if (!a->tallies.memory)
        return;
    list_each_safe (node, &a->sources)
        source_free(CONTAINER_OF(node, struct source, link));
    totals_clear(&a->totals);
    tallies_close(&a->tallies);
}

/* What outlives data planes, and is told by each that shares it, is a source of its own. */
static void name_breakers_of(char out[BREAKERS_OF_BYTES], const char *instance_id)
{
    snprintf(out, BREAKERS_OF_BYTES, "breakers of %.100s", instance_id);
}

void aggregate_gone(struct aggregate *a, const char *instance_id)
{
    char breakers[BREAKERS_OF_BYTES];
    name_breakers_of(breakers, instance_id);
    list_each_safe (node, &a->sources) {
        struct source *s = CONTAINER_OF(node, struct source, link);
        if (!s->is_connected ||
            (strcmp(s->instance_id, instance_id) != 0 && strcmp(s->instance_id, breakers) != 0))
            continue;
        s->is_connected = false;
        list_remove(&s->link);
        list_push_back(&a->sources, &s->link);
    }
    tidy(a);
}

void aggregate_set_bounds(struct aggregate *a, const double *bounds, size_t count)
{
    count = MIN(count, COUNT_OF(a->bounds));
    if (count != a->bound_count || memcmp(a->bounds, bounds, count * sizeof(*bounds)) != 0)
        renew(a, bounds, count);
}

void aggregate_enter_generation(struct aggregate *a, uint64_t generation)
{
    totals_enter_generation(&a->totals, generation);
}

/* ---- taking a report ---- */

/* What was said last becomes `now`, and the difference is added to the total; of the first value it
 * is returned. */
static uint64_t take(struct aggregate *a, struct source *s, const struct total_key *k,
                     const uint64_t *now, size_t count)
{
    struct view key = total_key_view(k);
    struct tally *last = table_get(&s->rows, key);
    struct total_key as;
    if (k->is_too_long)
        return 0;
    totals_count_as(&a->totals, key, &as);
    struct total *total = totals_at(&a->totals, total_key_view(&as), count);
    if (total && !last && (last = tallies_add(&a->tallies, s->lineage, key, count))) {
        table_add(&s->rows, tallies_key(last), last);
        a->generation_rows += key.at[0] == TOTAL_GENERATION;
    }
    if (!total || !last || last->count != count)
        return 0;
    uint64_t first = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t step = advance(&last->values[i], now[i]);
        total->values[i] += step;
        first += i == 0 ? step : 0;
    }
    return first;
}

/* Buckets of a report, in our own bounds and with the sum behind them. */
struct buckets {
    const size_t *map;
    size_t map_count;
};

static void put_buckets(const struct aggregate *a, const struct buckets *b, const uint64_t *from,
                        size_t count, double sum_seconds, uint64_t *to)
{
    memset(to, 0, (a->bound_count + 2) * sizeof(*to));
    for (size_t i = 0; i < MIN(count, b->map_count); i++)
        to[b->map[i]] += from[i];
    to[a->bound_count + 1] = nanoseconds(sum_seconds);
}

static void take_series(struct aggregate *a, struct source *s, const Gwp__RouteSeries *now,
                        const struct buckets *b)
{
    uint64_t values[AGGREGATE_MAX_BUCKETS + 1], more = 0;
    struct total_key k;
    for (size_t i = 0; i < now->n_statuses; i++) {
        total_key_begin(&k, TOTAL_REQUESTS);
        total_key_word(&k, now->route);
        total_key_word(&k, now->method);
        total_key_number(&k, "d", now->statuses[i]->status);
        more += take(a, s, &k, &now->statuses[i]->count, 1);
    }
    s->requests += more;
    totals_count_route(&a->totals, now->route, more);
    total_key_begin(&k, TOTAL_DURATION);
    total_key_word(&k, now->route);
    total_key_word(&k, now->method);
    put_buckets(a, b, now->buckets, now->n_buckets, now->sum_seconds, values);
    take(a, s, &k, values, a->bound_count + 2);
    put_buckets(a, b, now->upstream_buckets, now->n_upstream_buckets, now->upstream_sum_seconds,
                values);
    k.at[0] = TOTAL_UPSTREAM;
    take(a, s, &k, values, a->bound_count + 2);
}

static void take_generation(struct aggregate *a, struct source *s, const Gwp__GenerationStats *now,
                            const struct buckets *b)
{
    uint64_t values[AGGREGATE_CLASSES + AGGREGATE_MAX_BUCKETS + 1] = {0};
    struct total_key k;
    for (size_t i = 0; i < MIN(now->n_classes, AGGREGATE_CLASSES); i++)
        values[i] = now->classes[i];
    put_buckets(a, b, now->buckets, now->n_buckets, now->sum_seconds, values + AGGREGATE_CLASSES);
    aggregate_enter_generation(a, now->generation);
    total_key_generation(&k, now->generation);
    take(a, s, &k, values, AGGREGATE_CLASSES + a->bound_count + 2);
}

static void take_count(struct aggregate *a, struct source *s, const Gwp__RouteCount *now)
{
    struct total_key k;
    total_key_begin(&k, TOTAL_COUNT);
    total_key_word(&k, now->family);
    total_key_word(&k, now->route);
    total_key_word(&k, now->value);
    take(a, s, &k, &now->count, 1);
}

static void take_counter(struct aggregate *a, struct source *s, const Gwp__Counter *now)
{
    if (ends_in_total(now->name)) {
        struct total_key k;
        total_key_begin(&k, TOTAL_COUNTER);
        total_key_word(&k, now->name);
        take(a, s, &k, &now->value, 1);
        return;
    }
    struct named_level *level = table_get(&s->levels, view_of(now->name));
    if (!level && s->levels.count < MAX_LEVELS) {
        level = must(calloc(1, sizeof(*level)));
        level->name = must(strdup(now->name));
        table_add(&s->levels, view_of(level->name), level);
    }
    if (level)
        level->value = now->value;
}

static struct view id_key(const uint64_t *id)
{
    return (struct view){(const char *)id, sizeof(*id)};
}

/* Targets come and go with what DNS says. When their table is full it begins anew: all that is in
 * it is repeated by the reports to come. */
static struct target_stats *target_level(struct source *s, uint64_t id)
{
    struct target_stats *t = table_get(&s->targets, id_key(&id));
    if (t)
        return t;
    if (s->targets.count >= MAX_TARGETS) {
        table_each(slot, &s->targets) free(slot->item);
        table_clear(&s->targets);
    }
    t = must(calloc(1, sizeof(*t)));
    t->id = id;
    table_add(&s->targets, id_key(&t->id), t);
    return t;
}

/* `breakers` counts the moves: they are cumulative in a memory of their own. */
static void take_target(struct aggregate *a, struct source *s, struct source *breakers,
                        const Gwp__TargetStats *now)
{
    const uint64_t values[TARGET_VALUES] = {[TARGET_REQUESTS] = now->requests,
                                            [TARGET_FAILURES] = now->failures,
                                            [TARGET_OPENED] = now->connections_opened,
                                            [TARGET_REUSED] = now->connections_reused,
                                            [TARGET_FAILED] = now->connections_failed};
    uint64_t moves[TARGET_VALUES] = {[TARGET_MOVED] = now->breaker_closed,
                                     [TARGET_MOVED + 1] = now->breaker_opened,
                                     [TARGET_MOVED + 2] = now->breaker_half_opened};
    struct target_stats *t = target_level(s, now->target_id);
    struct total_key k;
    t->active = now->active;
    t->breaker_state = now->breaker_state;
    t->since_ms = now->breaker_since_ms;
    t->until_ms = now->breaker_until_ms;
    snprintf(t->cause, sizeof(t->cause), "%s", now->breaker_cause);
    total_key_begin(&k, TOTAL_TARGET);
    total_key_number(&k, "x", now->target_id);
    if (breakers != s) {
        take(a, s, &k, values, TARGET_VALUES);
        if (now->breaker_closed + now->breaker_opened + now->breaker_half_opened == 0)
            return;
    } else {
        memcpy(moves, values, TARGET_MOVED * sizeof(*moves));
    }
    take(a, breakers, &k, moves, TARGET_VALUES);
}

/* Counters of one that is gone, told by another: nobody is connected that counts there. */
static struct source *settled_source(struct aggregate *a, uint64_t lineage)
{
    struct source *s = find_source(a, lineage);
    return s ? s : source_new(a, lineage);
}

static struct source *breaker_source(struct aggregate *a, const char *instance_id,
                                     const Gwp__StatsReport *r, struct source *s)
{
    char name[BREAKERS_OF_BYTES];
    if (r->breaker_lineage == 0)
        return s;
    name_breakers_of(name, instance_id);
    return source_of(a, name, r->breaker_lineage);
}

static void take_redis(struct source *s, Gwp__RedisStats **now, size_t count)
{
    forget_redis(s);
    s->redis = must(calloc(count + 1, sizeof(*s->redis)));
    for (; s->redis_count < MIN(count, MAX_LEVELS); s->redis_count++) {
        const Gwp__RedisStats *m = now[s->redis_count];
        s->redis[s->redis_count] =
            (struct redis_stats){must(strdup(m->name)), m->gateways, m->away};
    }
}

static void take_levels(struct source *s, const Gwp__StatsReport *r)
{
    take_redis(s, r->redis, r->n_redis);
    s->process = (struct process_stats){.rss_bytes = r->rss_bytes,
                                        .open_fds = r->open_fds,
                                        .cpu_seconds = r->cpu_seconds,
                                        .started_seconds = r->started_seconds};
}

void aggregate_take(struct aggregate *a, const char *instance_id, const Gwp__StatsReport *r)
{
    uint64_t lineage = r->lineage ? r->lineage : 1;
    struct source *s = r->settled ? settled_source(a, lineage) : source_of(a, instance_id, lineage);
    struct source *breakers = breaker_source(a, instance_id, r, s);
    size_t map[AGGREGATE_MAX_BUCKETS];
    size_t bounds = MIN(r->n_duration_buckets_seconds, COUNT_OF(a->bounds));
    const struct buckets b = {map, bounds + 1};
    renewal_map(&(struct renewal_bounds){r->duration_buckets_seconds, bounds},
                &(struct renewal_bounds){a->bounds, a->bound_count}, map);
    for (size_t i = 0; i < r->n_routes; i++)
        take_series(a, s, r->routes[i], &b);
    for (size_t i = 0; i < r->n_route_counts; i++)
        take_count(a, s, r->route_counts[i]);
    for (size_t i = 0; i < r->n_generations; i++)
        take_generation(a, s, r->generations[i], &b);
    for (size_t i = 0; i < r->n_counters; i++)
        take_counter(a, s, r->counters[i]);
    for (size_t i = 0; i < r->n_targets; i++)
        take_target(a, s, breakers, r->targets[i]);
    if (!r->settled)
        take_levels(s, r);
    tidy(a);
}

/* ---- reading ---- */

uint64_t aggregate_route_requests(const struct aggregate *a, const char *route)
{
    return totals_route_requests(&a->totals, route);
}

/* Whether a source is wanted: of the connected ones all, or those of one instance. */
static bool counts(const struct source *s, const char *instance_id)
{
    return s->is_connected && (!instance_id || strcmp(s->instance_id, instance_id) == 0);
}

static uint64_t source_value(const struct source *s, const char *name)
{
    struct total_key k;
    if (!ends_in_total(name)) {
        const struct named_level *level = table_get(&s->levels, view_of(name));
        return level ? level->value : 0;
    }
    total_key_begin(&k, TOTAL_COUNTER);
    total_key_word(&k, name);
    const struct tally *r = table_get(&s->rows, total_key_view(&k));
    return r ? r->values[0] : 0;
}

uint64_t aggregate_reported(const struct aggregate *a, const char *name, const char *instance_id)
{
    uint64_t sum = 0;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        sum += counts(s, instance_id) ? source_value(s, name) : 0;
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

const struct process_stats *aggregate_process(const struct aggregate *a, const char *instance_id)
{
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        if (counts(s, instance_id))
            return &s->process;
    }
    return NULL;
}

const struct redis_stats *aggregate_redis(const struct aggregate *a, const char *instance_id,
                                          size_t *count)
{
    *count = 0;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        if (!counts(s, instance_id))
            continue;
        *count = s->redis_count;
        return s->redis;
    }
    return NULL;
}

static void add_levels(struct target_stats *sum, const struct target_stats *t)
{
    sum->active += t->active;
    if (t->breaker_state != 1 && sum->breaker_state != 0)
        return; /* open is worse than half-open */
    sum->breaker_state = t->breaker_state;
    sum->since_ms = t->since_ms;
    sum->until_ms = t->until_ms;
    memcpy(sum->cause, t->cause, sizeof(sum->cause));
}

struct target_stats aggregate_target(const struct aggregate *a, uint64_t id)
{
    struct target_stats sum = {.id = id};
    struct total_key k;
    list_each (node, &a->sources) {
        const struct source *s = CONTAINER_OF(node, struct source, link);
        const struct target_stats *t = s->is_connected ? table_get(&s->targets, id_key(&id)) : NULL;
        if (t)
            add_levels(&sum, t);
    }
    total_key_begin(&k, TOTAL_TARGET);
    total_key_number(&k, "x", id);
    const struct total *t = table_get(&a->totals.by_key, total_key_view(&k));
    if (!t)
        return sum;
    sum.requests = t->values[TARGET_REQUESTS];
    sum.failures = t->values[TARGET_FAILURES];
    memcpy(sum.connections, t->values + TARGET_OPENED, sizeof(sum.connections));
    memcpy(sum.moved_to, t->values + TARGET_MOVED, sizeof(sum.moved_to));
    return sum;
}

struct total *const *aggregate_totals(struct aggregate *a, enum total_kind kind, size_t *count)
{
    struct total_key k;
    total_key_begin(&k, kind);
    return totals_beginning(&a->totals, &k, count);
}

struct total *const *aggregate_route_counts(struct aggregate *a, const char *family,
                                            const char *route, size_t *count)
{
    struct total_key k;
    total_key_begin(&k, TOTAL_COUNT);
    total_key_word(&k, family);
    total_key_word(&k, route);
    return totals_beginning(&a->totals, &k, count);
}
