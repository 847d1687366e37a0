/* builder: a configuration and the addresses of its names -> one packed Snapshot. A pure function:
 * the same input gives the same bytes, nothing is kept, nothing is looked up. One thread. */
#pragma once

#include "controlplane/config/config.h"

/* The addresses of a host as texts ("10.0.0.1", "::1"), sorted; NULL or none when it has none yet.
 */
typedef const struct strings *builder_lookup_fn(void *owner, const char *host);

struct builder_input {
    const struct config *config; /* borrowed */
    builder_lookup_fn *lookup;
    void *owner; /* of lookup; borrowed */
    uint64_t generation;
    uint64_t created_ms; /* wall clock */
    bool dry_run;
};

struct builder_output {
    uint8_t *packed; /* owned by the caller: free() */
    size_t len;
    size_t backends, endpoints;
    uint64_t
        targets_hash; /* over all target ids: equal when nothing that DNS decides has changed */
    uint64_t
        body_hash; /* over the text and all that data planes go by: not the number or the time */
};

void builder_build(const struct builder_input *in, struct builder_output *out);

/* Target.id: XXH3 of route name, backend url and address ("10.0.0.1:8080"), a zero byte between
 * two. The same in every generation, so that what is known about a target outlives reloads. */
uint64_t builder_target_id(const char *route, const char *url, const char *address);

/* What goes into Host: the authority as a client would write it, without the port it would leave
 * out. */
const char *builder_host(struct arena *a, const struct backend_config *backend);

/* "10.0.0.1:8080", "[::1]:8080". */
char *builder_address(struct arena *a, const char *ip, uint16_t port);
