/* Who reads while the worker writes sees each number whole, and never an offset before what it
 * points at: offsets, and the status that makes a cell valid, are stored last and with release.
 * Nothing is ever moved or given back, so an offset once read stays good.
 *
 * Memory that a client or a backend can cause to be taken is bounded: methods are ten, and a series
 * keeps 32 statuses; beyond those it counts by class ("600" for 617).
 *
 * Hot path: no lock, no system call but the page faults of memory that is touched first. */
#include "dataplane/report/stats.h"

#include <assert.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "dataplane/state/segment.h"
#include "proto/base/log.h"

#define LAYOUT 3
#define SEGMENT_BYTES (128u * 1024 * 1024)
#define ROUTE_SLOTS 65536u
#define TARGET_SLOTS 262144u
#define EXACT_STATUSES 32
#define CELLS_PER_CHUNK 4
#define MOST_CHUNKS (STATS_MAX_STATUSES / CELLS_PER_CHUNK)
#define WHOLE_LINES(bytes) (((bytes) + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES)
#define RESERVE_BYTES (64u * 1024) /* only for route "none", so that it never lacks room */

struct cell {
    uint64_t count;
    uint32_t key; /* status + 1; 0 = free */
};

struct chunk {
    struct cell cells[CELLS_PER_CHUNK];
    uint32_t next; /* offset, 0 = none */
};

struct bucket {
    uint64_t all, upstream; /* requests by how long they took, and by how long backends did */
};

/* What is taken begins on a cache line, and a request needs few: with thousands of routes no near
 * cache holds the lines of all. */
struct series {
    double sum_seconds, upstream_sum_seconds;
    struct chunk first;
    struct bucket buckets[STATS_MAX_BUCKETS + 1];
};

struct route_row {
    _Alignas(CACHE_LINE_BYTES) uint32_t series[METHOD_LABELS]; /* offsets */
    uint32_t counts;                                           /* offset of a struct stats_route */
};

/* The segment's layout; chunks and series follow. */
struct memory {
    struct segment_head head;
    uint32_t epoch, used; /* used: bytes taken so far */
    uint32_t route_slots, target_slots, bound_count;
    uint32_t current; /* of generations: the one in force */
    double bounds[STATS_MAX_BUCKETS];
    _Alignas(CACHE_LINE_BYTES) uint64_t counters[STAT_COUNT];
    struct stats_generation generations[STATS_GENERATIONS + 1]; /* the last: all older ones */
    _Alignas(CACHE_LINE_BYTES) struct stats_target targets[TARGET_SLOTS];
    struct route_row routes[ROUTE_SLOTS + 1]; /* the last is "none" */
};

static_assert(sizeof(struct memory) + RESERVE_BYTES < SEGMENT_BYTES / 2, "room for series");

struct stats_segment {
    struct segment segment; /* owned */
    struct memory *memory;  /* its mapping */
};

static const char *const method_words[METHOD_LABELS] = {
    [METHOD_GET] = "GET",     [METHOD_HEAD] = "HEAD",       [METHOD_POST] = "POST",
    [METHOD_PUT] = "PUT",     [METHOD_DELETE] = "DELETE",   [METHOD_OPTIONS] = "OPTIONS",
    [METHOD_PATCH] = "PATCH", [METHOD_CONNECT] = "CONNECT", [METHOD_TRACE] = "TRACE",
    [METHOD_OTHER] = "OTHER",
};

enum method_label method_label(unsigned llhttp_method)
{
    static const uint8_t labels[] = {
        [HTTP_GET] = METHOD_GET + 1,       [HTTP_HEAD] = METHOD_HEAD + 1,
        [HTTP_POST] = METHOD_POST + 1,     [HTTP_PUT] = METHOD_PUT + 1,
        [HTTP_DELETE] = METHOD_DELETE + 1, [HTTP_OPTIONS] = METHOD_OPTIONS + 1,
        [HTTP_PATCH] = METHOD_PATCH + 1,   [HTTP_CONNECT] = METHOD_CONNECT + 1,
        [HTTP_TRACE] = METHOD_TRACE + 1,
    };
    if (llhttp_method >= COUNT_OF(labels) || labels[llhttp_method] == 0)
        return METHOD_OTHER;
    return (enum method_label)(labels[llhttp_method] - 1);
}

