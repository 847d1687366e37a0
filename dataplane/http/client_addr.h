/* client_addr: who the client is, when proxies that are trusted to say so stand in front of us.
 * Networks are compiled once; the rest are pure functions without allocation, for any thread. */
#pragma once

#include "dataplane/http/head.h"
#include "proto/base/addr.h"
#include "proto/base/arena.h"

/* An IP address as two numbers; IPv4 as ::ffff:a.b.c.d, so that a mapped address and the plain one
 * are the same. */
struct ip {
    uint64_t high, low;
};

struct ip ip_from_v4(const uint8_t bytes[4]);
struct ip ip_from_v6(const uint8_t bytes[16]);
bool ip_is_v4(struct ip ip);
bool ip_equal(struct ip a, struct ip b);

/* Of a socket address; false for what is no IP (Unix). */
bool ip_from_addr(const struct addr *a, struct ip *ip);

/* Exactly an IPv4 or IPv6 literal: no port, brackets, zone or white space. */
MUST_CHECK bool ip_parse(struct view text, struct ip *ip);

/* "1.2.3.4" or "2001:db8::1", terminated; returns the length. */
size_t ip_format(struct ip ip, char out[INET6_ADDRSTRLEN]);

struct cidr {
    struct ip network, mask;
    bool is_v4; /* else no IPv4 address is in it, not even in ::/0 */
};

/* "10.0.0.0/8", "2001:db8::/32", or a single address. Host bits are cleared. */
MUST_CHECK int cidr_parse(struct cidr *c, const char *text, struct err *err);
bool cidr_contains(const struct cidr *c, struct ip ip);

/* A few networks, looked through one by one: two comparisons each. */
struct cidr_list {
    uint32_t count;
    const struct cidr *cidrs; /* of the arena */
};

MUST_CHECK int cidr_list_compile(struct cidr_list *list, const char *const *texts, size_t count,
                                 struct arena *arena, struct err *err);
bool cidr_list_contains(const struct cidr_list *list, struct ip ip);

/* Entries of X-Forwarded-For that are looked at; whoever is that far away stays unknown. */
#define CLIENT_ADDR_MAX_HOPS 32

/* Begins with the peer; as long as the present address is trusted, the next one to its left in
 * X-Forwarded-For takes its place. All fields of that name are one list, in their order. An entry
 * is an IP, with or without a port ("1.2.3.4:80", "[::1]:80", "[::1]"); one that is none ends the
 * walk at the address that named it. */
struct ip client_addr_find(struct ip peer, const struct cidr_list *trusted, const struct head *h,
                           const struct buffer *b);
