/* access_log: one line per exchange, formatted by the worker straight into its own ring;
 * log_writer.c drains the rings in batches on its own thread. Hot path: no allocation, no lock; a
 * system call (eventfd) only when the writer sleeps, which is at most some hundred times a second.
 * A full ring drops the line and counts it: a stalled sink never slows traffic. */
#pragma once

#include "dataplane/http/reasons.h"
#include "dataplane/report/stats.h"
#include "proto/base/addr.h"

struct access_record {
    double time; /* wall clock at the head's arrival, seconds */
    struct view request_id, client, method, host, path,
        protocol; /* path: the target as received, with query */
    struct view user_agent, referer;
    struct view traceparent;     /* valid, or empty */
    struct view route, endpoint; /* empty when none */
    uint64_t generation;
    unsigned status, upstream_status;         /* 0 = none */
    uint64_t bytes_in, bytes_out;             /* body bytes from and to the client */
    double duration_s, upstream_s, connect_s; /* negative = did not happen */
    unsigned attempts;
    enum reason reason;
    const char *limiter; /* what the rate limit said, or NULL */
    const char *breaker; /* the state it was asked in, or NULL */
    const char *detail;  /* more words about the reason, or NULL */
};

struct log_ring; /* one worker's ring, log_writer.h */

/* `console` instead of JSON. Any field may hold any bytes; lines are bounded (long fields are cut
 * at 2 KiB). */
void access_log_write(struct log_ring *ring, bool console, const struct access_record *r,
                      struct stats *stats);
