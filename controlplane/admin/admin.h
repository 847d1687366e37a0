/* admin: the HTTP side of the control plane: libmicrohttpd on our loop, through its epoll
 * descriptor; no thread, no lock. Owned by main.c.
 *
 * Two fronts with the same API: a private Unix socket (mode 0660), where everything is allowed, and
 * a TCP address, which reads, and changes only for who brings admin.token as "Authorization: Bearer
 * ...". What the API is, is api.c; this file is connections, bodies, permissions and answers.
 *
 * A request is answered by exactly one request_reply(). A handler that cannot answer yet just
 * returns: the connection sleeps until somebody does. */
#pragma once

#include <ev.h>
#include <jansson.h>

#include "controlplane/admin/guard.h"
#include "controlplane/aggregate.h"
#include "controlplane/endpoints.h"
#include "controlplane/events.h"
#include "controlplane/fd_keeper.h"
#include "controlplane/limit_query.h"
#include "controlplane/inquiry.h"
#include "controlplane/log_levels.h"
#include "controlplane/publisher.h"
#include "controlplane/session.h"
#include "controlplane/succession.h"
#include "proto/base/list.h"

struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

/* What the API tells about and acts on. All borrowed. */
struct admin_context {
    struct publisher *publisher;
    struct sessions *sessions;
    struct aggregate *aggregate;
    struct endpoints *endpoints;
    struct limit_queries *limits;
    struct inquiries *inquiries;
    struct ledger *ledger;
    struct events *events;
    struct log_levels *log_levels;
    const struct fd_keeper *keeper;
    struct succession *succession;
    double started_at; /* wall clock */
    const char *path;  /* of the configuration file */
};

/* One listening socket. */
struct front {
    struct list link; /* of admin.leaving once it takes no more connections */
    struct admin *admin;
    struct MHD_Daemon *daemon; /* owned, and with it the socket */
    bool is_private;
    ev_io io;
    ev_timer turn;   /* when the daemon wants its next turn whatever happens */
    ev_timer linger; /* of one that leaves: its end */
};

struct admin {
    struct ev_loop *loop;
    struct admin_context context;
    char *socket_path; /* owned */
    char *token;       /* owned; "" = none */
    char *wanted;      /* owned; the TCP address that the configuration asks for, "" = none */
    char *address;     /* owned; the one that is open */
    ev_timer rebind;   /* from the loop: not under the feet of a request that came in through it */
    struct front *tcp, *unix_side; /* owned; tcp may be NULL */
    struct list leaving;           /* of struct front.link, owned */
    struct guard guard;
    struct list streams; /* of struct stream.link, owned by libmicrohttpd */
    size_t stream_count;
    size_t answering; /* bytes of answers that have not been taken yet */
    enum ready_routes ready_routes;
    ev_timer news;  /* events have come: streams are woken from the loop */
    ev_timer speak; /* streams say now and then that they are there */
};

#define API_ARGUMENT_BYTES 128

struct request {
    struct admin *admin;
    struct front *front;
    struct MHD_Connection *connection; /* borrowed */
    struct visit *visit;               /* borrowed: the connection's */
    const struct endpoint *endpoint;   /* of api.c; NULL = answered without one */
    char argument[API_ARGUMENT_BYTES]; /* from the path */
    char *body;                        /* owned, terminated */
    size_t body_len, body_room;
    size_t skipped; /* bytes of a body that is too large */
    bool may_write, is_asleep, is_head;
    unsigned status;
    struct MHD_Response *response; /* owned; NULL = not answered yet */
    bool is_stream;
    size_t answer_len; /* counted in admin.answering */
};

/* -1 with `err`: the socket is taken, or the address is. Then there is nothing to free. */
MUST_CHECK int admin_init(struct admin *a, struct ev_loop *loop, const char *socket_path,
                          const struct admin_config *cfg, const struct admin_context *context,
                          struct err *err);
void admin_fini(struct admin *a); /* what has been answered is still sent, if it can be at once */

/* Another configuration is in force: its address and token count. An address that cannot be opened
 * leaves the old one open, with an error logged. */
void admin_apply(struct admin *a, const struct admin_config *cfg);

/* Sleeping connections have been resumed: libmicrohttpd gets its turn soon. */
void admin_poke(struct admin *a);

/* ---- for handlers ---- */

/* The value of a query parameter, NULL when it is not there. Borrowed from the request. */
const char *request_argument(const struct request *rq, const char *name);

/* Who asks: the user of the process at the other end of the private socket, or the address of who
 * brought the token. */
void request_user(const struct request *rq, char *out, size_t cap);

/* The value of a header field, NULL when it is not there. Borrowed from the request. */
const char *request_header(const struct request *rq, const char *name);

/* Takes `body` over: free(). */
void request_reply(struct request *rq, unsigned status, const char *type, char *body, size_t len);
void request_reply_json(struct request *rq, unsigned status, json_t *document); /* takes it over */

/* Takes the response over, whose body goes on and on. */
void request_reply_stream(struct request *rq, unsigned status, const char *type,
                          struct MHD_Response *response);

/* An answer without a body. */
void request_reply_empty(struct request *rq, unsigned status);

/* {"error": code, "message": sentence} */
void request_fail(struct request *rq, unsigned status, const char *code, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void request_add_header(struct request *rq, const char *name,
                        const char *value); /* once answered */
