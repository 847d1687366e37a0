/* table: a hash table from bytes to things. Keys are borrowed: they normally lie inside the thing
 * they lead to, and must live as long as it is in the table. Owns only its slots. One thread.
 * Running out of memory ends the program. */
#pragma once

#include "proto/base/str.h"

struct table_slot {
    uint64_t hash;
    struct view key;
    void *item; /* NULL = the slot is free */
};

struct table {
    struct table_slot *slots; /* owned; a power of two */
    size_t size, count;
};

void table_init(struct table *t);
void table_reserve(struct table *t, size_t count); /* an empty one, for so many without growing */
void table_fini(struct table *t);
void table_clear(struct table *t); /* forgets everything, keeps the slots */

/* NULL when there is no such key. */
void *table_get(const struct table *t, struct view key);

/* The key must not be in the table yet; `item` must not be NULL. */
void table_add(struct table *t, struct view key, void *item);

/* Returns what was taken out, or NULL. Not while table_each() runs. */
void *table_remove(struct table *t, struct view key);

/* Every item once, in no order that means anything. */
#define table_each(slot, t)                                                                        \
    for (struct table_slot *slot = (t)->slots; slot && slot < (t)->slots + (t)->size; slot++)      \
        if ((slot)->item)
