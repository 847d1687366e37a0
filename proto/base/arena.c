#include "proto/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/base/log.h"

struct block {
    struct block *next;
    size_t used, size; /* of data[] */
    _Alignas(CACHE_LINE_BYTES) char data[];
};

struct arena {
    struct block *blocks; /* owned; the first one is being filled */
    size_t bytes;
};

static struct block *block_new(size_t bytes)
{
    size_t total =
        (sizeof(struct block) + bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    struct block *b = aligned_alloc(CACHE_LINE_BYTES, total);
    if (!b)
        log_fatal("arena", "out of memory: %zu bytes could not be allocated", total);
    b->next = NULL;
    b->used = 0;
    b->size = total - sizeof(struct block);
    return b;
}

struct arena *arena_new(size_t first_block_bytes)
{
    struct arena *a = calloc(1, sizeof(*a));
    if (!a)
        log_fatal("arena", "out of memory");
    a->blocks = block_new(first_block_bytes);
    a->bytes = a->blocks->size;
    return a;
}

static void free_blocks(struct block *b)
{
    for (struct block *next; b; b = next) {
        next = b->next;
        free(b);
    }
}

void arena_free(struct arena **ap)
{
    struct arena *a = *ap;
    *ap = NULL;
    if (!a)
        return;
    free_blocks(a->blocks);
    free(a);
}

/* The newest block is the largest. */
void arena_clear(struct arena *a)
{
    free_blocks(a->blocks->next);
    a->blocks->next = NULL;
    a->blocks->used = 0;
    a->bytes = a->blocks->size;
}

/* Not zeroed: for what is written at once. */
static void *take_raw(struct arena *a, size_t bytes, size_t align)
{
    struct block *b = a->blocks;
    size_t start = (b->used + align - 1) & ~(align - 1);
    if (start > b->size || bytes > b->size - start) {
        /* Doubling keeps the number of blocks logarithmic in what is stored. */
        struct block *fresh = block_new(MAX(bytes, b->size * 2));
        fresh->next = b;
        a->blocks = b = fresh;
        a->bytes += b->size;
        start = 0;
    }
    b->used = start + bytes;
    return b->data + start;
}

static void *take(struct arena *a, size_t bytes, size_t align)
{
    return memset(take_raw(a, bytes, align), 0, bytes);
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    return take(a, bytes, _Alignof(max_align_t));
}

void *arena_array(struct arena *a, size_t count, size_t bytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total))
        log_fatal("arena", "out of memory: %zu elements of %zu bytes were asked for", count, bytes);
    return take(a, total, CACHE_LINE_BYTES);
}

char *arena_copy(struct arena *a, struct view text)
{
    char *copy = take_raw(a, text.len + 1, 1);
    if (text.len > 0)
        memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    return copy;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    char brief[256]; /* formatted once, where that is enough */
    va_start(ap, fmt);
    va_copy(again, ap);
    int len = vsnprintf(brief, sizeof(brief), fmt, ap);
    va_end(ap);
    char *text = take_raw(a, (size_t)len + 1, 1);
    if ((size_t)len < sizeof(brief))
        memcpy(text, brief, (size_t)len + 1);
    else
        vsnprintf(text, (size_t)len + 1, fmt, again);
    va_end(again);
    return text;
}

size_t arena_bytes(const struct arena *a)
{
    return a->bytes;
}
