/* proxy_header: what a proxy in front of us says about its client before the client's own bytes:
 * the PROXY protocol, versions 1 (a line of text) and 2 (binary). Only asked of peers that are
 * trusted to say it. Pure functions over bytes received so far; strict and bounded. */
#pragma once

#include "proto/base/addr.h"

#define PROXY_HEADER_V1_MAX_BYTES 107
#define PROXY_HEADER_V2_MAX_BYTES (16 + 4096)

enum proxy_status {
    PROXY_MORE, /* so far it could be one */
    PROXY_DONE, /* the first `consumed` bytes are one */
    PROXY_BAD   /* it is none, and never will be */
};

struct proxy_header {
    size_t consumed;
    bool has_source; /* false: LOCAL, UNKNOWN or no IP address; the connection's own peer counts */
    struct addr source; /* IPv4 or IPv6, and port */
};

/* The same bytes and more of them may be given again after PROXY_MORE. `h` is filled when DONE;
 * *detail has static words when BAD. */
enum proxy_status proxy_header_parse(const char *bytes, size_t len, struct proxy_header *h,
                                     const char **detail);
