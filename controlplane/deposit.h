/* deposit: what one data plane has left with the fd_keeper, which owns it: listening sockets and
 * memory segments, as descriptors. Pure but for these; one thread.
 *
 * A list comes in parts, and takes the place of the one before when it is whole. */
#pragma once

#include <sys/types.h>

#include "controlplane/config/config.h"
#include "controlplane/session.h"

#define DEPOSIT_MAX_FDS 4096
#define DEPOSIT_NAME_BYTES 1024 /* of an address, kind or name, at most */

/* A socket when it has an address, else a segment. */
struct kept {
    char *address;     /* owned */
    char *kind, *name; /* owned */
    uint32_t layout;
    uint64_t size_bytes, lineage;
    int fd; /* owned */
    dev_t device;
    ino_t inode;
};

struct deposit {
    struct list link;        /* of fd_keeper.deposits */
    struct session *session; /* borrowed; NULL = left */
    char *instance_id, *name;
    struct kept *items, *coming; /* owned: what is kept, and a list that is not whole yet */
    size_t count, coming_count;
    double left_at; /* clock_s() */
};

struct deposit *deposit_new(struct session *s);
void deposit_free(struct deposit *d); /* which is in no list any more */

/* One more part of the list that is coming. Takes the descriptors over; -1 with `err` when it
 * breaks the rules. */
MUST_CHECK int deposit_take(struct deposit *d, const Gwp__Listeners *m, const int *fds,
                            unsigned fd_count, struct err *err);
/* That was the last one: it is what is kept now. */
void deposit_complete(struct deposit *d);
/* Its data plane is gone: a list that is not whole is worth nothing. */
void deposit_leave(struct deposit *d, double now);

/* Counters and their names: each process counts in memory of its own, and what one that has died
 * had not told is told by another. All else is for going on with. */
bool kept_is_for_telling(const struct kept *i);
bool kept_is_same(const struct kept *a, const struct kept *b);

/* Each lets go of some. */
void deposit_drop_for_telling(struct deposit *d);
void deposit_drop_for_going_on(struct deposit *d);
void deposit_drop_sockets(struct deposit *d);
/* Of sockets whose address is not among these; their files go as well. */
void deposit_drop_unconfigured(struct deposit *d, const struct strings *addresses);

/* Nobody will listen there any more: the files of Unix sockets would only mislead. */
void deposit_remove_files(const struct deposit *d);
