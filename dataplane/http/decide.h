/* decide: what a snapshot makes of a request's head: who the client is, what is asked for, which
 * route that is, by which key its limit counts. Pure functions over a snapshot and a head: nothing
 * is counted, taken or sent. The exchange goes by them, and so does explain.c, which tells what it
 * would do. Which target is chosen is the balancer's (balancer_foresee()). Hot path: no allocation,
 * lock or system call. */
#pragma once

#include "dataplane/http/client_addr.h"
#include "dataplane/http/target.h"
#include "dataplane/state/snapshot.h"

/* Who the client is: `*ip` is the peer, and becomes whom a trusted peer names. True when the peer
 * was believed. */
bool decide_client(const struct snapshot *s, const struct head *h, const struct buffer *b,
                   struct ip *ip);

/* What is asked for, in the terms that routing and forwarding use. The views point into the buffer
 * and into `scratch`, which has room for the whole target. */
enum reason decide_where(const struct head *h, const struct buffer *b, char *scratch,
                         struct request_target *where, struct view *host, const char **detail);

/* The route; R_SERVED, or why none of them takes it: `*route` is set all the same when only the
 * body is too large. `*allowed` is for R_METHOD_NOT_ALLOWED. */
enum reason decide_route(const struct snapshot *s, const struct head *h,
                         const struct request_target *where, struct view host,
                         const struct route **route, uint64_t *allowed);

/* Whose requests the route's limit counts together: by the header's value, or by the address where
 * there is none, or several. */
struct limit_subject decide_limit_subject(const struct limit_policy *p, const struct head *h,
                                          const struct buffer *b, struct ip ip);
