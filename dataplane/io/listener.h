/* listener: listening sockets, one per address, shared by all workers (each has a watcher of its
 * own on it). The set belongs to the control thread: it opens what a snapshot asks for before
 * publishing it, and closes what the newest snapshot no longer has once every worker has adopted
 * that. */
#pragma once

#include "proto/base/addr.h"
#include "proto/base/list.h"

struct listener {
    struct list link; /* of listener_set.all */
    int fd;           /* owned */
    struct addr addr;
    char text[ADDR_TEXT_BYTES]; /* as configured */
    uint64_t listed_by; /* number of the newest publication that lists it: counted by control.c,
                           since generations begin anew with another control plane */
};

struct listener_set {
    struct list all;
};

void listener_set_init(struct listener_set *set);
void listener_set_fini(struct listener_set *set);

/* The listener of that address, opened if it is not there yet. NULL with `err`. An address without
 * host listens on IPv6 and IPv4 alike where the system has both. A Unix socket gets mode 0660: as
 * with the pair's own sockets, who may connect is a matter of user and group. Its file replaces one
 * that nobody listens on, and goes with the listener. */
struct listener *listener_open(struct listener_set *set, const struct addr *addr, const char *text,
                               struct err *err);

/* Closes those whose listed_by is older than `publication`. */
void listener_close_older(struct listener_set *set, uint64_t publication);
