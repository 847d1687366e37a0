/* due: what is to be done when: a binary heap by time, its items embedded in what they stand for.
 * Any of 10,000 is put in, taken out or moved in 14 steps. Owns only its array. One thread. */
#pragma once

#include "proto/base/defs.h"

struct due_item {
    double at;
    size_t slot; /* in the heap, counted from 1; 0 = it is in none. Zeroed items are in none */
};

struct due {
    struct due_item **items; /* owned array, the items are not; [0] is not used */
    size_t count, room;
};

void due_fini(struct due *d);

/* The item must not be in a heap. */
void due_put(struct due *d, struct due_item *item, double at);

/* Allowed for an item that is in none. */
void due_remove(struct due *d, struct due_item *item);

/* The earliest, which stays; NULL when there is none. */
static inline struct due_item *due_first(const struct due *d)
{
    return d->count > 0 ? d->items[1] : NULL;
}
