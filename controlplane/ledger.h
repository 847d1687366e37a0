/* ledger: what the control plane itself counts, by name, in a file of the state directory that is
 * mapped into memory: a count is in the file as soon as it is made, without a system call, and what
 * Prometheus has read never steps back, not even over kill -9. Owned by main.c; one thread.
 *
 * The kernel writes the file to disk in its own time: what a power failure takes back is some
 * seconds. A file that is none of ours is put aside as "counters.broken"; where no file can be had
 * counts live in memory and begin at 0 with each start, which is said once.
 *
 * The state directory is one control plane's. Of two that count in the same file at once, as may be
 * while one replaces the other, no count is lost: they add atomically. */
#pragma once

#include <stdatomic.h>

#include "proto/base/err.h"

#define LEDGER_NAME_BYTES 56 /* with the zero byte behind it */
#define LEDGER_MAX 4095      /* names */

struct ledger {
    struct ledger_file *file; /* the mapping; its inside is in ledger.c */
    char *path;               /* owned; NULL = it is in memory only */
};

typedef _Atomic uint64_t ledger_count;

/* Opens or makes the file in `state_dir`; NULL = in memory only. Always usable afterwards. */
void ledger_init(struct ledger *l, const char *state_dir);
void ledger_fini(struct ledger *l);

/* The count of that name, made with 0 when it is new; valid until ledger_fini(). Names are the
 * program's own words, shorter than LEDGER_NAME_BYTES. Those beyond LEDGER_MAX share one count that
 * nobody should read: they are logged. */
ledger_count *ledger_find(struct ledger *l, const char *name);

static inline void ledger_add(ledger_count *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static inline uint64_t ledger_read(const ledger_count *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}
