/* totals: sums of what all data planes have counted, by kind and key. Owned by the aggregate, which
 * fills them from its tallies; one thread.
 *
 * Generations of the configuration are told apart while they are among the last; what the others
 * have counted is one total, of generation 0. */
#pragma once

#include "controlplane/table.h"

#define AGGREGATE_BREAKER_STATES 3
#define AGGREGATE_MAX_BUCKETS 33 /* 32 bounds, and what is over the last */
#define AGGREGATE_CLASSES 6
#define AGGREGATE_GENERATIONS 3 /* told apart; older ones count as 0 */

/* What a total counts. Its key is made of words, each with a zero byte behind it, and its values
 * are, by kind: */
enum total_kind {
    TOTAL_REQUESTS = 'r',   /* route, method, status: how many */
    TOTAL_DURATION = 'd',   /* route, method: buckets, nanoseconds */
    TOTAL_UPSTREAM = 'u',   /* likewise, of the time that backends took */
    TOTAL_COUNT = 'c',      /* family, route, value: how many */
    TOTAL_COUNTER = 'n',    /* name: its value */
    TOTAL_TARGET = 't',     /* id, in hexadecimal: see enum target_value */
    TOTAL_GENERATION = 'g', /* number, in decimal: classes, buckets, nanoseconds */
};

enum target_value {
    TARGET_REQUESTS,
    TARGET_FAILURES,
    TARGET_OPENED, /* connections */
    TARGET_REUSED,
    TARGET_FAILED,
    TARGET_MOVED, /* to each state of its breaker */
    TARGET_VALUES = TARGET_MOVED + AGGREGATE_BREAKER_STATES
};

struct total {
    char *key; /* owned: the kind, and the words */
    size_t key_len;
    const char *words[3]; /* within key; NULL = there are fewer */
    enum total_kind kind;
    size_t count;
    uint64_t *values; /* owned */
};

struct totals {
    struct table by_key;   /* -> struct total, owned */
    struct table routes;   /* by name -> struct total of one value, owned: requests */
    struct total **sorted; /* owned, by key */
    size_t sorted_count;   /* fewer than totals: to be sorted anew */
    uint64_t generations[AGGREGATE_GENERATIONS]; /* told apart: the newest first */
    bool is_full;                                /* said once */
};

/* How many values a total of that kind has. */
size_t totals_values(enum total_kind kind, size_t bound_count);

/* ---- keys ---- */

struct total_key {
    char at[1200];
    size_t len;
    bool is_too_long;
};

void total_key_begin(struct total_key *k, enum total_kind kind);
void total_key_word(struct total_key *k, const char *word);
void total_key_number(struct total_key *k, const char *format, uint64_t number); /* "d" or "x" */
void total_key_generation(struct total_key *k, uint64_t generation);             /* all of it */
struct view total_key_view(const struct total_key *k);

/* ---- sums ---- */

/* All but which generations are told apart; for the end as well. */
void totals_clear(struct totals *t);

/* The total of that key, made when it is new; NULL when there is no room for more. */
struct total *totals_at(struct totals *t, struct view key, size_t count);

void totals_count_route(struct totals *t, const char *route, uint64_t more);
uint64_t totals_route_requests(const struct totals *t, const char *route);

/* The key under which rows of that key count: those of a generation for it, or for the older ones.
 */
void totals_count_as(const struct totals *t, struct view key, struct total_key *as);

/* It is told apart from now on. Entering moves what the one has counted that no longer is. */
void totals_note_generation(struct totals *t, uint64_t generation);
void totals_enter_generation(struct totals *t, uint64_t generation);

/* Those whose key begins with this one, which may have fewer words, sorted by their words.
 * Borrowed, until something is counted. */
struct total *const *totals_beginning(struct totals *t, const struct total_key *k, size_t *count);
