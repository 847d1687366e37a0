/* client: one request to the control plane's admin API, over its Unix socket or TCP. Blocking, with
 * a deadline for the whole exchange; a connection lives for one request. One thread; nothing is
 * kept between calls. What it says in `err` is written for whoever typed the command. */
#pragma once

#include <netdb.h>

#include "proto/base/err.h"
#include "proto/base/str.h"

#define CLIENT_MAX_BYTES (64u << 20) /* of a response; what is larger is refused unread */

struct client {
    const char *admin; /* as it was given, for messages; borrowed */
    const char *token; /* for "Authorization: Bearer", or NULL; borrowed */
    const char *path;  /* of the Unix socket, or NULL: inside `admin` */
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
};

struct client_request {
    const char *method;
    const char *target;       /* path and query, already encoded */
    const char *content_type; /* of the body; NULL = there is none */
    struct view body;
    unsigned timeout_ms;
};

struct client_response {
    int status;
    char *body; /* owned; terminated */
    size_t len;
};

/* `admin` is "unix:PATH" or "http://HOST:PORT". -1: the text is neither; nothing was connected. */
MUST_CHECK int client_init(struct client *c, const char *admin, const char *token, struct err *err);

/* 0 with a complete response, which the caller gives back with client_response_fini(); -1 when the
 * control plane could not be reached, was too slow or did not speak HTTP. */
MUST_CHECK int client_call(const struct client *c, const struct client_request *request,
                           struct client_response *response, struct err *err);

void client_response_fini(struct client_response *response);

/* Text -> what may stand in a query, terminated; false when it does not fit. Pure. */
MUST_CHECK bool client_encode(char *out, size_t cap, const char *text);
