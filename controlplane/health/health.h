/* health: which addresses may be sent requests, as checks of our own find out. A check is an
 * address and how it is asked: it is made once however many routes want it, and told to all of
 * them (endpoints.c). Owned by main.c; on the control plane's loop.
 *
 *   UNKNOWN --healthy_threshold good ones in a row--> UP
 *   UNKNOWN, UP --unhealthy_threshold failed ones in a row--> DOWN
 *   DOWN --healthy_threshold good ones in a row--> UP
 *
 * What an UNKNOWN one counts as is its routes' affair (until_checked). While it is UNKNOWN it is
 * asked often, so that the first verdict comes within a second or so; then every interval, or every
 * unhealthy_interval while DOWN, each a tenth more or less, so that checks do not fall into step.
 * Intervals are from start to start.
 *
 * Identity: a reload that wants the same check keeps it with all it knows; one that wants it with
 * other parameters gets a new check, which begins with the verdict of the old one; what nobody
 * wants any more is forgotten. A failure of this machine's own (no descriptor, no port) is counted
 * and says nothing about an endpoint.
 *
 * At most HEALTH_UNDER_WAY_MAX checks are under way at once. Those that must wait are begun in the
 * order in which they were due, so none is passed over, and none is made twice meanwhile.
 *
 * Times are of the monotonic clock, but for those that people see. */
#pragma once

#include "controlplane/health/due.h"
#include "controlplane/health/probe.h"
#include "controlplane/ledger.h"
#include "controlplane/table.h"
#include "proto/base/list.h"

#define HEALTH_UNDER_WAY_MAX 256

enum health_state { HEALTH_UNKNOWN, HEALTH_UP, HEALTH_DOWN };

const char *health_word(enum health_state state); /* "unknown", "up", "down" */

/* What is asked for. All borrowed. */
struct check_spec {
    const char *address;                     /* "10.0.0.1:8080" */
    const struct health_check_config *check; /* enabled */
    const char *host;                        /* Host to send; means nothing without a path */
};

struct check {
    struct view key;     /* owned: all that makes it this check */
    struct due_item due; /* in none while it is under way */
    struct health *health;
    struct addr addr;
    char *path, *host; /* owned */
    uint32_t interval_ms, timeout_ms, unhealthy_interval_ms;
    uint32_t healthy_threshold, unhealthy_threshold;
    struct status_set expected; /* owned */
    bool is_wanted;
    enum health_state state;
    uint32_t good, failed; /* in a row; one of them is 0 */
    struct probe *probe;   /* owned; NULL = none is under way */
    double began_at;       /* the one under way, or the last one */
    double checked_at;     /* wall clock; 0 = never */
    struct probe_outcome last;
    struct list users; /* whoever is told; the list is the owner's of the health */
};

/* How a check is made: tests have their own. */
struct health_prober {
    void (*start)(struct check *c); /* ends with one health_done(), not before it has returned */
    void (*cancel)(struct check *c);
};

struct health {
    struct ev_loop *loop;               /* NULL: nothing happens but by health_turn() */
    const struct health_prober *prober; /* borrowed */
    void (*changed)(void *owner, struct check *c, enum health_state before);
    void *owner;
    struct table checks; /* by key -> struct check, owned */
    struct due due;
    ev_timer timer; /* for the first of due */
    size_t under_way, under_way_max;
    uint64_t random;
    ledger_count *counts[PROBE_RESULT_COUNT]; /* checks made; in the ledger */
    ledger_count *to_up, *to_down;            /* verdicts: changes of state */
    ledger_count *nanoseconds;                /* and how long they took together */
};

/* `changed` is called from the loop with every change of a verdict. The ledger is borrowed. */
void health_init(struct health *h, struct ev_loop *loop, struct ledger *ledger,
                 void (*changed)(void *owner, struct check *c, enum health_state before),
                 void *owner);
void health_fini(struct health *h);

/* What is wanted is told anew as a whole: begin, each check, end. Users are forgotten by begin. The
 * verdict of `before`, which may be NULL, is where a check that is new begins. NULL when the
 * address is none. */
void health_begin(struct health *h);
struct check *health_want(struct health *h, const struct check_spec *spec,
                          const struct check *before, double now);
void health_end(struct health *h, double now);

/* Begins what is due and has room. The loop does so by itself. */
void health_turn(struct health *h, double now);

/* The probe of `c` has come to its end. */
void health_done(struct check *c, const struct probe_outcome *outcome, double now);

/* Seconds of the clock that `now` means. */
double health_now(void);
