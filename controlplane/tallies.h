/* tallies: rows of numbers that outlive this process: a file in the state directory, mapped into
 * memory. Whoever adds to a number has kept it, without a write: after kill -9 the next control
 * plane finds what was there. (A machine that loses its power may lose the last half minute.)
 * Owned by who counts; one thread. Both what data planes count (aggregate.c) and what the control
 * plane counts itself (ledger.c) are kept so.
 *
 * A row belongs to an owner (a lineage of counters) and has a key. It never moves while the file
 * is open, and is never taken out: what shall be gone is left out when the file is rewritten, which
 * replaces it as a whole or not at all.
 *
 * Where the file cannot be kept, the same goes on in memory, with one warning. A file that is not
 * understood is put aside as "NAME.damaged". Rows that another process adds to the file meanwhile
 * are stepped over when one is added here. */
#pragma once

#include "proto/base/err.h"
#include "proto/base/str.h"

struct tally {
    uint32_t bytes; /* of the whole row, a multiple of 8; 0 = here the rows end */
    uint16_t count; /* of values */
    uint16_t key_len;
    uint64_t owner;
    uint64_t values[]; /* and behind them the key */
};

struct tallies {
    char *path;       /* owned */
    char *memory;     /* the mapping, larger than the file */
    size_t used;      /* bytes */
    size_t allocated; /* bytes of the file */
    int fd;           /* owned; -1 = in memory only */
    bool is_full;     /* said once */
};

/* `name` is that of the file in `state_dir`; NULL = in memory only. */
void tallies_open(struct tallies *l, const char *state_dir, const char *name);
void tallies_close(struct tallies *l);

/* A new row of zeros. NULL when there is no room for more. */
struct tally *tallies_add(struct tallies *l, uint64_t owner, struct view key, size_t count);

static inline struct view tallies_key(const struct tally *r)
{
    return (struct view){(const char *)(r->values + r->count), r->key_len};
}

/* Empty ones beside these, to be filled and then to take their place; -1 with `err`, and
 * nothing has changed. */
MUST_CHECK int tallies_begin_rewrite(const struct tallies *l, struct tallies *fresh,
                                     struct err *err);
MUST_CHECK int tallies_end_rewrite(struct tallies *l, struct tallies *fresh, struct err *err);

/* From now on nothing is kept on disk, for that reason. The next rewriting cannot fail then. */
void tallies_give_up_file(struct tallies *l, const struct err *why);

struct tally *tallies_next(const struct tallies *l, const struct tally *r); /* NULL: first */

#define tallies_each(row, l)                                                                       \
    for (struct tally *row = tallies_next(l, NULL); row; row = tallies_next(l, row))
