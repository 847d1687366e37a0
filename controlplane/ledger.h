/* ledger: what the control plane itself counts, by name: rows of one value in a file of their own
 * (tallies.h, "counters" in the state directory). A count is in the file as soon as it is made,
 * without a system call, and what Prometheus has read never steps back, not even over kill -9.
 * Owned by main.c; one thread.
 *
 * The state directory is one control plane's. Of two that count in the same file at once, as may be
 * while one replaces the other, no count is lost: they add atomically. */
#pragma once

#include <stdatomic.h>

#include "controlplane/tallies.h"

typedef _Atomic uint64_t ledger_count;

struct ledger {
    struct tallies tallies;
    ledger_count overflow; /* of the names for which there was no room */
};

/* Opens or makes the file in `state_dir`; NULL = in memory only. Always usable afterwards. */
void ledger_init(struct ledger *l, const char *state_dir);
void ledger_fini(struct ledger *l);

/* The count of that name, made with 0 when it is new; valid until ledger_fini(). Names are the
 * program's own words. Those for which there is no room share one count that nobody should read. */
ledger_count *ledger_find(struct ledger *l, const char *name);

static inline void ledger_add(ledger_count *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline uint64_t ledger_read(const ledger_count *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}