const char *method_label_word(enum method_label m)
{
    return method_words[m];
}

const char *decision_word(enum decision d)
{
    static const char *const words[] = {
#define DECISION(word) #word,
#include "dataplane/report/decisions.def"
#undef DECISION
    };
    return words[d];
}

/* ---- memory ---- */

#define LOAD(where) __atomic_load_n(&(where), __ATOMIC_ACQUIRE)
#define MINE(where) __atomic_load_n(&(where), __ATOMIC_RELAXED) /* only this thread writes it */
#define STORE(where, value) __atomic_store_n(&(where), (value), __ATOMIC_RELEASE)

static void add(uint64_t *where, uint64_t n)
{
    __atomic_store_n(where, MINE(*where) + n, __ATOMIC_RELAXED);
}

static void add_seconds(double *where, double seconds)
{
    double sum = *where + seconds;
    __atomic_store(where, &sum, __ATOMIC_RELAXED);
}

static void *at(const struct memory *m, uint32_t offset)
{
    return (char *)m + offset;
}

/* For who reads: the memory may be what a process of another mind has left. NULL for an offset of
 * 0, and for one that leads elsewhere. */
static const void *inside(const struct memory *m, uint32_t offset, size_t bytes)
{
    bool leads_there = offset >= sizeof(*m) && offset <= SEGMENT_BYTES - bytes && offset % 8 == 0;
    return leads_there ? at(m, offset) : NULL;
}

/* Offset of that many zero bytes, 0 when the segment is full. */
static uint32_t take(struct memory *m, size_t bytes, bool from_reserve)
{
    size_t whole = WHOLE_LINES(bytes);
    size_t limit = SEGMENT_BYTES - (from_reserve ? 0 : RESERVE_BYTES);
    if (m->used + whole > limit)
        return 0;
    uint32_t offset = m->used;
    m->used += (uint32_t)whole;
    return offset;
}

/* Numbers stand for rows of tables, which differ from release to release. */
static uint32_t layout(void)
{
    static const char *const words[] = {
#define COUNTER(name, help) #name,
#include "proto/counters.def"
#undef COUNTER
#define REASON(NAME, status, word, message, closes) word,
#include "dataplane/http/reasons.def"
#undef REASON
#define DECISION(word) #word,
#include "dataplane/report/decisions.def"
#undef DECISION
    };
    uint64_t hash = LAYOUT;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        hash = XXH3_64bits_withSeed(words[i], strlen(words[i]), hash);
    return (uint32_t)hash;
}

void stats_init(struct stats *s, unsigned worker, uint64_t lineage)
{
    char name[32];
    struct err err;
    struct stats_segment *seg = calloc(1, sizeof(*seg));
    snprintf(name, sizeof(name), "gwp-counters-%u", worker);
    if (!seg)
        log_fatal("stats", "out of memory");
    if (segment_create(&seg->segment, name, layout(), SEGMENT_BYTES, &err) < 0)
        log_fatal("stats", "%s", err.text);
    seg->memory = (struct memory *)(void *)seg->segment.head;
    seg->memory->used = sizeof(struct memory);
    atomic_store(&seg->memory->head.lineage, lineage);
    *s = (struct stats){
        .counters = seg->memory->counters, .segment = seg, .bounds = seg->memory->bounds};
}

int stats_adopt(struct stats *s, int fd, struct err *err)
{
    struct stats_segment *seg = calloc(1, sizeof(*seg));
    if (!seg)
        log_fatal("stats", "out of memory");
    if (segment_adopt(&seg->segment, fd, "gwp-counters", layout(), SEGMENT_BYTES, err) < 0) {
        free(seg);
        return -1;
    }
    seg->memory = (struct memory *)(void *)seg->segment.head;
    *s = (struct stats){.counters = seg->memory->counters, .segment = seg};
    return 0;
}

