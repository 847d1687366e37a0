/* guard: how long a connection to the admin side may take for what it does: for the head of a
 * request, for its body, for taking the answer. libmicrohttpd itself only ends those that are
 * silent; one that sends a byte now and then would keep its place for ever. On the loop; owned by
 * the admin. */
#pragma once

#include <ev.h>

#include "proto/base/list.h"

#define GUARD_HEAD_SECONDS 5.    /* of the first request of a connection */
#define GUARD_IDLE_SECONDS 30.   /* until the next one has come */
#define GUARD_BODY_SECONDS 60.   /* of a request */
#define GUARD_ANSWER_SECONDS 60. /* until it has been taken */
#define GUARD_FOR_EVER 0.        /* it waits for us */

struct MHD_Connection;

struct guard {
    struct ev_loop *loop;
    struct list visits; /* of struct visit.link, owned */
    ev_timer tick;
};

/* One connection. */
struct visit {
    struct list link;
    struct guard *guard;
    int fd;          /* libmicrohttpd's */
    double deadline; /* loop time; 0 = none */
};

void guard_init(struct guard *g, struct ev_loop *loop);
void guard_fini(struct guard *g); /* when all connections are closed */

struct visit *guard_open(struct guard *g, struct MHD_Connection *c);
void guard_close(struct visit *v);

/* From now on it may take so long. */
void guard_allow(struct visit *v, double seconds);
