/* uplink: the data plane's side of the session with its control plane. Connects, greets, keeps the
 * session alive, and connects again when it was lost, with growing pauses and for ever: traffic
 * does not depend on it. Owned by the control thread, on its loop.
 *
 *   AWAY --connected--> GREETING --welcome--> OPEN --end, error, silence--> AWAY
 *
 * Logs when the control plane is lost and when it is back, not each attempt between. */
#pragma once

#include <ev.h>

#include "proto/channel.h"

enum uplink_state { UPLINK_AWAY, UPLINK_GREETING, UPLINK_OPEN };

/* None of these may end the uplink. */
struct uplink_events {
    /* Completes a Hello that already has versions, name and instance. */
    void (*greet)(void *owner, Gwp__Hello *hello);
    void (*opened)(void *owner, const Gwp__Welcome *welcome);
    /* The session is over, or could not begin: also called for each attempt that finds nobody. May
     * be NULL, as the one below. */
    void (*absent)(void *owner);
    /* Any message of an open session but heartbeats. -1 with `err` ends the session. */
    channel_handler_fn *message;
    void *owner;
};

struct uplink {
    struct ev_loop *loop;
    const struct uplink_events *events; /* borrowed */
    const char *path, *name;            /* borrowed */
    char instance_id[17];
    uint64_t started_ms;
    enum uplink_state state;
    struct channel *channel; /* owned; NULL when AWAY */
    ev_io io;
    ev_timer retry;     /* when AWAY: the next attempt; when GREETING: the end of patience */
    ev_timer heartbeat; /* when OPEN */
    double pause_s;     /* before the next attempt */
    double heard_at;    /* clock_s() */
    uint64_t sequence;  /* of heartbeats */
    bool is_ending;     /* told with them */
    struct err broken;  /* a send failed: to be ended at the next event */
    struct err told;    /* the last loss that was logged; "" = none since it was open */
};

/* Begins to connect when the loop runs. */
void uplink_start(struct uplink *u, struct ev_loop *loop, const char *path, const char *name,
                  const struct uplink_events *events);

/* Sends what is queued, for half a second at most, and closes. */
void uplink_stop(struct uplink *u);

bool uplink_is_open(const struct uplink *u);

/* Does the control plane read so slowly that messages are waiting? What will be said again anyway
 * is better not said then. */
bool uplink_is_behind(const struct uplink *u);

/* From now on the control plane is told that this process is about to end: it is not ready. */
void uplink_tell_end(struct uplink *u);

/* Queues a message and sends what the socket takes. false with `err` when there is no open session
 * or the message could not be queued: then the session ends by itself. */
MUST_CHECK bool uplink_send(struct uplink *u, enum msg_type type, const ProtobufCMessage *body,
                            struct err *err);

/* The same with descriptors, which are duplicated. */
MUST_CHECK bool uplink_send_fds(struct uplink *u, enum msg_type type, const ProtobufCMessage *body,
                                const int *fds, unsigned fd_count, struct err *err);
