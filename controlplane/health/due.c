#include "controlplane/health/due.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

#define FIRST_ROOM 64

void due_fini(struct due *d)
{
    free(d->items);
    memset(d, 0, sizeof(*d));
}

static void place(struct due *d, size_t slot, struct due_item *item)
{
    d->items[slot] = item;
    item->slot = slot;
}

/* From `slot`, where there is a gap, towards the first. */
static void rise(struct due *d, size_t slot, struct due_item *item)
{
    for (; slot > 1 && d->items[slot / 2]->at > item->at; slot /= 2)
        place(d, slot, d->items[slot / 2]);
    place(d, slot, item);
}

static void sink(struct due *d, size_t slot, struct due_item *item)
{
    for (size_t child; (child = slot * 2) <= d->count; slot = child) {
        if (child < d->count && d->items[child + 1]->at < d->items[child]->at)
            child++;
        if (d->items[child]->at >= item->at)
            break;
        place(d, slot, d->items[child]);
    }
    place(d, slot, item);
}

void due_put(struct due *d, struct due_item *item, double at)
{
    assert(item->slot == 0);
    if (d->count + 1 >= d->room) {
        d->room = MAX(FIRST_ROOM, d->room * 2);
        d->items = realloc(d->items, d->room * sizeof(struct due_item *));
        if (!d->items)
            log_fatal("due", "out of memory: %zu items", d->room);
    }
    item->at = at;
    rise(d, ++d->count, item);
}

void due_remove(struct due *d, struct due_item *item)
{
    size_t slot = item->slot;
    if (slot == 0)
        return;
    struct due_item *last = d->items[d->count--];
    item->slot = 0;
    if (last == item)
        return;
    if (slot > 1 && d->items[slot / 2]->at > last->at)
        rise(d, slot, last);
    else
        sink(d, slot, last);
}
