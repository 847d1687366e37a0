/* limit_report: what the control plane asks about rate limits: who comes most and is limited most,
 * and to forget what is counted. Control thread only.
 *
 * API keys are secrets: they are told as "#" and 48 bits of a hash. */
#pragma once

#include "dataplane/state/snapshot.h"
#include "proto/gateway.pb-c.h"

#define LIMIT_REPORT_KEYS 20

/* Sends the report on; false: it could not be sent, which is not the caller's to mend. */
typedef void limit_report_send_fn(void *owner, const Gwp__LimitsReport *report);

/* Of the routes in force; one with nothing to tell is left out. */
void limit_report_make(const struct snapshot *s, const Gwp__LimitsRequest *request,
                       limit_report_send_fn *send, void *owner);

/* Redis is told by a worker: `forget` passes it on, and says whether that Redis is asked at all. */
typedef bool limit_report_forget_fn(void *owner, const struct limit_policy *p, const char *route,
                                    const struct limit_subject *who);

/* Forgets a key (`who` of Redis' part), or all (NULL), then answers. */
void limit_report_reset(const struct snapshot *s, const Gwp__LimitsReset *reset,
                        limit_report_forget_fn *forget, limit_report_send_fn *send, void *owner);
