/* redis_server: what all workers of this process share of one Redis that limits are counted in: who
 * it is, whether each worker's connection to it is in use, and how many gateways were last seen
 * alive on it. Found by its URL, so it outlives snapshots; remembered for ever, like routes.
 *
 * Workers write their own state, any of them the number of gateways; the control thread reads, and
 * tells of a change once. */
#pragma once

#include <stdatomic.h>

#include "proto/base/addr.h"
#include "proto/base/str.h"

#define REDIS_WORKERS 256 /* MAX_WORKERS of snapshot.h */

/* Why it is not asked. */
#define REDIS_CAUSES(CAUSE)                                                                        \
    CAUSE(NONE, "")                                                                                \
    CAUSE(NO_ADDRESS, "its name has no address")                                                   \
    CAUSE(CONNECT, "it cannot be connected to")                                                    \
    CAUSE(TIMEOUT, "it does not answer in time")                                                   \
    CAUSE(MOVED, "its name has other addresses now")                                               \
    CAUSE(CLOSED, "it closed the connection")                                                      \
    CAUSE(PROTOCOL, "what answers does not speak as Redis does")                                   \
    CAUSE(READONLY, "it is a read-only replica")                                                   \
    CAUSE(LOGIN, "it does not accept the user or password")                                        \
    CAUSE(PROTECTED, "it is in protected mode: only its own machine may ask it")                   \
    CAUSE(PERMISSION, "its user may not do what limits need")                                      \
    CAUSE(DATABASE, "it has no database of that number")                                           \
    CAUSE(FULL, "its memory is full")                                                              \
    CAUSE(BUSY, "a script keeps it busy")                                                          \
    CAUSE(LOADING, "it is loading its data")                                                       \
    CAUSE(NO_WRITES, "it takes no writes, for want of replicas or a disk")                         \
    CAUSE(CLUSTER, "it is part of a cluster, where limits cannot be counted")                      \
    CAUSE(CLIENTS, "it has too many clients")                                                      \
    CAUSE(ERROR, "it answers with errors")

enum redis_cause {
#define CAUSE(name, text) REDIS_##name,
    REDIS_CAUSES(CAUSE)
#undef CAUSE
};

enum redis_state { REDIS_UNUSED, REDIS_UP, REDIS_AWAY };

struct redis_server {
    uint64_t id;           /* XXH3 of the URL */
    char *name;            /* owned; without user and password, for people */
    char gateway[17];      /* 16 hexadecimal digits that name this process among gateways */
    uint32_t slot;         /* index into every worker's connections */
    enum redis_state told; /* control thread: what the log has last said */
    uint32_t told_causes;  /* likewise: bits of all that it has given since it is away */
    struct redis_server *next;
    _Atomic uint32_t gateways;    /* last seen alive on it, this one included; 0 = unknown */
    _Atomic int64_t listed_since; /* when the list began that these were counted on */
    _Atomic uint16_t states[REDIS_WORKERS]; /* cause << 8 | state, by its worker */
};

/* How a snapshot uses it; in its arena, immutable. */
struct redis_use {
    struct redis_server *server;
    struct addr *addrs; /* to be tried in turn */
    uint32_t addr_count;
    struct view user, password; /* "" = none */
    uint32_t database;
    uint32_t timeout_ms; /* the longest of the routes' */
};

/* Find or make, in the list that begins at *first. */
struct redis_server *redis_server_find(struct redis_server **first, const char *url,
                                       const char *name);
void redis_servers_free(struct redis_server **first);

/* That worker's connection is so now. True when it was otherwise: the control thread is to know. */
bool redis_server_set(struct redis_server *s, unsigned worker, enum redis_state state,
                      enum redis_cause cause);

/* Of all workers together: away as soon as one finds it so, up when all that use it do. */
enum redis_state redis_server_look(const struct redis_server *s, enum redis_cause *cause);

/* Control thread: logs every change since the last call, once for all workers; and while it is
 * away, each cause once: what follows the end of a connection may be what keeps it away. */
void redis_servers_tell(struct redis_server *first);