const struct segment *stats_segment(const struct stats *s)
{
    return &s->segment->segment;
}

void stats_fini(struct stats *s)
{
    segment_close(&s->segment->segment);
    free(s->segment);
    memset(s, 0, sizeof(*s));
}

/* ---- counting ---- */

/* What an offset of a route's row points at, made when it is not there yet; NULL when the segment
 * is full. */
static void *in_row(struct memory *m, uint32_t row, uint32_t *where, size_t bytes)
{
    uint32_t offset = MINE(*where);
    if (LIKELY(offset != 0))
        return at(m, offset);
    offset = take(m, bytes, row == ROUTE_SLOTS);
    if (offset == 0)
        return NULL;
    STORE(*where, offset);
    if (row < ROUTE_SLOTS && row >= m->route_slots)
        STORE(m->route_slots, row + 1);
    return at(m, offset);
}

/* The cell of that key, or the first free one; `seen` counts those before it. */
static struct cell *find_cell(struct memory *m, struct series *series, uint32_t key,
                              bool from_reserve, unsigned *seen)
{
    *seen = 0;
    for (struct chunk *chunk = &series->first;;) {
        for (unsigned i = 0; i < CELLS_PER_CHUNK; i++, (*seen)++) {
            uint32_t there = MINE(chunk->cells[i].key);
            if (there == key || there == 0)
                return &chunk->cells[i];
        }
        uint32_t next = MINE(chunk->next);
        if (next == 0) {
            next = take(m, sizeof(struct chunk), from_reserve);
            if (next == 0)
                return NULL;
            STORE(chunk->next, next);
        }
        chunk = at(m, next);
    }
}

static bool count_status(struct memory *m, struct series *series, unsigned status,
                         bool from_reserve)
{
    unsigned seen;
    uint32_t key = MIN(status, 999) + 1;
    struct cell *cell = find_cell(m, series, key, from_reserve, &seen);
    if (cell && MINE(cell->key) == 0 && seen >= EXACT_STATUSES) {
        key = MIN(status, 999) / 100 * 100 + 1;
        cell = find_cell(m, series, key, from_reserve, &seen);
    }
    if (!cell)
        return false;
    add(&cell->count, 1);
    if (MINE(cell->key) == 0)
        STORE(cell->key, key);
    return true;
}

/* Looked for from a bucket that is likely: that of the request before, or of the whole request, of
 * which the backend takes most. */
static uint32_t bucket_near(const struct stats *s, uint32_t bucket, double seconds)
{
    while (bucket > 0 && seconds <= s->bounds[bucket - 1])
        bucket--;
    while (bucket < s->bound_count && seconds > s->bounds[bucket])
        bucket++;
    return bucket;
}

static void count_generation(struct memory *m, const struct stats_exchange *x, uint32_t bucket)
{
    uint32_t i = m->current;
    if (UNLIKELY(m->generations[i].generation != x->generation)) {
        for (i = 0; i < STATS_GENERATIONS && m->generations[i].generation != x->generation; i++)
            ;
    }
    struct stats_generation *g = &m->generations[i];
    unsigned class = x->status / 100 - 1;
    add(&g->classes[MIN(class, STATS_CLASSES - 1)], 1);
    add_seconds(&g->sum_seconds, x->seconds);
    add(&g->buckets[bucket], 1);
}

static bool count_in(struct stats *s, uint32_t row, const struct stats_exchange *x, uint32_t bucket)
{
    struct memory *m = s->segment->memory;
    struct route_row *r = &m->routes[row];
    struct series *series = in_row(m, row, &r->series[x->method], sizeof(*series));
    struct stats_route *counts = in_row(m, row, &r->counts, sizeof(*counts));
    if (!series || !counts || !count_status(m, series, x->status, row == ROUTE_SLOTS))
        return false;
    add(&counts->outcomes[x->reason], 1);
    add_seconds(&series->sum_seconds, x->seconds);
    if (x->upstream_seconds >= 0) {
        add_seconds(&series->upstream_sum_seconds, x->upstream_seconds);
        add(&series->buckets[bucket_near(s, bucket, x->upstream_seconds)].upstream, 1);
    }
    /* Last and with release: who sees the bucket, which is what changes are told by, sees all. */
    STORE(series->buckets[bucket].all, MINE(series->buckets[bucket].all) + 1);
    return true;
}

