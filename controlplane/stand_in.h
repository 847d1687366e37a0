/* stand_in: answers clients when no data plane does: 503 with Retry-After on the listening sockets
 * that are kept here, so that clients neither hang nor are refused while one is restarted. Owned by
 * the fd_keeper, which says when; on the control plane's loop.
 *
 *   STOPPED --stand_in_start()--> accepting --stand_in_stop()--> STOPPED; who was accepted is
 * answered
 *
 * A client: reads to the end of its head, or what there is of one, answers, and reads on for a
 * moment, since closing with bytes unread would take the answer away from it. Nothing of what it
 * sends is kept. Bounded: so many clients, so many bytes and seconds for each; the others wait in
 * the kernel's backlog. */
#pragma once

#include <ev.h>

#include "controlplane/ledger.h"
#include "proto/base/list.h"

#define STAND_IN_CLIENTS 256
#define STAND_IN_SOCKETS 64

struct stand_in {
    struct ev_loop *loop;
    ev_io sockets[STAND_IN_SOCKETS];
    unsigned socket_count; /* 0 = stopped */
    ev_timer pause;        /* when descriptors ran out */
    struct list clients;   /* owned */
    unsigned client_count;
    ledger_count *answered; /* borrowed */
};

void stand_in_init(struct stand_in *si, struct ev_loop *loop, ledger_count *answered);
void stand_in_fini(struct stand_in *si);

/* The sockets are borrowed until stand_in_stop(); those beyond the bound are left alone. */
void stand_in_start(struct stand_in *si, const int *sockets, unsigned count);
/* At once: nothing is accepted afterwards. */
void stand_in_stop(struct stand_in *si);
