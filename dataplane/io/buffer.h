/* buffer: bytes received from one peer, with named positions, recycled through the worker's stock.
 * One worker's. Hot path: no allocation once the stock is warm.
 *
 *     0 ........ keep ........ parsed ........ used ........ size
 *     | head      | body pieces | not parsed    | room
 *
 * The head of the message under way stays in [0, keep) until its exchange ends, since the log and a
 * retry need it; the parser's views into it are offsets, so a buffer may be exchanged for a larger
 * one at any time. Body pieces are packed behind it, sent from where they lie, and then forgotten.
 */
#pragma once

#include "proto/base/defs.h"

#define BUFFER_SMALL_BYTES (4u * 1024 - 64)   /* the first read of a request */
#define BUFFER_MEDIUM_BYTES (32u * 1024 - 64) /* responses, uploads */
#define BUFFER_LARGE_BYTES (64u * 1024 - 64)  /* long bodies that flow freely */

struct buffer {
    struct buffer *next_spare;
    uint32_t size, keep, parsed, used;
    char data[];
};

struct buffer_stock {
    struct buffer *small, *medium, *large; /* owned, spare */
    uint32_t small_count, medium_count, large_count;
};

void buffer_stock_init(struct buffer_stock *s);
void buffer_stock_fini(struct buffer_stock *s);

/* An empty buffer of at least so many bytes. */
struct buffer *buffer_take(struct buffer_stock *s, uint32_t bytes);

/* Back to the stock; nulls *b; NULL is allowed. The stock keeps a bounded number of each size. */
void buffer_give(struct buffer_stock *s, struct buffer **b);

/* Exchanges *b for one of at least so many bytes with the same contents and positions. */
void buffer_grow(struct buffer_stock *s, struct buffer **b, uint32_t bytes);

static inline uint32_t buffer_room(const struct buffer *b)
{
    return b->size - b->used;
}

/* Forgets the body pieces: what is not parsed moves up behind the head. */
void buffer_compact(struct buffer *b);

/* Forgets the first `bytes` bytes whatever they are: the message is over, the next one's bytes move
 * to the front. */
void buffer_consume(struct buffer *b, uint32_t bytes);
