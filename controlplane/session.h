/* session: the data planes that are connected. Listens on the Unix socket, greets who connects,
 * sends snapshots, takes results and reports. Owned by main.c; on the control plane's loop.
 *
 *   GREETING --Hello: versions fit--> OPEN --it goes, is silent too long, or breaks a rule--> gone
 *
 * Whatever is wrong with one session ends that session, with one log line, and touches no other.
 * Any number up to a bound may be connected at once: that is how one data plane replaces another.
 */
#pragma once

#include <ev.h>

#include "proto/base/list.h"
#include "proto/channel.h"

#define SESSION_REPORT_INTERVAL_MS 500
#define SESSION_HEARTBEAT_INTERVAL_MS 2000
#define SESSION_SILENCE_SECONDS 10. /* five heartbeats: then it is taken for dead */
#define SESSION_MAX 64

struct session {
    struct list link; /* of struct sessions.all */
    struct sessions *sessions;
    struct channel *channel; /* owned */
    ev_io io;
    bool is_open;
    bool tells_limits;   /* it can be asked about them: limit_query.h */
    bool explains;       /* it has the capability */
    bool keeps;          /* it leaves its sockets here, and takes over what others have left */
    bool serves;         /* it has said so, by leaving them or by accepting a generation */
    bool leaving;        /* it accepts no more, or was told to leave */
    bool ending;         /* it accepts still, and will end */
    uint64_t given;      /* fd_keeper.lists when it was given all that is kept */
    uint64_t started_ms; /* monotonic; 0 = an older release */
    char *name, *instance_id, *version; /* owned, NULL before Hello */
    uint64_t pid;
    double connected_at; /* wall clock, seconds */
    double heard_at;     /* clock_s() of the last bytes */
    uint64_t served;     /* what it served when it connected, 0 = nothing */
    uint64_t sent;       /* the last generation that was sent, 0 = none; dry runs do not count */
    uint64_t generation; /* the last one it accepted, 0 = none */
    uint64_t told;       /* the one whose complete EndpointState it has, 0 = none */
    bool refused;        /* the last one sent */
    char *reason;        /* owned; why, or NULL */
    uint64_t rss_bytes;
    double lag_seconds; /* how long its last heartbeat was under way */
    struct err doomed;  /* not empty: it ends at the next turn of the loop, for this reason */
};

/* Each is called from the loop. The session and the message are borrowed for the call. */
struct session_events {
    void (*opened)(void *owner, struct session *s);
    void (*result)(void *owner, struct session *s, const Gwp__SnapshotResult *r);
    void (*report)(void *owner, struct session *s, const Gwp__StatsReport *r);
    void (*gone)(void *owner, struct session *s); /* only for those that were opened */
    /* Takes the descriptors over. -1 with `err` ends the session. NULL: nothing is kept. */
    int (*listeners)(void *owner, struct session *s, const Gwp__Listeners *m, const int *fds,
                     unsigned fd_count, struct err *err);
    /* May be NULL. */
    void (*replaced)(void *owner, struct session *s, const Gwp__ReplaceResult *r);
    void (*limits)(void *owner, struct session *s, const Gwp__LimitsReport *r);
    void *owner;
    void (*explained)(void *owner, const Gwp__Explanation *e); /* may be NULL */
};

struct sessions {
    struct ev_loop *loop;
    const struct session_events *events; /* borrowed */
    char *path;                          /* owned */
    char instance_id[17];                /* ours, new for each start */
    ev_io listener;
    ino_t inode;  /* of its file */
    ev_stat file; /* of the listener; is told by inotify */
    ev_timer heartbeat;
    struct list all; /* of struct session.link, owned */
    size_t count;    /* of all */
    size_t open_count;
    uint64_t sequence;  /* of heartbeats */
    bool cannot_listen; /* that has been said */
    bool is_displaced;  /* likewise, that another socket is in its place */
};

/* -1 with `err`, for example when another control plane listens there. */
MUST_CHECK int sessions_init(struct sessions *ss, struct ev_loop *loop, const char *path,
                             const struct session_events *events, struct err *err);
void sessions_fini(struct sessions *ss); /* ends all, unlinks the socket; tells nobody */

/* Queues a packed snapshot. What goes wrong with it ends the session later, from the loop. */
void session_send_snapshot(struct session *s, uint64_t generation, bool dry_run,
                           const uint8_t *packed, size_t len);

/* Queues a packed EndpointState, with the same consequences. */
void session_send_state(struct session *s, const uint8_t *packed, size_t len);

/* Any small message, with the same consequences; descriptors are duplicated. */
void session_send(struct session *s, enum msg_type type, const ProtobufCMessage *body,
                  const int *fds, unsigned fd_count);

/* It shall finish what it has under way, and go; `replaced`: another one serves already. */
void session_send_drain(struct session *s, bool replaced, const char *reason);

/* "starting", "serving" or "draining". */
const char *session_role(const struct session *s);

/* Opened sessions, in the order of connecting. */
#define sessions_each(s, ss)                                                                       \
    list_each (s##_node, &(ss)->all)                                                               \
        for (struct session *s = CONTAINER_OF(s##_node, struct session, link); s && s->is_open;    \
             s = NULL)