void stats_expect_attempt(const struct stats *s, uint32_t route_slot, uint32_t target_slot)
{
    const struct memory *m = s->segment->memory;
    PREFETCH(&m->targets[MIN(target_slot, TARGET_SLOTS - 1)]);
    PREFETCH(&m->routes[MIN(route_slot, ROUTE_SLOTS)]);
}

void stats_expect_end(const struct stats *s, uint32_t route_slot, enum method_label method)
{
    const struct memory *m = s->segment->memory;
    const struct route_row *r = &m->routes[MIN(route_slot, ROUTE_SLOTS)];
    const struct series *series = at(m, MINE(r->series[method]));
    PREFETCH(at(m, MINE(r->counts)));
    PREFETCH(series);
    PREFETCH(&series->buckets[s->bucket]);
}

void stats_request(struct stats *s, const struct stats_exchange *x)
{
    uint32_t row = MIN(x->route_slot, ROUTE_SLOTS);
    uint32_t bucket = s->bucket = bucket_near(s, s->bucket, x->seconds);
    count_generation(s->segment->memory, x, bucket);
    if (UNLIKELY(!count_in(s, row, x, bucket)) && row != ROUTE_SLOTS) {
        bool counted = count_in(s, ROUTE_SLOTS, x, bucket);
        assert(counted); /* the reserve has room for every series and status of that row */
        (void)counted;
    }
}

void stats_decision(struct stats *s, uint32_t route_slot, enum decision d)
{
    struct memory *m = s->segment->memory;
    uint32_t row = MIN(route_slot, ROUTE_SLOTS);
    struct stats_route *counts = in_row(m, row, &m->routes[row].counts, sizeof(*counts));
    if (UNLIKELY(!counts))
        counts = in_row(m, ROUTE_SLOTS, &m->routes[ROUTE_SLOTS].counts, sizeof(*counts));
    add(&counts->decisions[d], 1);
}

/* NULL beyond the last slot. */
static struct stats_target *target_at(struct memory *m, uint32_t slot)
{
    if (UNLIKELY(slot >= TARGET_SLOTS))
        return NULL;
    if (UNLIKELY(slot >= MINE(m->target_slots)))
        STORE(m->target_slots, slot + 1);
    return &m->targets[slot];
}

void stats_attempt(struct stats *s, uint32_t target_slot, bool failed)
{
    struct stats_target *t = target_at(s->segment->memory, target_slot);
    if (UNLIKELY(!t))
        return;
    if (failed)
        add(&t->failures, 1);
    STORE(t->requests, MINE(t->requests) + 1);
}

void stats_connection(struct stats *s, uint32_t target_slot, enum stats_connection what)
{
    struct stats_target *t = target_at(s->segment->memory, target_slot);
    if (LIKELY(t != NULL))
        add(&t->connections[what], 1);
}

static_assert((RESERVE_BYTES) > WHOLE_LINES(sizeof(struct stats_route)) +
                                    METHOD_LABELS * (WHOLE_LINES(sizeof(struct series)) +
                                                     12 * WHOLE_LINES(sizeof(struct chunk))),
              "the reserve holds all of route \"none\"");

/* ---- beginning anew ---- */

static void clear_series(struct memory *m, struct series *series)
{
    double nothing = 0;
    for (uint32_t i = 0; i <= STATS_MAX_BUCKETS; i++) {
        STORE(series->buckets[i].all, 0);
        STORE(series->buckets[i].upstream, 0);
    }
    __atomic_store(&series->sum_seconds, &nothing, __ATOMIC_RELEASE);
    __atomic_store(&series->upstream_sum_seconds, &nothing, __ATOMIC_RELEASE);
    for (struct chunk *chunk = &series->first;; chunk = at(m, chunk->next)) {
        for (unsigned i = 0; i < CELLS_PER_CHUNK; i++)
            STORE(chunk->cells[i].count, 0);
        if (chunk->next == 0)
            return;
    }
}

