/* limiter: how many requests each client of a route may send. One limiter is the table of all keys
 * of one route; it belongs to the route by identity, so it outlives snapshots, and every snapshot
 * in which the route counts in the same way (algorithm, window, kind of key, number of keys) refers
 * to the same one. Rate and burst are the policy's: a changed one applies to every key at its next
 * request.
 *
 * What is promised, for each key, over all workers together:
 *
 *   LIMITER_BUCKET  in any span of T seconds at most burst + rate * T, and whoever sends more gets
 *                   all of that (to 2^-32 of a request for each that passes)
 *   LIMITER_WINDOW  in any span of window_ms at most rate * window (rounded down to whole requests,
 *                   at least 1); whoever always has one waiting gets at least 99 % of that
 *
 * Spans are of the workers' loop time, which is behind the clock by a turn of the loop at most. A
 * refused request costs nothing.
 *
 * Memory: the table has a fixed size, from max_keys. Each key has its place in one set of 16, half
 * again as many places as keys, so sets seldom overflow before max_keys are in use. A new key takes
 * the place of the one in its set whose loss matters least: one whose state equals "never seen";
 * else of those that were seen once, and only then of the others, the one with the least to
 * remember, which fades with time. So a flood of fresh keys makes room for itself at its own cost,
 * and whoever is being limited stays so.
 *
 * Keys are kept as 128-bit digests under secrets of the table: nobody can aim at a set, and the
 * table holds no address and no credential.
 *
 * The table is in a sealed segment (state/segment.h): no pointers, its layout versioned, with its
 * route's identity, the secrets, and times of CLOCK_MONOTONIC, which all processes of a machine
 * share; so another process can go on with it.
 *
 * Workers: limiter_key_*() and limiter_decide() on the hot path: no allocation, no system call but
 * the page faults of a place used for the first time. Control thread: all else. */
#pragma once

#include "dataplane/http/client_addr.h"
#include "dataplane/route/sketch.h"
#include "proto/base/list.h"
#include "proto/base/siphash.h"

enum limiter_algorithm { LIMITER_BUCKET, LIMITER_WINDOW };
enum limiter_key_by { LIMITER_BY_IP, LIMITER_BY_USER, LIMITER_BY_API_KEY };
enum limiter_on_failure { LIMITER_LOCAL, LIMITER_ALLOW, LIMITER_DENY }; /* of Redis */

/* A window is so many cells long, limit_window.c. */
#define LIMIT_WINDOW_CELLS 110

/* What is allowed; immutable, of a route in a snapshot. */
struct limit_policy {
    struct limiter *limiter; /* referred to; NULL in a dry run */
    enum limiter_algorithm algorithm;
    enum limiter_key_by key_by;
    bool observe;         /* count and log what would be refused, and let it pass */
    bool headers;         /* say in RateLimit fields how it stands */
    double rate;          /* per second */
    uint32_t burst;       /* LIMITER_BUCKET: at once */
    uint32_t window_ms;   /* LIMITER_WINDOW */
    uint32_t ipv6_prefix; /* bits that are one client */
    uint32_t max_keys;
    struct view header;         /* its value is the key, unless LIMITER_BY_IP */
    struct view label;          /* the route's name as a quoted string of structured fields */
    struct view announced;      /* what RateLimit-Policy says */
    uint32_t line;              /* in the YAML */
    struct redis_server *redis; /* referred to; NULL = decided in this process */
    uint32_t redis_timeout_ms;
    enum limiter_on_failure on_failure;
    struct view redis_prefix; /* of its keys there, limit_script.h */
    /* From limit_policy_derive(): */
    uint64_t quota;       /* requests: the burst, or those of a window */
    uint64_t window_s;    /* that the quota is for, rounded up: of a bucket, until it is full */
    double tokens_per_ns; /* LIMITER_BUCKET: in its units */
    uint64_t cell_ns;     /* LIMITER_WINDOW: how long a cell is */
};

/* Fills in what follows from the rest. */
void limit_policy_derive(struct limit_policy *p);

/* A gateway's part of it, when so many share the limit and cannot ask Redis: an equal one, at least
 * one request. In the same table. */
struct limit_policy limit_policy_share(const struct limit_policy *p, uint32_t gateways);

struct limit_verdict {
    bool allowed;
    uint64_t remaining; /* requests that would be allowed now */
    uint64_t retry_ns;  /* until one will be; 0 when allowed */
    uint64_t reset_ns;  /* until the whole quota is there again, if nothing comes */
};

