/* sketch: the keys that were noted most often, in fixed memory, by the Space-Saving algorithm: as
 * many counters as entries; a key without one takes over the smallest, count included. So whatever
 * was noted more often than a SKETCH_ENTRIES-th of all is in it, and no count is too low.
 *
 * Counts fade: they are halved once a minute, so that they tell of the last minutes. The first
 * SKETCH_EXACT notes are counted one by one; of more, each 16th at random stands for 16.
 *
 * Any worker notes, without waiting: who finds another one at it lets the note go. The control
 * thread reads. Of this process only: it holds addresses, users and API keys as they came. */
#pragma once

#include <stdatomic.h>

#include "dataplane/http/client_addr.h"
#include "proto/base/siphash.h"

#define SKETCH_ENTRIES 40
#define SKETCH_EXACT 1000
#define SKETCH_TEXT_BYTES 64

struct sketch_entry {
    struct digest128 key;
    uint64_t count, limited; /* of `count`, those that were limited */
    struct ip ip;            /* when `len` is 0 */
    uint64_t hash;           /* of the whole text */
    uint32_t len;            /* of the whole text; its beginning is kept */
    char text[SKETCH_TEXT_BYTES];
};

struct sketch {
    _Atomic uint32_t busy, total; /* total: notes, as they fade */
    uint64_t faded_ns;
    uint32_t used;
    struct sketch_entry entries[SKETCH_ENTRIES];
};

/* `random` decides whether this note counts, when there are many. */
void sketch_note(struct sketch *s, struct digest128 key, struct ip ip, struct view text,
                 bool limited, uint64_t random, uint64_t now_ns);

/* Copies all entries, the largest count first; how many. Control thread; waits for a note. */
uint32_t sketch_read(struct sketch *s, struct sketch_entry out[SKETCH_ENTRIES]);

/* Forgets one key, or all when it is NULL. Control thread. */
void sketch_forget(struct sketch *s, const struct digest128 *key);
