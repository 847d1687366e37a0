#include "controlplane/totals.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

#define MAX_TOTALS 500000 /* 10,000 routes with every method, some statuses and reasons each */

static void *must(void *memory)
{
    if (!memory)
        log_fatal("totals", "out of memory");
    return memory;
}

/* ---- keys ---- */

void total_key_begin(struct total_key *k, enum total_kind kind)
{
    k->at[0] = (char)kind;
    k->len = 1;
    k->is_too_long = false;
}

void total_key_word(struct total_key *k, const char *word)
{
    size_t bytes = strlen(word) + 1;
    if (k->len + bytes > sizeof(k->at)) {
        k->is_too_long = true;
        return;
    }
    memcpy(k->at + k->len, word, bytes);
    k->len += bytes;
}

void total_key_number(struct total_key *k, const char *format, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), format[0] == 'x' ? "%016" PRIx64 : "%" PRIu64, number);
    total_key_word(k, text);
}

void total_key_generation(struct total_key *k, uint64_t generation)
{
    total_key_begin(k, TOTAL_GENERATION);
    total_key_number(k, "d", generation);
}

struct view total_key_view(const struct total_key *k)
{
    return (struct view){k->at, k->len};
}

size_t totals_values(enum total_kind kind, size_t bound_count)
{
    switch (kind) {
    case TOTAL_DURATION:
    case TOTAL_UPSTREAM:
        return bound_count + 2;
    case TOTAL_GENERATION:
        return AGGREGATE_CLASSES + bound_count + 2;
    case TOTAL_TARGET:
        return TARGET_VALUES;
    case TOTAL_REQUESTS:
    case TOTAL_COUNT:
    case TOTAL_COUNTER:
        return 1;
    }
    return 0;
}

/* ---- totals ---- */

static void total_free(struct total *t)
{
    free(t->key);
    free(t->values);
    free(t);
}

void totals_clear(struct totals *t)
{
    table_each(slot, &t->by_key) total_free(slot->item);
    table_each(slot, &t->routes) total_free(slot->item);
    table_fini(&t->by_key);
    table_fini(&t->routes);
    free(t->sorted);
    t->sorted = NULL;
    t->sorted_count = 0;
}

static struct total *total_new(struct view key, size_t count)
{
    struct total *t = must(calloc(1, sizeof(*t)));
    t->key = must(malloc(key.len + 1));
    memcpy(t->key, key.at, key.len);
    t->key[key.len] = '\0';
    t->key_len = key.len;
    t->kind = (enum total_kind)key.at[0];
    t->count = count;
    t->values = must(calloc(count + 1, sizeof(*t->values)));
    const char *word = t->key + 1;
    for (size_t i = 0; i < COUNT_OF(t->words) && word < t->key + key.len; i++) {
        t->words[i] = word;
        word += strlen(word) + 1;
    }
    return t;
}

struct total *totals_at(struct totals *t, struct view key, size_t count)
{
    struct total *one = table_get(&t->by_key, key);
    if (one)
        return one->count == count ? one : NULL;
    if (t->by_key.count >= MAX_TOTALS) {
        if (!t->is_full)
            log_warn("totals", "more than %d series; new ones are not counted", MAX_TOTALS);
        t->is_full = true;
        return NULL;
    }
    one = total_new(key, count);
    table_add(&t->by_key, (struct view){one->key, one->key_len}, one);
    return one;
}

void totals_count_route(struct totals *t, const char *route, uint64_t more)
{
    struct total *one = table_get(&t->routes, view_of(route));
    if (!one) {
        struct total_key k;
        total_key_begin(&k, TOTAL_REQUESTS);
        total_key_word(&k, route);
        one = total_new(total_key_view(&k), 1);
        table_add(&t->routes, view_of(one->words[0]), one);
    }
    one->values[0] += more;
}

/* ---- generations ---- */

static bool is_told_apart(const struct totals *t, uint64_t generation)
{
    for (size_t i = 0; i < AGGREGATE_GENERATIONS; i++)
        if (t->generations[i] == generation)
            return true;
    return false;
}

void totals_count_as(const struct totals *t, struct view key, struct total_key *as)
{
    as->len = key.len;
    memcpy(as->at, key.at, key.len);
    if (key.at[0] == TOTAL_GENERATION && !is_told_apart(t, strtoull(key.at + 1, NULL, 10)))
        total_key_generation(as, 0);
}

void totals_note_generation(struct totals *t, uint64_t generation)
{
    for (size_t i = 0; i < AGGREGATE_GENERATIONS; i++) {
        if (generation == t->generations[i] || generation == 0)
            return;
        if (generation > t->generations[i]) {
            uint64_t next = t->generations[i];
            t->generations[i] = generation;
            generation = next;
        }
    }
}

/* What the one that is no longer told apart has counted goes to the older ones. */
static void fold_generation(struct totals *t, uint64_t generation)
{
    struct total_key k;
    total_key_generation(&k, generation);
    struct total *from = table_remove(&t->by_key, total_key_view(&k));
    if (!from)
        return;
    total_key_generation(&k, 0);
    struct total *to = totals_at(t, total_key_view(&k), from->count);
    for (size_t i = 0; to && i < to->count; i++)
        to->values[i] += from->values[i];
    t->sorted_count = 0;
    total_free(from);
}

void totals_enter_generation(struct totals *t, uint64_t generation)
{
    uint64_t before[AGGREGATE_GENERATIONS];
    memcpy(before, t->generations, sizeof(before));
    totals_note_generation(t, generation);
    for (size_t i = 0; i < AGGREGATE_GENERATIONS; i++)
        if (before[i] > 0 && !is_told_apart(t, before[i]))
            fold_generation(t, before[i]);
}

/* ---- reading ---- */

static int by_key(const void *a, const void *b)
{
    const struct total *x = *(struct total *const *)a, *y = *(struct total *const *)b;
    int order = memcmp(x->key, y->key, MIN(x->key_len, y->key_len));
    return order != 0 ? order : x->key_len < y->key_len ? -1 : x->key_len > y->key_len;
}

static void sort(struct totals *t)
{
    if (t->sorted_count == t->by_key.count)
        return;
    t->sorted_count = 0;
    t->sorted = must(realloc(t->sorted, (t->by_key.count + 1) * sizeof(struct total *)));
    table_each(slot, &t->by_key) t->sorted[t->sorted_count++] = slot->item;
    qsort(t->sorted, t->sorted_count, sizeof(struct total *), by_key);
}

static bool is_before(const struct total *t, struct view prefix, bool or_in)
{
    int order = memcmp(t->key, prefix.at, MIN(t->key_len, prefix.len));
    if (order == 0 && t->key_len < prefix.len)
        order = -1;
    return order < 0 || (or_in && order == 0);
}

/* The first of the sorted ones that is not before the prefix; with `or_in`, nor begins with it. */
static size_t first_behind(const struct totals *t, struct view prefix, bool or_in)
{
    size_t low = 0, high = t->sorted_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_before(t->sorted[middle], prefix, or_in))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct total *const *totals_beginning(struct totals *t, const struct total_key *k, size_t *count)
{
    sort(t);
    size_t first = first_behind(t, total_key_view(k), false);
    *count = first_behind(t, total_key_view(k), true) - first;
    return t->sorted + first;
}

uint64_t totals_route_requests(const struct totals *t, const char *route)
{
    const struct total *r = table_get(&t->routes, view_of(route));
    return r ? r->values[0] : 0;
}
