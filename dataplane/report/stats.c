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

#include "dataplane/state/segment.h"
#include "proto/base/log.h"

#define LAYOUT 1
#define SEGMENT_BYTES (64u * 1024 * 1024)
#define ROUTE_SLOTS 65536u
#define TARGET_SLOTS 262144u
#define EXACT_STATUSES 32
#define CELLS_PER_CHUNK 4
#define RESERVE_BYTES (64u * 1024) /* only for route "none", so that it never lacks room */

struct cell {
    uint64_t count;
    uint32_t key; /* status + 1; 0 = free */
};

struct chunk {
    struct cell cells[CELLS_PER_CHUNK];
    uint32_t next; /* offset, 0 = none */
};

struct series {
    uint64_t buckets[STATS_MAX_BUCKETS + 1];
    double sum_seconds;
    struct chunk first;
};

struct target_count {
    uint64_t requests, failures;
};

/* The segment's layout; chunks and series follow. */
struct memory {
    struct segment_head head;
    uint32_t epoch, used; /* used: bytes taken so far */
    uint32_t route_slots, target_slots, bound_count;
    double bounds[STATS_MAX_BUCKETS];
    _Alignas(CACHE_LINE_BYTES) uint64_t counters[STAT_COUNT];
    _Alignas(CACHE_LINE_BYTES) struct target_count targets[TARGET_SLOTS];
    uint32_t routes[ROUTE_SLOTS + 1][METHOD_LABELS]; /* offsets; the last row is "none" */
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

/* ---- memory ---- */

#define LOAD(where) __atomic_load_n(&(where), __ATOMIC_ACQUIRE)
#define MINE(where) __atomic_load_n(&(where), __ATOMIC_RELAXED) /* only this thread writes it */
#define STORE(where, value) __atomic_store_n(&(where), (value), __ATOMIC_RELEASE)

static void add(uint64_t *where, uint64_t n)
{
    __atomic_store_n(where, MINE(*where) + n, __ATOMIC_RELAXED);
}

static void *at(const struct memory *m, uint32_t offset)
{
    return (char *)m + offset;
}

/* Offset of that many zero bytes, 0 when the segment is full. */
static uint32_t take(struct memory *m, size_t bytes, bool from_reserve)
{
    size_t whole = (bytes + 7) & ~(size_t)7;
    size_t limit = SEGMENT_BYTES - (from_reserve ? 0 : RESERVE_BYTES);
    if (m->used + whole > limit)
        return 0;
    uint32_t offset = m->used;
    m->used += (uint32_t)whole;
    return offset;
}

void stats_init(struct stats *s, unsigned worker)
{
    char name[32];
    struct err err;
    struct stats_segment *seg = calloc(1, sizeof(*seg));
    snprintf(name, sizeof(name), "gwp-counters-%u", worker);
    if (!seg)
        log_fatal("stats", "out of memory");
    if (segment_create(&seg->segment, name, LAYOUT, SEGMENT_BYTES, &err) < 0)
        log_fatal("stats", "%s", err.text);
    seg->memory = (struct memory *)(void *)seg->segment.head;
    seg->memory->used = sizeof(struct memory);
    *s = (struct stats){
        .counters = seg->memory->counters, .segment = seg, .bounds = seg->memory->bounds};
}

void stats_fini(struct stats *s)
{
    segment_close(&s->segment->segment);
    free(s->segment);
    memset(s, 0, sizeof(*s));
}

/* ---- counting ---- */

static struct series *series_for(struct memory *m, uint32_t row, enum method_label method)
{
    uint32_t offset = MINE(m->routes[row][method]);
    if (LIKELY(offset != 0))
        return at(m, offset);
    offset = take(m, sizeof(struct series), row == ROUTE_SLOTS);
    if (offset == 0)
        return NULL;
    STORE(m->routes[row][method], offset);
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

static bool count_in(struct stats *s, uint32_t row, enum method_label method, unsigned status,
                     double seconds)
{
    struct memory *m = s->segment->memory;
    struct series *series = series_for(m, row, method);
    if (!series || !count_status(m, series, status, row == ROUTE_SLOTS))
        return false;
    double sum = series->sum_seconds + seconds;
    __atomic_store(&series->sum_seconds, &sum, __ATOMIC_RELAXED);
    /* Last and with release: who sees the bucket, which is what changes are told by, sees all. */
    uint32_t bucket = 0;
    while (bucket < s->bound_count && seconds > s->bounds[bucket])
        bucket++;
    STORE(series->buckets[bucket], MINE(series->buckets[bucket]) + 1);
    return true;
}

void stats_request(struct stats *s, uint32_t route_slot, enum method_label method, unsigned status,
                   double seconds)
{
    uint32_t row = MIN(route_slot, ROUTE_SLOTS);
    if (UNLIKELY(!count_in(s, row, method, status, seconds)) && row != ROUTE_SLOTS) {
        bool counted = count_in(s, ROUTE_SLOTS, method, status, seconds);
        assert(counted); /* the reserve has room for every series and status of that row */
        (void)counted;
    }
}

void stats_attempt(struct stats *s, uint32_t target_slot, bool failed)
{
    struct memory *m = s->segment->memory;
    if (UNLIKELY(target_slot >= TARGET_SLOTS))
        return;
    if (failed)
        add(&m->targets[target_slot].failures, 1);
    STORE(m->targets[target_slot].requests, MINE(m->targets[target_slot].requests) + 1);
    if (UNLIKELY(target_slot >= MINE(m->target_slots)))
        STORE(m->target_slots, target_slot + 1);
}

static_assert((RESERVE_BYTES) > METHOD_LABELS * (sizeof(struct series) + 12 * sizeof(struct chunk)),
              "the reserve holds all of route \"none\"");

/* ---- beginning anew ---- */

static void clear_series(struct memory *m, struct series *series)
{
    double nothing = 0;
    for (uint32_t i = 0; i <= STATS_MAX_BUCKETS; i++)
        STORE(series->buckets[i], 0);
    __atomic_store(&series->sum_seconds, &nothing, __ATOMIC_RELEASE);
    for (struct chunk *chunk = &series->first;; chunk = at(m, chunk->next)) {
        for (unsigned i = 0; i < CELLS_PER_CHUNK; i++)
            STORE(chunk->cells[i].count, 0);
        if (chunk->next == 0)
            return;
    }
}

static void clear_row(struct memory *m, uint32_t row)
{
    for (unsigned method = 0; method < METHOD_LABELS; method++)
        if (m->routes[row][method] != 0)
            clear_series(m, at(m, m->routes[row][method]));
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
    for (uint32_t i = 0; i < m->target_slots; i++) {
        STORE(m->targets[i].requests, 0);
        STORE(m->targets[i].failures, 0);
    }
    atomic_store(&m->head.lineage, segment_new_lineage());
    STORE(m->epoch, m->epoch + 1);
    s->bound_count = count;
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
    uint32_t count = LOAD(m->bound_count);
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
    return LOAD(s->segment->memory->route_slots);
}

uint32_t stats_target_slots(const struct stats *s)
{
    return LOAD(s->segment->memory->target_slots);
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
    for (;;) {
        for (unsigned i = 0; i < CELLS_PER_CHUNK; i++) {
            uint32_t key = LOAD(chunk->cells[i].key);
            uint64_t count = LOAD(chunk->cells[i].count);
            if (key != 0 && count > 0)
                add_status(into, key - 1, count);
        }
        uint32_t next = LOAD(chunk->next);
        if (next == 0)
            return;
        chunk = at(m, next);
    }
}

void stats_read_series(const struct stats *s, uint32_t route_slot, enum method_label method,
                       struct stats_series *into)
{
    const struct memory *m = s->segment->memory;
    uint32_t offset = LOAD(m->routes[MIN(route_slot, ROUTE_SLOTS)][method]);
    if (offset == 0)
        return;
    const struct series *series = at(m, offset);
    double sum;
    for (unsigned i = 0; i <= STATS_MAX_BUCKETS; i++) {
        uint64_t n = LOAD(series->buckets[i]);
        into->buckets[i] += n;
        into->requests += n;
    }
    __atomic_load(&series->sum_seconds, &sum, __ATOMIC_ACQUIRE);
    into->sum_seconds += sum;
    read_statuses(m, series, into);
}

void stats_read_target(const struct stats *s, uint32_t target_slot, uint64_t *requests,
                       uint64_t *failures)
{
    const struct memory *m = s->segment->memory;
    if (target_slot >= TARGET_SLOTS)
        return;
    *requests += LOAD(m->targets[target_slot].requests);
    *failures += LOAD(m->targets[target_slot].failures);
}
