/* breaker: circuit breaker of one target (an endpoint in its role for a route), shared by all
 * workers. Every function is lock-free and may be called from any worker unless it says "control
 * thread". Hot path: no allocation, lock, log line or system call.
 *
 *   CLOSED --threshold reached in the window, and the route may have one more open--> OPEN
 *   OPEN --its time has passed, and somebody asks--> HALF_OPEN
 *   HALF_OPEN --all probes good--> CLOSED          HALF_OPEN --one bad--> OPEN, for longer
 *
 * The state lives in a segment (segment.h) by target slot, without pointers, so that it can outlive
 * the process. `now_ms` is CLOCK_MONOTONIC, which is the same for every process of the machine.
 *
 * A permit that was given out always comes back, through breaker_report(): with a verdict, or with
 * none when the attempt proves nothing (the client left, the gateway refused). It is worth
 * something only in the period (epoch) it was given in: what began while the breaker was closed
 * says nothing about the probes that run when it ends. */
#pragma once

#include <stdatomic.h>

#include "dataplane/http/reasons.h"
#include "proto/base/err.h"

#define BREAKER_SUB_WINDOWS 16 /* the window slides in steps of a sixteenth */
#define BREAKER_HISTORY 8
#define BREAKER_STATUS_WORDS 10

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_STATES };

/* What an attempt says about its target. */
enum verdict { VERDICT_NONE, VERDICT_GOOD, VERDICT_BAD };

/* Of a route; compiled into the snapshot. */
struct breaker_policy {
    uint32_t failure_threshold_percent, min_requests, window_ms;
    uint32_t open_ms,
        max_open_ms; /* open_ms doubles on each failed round up to max; 0 = constant */
    uint32_t half_open_requests;
    uint32_t most_open;                            /* of the route's targets, at once */
    uint32_t line;                                 /* in the YAML */
    uint64_t failure_status[BREAKER_STATUS_WORDS]; /* a bit for each status */
};

/* 0 = nothing is owed. */
typedef uint32_t breaker_permit;
#define BREAKER_MOVED (1u << 29) /* giving this permit has changed the breaker's state */
#define BREAKER_PROBE (1u << 28) /* the breaker is half-open, and this is one of its probes */

struct breakers; /* all of them */
struct breaker;
struct segment;

/* Ends the program if there is no memory. */
struct breakers *breakers_new(void);
void breakers_free(struct breakers **b);

/* Control thread, all of these.
 *
 * Slots are given out once, in order: whose is this one? The caller's target's, if it was nobody's.
 * Beyond the last one every target has the slot it asks for. */
uint64_t breakers_claim(struct breakers *all, uint32_t slot, uint64_t target_id);
/* The breaker of a claimed slot; NULL beyond what there is room for: such a target has none. */
struct breaker *breakers_at(struct breakers *all, uint32_t slot);
/* Where a route's breakers that are not closed are counted, by the hash of its name; NULL when
 * there is no room. */
_Atomic uint32_t *breakers_route(struct breakers *all, uint64_t hash);

/* Goes on with the memory of another process, before any of this one's is used. False with `err`:
 * nothing has changed. Takes `fd` over in either case. */
MUST_CHECK bool breakers_adopt(struct breakers *all, int fd, struct err *err);
/* After a process that shared the memory has died: probes that it had under way will not come back,
 * so half-open breakers are open again, and due at once. */
void breakers_mend(struct breakers *all, uint64_t now_ms);
const struct segment *breakers_segment(const struct breakers *all);

/* May a request be sent now? After true the caller owes exactly one breaker_report() for *permit.
 * `open_in_route` counts the route's breakers that are not closed. */
MUST_CHECK bool breaker_allow(struct breaker *b, const struct breaker_policy *p,
                              _Atomic uint32_t *open_in_route, uint64_t now_ms,
                              breaker_permit *permit);

/* The same question without the consequences: only as good as the moment. */
bool breaker_would_allow(const struct breaker *b, const struct breaker_policy *p, uint64_t now_ms);

/* What became of an attempt. `why` and `status` are what a bad one is remembered by: `status` if it
 * is not 0, else the reason's word. True when that has changed the breaker's state. */
bool breaker_report(struct breaker *b, const struct breaker_policy *p,
                    _Atomic uint32_t *open_in_route, breaker_permit permit, enum verdict verdict,
                    enum reason why, unsigned status, uint64_t now_ms);

static inline bool breaker_is_failure_status(const struct breaker_policy *p, unsigned status)
{
    return status < BREAKER_STATUS_WORDS * 64 &&
           (p->failure_status[status / 64] >> (status % 64) & 1) != 0;
}

/* Control thread: this policy is the breaker's from now on, NULL for none. Counts of another window
 * length are dropped, an open one is not kept longer than the new policy would; the same policy
 * again changes nothing. */
void breaker_apply(struct breaker *b, const struct breaker_policy *p,
                   _Atomic uint32_t *open_in_route, uint64_t now_ms);

/* Control thread: closes it by order. False when it was closed. */
bool breaker_reset(struct breaker *b, _Atomic uint32_t *open_in_route, uint64_t now_ms);

/* ---- for reports: any thread ---- */

struct breaker_view {
    enum breaker_state state;
    uint32_t epoch;                    /* how often it has changed; wraps */
    uint64_t until_ms;                 /* when OPEN: when probes begin; else 0 */
    uint32_t moved_to[BREAKER_STATES]; /* how often it has entered each state */
};

struct breaker_transition {
    uint32_t epoch; /* of the state it led to */
    enum breaker_state from, to;
    uint64_t at_ms;
    char cause[96]; /* "12 of 20 requests failed in 10 s (connect_failed last)" */
};

void breaker_look(const struct breaker *b, struct breaker_view *view);

/* The transition that led to that epoch. False when it has been forgotten, or is being noted. */
MUST_CHECK bool breaker_recall(const struct breaker *b, uint32_t epoch,
                               struct breaker_transition *t);

/* Epochs wrap: how many transitions lie between. */
uint32_t breaker_epochs_between(uint32_t older, uint32_t newer);
uint32_t breaker_epoch_after(uint32_t epoch);

const char *breaker_state_word(enum breaker_state s); /* "closed", "open", "half_open" */
