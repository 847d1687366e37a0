/* probe: one check of one address: a connection, or a GET and the status that answers it. Owned by
 * the check (health.c) for which it runs; on the control plane's loop, without blocking.
 *
 *   CONNECTING --connected--> done, when there is nothing to GET
 *   CONNECTING --connected--> SENDING --sent--> RECEIVING --status line--> done
 *   any --error, end, timeout--> done
 *
 * Of the response only the status line matters, and at most PROBE_MAX_BYTES are read; the rest is
 * not waited for. Connections are never reused: that a new one is accepted is part of the question.
 */
#pragma once

#include <ev.h>

#include "controlplane/config/config.h"
#include "proto/base/addr.h"

#define PROBE_MAX_BYTES (16u * 1024)
#define PROBE_REASON_BYTES 96

/* PROBE_RESULT(NAME, "word in metrics"). NOT_MADE is this machine's own failure (no descriptor, no
 * port): it says nothing about the endpoint. */
#define PROBE_RESULTS                                                                              \
    PROBE_RESULT(OK, "ok")                                                                         \
    PROBE_RESULT(REFUSED, "refused")                                                               \
    PROBE_RESULT(UNREACHABLE, "unreachable")                                                       \
    PROBE_RESULT(TIMEOUT, "timeout")                                                               \
    PROBE_RESULT(RESET, "reset")                                                                   \
    PROBE_RESULT(CLOSED, "closed")                                                                 \
    PROBE_RESULT(STATUS, "status")                                                                 \
    PROBE_RESULT(BAD_RESPONSE, "bad_response")                                                     \
    PROBE_RESULT(NOT_MADE, "not_made")

enum probe_result {
#define PROBE_RESULT(NAME, word) PROBE_##NAME,
    PROBE_RESULTS
#undef PROBE_RESULT
        PROBE_RESULT_COUNT
};

const char *probe_word(enum probe_result result);

struct probe_outcome {
    enum probe_result result;
    int status;                      /* of the response, 0 = there was none */
    double seconds;                  /* it took */
    char reason[PROBE_REASON_BYTES]; /* "connection refused", "status 200" */
};

struct probe_request {
    const struct addr *addr;
    const char *path; /* "" = a connection is enough */
    const char *host; /* Host to send */
    uint32_t timeout_ms;
    const struct status_set *expected;
};

struct probe;

/* Called exactly once, from the loop, unless it is cancelled; the probe is gone then. */
typedef void probe_done_fn(void *owner, const struct probe_outcome *outcome);

/* `request` is borrowed for the call, what its members point to until the end. */
struct probe *probe_start(struct ev_loop *loop, const struct probe_request *request,
                          probe_done_fn *done, void *owner);
void probe_cancel(struct probe **p); /* nulls *p; NULL is allowed */

bool probe_is_expected(const struct status_set *expected, int status);
