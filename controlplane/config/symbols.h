/* symbols: which names were given already, and to what. Owned by who checks something for
 * uniqueness; its memory is the arena's, names and values are borrowed. One thread. */
#pragma once

#include "proto/base/arena.h"

struct symbols {
    struct arena *arena; /* borrowed; set by the owner, the rest zero */
    struct symbol *at;   /* open addressing; `room` is a power of two */
    size_t count, room;
};

/* Gives `name` to `value` (not NULL). If it was given before, nothing changes and who has it is
 * returned; NULL otherwise. */
void *symbols_put(struct symbols *s, struct view name, void *value);

/* Who has the name, or NULL. */
void *symbols_get(const struct symbols *s, struct view name);
