/* report: what all workers have counted, merged and put into StatsReport messages of bounded size.
 * Owned by the control thread, which alone calls these functions; workers go on counting meanwhile.
 *
 * Remembers what was reported last, so that a report may hold only the series that changed. */
#pragma once

#include "dataplane/report/stats.h"
#include "dataplane/state/registry.h"
#include "proto/gateway.pb-c.h"

struct report;

struct report *report_new(const struct registry *registry); /* borrowed */
void report_free(struct report **r);

/* Takes one part of a report. false with `err`: the rest is not wanted. */
typedef bool report_emit_fn(void *owner, const Gwp__StatsReport *part, struct err *err);

struct report_request {
    const struct stats *const *workers; /* borrowed */
    unsigned worker_count;
    uint64_t snapshots_alive;
    bool complete;                        /* all series, not only those that changed */
    Gwp__BreakerTransition **transitions; /* to be told with it; borrowed */
    size_t transition_count;
    report_emit_fn *emit;
    void *owner;
};

enum report_status {
    REPORT_SENT,
    REPORT_LATER, /* the workers' bucket bounds are being changed: nothing was emitted */
    REPORT_FAILED /* emit failed, and has filled `err`; the next one will be complete */
};

/* What a process that is gone had counted and has not told: all of it, under its own lineage. */
struct settlement {
    const struct stats *const *workers; /* its workers', adopted; borrowed */
    unsigned worker_count;
    const struct names *names; /* its names; borrowed */
    report_emit_fn *emit;
    void *owner;
};

/* REPORT_LATER here means never: it died while its buckets were being changed. */
MUST_CHECK enum report_status report_settle(const struct settlement *s, struct err *err);

MUST_CHECK enum report_status report_make(struct report *r, const struct report_request *request,
                                          struct err *err);
