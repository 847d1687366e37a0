#include "controlplane/renewal.h"

#include <stdlib.h>

#include "controlplane/table.h"
#include "proto/base/log.h"

#define BOUNDS 'b' /* the key of their row */

/* Generations whose rows are kept apart, of each lineage: those that its data plane may still
 * repeat, which tells four apart. One that drains, or hangs, repeats what all others have long
 * forgotten: what was folded then would be counted twice. */
#define KEEP_GENERATIONS 8

void renewal_map(const struct renewal_bounds *from, const struct renewal_bounds *to,
                 size_t map[AGGREGATE_MAX_BUCKETS])
{
    size_t k = 0;
    for (size_t i = 0; i < from->count; i++) {
        while (k < to->count && to->at[k] < from->at[i])
            k++;
        map[i] = k;
    }
    map[from->count] = to->count;
}

bool renewal_is_bounds(const struct tally *row)
{
    return row->key_len == 1 && tallies_key(row).at[0] == BOUNDS &&
           row->count < AGGREGATE_MAX_BUCKETS;
}

struct writing {
    const struct renewal *renewal;
    struct tallies fresh;
    struct table summed; /* by key -> rows of owner 0 in the fresh ones */
    size_t map[AGGREGATE_MAX_BUCKETS];
    struct table newest; /* by owner -> struct newest, owned */
};

struct newest {
    uint64_t owner, generations[KEEP_GENERATIONS]; /* the newest first */
};

static enum total_kind kind_of(const struct tally *row)
{
    return (enum total_kind)tallies_key(row).at[0];
}

static uint64_t generation_of(struct view key)
{
    return strtoull(key.at + 1, NULL, 10);
}

static struct view owner_key(const uint64_t *owner)
{
    return (struct view){(const char *)owner, sizeof(*owner)};
}

static struct newest *newest_of(struct writing *w, uint64_t owner)
{
    struct newest *n = table_get(&w->newest, owner_key(&owner));
    if (n)
        return n;
    n = calloc(1, sizeof(*n));
    if (!n)
        log_fatal("renewal", "out of memory");
    n->owner = owner;
    table_add(&w->newest, owner_key(&n->owner), n);
    return n;
}

/* Of those that rows are about: numbers may have gaps. */
static void note_generations(struct writing *w, const struct tally *row)
{
    if (kind_of(row) != TOTAL_GENERATION)
        return;
    struct newest *n = newest_of(w, row->owner);
    uint64_t generation = generation_of(tallies_key(row));
    for (size_t i = 0; i < KEEP_GENERATIONS && generation != n->generations[i]; i++) {
        if (generation > n->generations[i]) {
            uint64_t next = n->generations[i];
            n->generations[i] = generation;
            generation = next;
        }
    }
}

static bool is_old(struct writing *w, const struct tally *row)
{
    return kind_of(row) == TOTAL_GENERATION &&
           generation_of(tallies_key(row)) <
               newest_of(w, row->owner)->generations[KEEP_GENERATIONS - 1];
}

static bool is_folded(const struct renewal *r, uint64_t lineage)
{
    for (size_t i = 0; i < r->folded_count; i++)
        if (r->folded[i] == lineage)
            return true;
    return lineage == 0;
}

/* Where the row goes; NULL when there is no room. */
static struct tally *fresh_row(struct writing *w, const struct tally *row, size_t count)
{
    struct view key = tallies_key(row);
    struct total_key older;
    bool is_summed = is_folded(w->renewal, row->owner);
    if (is_old(w, row)) {
        total_key_generation(&older, 0);
        key = total_key_view(&older);
        is_summed = true;
    }
    struct tally *to = is_summed ? table_get(&w->summed, key) : NULL;
    if (to)
        return to;
    to = tallies_add(&w->fresh, is_summed ? 0 : row->owner, key, count);
    if (to && is_summed)
        table_add(&w->summed, tallies_key(to), to);
    return to;
}

/* Buckets come last but for their sum of nanoseconds; generations have classes before them. */
static bool copy_row(struct writing *w, const struct tally *row)
{
    enum total_kind kind = kind_of(row);
    bool has_buckets = kind == TOTAL_DURATION || kind == TOTAL_UPSTREAM || kind == TOTAL_GENERATION;
    size_t first = kind == TOTAL_GENERATION ? AGGREGATE_CLASSES : 0;
    size_t count = totals_values(kind, w->renewal->to.count);
    struct tally *to = fresh_row(w, row, count);
    for (size_t i = 0; to && i < row->count; i++) {
        size_t k = i;
        if (has_buckets && i == row->count - 1u)
            k = count - 1;
        else if (has_buckets && i >= first)
            k = first + w->map[i - first];
        to->values[k] += row->values[i];
    }
    return to != NULL;
}

/* Rows that cannot be what they say are left behind. */
static bool is_sound(const struct renewal *r, const struct tally *row)
{
    return row->key_len > 2 && row->count > 0 &&
           row->count == totals_values(kind_of(row), r->from.count);
}

int renewal_write(struct tallies *t, const struct renewal *r, struct err *err)
{
    struct writing w = {.renewal = r};
    static const char kind = BOUNDS;
    bool fits = true;
    renewal_map(&r->from, &r->to, w.map);
    if (tallies_begin_rewrite(t, &w.fresh, err) < 0)
        return -1;
    struct tally *bounds = tallies_add(&w.fresh, 0, (struct view){&kind, 1}, r->to.count);
    if (bounds)
        memcpy(bounds->values, r->to.at, r->to.count * sizeof(double));
    tallies_each(row, t) note_generations(&w, row);
    tallies_each(row, t)
    {
        if (fits && is_sound(r, row))
            fits = copy_row(&w, row);
    }
    table_each(slot, &w.newest) free(slot->item);
    table_fini(&w.newest);
    table_fini(&w.summed);
    return tallies_end_rewrite(t, &w.fresh, err);
}
