/* resolver: the addresses of every name that backends and Redis URLs use, looked up again before
 * they grow stale. Owned by main.c; on the control plane's loop, through c-ares, which reads
 * /etc/hosts and /etc/resolv.conf, or the servers that it is given.
 *
 * A name is looked up once however many backends share it. All its A and AAAA addresses count,
 * sorted as text, so that the order in which a server tells them means nothing. Literal addresses
 * are their own answer.
 *
 *   new --answer--> known       new --failure--> known, with no addresses
 *   known --TTL over--> asked again; a failure keeps the last answer and is retried sooner
 *
 * A TTL counts as at least 5 s and at most 300 s; what /etc/hosts says is read again after 30 s. */
#pragma once

#include <ev.h>

#include "controlplane/config/config.h"
#include "controlplane/ledger.h"
#include "proto/base/err.h"

struct resolver;

/* Called from the loop, never from within a function of this header. */
struct resolver_events {
    void (*changed)(void *owner); /* the addresses of at least one name are others than before */
    void (*settled)(void *owner); /* every wanted name has had its first answer or failure */
    void *owner;
};

/* Both borrowed. */
struct resolver_setup {
    const char *servers;   /* to ask: "10.0.0.2,[::1]:5353"; NULL = those of /etc/resolv.conf */
    struct ledger *ledger; /* where look-ups are counted, as in the names below */
};

#define RESOLVER_COUNT_OK "dns_lookups/ok"
#define RESOLVER_COUNT_FAILED "dns_lookups/failed"
#define RESOLVER_COUNT_CHANGES "dns_changes" /* answers that differed from the one before */

/* `events` is borrowed. NULL with `err` when c-ares cannot start. */
struct resolver *resolver_new(struct ev_loop *loop, const struct resolver_setup *setup,
                              const struct resolver_events *events, struct err *err);
void resolver_free(struct resolver **r); /* nulls *r; NULL is allowed */

/* From now on exactly the hosts of these configurations' backends and Redis URLs are looked after;
 * either may be NULL. Names that are known stay known. */
void resolver_want(struct resolver *r, const struct config *one, const struct config *other);

/* Has every wanted name had its first answer? */
bool resolver_is_settled(const struct resolver *r);

/* Fits builder_lookup_fn, with the resolver as its owner. NULL for a name that is not wanted; none
 * for one that has never resolved. Borrowed until the loop's next turn. */
const struct strings *resolver_lookup(void *r, const char *host);

/* When an answer with this TTL is to be asked for again, in seconds. Pure. */
double resolver_refresh_after(int ttl, bool from_hosts_file);
