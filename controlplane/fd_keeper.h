/* fd_keeper: holds what data planes leave here, so that it outlives them: listening sockets and
 * memory segments. Owned by main.c; on the loop. It never looks inside a segment.
 *
 * What one data plane has left is a deposit (deposit.h). It is replaced as a whole by its next
 * list, and stays when the data plane goes:
 *
 *   HELD --its data plane goes--> LEFT --another serves--> its counters, if any, are told --> gone
 *                                 LEFT --it returns, or nobody comes for too long--> gone
 *
 * Who connects, or could not begin without what another one leaves now, is given everything: the
 * newest socket of each address, breakers and limiters, and
 * the counters of those that are gone, for it to tell in their place (dataplane/keeping.h). A data
 * plane serves when it has left its list here; the older ones of its name are then told to leave:
 * that is how one replaces another. As long as any serves, nothing is accepted here. With none that
 * serves, the kept sockets are answered by the stand-in
 *
 *   a second after the last one stopped serving, if nobody has come
 *   three seconds after somebody's Hello, if it does not serve by then
 *   at once when it refuses its snapshot, or goes, and that second is over
 *
 * and no more as soon as the next one says Hello.
 *
 * A data plane of a release that leaves nothing wants to open the addresses itself: for it the
 * sockets are let go. */
#pragma once

#include "controlplane/deposit.h"
#include "controlplane/stand_in.h"

#define FD_KEEPER_MAX_LEFT 8 /* deposits without a data plane */

struct fd_keeper {
    struct ev_loop *loop;
    struct sessions *sessions; /* borrowed */
    struct list deposits;      /* owned; the newest list first */
    uint64_t lists;            /* so many have been left, of all data planes */
    double keep_seconds;       /* for what is left without anybody coming */
    double absent_since;       /* clock_s() when the last one that served went; 0 = one serves */
    bool has_said;             /* that the stand-in runs */
    double hope_until;         /* clock_s() until which one that is starting may come to serve */
    double patient_until;      /* clock_s() at which `patience` is due */
    bool looks_again;          /* it was heard late, and is waited for a second time */
    ev_timer patience;         /* the stand-in begins */
    ev_timer expiry;           /* of what is left */
    struct stand_in stand_in;
};

/* `answered` counts what the stand-in answers; borrowed. */
void fd_keeper_init(struct fd_keeper *k, struct ev_loop *loop, struct sessions *sessions,
                    double keep_seconds, ledger_count *answered);
void fd_keeper_fini(struct fd_keeper *k);

/* From the sessions. `snapshot_follows`: it is sent one next. */
void fd_keeper_opened(struct fd_keeper *k, struct session *s, bool snapshot_follows);
MUST_CHECK int fd_keeper_take(struct fd_keeper *k, struct session *s, const Gwp__Listeners *m,
                              const int *fds, unsigned fd_count, struct err *err);
/* It has accepted or refused a snapshot, perhaps without ever leaving a list. */
void fd_keeper_answered(struct fd_keeper *k, struct session *s);
void fd_keeper_gone(struct fd_keeper *k, struct session *s);
void fd_keeper_settled(struct fd_keeper *k, uint64_t lineage); /* these counters were told */

/* Sockets that were left and whose address is in force no more are closed. */
void fd_keeper_configured(struct fd_keeper *k, const struct strings *addresses);

/* For status and metrics. */
struct fd_keeper_view {
    size_t sockets, segments; /* kept now, each once for every data plane that has left it */
    bool stands_in;
    uint64_t answered; /* by the stand-in */
};
struct fd_keeper_view fd_keeper_look(const struct fd_keeper *k);
