/* Hot path in sketch_note(): no allocation, no system call, no waiting. */
#include "dataplane/route/sketch.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define FADE_NS 60000000000u
#define SAMPLE 16

static bool try_enter(struct sketch *s)
{
    return atomic_exchange_explicit(&s->busy, 1, memory_order_acquire) == 0;
}

static void leave(struct sketch *s)
{
    atomic_store_explicit(&s->busy, 0, memory_order_release);
}

static bool is_same(struct digest128 a, struct digest128 b)
{
    return a.low == b.low && a.high == b.high;
}

/* The key's entry, or the one to be taken over. */
static struct sketch_entry *find(struct sketch *s, struct digest128 key)
{
    struct sketch_entry *least = &s->entries[0];
    for (uint32_t i = 0; i < s->used; i++) {
        struct sketch_entry *e = &s->entries[i];
        if (is_same(e->key, key))
            return e;
        if (e->count < least->count)
            least = e;
    }
    if (s->used == SKETCH_ENTRIES)
        return least;
    memset(&s->entries[s->used], 0, sizeof(s->entries[0]));
    return &s->entries[s->used++];
}

/* What it has counted stays: the new key may have come as often. */
static void name(struct sketch_entry *e, struct digest128 key, struct ip ip, struct view text)
{
    e->key = key;
    e->limited = 0;
    e->ip = ip;
    e->len = (uint32_t)text.len;
    e->hash = text.len > 0 ? XXH3_64bits(text.at, text.len) : 0;
    if (text.len > 0)
        memcpy(e->text, text.at, MIN(text.len, sizeof(e->text)));
}

static void fade(struct sketch *s, uint64_t now_ns)
{
    if (s->faded_ns == 0 || now_ns < s->faded_ns)
        s->faded_ns = now_ns;
    for (; now_ns - s->faded_ns >= FADE_NS; s->faded_ns += FADE_NS) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < s->used; i++) {
            struct sketch_entry *e = &s->entries[i];
            e->count /= 2;
            e->limited /= 2;
            if (e->count > 0 && kept++ != i)
                s->entries[kept - 1] = *e;
        }
        s->used = kept;
        uint32_t total = atomic_load_explicit(&s->total, memory_order_relaxed);
        atomic_store_explicit(&s->total, total / 2, memory_order_relaxed);
        if (kept == 0 && total == 0) { /* nothing is left to fade */
            s->faded_ns = now_ns;
            return;
        }
    }
}

void sketch_note(struct sketch *s, struct digest128 key, struct ip ip, struct view text,
                 bool limited, uint64_t random, uint64_t now_ns)
{
    uint32_t total = atomic_load_explicit(&s->total, memory_order_relaxed), weight = 1;
    if (total >= SKETCH_EXACT) {
        if (random % SAMPLE != 0)
            return;
        weight = SAMPLE;
    }
    if (!try_enter(s))
        return;
    fade(s, now_ns);
    struct sketch_entry *e = find(s, key);
    if (!is_same(e->key, key))
        name(e, key, ip, text);
    e->count += weight;
    e->limited += limited ? weight : 0;
    total = atomic_load_explicit(&s->total, memory_order_relaxed);
    atomic_store_explicit(&s->total, MIN(total, UINT32_MAX - SAMPLE) + weight,
                          memory_order_relaxed);
    leave(s);
}

static int by_count(const void *a, const void *b)
{
    const struct sketch_entry *x = a, *y = b;
    return (x->count < y->count) - (x->count > y->count);
}

uint32_t sketch_read(struct sketch *s, struct sketch_entry out[SKETCH_ENTRIES])
{
    while (!try_enter(s))
        sched_yield();
    uint32_t count = s->used;
    memcpy(out, s->entries, count * sizeof(*out));
    leave(s);
    qsort(out, count, sizeof(*out), by_count);
    return count;
}

void sketch_forget(struct sketch *s, const struct digest128 *key)
{
    while (!try_enter(s))
        sched_yield();
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->used; i++)
        if (key && !is_same(s->entries[i].key, *key) && kept++ != i)
            s->entries[kept - 1] = s->entries[i];
    s->used = kept;
    if (!key)
        atomic_store_explicit(&s->total, 0, memory_order_relaxed);
    memset(&s->entries[kept], 0, (SKETCH_ENTRIES - kept) * sizeof(s->entries[0]));
    leave(s);
}
