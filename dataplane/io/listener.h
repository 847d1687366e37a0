/* listener: listening sockets, one per address, shared by all workers (each has a watcher of its
 * own on it). The set belongs to the control thread: it opens what a snapshot asks for before
 * publishing it, and closes what the newest snapshot no longer has once every worker has adopted
 * that.
 *
 * There is one socket for each address, not a group with SO_REUSEPORT: connections wait in one
 * backlog, which any process that has the socket can take them from. So a socket may be offered
 * (listener_offer) that another process has opened, and a snapshot that asks for its address takes
 * that one.
 *
 * But for one case: whoever keeps the socket hangs, or has nobody to leave it with, and does not
 * hand it out. Then (listener_set.may_join) a second one is opened beside it (beside.h), which gets
 * all new connections once it is listed. When the first one is offered after all, the next snapshot
 * takes that again, with everybody who has waited there, and the second one is closed. */
#pragma once

#include "proto/base/addr.h"
#include "proto/base/list.h"

struct listener {
    struct list link; /* of listener_set.all or .offered */
    int fd;           /* owned */
    struct addr addr;
    char text[ADDR_TEXT_BYTES]; /* as configured */
    bool was_offered;
    bool is_beside;     /* a second one, until the first one is on offer */
    bool takes_back;    /* the first one: its new connections come to it once it is listed */
    uint64_t listed_by; /* number of the newest publication that lists it: counted by control.c,
                           since generations begin anew with another control plane */
};

struct listener_set {
    struct list all;
    struct list offered; /* struct listener: open, but nobody has asked for them yet */
    bool may_join;       /* an address that is taken may be opened beside whoever has it */
    bool is_split;       /* one is on offer whose address is open beside it */
};

void listener_set_init(struct listener_set *set);
/* Closes all. `kept`: others have the sockets too, so the files of Unix sockets stay. */
void listener_set_fini(struct listener_set *set, bool kept);

/* A listening socket of another process, as it is configured there. -1 with `err` when it is none,
 * or not of that address. One that is in use here, or on offer, already is not offered again. Takes
 * `fd` over in any case. */
MUST_CHECK int listener_offer(struct listener_set *set, const char *text, int fd, struct err *err);

/* Does it belong to another network namespace than this process, as those do that were opened
 * before a container was started anew? Nobody comes there any more. Never of a Unix socket, nor
 * before Linux 5.14, which does not tell. */
bool listener_is_elsewhere(int fd);

/* Closes what was offered and not asked for. */
void listener_forget_offered(struct listener_set *set);

/* No process accepts from them through this one any more; the set keeps what it knows. */
void listener_close_fds(struct listener_set *set);

/* The listener of that address, opened if it is not there yet. NULL with `err`. An address without
 * host listens on IPv6 and IPv4 alike where the system has both. A Unix socket gets mode 0660: as
 * with the pair's own sockets, who may connect is a matter of user and group. Its file replaces one
 * that nobody listens on, and goes with the listener. */
struct listener *listener_open(struct listener_set *set, const struct addr *addr, const char *text,
                               struct err *err);

/* It is of this publication, which nothing will stop any more. */
void listener_list(struct listener *l, uint64_t publication);

/* Closes those whose listed_by is older than `publication`. What was offered, and was never listed,
 * is on offer again. */
void listener_close_older(struct listener_set *set, uint64_t publication);
