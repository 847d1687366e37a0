/* stats: what one worker counts, in its own memory; merged elsewhere (report.h). Single writer: the
 * worker; any thread may read with relaxed loads and sees values that are at most a moment old. Hot
 * path: no lock, no system call; memory is taken only when a (route, method) or a status is seen
 * for the first time.
 *
 * The memory is one segment (segment.h: memfd, fixed size, offsets instead of pointers), so it can
 * outlive the process:
 *
 *     head | counters | generations | targets[slots] | routes[slots]: offsets | what they point at,
 * bump-allocated: a series for each method, and the route's counts
 *
 * When the segment is full, what is new is counted under route "none"; nothing fails. */
#pragma once

#include <string.h>

#include "dataplane/http/reasons.h"
#include "proto/base/defs.h"
#include "proto/base/err.h"

enum stat_id {
#define COUNTER(name, help) STAT_##name,
#include "proto/counters.def"
#undef COUNTER
    STAT_COUNT
};

#define STATS_MAX_BUCKETS 32
#define STATS_NO_ROUTE UINT32_MAX /* for what matched no route */

/* Methods as metric labels: llhttp's method number -> one of these. */
enum method_label {
    METHOD_GET,
    METHOD_HEAD,
    METHOD_POST,
    METHOD_PUT,
    METHOD_DELETE,
    METHOD_OPTIONS,
    METHOD_PATCH,
    METHOD_CONNECT,
    METHOD_TRACE,
    METHOD_OTHER,
    METHOD_LABELS
};
enum method_label method_label(unsigned llhttp_method);
const char *method_label_word(enum method_label m);

/* What a route's rate limit said. */
enum decision {
#define DECISION(word) DECISION_##word,
#include "dataplane/report/decisions.def"
#undef DECISION
    DECISION_COUNT
};
const char *decision_word(enum decision d);

/* Generations that are told apart: the one in force and those before it. Older ones count together,
 * as generation 0. */
#define STATS_GENERATIONS 4
#define STATS_CLASSES 6 /* of status: 1xx to 5xx, and what is none of these */

struct segment;

struct stats {
    uint64_t *counters;            /* STAT_COUNT; in the segment */
    struct stats_segment *segment; /* owned mapping */
    const double *bounds;          /* bucket bounds; in the segment */
    uint32_t bound_count;
    uint32_t bucket; /* of the last request */
};

/* Ends the program if there is no memory. Without bounds there is one bucket for everything. All
 * workers of a process have the same lineage: what they count is told as one. */
void stats_init(struct stats *s, unsigned worker, uint64_t lineage);
void stats_fini(struct stats *s);
const struct segment *stats_segment(const struct stats *s);

/* What a worker of another process has counted, only to be read. -1 with `err`, also when this
 * release counts by other tables; takes `fd` over in either case. */
MUST_CHECK int stats_adopt(struct stats *s, int fd, struct err *err);

/* Bounds for durations from now on, at most STATS_MAX_BUCKETS; copied. If they differ from those in
 * use, everything but the levels begins anew, and so the lineage changes: a bucket counted under
 * other bounds means nothing. The next lineage follows from the last and the bounds, so that
 * workers agree. */
void stats_set_bounds(struct stats *s, const double *bounds, uint32_t count);

/* One writer, so load-add-store is enough; relaxed, since readers want no order. */
static inline void stats_add(struct stats *s, enum stat_id which, uint64_t n)
{
    uint64_t *c = &s->counters[which];
    __atomic_store_n(c, __atomic_load_n(c, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

static inline void stats_sub(struct stats *s, enum stat_id which, uint64_t n)
{
    stats_add(s, which, (uint64_t)0 - n);
}

/* One finished exchange. */
struct stats_exchange {
    uint32_t route_slot; /* STATS_NO_ROUTE = it matched none */
    enum method_label method;
    unsigned status;
    enum reason reason;
    uint64_t generation;
    double seconds;
    double upstream_seconds; /* of the last attempt; negative = no backend was reached */
};

void stats_request(struct stats *s, const struct stats_exchange *x);

/* Something is about to be counted for these, after a system call: what is far away is fetched
 * meanwhile. Nothing changes by it. */
void stats_expect_attempt(const struct stats *s, uint32_t route_slot, uint32_t target_slot);
void stats_expect_end(const struct stats *s, uint32_t route_slot, enum method_label method);

/* Requests under this generation are about to come. */
void stats_enter_generation(struct stats *s, uint64_t generation);

/* A rate limit of that route has decided. */
void stats_decision(struct stats *s, uint32_t route_slot, enum decision d);

/* One finished attempt at a target. */
void stats_attempt(struct stats *s, uint32_t target_slot, bool failed);

/* What became of a connection that an attempt at a target asked for. */
enum stats_connection { CONNECTION_OPENED, CONNECTION_REUSED, CONNECTION_FAILED, CONNECTION_KINDS };
void stats_connection(struct stats *s, uint32_t target_slot, enum stats_connection what);

/* ---- for reports: any thread ---- */

#define STATS_MAX_STATUSES 1000 /* workers may have kept different ones */

/* One (route, method), summed over workers. */
struct stats_series {
    uint64_t requests, buckets[STATS_MAX_BUCKETS + 1];
    uint64_t upstream_buckets[STATS_MAX_BUCKETS + 1];
    double sum_seconds, upstream_sum_seconds;
    uint32_t status_count;
    struct {
        uint32_t status;
        uint64_t count;
    } statuses[STATS_MAX_STATUSES]; /* the first status_count are set */
};

/* Empty again, without touching all of it. */
static inline void stats_series_clear(struct stats_series *s)
{
    memset(s, 0, offsetof(struct stats_series, statuses));
}

/* Goes up when counting begins anew, odd while that is being done: what was read between two equal
 * even values belongs together. */
uint32_t stats_epoch(const struct stats *s);
uint64_t stats_lineage(const struct stats *s);

/* Copies the bounds in use; returns how many. */
uint32_t stats_bounds(const struct stats *s, double bounds[STATS_MAX_BUCKETS]);

uint64_t stats_counter(const struct stats *s, enum stat_id which);

/* Beyond these slots nothing has been counted. */
uint32_t stats_route_slots(const struct stats *s);
uint32_t stats_target_slots(const struct stats *s);

/* Add to what is there. `route_slot` may be STATS_NO_ROUTE. */
void stats_read_series(const struct stats *s, uint32_t route_slot, enum method_label method,
                       struct stats_series *into);

/* One target, one route, one generation, summed over workers. */
struct stats_target {
    _Alignas(CACHE_LINE_BYTES) uint64_t requests;
    uint64_t failures, connections[CONNECTION_KINDS];
};
struct stats_route {
    uint64_t outcomes[R_COUNT], decisions[DECISION_COUNT];
};
struct stats_generation {
    uint64_t generation, classes[STATS_CLASSES], buckets[STATS_MAX_BUCKETS + 1];
    double sum_seconds;
};

void stats_read_target(const struct stats *s, uint32_t target_slot, struct stats_target *into);
void stats_read_route(const struct stats *s, uint32_t route_slot, struct stats_route *into);

/* `slot` is less than STATS_GENERATIONS, or that for all older ones. */
void stats_read_generation(const struct stats *s, unsigned slot, struct stats_generation *into);
