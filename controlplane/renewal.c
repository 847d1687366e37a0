#include "controlplane/renewal.h"

#include <stdlib.h>

#include "controlplane/table.h"

#define BOUNDS 'b' /* the key of their row */

/* Generations whose rows are kept apart: those that a data plane may still repeat; it tells four
 * apart. */
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
    uint64_t oldest_generation; /* that is kept apart */
};

static enum total_kind kind_of(const struct tally *row)
{
    return (enum total_kind)tallies_key(row).at[0];
}

static uint64_t generation_of(struct view key)
{
    return strtoull(key.at + 1, NULL, 10);
}

/* Of those that rows are about: numbers may have gaps. */
static uint64_t oldest_kept_generation(const struct tallies *t)
{
    uint64_t newest[KEEP_GENERATIONS] = {0};
    tallies_each(row, t)
    {
        uint64_t generation =
            kind_of(row) == TOTAL_GENERATION ? generation_of(tallies_key(row)) : 0;
        for (size_t i = 0; i < KEEP_GENERATIONS && generation != newest[i]; i++) {
            if (generation > newest[i]) {
                uint64_t next = newest[i];
                newest[i] = generation;
                generation = next;
            }
        }
    }
    return newest[KEEP_GENERATIONS - 1];
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
    if (kind_of(row) == TOTAL_GENERATION && generation_of(key) < w->oldest_generation) {
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
    struct writing w = {.renewal = r, .oldest_generation = oldest_kept_generation(t)};
    static const char kind = BOUNDS;
    bool fits = true;
    renewal_map(&r->from, &r->to, w.map);
    if (tallies_begin_rewrite(t, &w.fresh, err) < 0)
        return -1;
    struct tally *bounds = tallies_add(&w.fresh, 0, (struct view){&kind, 1}, r->to.count);
    if (bounds)
        memcpy(bounds->values, r->to.at, r->to.count * sizeof(double));
    tallies_each(row, t)
    {
        if (fits && is_sound(r, row))
            fits = copy_row(&w, row);
    }
    table_fini(&w.summed);
    return tallies_end_rewrite(t, &w.fresh, err);
}
