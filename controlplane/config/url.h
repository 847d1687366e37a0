/* url: the texts in a configuration that name a place in the network: backend URLs, Redis URLs,
 * host names, CIDRs. Pure functions, any thread; nothing is looked up. */
#pragma once

#include "proto/base/arena.h"
#include "proto/base/err.h"

struct url {
    const char *host; /* lower case, without brackets; in the arena */
    uint16_t port;
    const char *path; /* "" or "/base", without trailing slash; in the arena */
};

/* "http://host[:port][/base]". -1 with `err` saying what is wrong; `advice` gets what to write
 * instead, or "". */
MUST_CHECK int url_parse_backend(struct url *u, struct arena *a, const char *text,
                                 struct err *advice, struct err *err);

struct redis_url {
    const char *host; /* as in struct url; NULL = a socket */
    uint16_t port;
    const char *path;            /* of the socket */
    const char *user, *password; /* decoded; "" = none */
    uint32_t database;
    const char *name; /* the URL without user and password, for people */
};

/* "redis://[user:password@]host[:port][/db]" or "unix:///path[?db=N]"; a lone word before the "@"
 * is the password. Never quotes the text, which may hold one. */
MUST_CHECK int url_parse_redis(struct redis_url *u, struct arena *a, const char *text,
                               struct err *err);

/* A host name, an IPv4 address, or an IPv6 address in brackets; no port. */
MUST_CHECK int url_check_host(struct view host, struct err *err);

/* "10.0.0.0/8", "fd00::/8" or a single address. `out` gets the network as it is kept: with its
 * length and without host bits. */
#define URL_CIDR_BYTES 64
MUST_CHECK int url_parse_cidr(char out[URL_CIDR_BYTES], const char *text, struct err *err);