static void clear_words(void *words, size_t bytes)
{
    for (uint64_t *w = words; bytes > 0; w++, bytes -= sizeof(*w))
        STORE(*w, 0);
}

static void clear_row(struct memory *m, uint32_t row)
{
    const struct route_row *r = &m->routes[row];
    for (unsigned method = 0; method < METHOD_LABELS; method++)
        if (r->series[method] != 0)
            clear_series(m, at(m, r->series[method]));
    if (r->counts != 0)
        clear_words(at(m, r->counts), sizeof(struct stats_route));
}

static void clear_generation(struct stats_generation *g, uint64_t generation)
{
    clear_words(g, sizeof(*g));
    STORE(g->generation, generation);
}

void stats_enter_generation(struct stats *s, uint64_t generation)
{
    struct memory *m = s->segment->memory;
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < STATS_GENERATIONS; i++) {
        if (m->generations[i].generation == generation) {
            m->current = i;
            return;
        }
        if (m->generations[i].generation < m->generations[oldest].generation)
            oldest = i;
    }
    STORE(m->epoch, m->epoch + 1);
    clear_generation(&m->generations[oldest], generation);
    STORE(m->epoch, m->epoch + 1);
    m->current = oldest;
}

/* Levels are not counts of the past: what is open now is open under any lineage. */
static void clear_totals(struct memory *m)
{
    static const char *const names[STAT_COUNT] = {
#define COUNTER(name, help) #name,
#include "proto/counters.def"
#undef COUNTER
    };
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        size_t len = strlen(names[i]);
        if (len > 6 && strcmp(names[i] + len - 6, "_total") == 0)
            STORE(m->counters[i], 0);
    }
}

void stats_set_bounds(struct stats *s, const double *bounds, uint32_t count)
{
    struct memory *m = s->segment->memory;
    assert(count <= STATS_MAX_BUCKETS);
    if (count == m->bound_count &&
        (count == 0 || memcmp(m->bounds, bounds, count * sizeof(*bounds)) == 0))
        return;
    /* Release stores keep everything below behind the odd epoch for readers that acquire. */
    STORE(m->epoch, m->epoch + 1);
    for (uint32_t i = 0; i < count; i++)
        __atomic_store(&m->bounds[i], (double *)&bounds[i], __ATOMIC_RELEASE);
    STORE(m->bound_count, count);
    clear_totals(m);
    for (uint32_t row = 0; row < m->route_slots; row++)
        clear_row(m, row);
    clear_row(m, ROUTE_SLOTS);
    clear_words(m->targets, m->target_slots * sizeof(m->targets[0]));
    for (uint32_t i = 0; i <= STATS_GENERATIONS; i++)
        clear_generation(&m->generations[i], m->generations[i].generation);
    atomic_store(&m->head.lineage,
                 XXH3_64bits_withSeed(bounds, count * sizeof(*bounds), stats_lineage(s)));
    STORE(m->epoch, m->epoch + 1);
    s->bound_count = count;
    s->bucket = 0;
}

/* ---- reading ---- */

uint32_t stats_epoch(const struct stats *s)
{
    return LOAD(s->segment->memory->epoch);
}

uint64_t stats_lineage(const struct stats *s)
{
    return atomic_load(&s->segment->memory->head.lineage);
}

uint32_t stats_bounds(const struct stats *s, double bounds[STATS_MAX_BUCKETS])
{
    const struct memory *m = s->segment->memory;
    uint32_t count = MIN(LOAD(m->bound_count), STATS_MAX_BUCKETS);
    for (uint32_t i = 0; i < count; i++)
        __atomic_load(&m->bounds[i], &bounds[i], __ATOMIC_ACQUIRE);
    return count;
}

uint64_t stats_counter(const struct stats *s, enum stat_id which)
{
    return LOAD(s->segment->memory->counters[which]);
}

