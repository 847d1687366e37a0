/* segment: a piece of memory of fixed size behind a descriptor (memfd), laid out with offsets
 * instead of pointers, so that it can be mapped anywhere and outlive the process that made it.
 * Sealed: nobody who gets the descriptor can shrink it under us. Sparse: pages cost memory when
 * they are first touched, so the size may be generous. Owned by who creates it. */
#pragma once

#include <stdatomic.h>

#include "proto/base/err.h"

/* At offset 0 of every segment; what follows is the layout's. */
struct segment_head {
    char magic[8];
    uint32_t layout; /* version of what follows; another one is not understood */
    uint32_t zero;
    uint64_t bytes;           /* of the whole */
    _Atomic uint64_t lineage; /* random; another number means that its content began anew */
};

struct segment {
    struct segment_head *head; /* the mapping */
    size_t bytes;
    int fd; /* owned */
};

/* All zero but for its head. -1 with `err`. */
MUST_CHECK int segment_create(struct segment *s, const char *name, uint32_t layout, size_t bytes,
                              struct err *err);

/* The same memory, from its descriptor. It must be of that layout, and of `bytes` unless that is 0.
 * -1 with `err`; `fd` is taken over in either case. */
MUST_CHECK int segment_adopt(struct segment *s, int fd, const char *name, uint32_t layout,
                             size_t bytes, struct err *err);
void segment_close(struct segment *s);
uint64_t segment_lineage(const struct segment *s);

/* A number that no segment has had before. */
uint64_t segment_new_lineage(void);
