/* endpoints: every address in its role for a route, a target, of the configuration in force: what
 * its checks say (health/health.c), what operators have ordered (overrides.c), and telling both to
 * the data planes as EndpointState. Owned by main.c; on the control plane's loop.
 *
 *   a verdict, an order --> a delta, at once, to every data plane
 *   a data plane serves the generation in force --> a complete state, to that one
 *
 * A complete state takes back whatever a data plane holds of targets that it does not list. So it
 * is only sent for the generation that the data plane has last been sent: snapshot first, state
 * behind it.
 *
 * A target without a verdict is sent as not checked, and keeps the health it has in the data plane:
 * what until_checked says when it is new there, else what it was. That is why a control plane that
 * starts again, and knows nothing yet, makes no endpoint healthy that was not, nor the other way
 * round.
 *
 *   check     | verdict | entry             | counts here as
 *   disabled  |         | checked, healthy  | up
 *   enabled   | unknown | not checked       | until_checked
 *   enabled   | up      | checked, healthy  | up
 *   enabled   | down    | checked, unhealthy| down
 */
#pragma once

#include "controlplane/builder.h"
#include "controlplane/health/health.h"
#include "controlplane/overrides.h"
#include "controlplane/session.h"

struct target {
    uint64_t id;                          /* of the contract; key */
    struct list link;                     /* of check.users */
    struct check *check;                  /* owned by the health; NULL = it is not checked */
    const struct route_config *route;     /* borrowed from the configuration in force */
    const struct backend_config *backend; /* the same */
    const char *address;                  /* in the arena */
    bool start_down, draining;
    uint32_t weight_override; /* 0 = none */
};

/* The targets of one route: `count` from `first`. */
struct target_span {
    size_t first, count;
};

struct endpoints {
    struct sessions *sessions; /* borrowed */
    struct health health;
    struct overrides overrides;
    bool orders_are_unkept;
    struct arena *arena;         /* owned: all that follows; replaced with each generation */
    const struct config *config; /* in force; borrowed; NULL = none yet */
    uint64_t generation;
    struct target *targets; /* in the order of the configuration */
    size_t count;
    struct target_span *spans; /* one a route */
    struct table by_id;
};

/* What a set of targets comes to. */
struct target_tally {
    size_t count, up, down, unknown; /* by verdict; those that are not checked are up */
    size_t draining;
    size_t usable; /* counts as up, and is not draining */
};

void endpoints_init(struct endpoints *es, struct ev_loop *loop, struct sessions *sessions,
                    struct ledger *ledger, const char *state_dir);
void endpoints_fini(struct endpoints *es);

/* What could not be kept on disk is tried again. */
void endpoints_keep_again(struct endpoints *es);

/* These are in force now, with these addresses. The configuration is borrowed until the next one is
 * applied. */
void endpoints_apply(struct endpoints *es, const struct config *config, uint64_t generation,
                     builder_lookup_fn *lookup, void *owner);

/* A session has begun, its snapshot comes next: what is known is said before that, so that the data
 * plane sends nothing where it should not. */
void endpoints_opened(struct endpoints *es, struct session *s);

/* That data plane serves the generation that it says. */
void endpoints_accepted(struct endpoints *es, struct session *s);

/* NULL when there is none of this id. */
const struct target *endpoints_find(const struct endpoints *es, uint64_t id);
bool target_counts_as_up(const struct target *t);
enum health_state target_verdict(const struct target *t);

/* Of the route at that place in the configuration. */
struct target_tally endpoints_tally(const struct endpoints *es, size_t route);

/* ---- orders of operators ---- */

#define ORDER_WEIGHT_MAX 1000

/* Resetting a breaker is done and over: nothing of it is kept. */
enum order_kind { ORDER_DRAIN, ORDER_UNDRAIN, ORDER_WEIGHT, ORDER_RESET_BREAKER };

struct order {
    enum order_kind kind;
    const char *address;
    const char *route; /* NULL = every one that uses the address, now or later */
    uint32_t weight;   /* 0 = as configured again */
    const char *user;  /* who it is, for the log; may be NULL */
};

enum order_result {
    ORDER_DONE,
    ORDER_UNKNOWN,  /* nothing in force has that address, or that route */
    ORDER_CONFLICT, /* it would have no effect, or there are too many */
};

/* In effect when it returns ORDER_DONE; then `err` is not empty if it could not be kept on disk.
 * Undoing for every route undoes what single routes were told as well, and may be asked for of an
 * address that is gone. */
enum order_result endpoints_order(struct endpoints *es, const struct order *order, struct err *err);

/* The address as it is written everywhere; false when the text is none. */
bool endpoints_normalize(const char *text, char out[ADDR_TEXT_BYTES]);
