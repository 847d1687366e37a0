/* events: what has happened lately and operators want to see: breakers and endpoints that changed
 * their state, configurations, data planes that came and went, orders. It listens to the control
 * plane's own log, which has one line for each such event: a ring of the last EVENTS_KEPT of them,
 * whatever the log's level is. Owned by main.c; one thread.
 *
 * Each has a number that grows by one; they begin anew with each start. */
#pragma once

#include "proto/base/log.h"

#define EVENTS_KEPT 512
#define EVENT_MESSAGE_BYTES 512

struct event {
    uint64_t id;
    double at; /* wall clock, seconds */
    enum log_level level;
    const char *kind; /* breaker, health, config, session, order, system */
    char message[EVENT_MESSAGE_BYTES];
};

struct events {
    struct event ring[EVENTS_KEPT];
    uint64_t last; /* id of the newest; 0 = none yet */
    void (*added)(void *owner);
    void *owner; /* of added */
};

/* Listens from now on; one in a process. `added` is called with each event, never from within a
 * call that logs nothing. */
void events_init(struct events *es);
void events_fini(struct events *es);

/* The oldest that is newer than `id`; NULL when there is none. */
const struct event *events_after(const struct events *es, uint64_t id);
