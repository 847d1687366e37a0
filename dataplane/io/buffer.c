#include "dataplane/io/buffer.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

/* What a worker keeps for the next burst; more goes back to the system. */
#define SMALL_SPARES 1024
#define MEDIUM_SPARES 256
#define LARGE_SPARES 8

void buffer_stock_init(struct buffer_stock *s)
{
    memset(s, 0, sizeof(*s));
}

static void free_all(struct buffer *b)
{
    while (b) {
        struct buffer *next = b->next_spare;
        free(b);
        b = next;
    }
}

void buffer_stock_fini(struct buffer_stock *s)
{
    free_all(s->small);
    free_all(s->medium);
    free_all(s->large);
    memset(s, 0, sizeof(*s));
}

static struct buffer *make(uint32_t size)
{
    struct buffer *b = malloc(sizeof(*b) + size);
    if (!b)
        log_fatal("buffer", "out of memory: %u bytes for a buffer", size);
    b->size = size;
    return b;
}

static struct buffer *pop(struct buffer **spares, uint32_t *count, uint32_t size)
{
    struct buffer *b = *spares;
    if (!b)
        return make(size);
    *spares = b->next_spare;
    (*count)--;
    return b;
}

struct buffer *buffer_take(struct buffer_stock *s, uint32_t bytes)
{
    struct buffer *b;
    if (bytes <= BUFFER_SMALL_BYTES)
        b = pop(&s->small, &s->small_count, BUFFER_SMALL_BYTES);
    else if (bytes <= BUFFER_MEDIUM_BYTES)
        b = pop(&s->medium, &s->medium_count, BUFFER_MEDIUM_BYTES);
    else if (bytes <= BUFFER_LARGE_BYTES)
        b = pop(&s->large, &s->large_count, BUFFER_LARGE_BYTES);
    else
        b = make(bytes);
    b->next_spare = NULL;
    b->keep = b->parsed = b->used = 0;
    return b;
}

static bool push(struct buffer **spares, uint32_t *count, uint32_t most, struct buffer *b)
{
    if (*count >= most)
        return false;
    b->next_spare = *spares;
    *spares = b;
    (*count)++;
    return true;
}

void buffer_give(struct buffer_stock *s, struct buffer **bp)
{
    struct buffer *b = *bp;
    bool kept = false;
    *bp = NULL;
    if (!b)
        return;
    if (b->size == BUFFER_SMALL_BYTES)
        kept = push(&s->small, &s->small_count, SMALL_SPARES, b);
    else if (b->size == BUFFER_MEDIUM_BYTES)
        kept = push(&s->medium, &s->medium_count, MEDIUM_SPARES, b);
    else if (b->size == BUFFER_LARGE_BYTES)
        kept = push(&s->large, &s->large_count, LARGE_SPARES, b);
    if (!kept)
        free(b);
}

void buffer_grow(struct buffer_stock *s, struct buffer **bp, uint32_t bytes)
{
    struct buffer *old = *bp;
    if (bytes <= old->size)
        return;
    struct buffer *b = buffer_take(s, bytes);
    memcpy(b->data, old->data, old->used);
    b->keep = old->keep;
    b->parsed = old->parsed;
    b->used = old->used;
    buffer_give(s, bp);
    *bp = b;
}

void buffer_compact(struct buffer *b)
{
    if (b->parsed == b->keep)
        return;
    memmove(b->data + b->keep, b->data + b->parsed, b->used - b->parsed);
    b->used -= b->parsed - b->keep;
    b->parsed = b->keep;
}

void buffer_consume(struct buffer *b, uint32_t bytes)
{
    memmove(b->data, b->data + bytes, b->used - bytes);
    b->used -= bytes;
    b->keep = b->parsed = 0;
}
