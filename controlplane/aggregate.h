/* aggregate: the StatsReports of all data planes, merged. Owned by main.c; one thread, no loop.
 *
 * A report's counters are cumulative since their lineage began: that of the memory they lie in,
 * which may go from one data plane to the next. What a lineage reports is compared with what it
 * reported last, and the difference is added to the total. So nothing is counted twice when a data
 * plane reports again or reconnects, what it said stays counted when it is gone, and no total ever
 * steps back: a value that did is ignored until it is over what was known.
 *
 * What each lineage said last is a row of tallies.h, and totals are the sums of those
 * rows: so a control plane that was killed goes on where it was. Lineages that have ended are added
 * up there under owner 0 when there are many of them. Levels (connections open now, the state of a
 * breaker) are of the data planes that are connected, and kept in memory only.
 *
 * Breakers lie in memory that data planes share while one replaces another: how often they moved is
 * a source of its own, by the lineage of that memory. What a data plane that is gone had counted
 * may be told by another one (settled): that counts, and nobody is connected by it.
 *
 * Everything a peer can make grow is bounded: keys, names of counters, targets, and the lineages
 * that have ended. */
#pragma once

#include "controlplane/tallies.h"
#include "controlplane/totals.h"
#include "proto/base/list.h"
#include "proto/gateway.pb-c.h"

struct named_level {
    char *name; /* owned */
    uint64_t value;
};

/* A target as the connected data planes see it now, and what has been counted of it. */
struct target_stats {
    uint64_t id;
    uint64_t requests, failures;
    uint64_t connections[3]; /* opened, reused, failed */
    uint64_t active;
    uint32_t breaker_state;      /* 0 closed, 1 open, 2 half-open */
    uint64_t since_ms, until_ms; /* of that state, wall clock; 0 = always, nobody knows */
    char cause[128];             /* of its last change */
    uint64_t moved_to[AGGREGATE_BREAKER_STATES]; /* how often it has entered each */
};

/* One process, as it said of itself last. */
struct process_stats {
    uint64_t rss_bytes, open_fds;
    double cpu_seconds, started_seconds;
};

/* A Redis as one data plane sees it. */
struct redis_stats {
    char *name; /* owned */
    uint32_t gateways;
    bool away;
};

struct source {
    struct list link; /* of aggregate.sources; those gone longest first */
    uint64_t lineage;
    char *instance_id; /* owned: who reported it last; "" = a control plane before this one knew */
    bool is_connected;
    uint64_t requests;    /* over all series */
    struct table rows;    /* by key -> struct tally, borrowed: what it said last */
    struct table levels;  /* by name -> struct named_level, owned */
    struct table targets; /* by id -> struct target_stats, owned: its levels */
    struct process_stats process;
    struct redis_stats *redis; /* owned */
    size_t redis_count;
};

struct aggregate {
    struct tallies tallies;
    /* When the tallies are larger, or more of them are of generations, they are rewritten. */
    size_t rewrite_bytes, rewrite_generations;
    size_t generation_rows;
    double bounds[AGGREGATE_MAX_BUCKETS - 1];
    size_t bound_count;
    struct list sources; /* owned */
    struct totals totals;
};

/* Reads what is kept in `state_dir`. */
void aggregate_init(struct aggregate *a, const char *state_dir);
void aggregate_fini(struct aggregate *a);

/* The upper bounds that histograms are kept in from now on, ascending. What is counted already
 * moves to the next bound that covers it. */
void aggregate_set_bounds(struct aggregate *a, const double *bounds, size_t count);

/* That generation is in force: it is told apart from now on, and the oldest one no longer. */
void aggregate_enter_generation(struct aggregate *a, uint64_t generation);

void aggregate_take(struct aggregate *a, const char *instance_id, const Gwp__StatsReport *r);

/* That data plane is not connected any more: its gauges no longer count, its counters do. */
void aggregate_gone(struct aggregate *a, const char *instance_id);

uint64_t aggregate_route_requests(const struct aggregate *a, const char *route);

/* A named counter or gauge (a counter whose name does not end in "_total"): the sum over the
 * connected data planes, or the value of the one that is named. */
uint64_t aggregate_reported(const struct aggregate *a, const char *name, const char *instance_id);

/* What one data plane has answered, in all of the life of the memory it counts in. */
uint64_t aggregate_requests_of(const struct aggregate *a, const char *instance_id);

/* NULL: that data plane has not reported yet. */
const struct process_stats *aggregate_process(const struct aggregate *a, const char *instance_id);

/* Likewise, by which Redis its limits are counted. Borrowed, until its next report. */
const struct redis_stats *aggregate_redis(const struct aggregate *a, const char *instance_id,
                                          size_t *count);

/* Of one target, over the connected data planes: sums, and the worst breaker state with its cause.
 * What is counted counts those that are gone as well. */
struct target_stats aggregate_target(const struct aggregate *a, uint64_t id);

/* The totals of one kind, sorted by their words. Borrowed, until the next report. */
struct total *const *aggregate_totals(struct aggregate *a, enum total_kind kind, size_t *count);

/* Those of TOTAL_COUNT that are of one family and route. */
struct total *const *aggregate_route_counts(struct aggregate *a, const char *family,
                                            const char *route, size_t *count);