uint32_t stats_route_slots(const struct stats *s)
{
    return MIN(LOAD(s->segment->memory->route_slots), ROUTE_SLOTS);
}

uint32_t stats_target_slots(const struct stats *s)
{
    return MIN(LOAD(s->segment->memory->target_slots), TARGET_SLOTS);
}

static void add_status(struct stats_series *into, uint32_t status, uint64_t count)
{
    for (uint32_t i = 0; i < into->status_count; i++) {
        if (into->statuses[i].status == status) {
            into->statuses[i].count += count;
            return;
        }
    }
    assert(into->status_count < STATS_MAX_STATUSES); /* there are no more keys */
    into->statuses[into->status_count].status = status;
    into->statuses[into->status_count++].count = count;
}

static void read_statuses(const struct memory *m, const struct series *series,
                          struct stats_series *into)
{
    const struct chunk *chunk = &series->first;
    for (unsigned n = 0; chunk && n < MOST_CHUNKS; n++) {
        for (unsigned i = 0; i < CELLS_PER_CHUNK; i++) {
            uint32_t key = LOAD(chunk->cells[i].key);
            uint64_t count = LOAD(chunk->cells[i].count);
            if (key != 0 && key <= STATS_MAX_STATUSES && count > 0)
                add_status(into, key - 1, count);
        }
        chunk = inside(m, LOAD(chunk->next), sizeof(*chunk));
    }
}

void stats_read_series(const struct stats *s, uint32_t route_slot, enum method_label method,
                       struct stats_series *into)
{
    const struct memory *m = s->segment->memory;
    uint32_t offset = LOAD(m->routes[MIN(route_slot, ROUTE_SLOTS)].series[method]);
    const struct series *series = inside(m, offset, sizeof(*series));
    if (!series)
        return;
    double sum, upstream_sum;
    for (unsigned i = 0; i <= STATS_MAX_BUCKETS; i++) {
        uint64_t n = LOAD(series->buckets[i].all);
        into->buckets[i] += n;
        into->requests += n;
        into->upstream_buckets[i] += LOAD(series->buckets[i].upstream);
    }
    __atomic_load(&series->sum_seconds, &sum, __ATOMIC_ACQUIRE);
    __atomic_load(&series->upstream_sum_seconds, &upstream_sum, __ATOMIC_ACQUIRE);
    into->sum_seconds += sum;
    into->upstream_sum_seconds += upstream_sum;
    read_statuses(m, series, into);
}

static void add_words(uint64_t *into, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        into[i] += LOAD(from[i]);
}

void stats_read_target(const struct stats *s, uint32_t target_slot, struct stats_target *into)
{
    const struct memory *m = s->segment->memory;
    if (target_slot >= stats_target_slots(s))
        return;
    const struct stats_target *t = &m->targets[target_slot];
    into->requests += LOAD(t->requests);
    into->failures += LOAD(t->failures);
    add_words(into->connections, t->connections, CONNECTION_KINDS);
}

void stats_read_route(const struct stats *s, uint32_t route_slot, struct stats_route *into)
{
    const struct memory *m = s->segment->memory;
    uint32_t offset = LOAD(m->routes[MIN(route_slot, ROUTE_SLOTS)].counts);
    const struct stats_route *counts = inside(m, offset, sizeof(*counts));
    if (!counts)
        return;
    add_words(into->outcomes, counts->outcomes, R_COUNT);
    add_words(into->decisions, counts->decisions, DECISION_COUNT);
}

void stats_read_generation(const struct stats *s, unsigned slot, struct stats_generation *into)
{
    const struct stats_generation *g = &s->segment->memory->generations[slot];
    double sum;
    into->generation = LOAD(g->generation);
    add_words(into->classes, g->classes, STATS_CLASSES);
    add_words(into->buckets, g->buckets, STATS_MAX_BUCKETS + 1);
    __atomic_load(&g->sum_seconds, &sum, __ATOMIC_ACQUIRE);
    into->sum_seconds += sum;
}
