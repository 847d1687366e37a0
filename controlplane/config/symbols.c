#include "controlplane/config/symbols.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct symbol {
    uint64_t hash;
    struct view name;
    void *value; /* NULL = free */
};

/* The slot of the name, or the free one where it belongs. */
static struct symbol *slot(const struct symbols *s, uint64_t hash, struct view name)
{
    size_t i = hash & (s->room - 1);
    while (s->at[i].value && (s->at[i].hash != hash || !view_equal(s->at[i].name, name)))
        i = (i + 1) & (s->room - 1);
    return &s->at[i];
}

static void grow(struct symbols *s)
{
    struct symbols bigger = {.arena = s->arena, .room = s->room ? 2 * s->room : 64};
    bigger.at = arena_array(s->arena, bigger.room, sizeof(*bigger.at));
    for (size_t i = 0; i < s->room; i++)
        if (s->at[i].value)
            *slot(&bigger, s->at[i].hash, s->at[i].name) = s->at[i];
    bigger.count = s->count;
    *s = bigger;
}

void *symbols_put(struct symbols *s, struct view name, void *value)
{
    if (2 * (s->count + 1) > s->room)
        grow(s);
    uint64_t hash = XXH3_64bits(name.at, name.len);
    struct symbol *found = slot(s, hash, name);
    if (found->value)
        return found->value;
    *found = (struct symbol){hash, name, value};
    s->count++;
    return NULL;
}

void *symbols_get(const struct symbols *s, struct view name)
{
    return s->room ? slot(s, XXH3_64bits(name.at, name.len), name)->value : NULL;
}
