/* downstream: one client connection: keep-alive, pipelining, back-pressure. One worker's; owned by
 * the worker's list. While it is idle it has neither buffer nor exchange, which is why ten thousand
 * of them cost little. Hot path.
 *
 *   OPEN --downstream_finish()--> LINGERING --the client's end or a short while--> CLOSED
 *   any --downstream_close()--> CLOSED (in the worker's dead list until the turn ends)
 */
#pragma once

#include <netinet/in.h>

#include "dataplane/worker.h"

struct exchange;

enum downstream_state { DOWN_OPEN, DOWN_LINGERING, DOWN_CLOSED };

struct downstream {
    struct transport io;
    struct worker *worker;
    struct exchange *exchange; /* owned; NULL between requests */
    struct buffer *in;         /* owned; NULL while nothing is received */
    struct list link; /* of worker.clients while an exchange is under way, else .idle_clients; then
                       * .lingering, .dead_clients, .spare_clients */
    struct wheel_entry deadline;
    uint32_t requests;
    uint8_t state;          /* enum downstream_state */
    bool idle : 1;          /* in worker.idle_clients: may be closed to make room */
    bool expects_proxy : 1; /* a PROXY header comes before anything else */
    bool filled : 1;        /* the last read took all the room there was: a long body */
    bool processing : 1;    /* downstream_process() is further up the stack */
    bool ended : 1;         /* the client sends no more, but may be reading still */
    bool heard : 1;         /* while lingering: the client still sends */
    uint8_t linger_rounds;  /* and may go on so much longer */
    uint8_t family;         /* of the peer: AF_INET, AF_INET6, AF_UNIX */
    uint8_t ip[16];
};

/* What an idle client costs of user memory: this, 8 bytes of malloc's, and in every worker's libev
 * 16 bytes for its descriptor, as much again right after that array has doubled. */
_Static_assert(sizeof(struct downstream) <= 136, "idle keep-alive clients cost at most 256 bytes");

/* Takes over an accepted socket. Beyond server.max_connections the idlest client makes room, or
 * this one is refused. */
void downstream_accept(struct worker *w, int fd, const struct sockaddr *peer);

/* Answers 503 on an accepted socket and closes it, with nothing allocated. */
void downstream_refuse(struct worker *w, int fd);

/* Since when an idle client has been so, or one that lingers has said nothing, on worker_now()'s
 * clock, to within two ticks of the wheel: what its deadline says. */
double downstream_idle_since(const struct downstream *c);

/* Closes an idle client, or one that lingers, to make room. One that has never asked for anything
 * is told why. */
void downstream_shed(struct downstream *c);

/* The exchange is over and the connection goes on: looks at what else was received, or waits. */
void downstream_next(struct downstream *c);

/* The exchange is over and so is the connection; nothing is known to come from the client. */
void downstream_end(struct downstream *c);

/* The exchange is over and so is the connection, politely: says so, then reads on for a short
 * while, lest a reset destroys the answer on its way (RFC 9112 9.6). */
void downstream_finish(struct downstream *c);

/* The one way out, at once. `reset`: the client shall see that something was cut off. */
void downstream_close(struct downstream *c, bool reset);

/* Watches for reading or not, by whether there is room; called by the exchange when that changes.
 */
void downstream_pause(struct downstream *c);
void downstream_resume(struct downstream *c);

/* Has the client ended its side, and is nothing left of what it sent but the present request? */
bool downstream_is_at_end(const struct downstream *c);

/* The peer's IP, or that which a PROXY header named; false for a Unix socket. */
bool downstream_peer(const struct downstream *c, struct ip *ip);

/* Text of it; returns its length. */
size_t downstream_ip(const struct downstream *c, char out[INET6_ADDRSTRLEN]);

void downstream_on_deadline(struct downstream *c);

/* Takes a closed one apart: worker.c, at the end of the turn. */
void downstream_recycle(struct downstream *c);
