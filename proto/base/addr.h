/* addr: a socket address, IPv4, IPv6 or Unix, as text and as bytes. Pure functions, any thread;
 * nothing looks a name up. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "proto/base/err.h"
#include "proto/base/str.h"

struct addr {
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } sa;
    socklen_t len;
};

#define ADDR_TEXT_BYTES 128 /* enough for any addr_format(), terminator included */

/* Where to listen: "host:port" and "[v6]:port" with literal addresses, ":port" (IPv6 wildcard, to
 * be opened for both families), "unix:/path". 0, or -1 with `err` saying what is wrong with the
 * text. */
MUST_CHECK int addr_parse(struct addr *a, const char *text, struct err *err);

/* The same text back: "10.0.0.1:80", "[::1]:80", "unix:/run/x". Terminated; returns its length. */
size_t addr_format(const struct addr *a, char out[ADDR_TEXT_BYTES]);

/* Only the IP, without port and brackets: "10.0.0.1", "::1"; IPv4 mapped in IPv6 as IPv4; "unix"
 * for a Unix peer. */
size_t addr_format_ip(const struct addr *a, char out[ADDR_TEXT_BYTES]);

bool addr_equal(const struct addr *a, const struct addr *b);
uint64_t addr_hash(const struct addr *a);
