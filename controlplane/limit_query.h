/* limit_query: asks the data planes who is counted by rate limits, or tells them to forget it, and
 * merges what they answer. Owned by main.c; on the loop. Nothing of it is kept.
 *
 * A query ends when every data plane that was asked has answered or gone, or after
 * LIMIT_QUERY_SECONDS: then with what there is. Several may be under way. */
#pragma once

#include <jansson.h>

#include "controlplane/session.h"

#define LIMIT_QUERY_SECONDS 3.

struct limit_queries {
    struct ev_loop *loop;
    struct sessions *sessions; /* borrowed */
    struct list open;          /* struct limit_query, owned */
    uint64_t sequence;
};

/* Called once, from the loop or before the asking function returns; takes the document over. */
typedef void limit_query_done_fn(void *owner, json_t *document);

void limit_queries_init(struct limit_queries *qs, struct ev_loop *loop, struct sessions *sessions);
void limit_queries_fini(struct limit_queries *qs); /* whoever waits is told what there is */

/* {"routes": [{"route", "busiest": [{"key", "requests", "limited"}], "most_limited": [...]}],
 * "truncated", "dataplanes": {"asked", "answered"}}. `route` is "" for all. */
void limit_query_ask(struct limit_queries *qs, const char *route, limit_query_done_fn *done,
                     void *owner);

/* {"route", "key" or null, "forgotten", "redis_away", "dataplanes": ...}. `key` is "" for all. */
void limit_query_reset(struct limit_queries *qs, const char *route, const char *key,
                       limit_query_done_fn *done, void *owner);

/* Gives `document`, which it takes over, to `done` when every data plane has done what it was told
 * before: they take messages in their order, and are asked to forget nothing. */
void limit_query_settle(struct limit_queries *qs, json_t *document, limit_query_done_fn *done,
                        void *owner);

/* From the sessions. */
void limit_queries_take(struct limit_queries *qs, struct session *s, const Gwp__LimitsReport *r);
void limit_queries_gone(struct limit_queries *qs, struct session *s);
