/* aggregate: the StatsReports of all data planes, merged. Owned by main.c; one thread, no loop.
 *
 * A report's counters are cumulative since their lineage began. A source is one instance with one
 * lineage: what it reports is compared with what it reported last, and the difference is added to
 * the total. So nothing is counted twice when it reports again or reconnects, what it said stays
 * counted when it is gone, and no total ever steps back: a value that did is ignored until it is
 * over what was known.
 *
 * Everything a peer can make grow is bounded: series, counter names, targets, and the sources that
 * are gone. */
#pragma once

#include "controlplane/table.h"
#include "proto/base/list.h"
#include "proto/gateway.pb-c.h"

#define AGGREGATE_BREAKER_STATES 3
#define AGGREGATE_MAX_BUCKETS 33 /* 32 bounds, and what is over the last */

struct status_count {
    uint32_t status;
    uint64_t count;
};

/* One (route, method): as a total, or as a source said it last. */
struct series {
    char *key;                     /* owned: route, a zero byte, method */
    const char *route, *method;    /* within key */
    struct status_count *statuses; /* owned, ascending */
    size_t status_count;
    uint64_t buckets[AGGREGATE_MAX_BUCKETS];
    double sum_seconds;
};

struct named_counter {
    char *name; /* owned */
    uint64_t value;
};

struct target_stats {
    uint64_t id;
    uint64_t requests, failures;
    uint64_t active;
    uint32_t breaker_state;      /* 0 closed, 1 open, 2 half-open */
    uint64_t since_ms, until_ms; /* of that state, wall clock; 0 = always, nobody knows */
    char cause[128];             /* of its last change */
    uint64_t moved_to[AGGREGATE_BREAKER_STATES]; /* how often it has entered each */
};

/* What outlives the data planes that have said it. */
struct target_total {
    uint64_t id;
    uint64_t moved_to[AGGREGATE_BREAKER_STATES];
};

struct route_total {
    char *route; /* owned */
    uint64_t requests;
};

struct source {
    struct list link;  /* of aggregate.sources; those gone longest first */
    char *instance_id; /* owned */
    uint64_t lineage;
    bool is_connected;
    uint64_t requests;     /* over all series */
    struct table series;   /* by key -> struct series, owned: what it said last */
    struct table counters; /* by name -> struct named_counter, owned */
    struct table targets;  /* by id -> struct target_stats, owned */
};

struct aggregate {
    double bounds[AGGREGATE_MAX_BUCKETS - 1];
    size_t bound_count;
    struct list sources; /* owned */
    struct table series; /* by key -> struct series, owned: the totals */
    struct table
        counters; /* by name -> struct named_counter, owned: totals of those ending in "_total" */
    struct table routes;  /* by name -> struct route_total, owned */
    struct table targets; /* by id -> struct target_total, owned: only those whose breaker moved */
    bool is_full;         /* said once */
};

void aggregate_init(struct aggregate *a);
void aggregate_fini(struct aggregate *a);

/* The upper bounds that histograms are kept in from now on, ascending. What is counted already
 * moves to the next bound that covers it. */
void aggregate_set_bounds(struct aggregate *a, const double *bounds, size_t count);

void aggregate_take(struct aggregate *a, const char *instance_id, const Gwp__StatsReport *r);

/* That data plane is not connected any more: its gauges no longer count, its counters do. */
void aggregate_gone(struct aggregate *a, const char *instance_id);

uint64_t aggregate_route_requests(const struct aggregate *a, const char *route);

/* A named counter or gauge (a counter whose name does not end in "_total"): the sum over the
 * connected data planes, or the value of the one that is named. */
uint64_t aggregate_reported(const struct aggregate *a, const char *name, const char *instance_id);

/* What one data plane has answered since it started. */
uint64_t aggregate_requests_of(const struct aggregate *a, const char *instance_id);

/* Of one target, over the connected data planes: sums, and the worst breaker state with its cause.
 * How often its breaker has moved counts those that are gone as well. */
struct target_stats aggregate_target(const struct aggregate *a, uint64_t id);

/* All totals sorted by route and method; the array is the caller's, what it points to is not. */
struct series **aggregate_sorted(const struct aggregate *a, size_t *count);
