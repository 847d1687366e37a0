/* keeping: what this data plane leaves with the control plane, so that it outlives the process: its
 * listening sockets and its memory segments; and what it takes over from those before it. Control
 * thread only.
 *
 *   control plane --Listeners: all that is kept--> taken over, before a snapshot is in force
 *   in force --Listeners: all that is ours--> kept; told again whenever it has changed
 *   control plane --Listeners: counters of one that has died--> told in its place, at any time
 *
 *   kind of segment   who goes on with it
 *   breakers          all data planes share one, while one replaces another
 *   limiter           likewise, for each route and way of counting
 *   counters, names   nobody: each process counts in memory of its own, and what one that died has
 *                     not told is told by another, once, under its lineage
 *
 * A segment that is not understood is left where it is, with a log line; what it was for begins
 * empty. */
#pragma once

#include "dataplane/rollout.h"
#include "dataplane/uplink.h"

struct estate; /* counters and names that one process has left */

struct keeping {
    struct rollout *rollout; /* borrowed */
    struct uplink *uplink;   /* borrowed */
    bool is_wanted;          /* the control plane of this session keeps things */
    bool is_leaving;
    uint64_t told;          /* hash of the list that it has; 0 = none */
    struct estate *estates; /* owned list: of the message that is being received in parts */
    size_t estate_count;
    void (*mended)(void *owner); /* one that shared the breakers has died */
    void *owner;
};

void keeping_init(struct keeping *k, struct rollout *rollout, struct uplink *uplink,
                  void (*mended)(void *owner), void *owner);
void keeping_fini(struct keeping *k);

/* Sockets that a service manager has opened for this process (LISTEN_FDS) are offered first. */
void keeping_take_inherited(struct keeping *k);

/* A session has begun: what is in force here is told again. */
void keeping_opened(struct keeping *k, const Gwp__Welcome *welcome);
void keeping_lost(struct keeping *k);

/* Takes the message's descriptors over. -1 with `err` when it breaks the rules. *complete: it was
 * the last part. */
MUST_CHECK int keeping_take(struct keeping *k, const Gwp__Listeners *m, const int *fds,
                            unsigned fd_count, bool *complete, struct err *err);

/* Tells what is in force, unless that is what was told last. */
void keeping_tell(struct keeping *k);

/* This process accepts no more: what it has left is for others. */
void keeping_leave(struct keeping *k);

/* What was offered and nobody has asked for is let go: a snapshot of the control plane's is in
 * force. */
void keeping_settle_down(struct keeping *k);
