/* arena: memory that is taken piece by piece and given back all at once. One owner; filled by one
 * thread, then read-only, after which any thread may read it. Running out of memory ends the
 * program: nothing here returns NULL. */
#pragma once

#include "proto/base/str.h"

struct arena;

struct arena *arena_new(size_t first_block_bytes);
void arena_free(struct arena **a); /* nulls *a; NULL is allowed */
void arena_clear(struct arena *a); /* all is given back to it; for the next of many alike */

/* Zeroed, aligned for any type. Owned by the arena. */
void *arena_alloc(struct arena *a, size_t bytes);

/* `count` elements of `bytes` each, zeroed; aligned to a cache line. */
void *arena_array(struct arena *a, size_t count, size_t bytes);

/* A terminated copy. */
char *arena_copy(struct arena *a, struct view text);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Bytes taken from the system so far. */
size_t arena_bytes(const struct arena *a);