struct limiter;
struct segment;

/* The limiter in `limiters`, the list of those of that route, that counts as the policy says, else
 * a new one; takes a reference. NULL with `err`. */
struct limiter *limiter_open(struct list *limiters, const char *route, const struct limit_policy *p,
                             struct err *err);
/* With the last reference the table goes. */
void limiter_release(struct limiter **l);

/* Goes on with the table of another process, which becomes one of `limiters`, for limiter_open() to
 * find; it has no reference until then. NULL with `err`. Takes `fd` over in either case. */
struct limiter *limiter_adopt(struct list *limiters, const char *route, int fd, struct err *err);
/* Of `limiters`, those without a reference go. */
void limiter_forget_unused(struct list *limiters);
const struct segment *limiter_segment(const struct limiter *l);
struct limiter *limiter_of_link(struct list *link); /* of route_state.limiters */

/* Bytes of a whole table; for tests and reports. */
size_t limiter_bytes(const struct limiter *l);

/* Who it is. */
struct limit_subject {
    struct ip ip;
    struct view text; /* counts if it is not empty; borrowed */
};

/* Addresses and texts are never the same key; IPv6 is cut to the policy's prefix. */
#define LIMIT_SPACES 2
struct digest128 limit_subject_digest(const struct limit_policy *p, const struct limit_subject *who,
                                      const uint64_t secrets[LIMIT_SPACES][2]);

/* The same under the secrets of the table. */
struct digest128 limiter_key(const struct limit_policy *p, const struct limit_subject *who);
struct digest128 limiter_key_of_ip(const struct limit_policy *p, struct ip ip);
struct digest128 limiter_key_of_text(const struct limit_policy *p, struct view text);

/* May this request pass? When allowed it has been counted. `now_ns` is CLOCK_MONOTONIC; a worker
 * whose clock is behind another's counts as being at the later time. */
struct limit_verdict limiter_decide(const struct limit_policy *p, struct digest128 key,
                                    uint64_t now_ns);

/* What limiter_decide() would say, without counting anything or remembering the key. Any thread. */
struct limit_verdict limiter_peek(const struct limit_policy *p, struct digest128 key,
                                  uint64_t now_ns);

/* How many gateways share the limit: as this process has heard, or, when it has not heard of any
 * (0), as was noted in the table before. At least 1. Any worker. */
uint32_t limiter_gateways(struct limiter *l, uint32_t heard);

/* Of requests that were decided, whoever decided: who comes most, and who is limited most. */
void limiter_note(const struct limit_policy *p, struct digest128 key,
                  const struct limit_subject *who, bool limited, uint64_t random, uint64_t now_ns);

/* Control thread: the sketches of that, of all requests and of those that were limited. */
enum limiter_sketch { LIMITER_BUSIEST, LIMITER_MOST_LIMITED, LIMITER_SKETCHES };
struct sketch *limiter_sketch(struct limiter *l, enum limiter_sketch which);

/* Control thread: forgets one key, or all of them; what workers decide meanwhile may be forgotten
 * or not. How many keys that were. */
unsigned limiter_forget(struct limiter *l, struct digest128 key);
uint64_t limiter_forget_all(struct limiter *l);

/* ---- what an algorithm is: limit_bucket.c, limit_window.c ---- */

/* A key's state, as it stands in the table; all zero but for the key: never seen. An algorithm that
 * needs more has this as its first member. */
struct limit_slot {
    struct digest128 key;
    uint64_t clock; /* when `spent` was true: ns, or the number of a cell */
    uint64_t spent; /* in the algorithm's own unit */
};

struct limit_algorithm {
    size_t slot_bytes;
    /* Asks for the memory that decide() will want. */
    void (*prefetch)(const struct limit_policy *p, const struct limit_slot *slot, uint64_t now_ns);
    /* Alone with the slot while it is decided. */
    struct limit_verdict (*decide)(const struct limit_policy *p, struct limit_slot *slot,
                                   uint64_t now_ns);
    /* How much forgetting the slot would matter, less than 2^63; 0 = it is as if never seen. */
    uint64_t (*weight)(const struct limit_policy *p, const struct limit_slot *slot,
                       uint64_t now_ns);
};

extern const struct limit_algorithm limit_bucket, limit_window;
