/* snapshot: one generation, compiled: routes, targets, policies, the router, all in one arena.
 * Built by the control thread, immutable once published, read by all workers without locks, freed
 * by the control thread.
 *
 *   compile (control) -> publish (worker.h) -> adopted by each worker -> superseded -> last request
 * under it ends -> free
 *
 * A worker counts the requests it has under each snapshot in its own line of `holds`, which nobody
 * else writes; the control thread frees a snapshot when no worker has adopted it any more and all
 * holds are 0. */
#pragma once

#include <stdatomic.h>

#include "dataplane/http/client_addr.h"
#include "dataplane/http/edits.h"
#include "dataplane/io/listener.h"
#include "dataplane/route/limiter.h"
#include "dataplane/state/registry.h"
#include "proto/base/arena.h"
#include "proto/gateway.pb-c.h"

#define MAX_WORKERS 256

struct router; /* route/router.h */
struct roster; /* route/roster.h */

/* What every request needs is first, in one cache line. */
struct target {
    struct target_state *state; /* referred to */
    struct endpoint *endpoint;  /* referred to */
    struct view host;           /* Host to send unless the route preserves the client's */
    struct view base_path;      /* put before the path; may be empty */
    uint32_t weight, max_connections;
    struct view url; /* as configured, for people */
    uint32_t line;   /* in the YAML */
};

enum algorithm { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_WEIGHTED, BALANCE_IP_HASH };

/* What every request needs is first, in three cache lines: with thousands of routes no near cache
 * holds them all. */
struct route {
    _Alignas(CACHE_LINE_BYTES) struct route_state *state; /* referred to */
    struct target *targets;
    uint32_t target_count;
    enum algorithm algorithm;
    struct roster *roster; /* who takes part in balancing, kept up to date; in the arena */
    const struct breaker_policy *breaker; /* NULL = none */
    struct limit_policy *limit;           /* NULL = none */
    uint32_t timeout_ms, connect_timeout_ms, response_idle_timeout_ms;
    uint32_t retries;

    uint64_t max_body_bytes; /* 0 = unlimited */
    bool strip_prefix, preserve_host;
    struct view path_prefix; /* without trailing slash, but for "/" */
    struct edits request_edits, response_edits;

    uint64_t methods; /* bit 1 << llhttp method; all ones = all */
    struct view name;
    struct view host;                 /* "" any; "*.example.com" */
    uint32_t slow_start_ms;           /* 0 = none */
    uint32_t panic_threshold_percent; /* 0 = off */
    uint32_t line;                    /* in the YAML */
};

static inline void route_prefetch(const struct route *r)
{
    PREFETCH(r);
    PREFETCH_AT(r, CACHE_LINE_BYTES);
    PREFETCH_AT(r, 2 * CACHE_LINE_BYTES);
}

struct server_settings {
    uint32_t workers; /* 0 = auto */
    uint32_t read_timeout_ms, write_timeout_ms, header_timeout_ms, idle_timeout_ms;
    uint32_t max_header_bytes, max_headers;
    uint32_t max_connections, max_requests_per_connection;
    uint32_t drain_delay_ms, shutdown_grace_ms, watchdog_ms;
    struct cidr_list trusted_proxies; /* whose word about their clients is believed */
    bool makes_traces;                /* a traceparent for requests without one */
    bool proxy_protocol;              /* and whose connections begin with a PROXY header */
};

struct snapshot_hold {
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t
        requests; /* written by one worker, read by the control thread */
};

struct snapshot {
    struct arena *arena; /* owned; holds this struct too */
    uint64_t generation, content_hash;
    uint64_t created_ms; /* by the control plane's wall clock */
    struct view source;  /* "gateway.yaml" */
    struct server_settings server;
    struct addr *listen; /* addresses to serve */
    char **listen_text;  /* the same as configured */
    uint32_t listen_count;
    struct listener **listeners; /* filled by control.c before publishing; of the listener set */
    struct route *routes;
    uint32_t route_count;
    const struct router *router;
    struct redis_use *redis; /* each Redis once */
    uint32_t redis_count;
    struct endpoint **endpoints; /* each once */
    uint32_t endpoint_count;
    uint32_t endpoint_slots;  /* pools must have room for so many */
    double *duration_buckets; /* upper bounds in seconds */
    uint32_t duration_bucket_count;
    int log_level, log_format; /* enum log_level, enum log_format */
    struct view access_log;    /* "stdout", "stderr", "off", path */
    double access_log_sample;
    struct snapshot_hold holds[MAX_WORKERS];
    struct snapshot *next; /* of control.c's list of those that are not freed yet */
};

/* NULL with `err` when the message asks for what this build does not know (by name) or is
 * inconsistent; nothing is changed then. It has no access to the snapshot in force. One that was
 * compiled as a dry run refers to nothing in the registry: it may be freed, never published. */
struct snapshot *snapshot_compile(const Gwp__Snapshot *message, struct registry *registry,
                                  struct err *err);

/* Control thread, when it is about to be published: its breakers' policies apply from now on, and
 * its rosters are called. */
void snapshot_enter(struct snapshot *s, uint64_t now_ms);

/* Gives back its references in the registry. */
void snapshot_free(struct snapshot **s, struct registry *registry);

/* What this build can do beyond the first protocol: names for Hello.capabilities and
 * required_features. */
extern const char *const snapshot_features[];
extern const size_t snapshot_feature_count;

/* Worker `w` begins, ends a request under it. Only that worker. The release order makes the control
 * thread see everything the request did before it frees. */
static inline void snapshot_hold(struct snapshot *s, unsigned w)
{
    uint32_t n = atomic_load_explicit(&s->holds[w].requests, memory_order_relaxed);
    atomic_store_explicit(&s->holds[w].requests, n + 1, memory_order_relaxed);
}

/* True when it was the last one of this worker. */
static inline bool snapshot_unhold(struct snapshot *s, unsigned w)
{
    uint32_t n = atomic_load_explicit(&s->holds[w].requests, memory_order_relaxed);
    atomic_store_explicit(&s->holds[w].requests, n - 1, memory_order_release);
    return n == 1;
}
