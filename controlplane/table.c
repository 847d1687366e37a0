#include "controlplane/table.h"

#include <assert.h>
#include <stdlib.h>

#include "proto/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FIRST_SLOTS 16

void table_init(struct table *t)
{
    memset(t, 0, sizeof(*t));
}

void table_fini(struct table *t)
{
    free(t->slots);
    memset(t, 0, sizeof(*t));
}

void table_clear(struct table *t)
{
    if (t->slots)
        memset(t->slots, 0, t->size * sizeof(*t->slots));
    t->count = 0;
}

/* The slot that holds the key, or the free one where it would go. */
static struct table_slot *find(const struct table *t, uint64_t hash, struct view key)
{
    size_t i = hash & (t->size - 1);
    while (t->slots[i].item && !(t->slots[i].hash == hash && view_equal(t->slots[i].key, key)))
        i = (i + 1) & (t->size - 1);
    return &t->slots[i];
}

void *table_get(const struct table *t, struct view key)
{
    return t->count > 0 ? find(t, XXH3_64bits(key.at, key.len), key)->item : NULL;
}

static void make_slots(struct table *t, size_t size)
{
    t->size = size;
    t->slots = calloc(size, sizeof(*t->slots));
    if (!t->slots)
        log_fatal("table", "out of memory: %zu slots", size);
}

void table_reserve(struct table *t, size_t count)
{
    size_t size = FIRST_SLOTS;
    assert(!t->slots);
    while (count * 3 >= size * 2)
        size *= 2;
    make_slots(t, size);
}

static void grow(struct table *t)
{
    struct table old = *t;
    make_slots(t, MAX(FIRST_SLOTS, old.size * 2));
    table_each(slot, &old) * find(t, slot->hash, slot->key) = *slot;
    free(old.slots);
}

void table_add(struct table *t, struct view key, void *item)
{
    if (t->count * 3 >= t->size * 2)
        grow(t);
    uint64_t hash = XXH3_64bits(key.at, key.len);
    struct table_slot *slot = find(t, hash, key);
    assert(item && !slot->item);
    *slot = (struct table_slot){hash, key, item};
    t->count++;
}

/* Closes the gap, so that no search ends early: what lies behind moves up unless it is at home
 * between the gap and where it is. */
void *table_remove(struct table *t, struct view key)
{
    if (t->count == 0)
        return NULL;
    struct table_slot *slot = find(t, XXH3_64bits(key.at, key.len), key);
    void *item = slot->item;
    if (!item)
        return NULL;
    size_t gap = (size_t)(slot - t->slots), mask = t->size - 1;
    for (size_t i = (gap + 1) & mask; t->slots[i].item; i = (i + 1) & mask) {
        size_t home = t->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            t->slots[gap] = t->slots[i];
            gap = i;
        }
    }
    t->slots[gap].item = NULL;
    t->count--;
    return item;
}
