/* fuzz: what the drivers share. A driver takes bytes, gives them to a parser, and aborts when one
 * of its promises is broken. Linked with libFuzzer it is fed by that (`make fuzz`); linked with
 * replay.c it takes the files of its seed folder once (`make unit`). */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise, kept in every build. */
#define PROMISE(what)                                                                              \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #what);                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The first bytes of an input steer the driver, the rest is what is parsed. */
struct fuzz_input {
    const char *at;
    size_t len;
};

static inline unsigned fuzz_byte(struct fuzz_input *in)
{
    if (in->len == 0)
        return 0;
    in->len--;
    return (unsigned char)*in->at++;
}

/* Where to cut what is left, from two bytes. */
static inline size_t fuzz_cut(struct fuzz_input *in)
{
    size_t n = (size_t)fuzz_byte(in) << 8;
    n |= fuzz_byte(in);
    return in->len > 0 ? n % in->len : 0;
}

/* Text being put together. */
struct fuzz_text {
    char *at;
    size_t len, room;
};

static inline void fuzz_put(struct fuzz_text *t, const void *bytes, size_t len)
{
    while (t->len + len > t->room) {
        t->room = t->room * 2 + 256;
        t->at = realloc(t->at, t->room);
        PROMISE(t->at);
    }
    if (len > 0)
        memcpy(t->at + t->len, bytes, len);
    t->len += len;
}

static inline void fuzz_put_text(struct fuzz_text *t, const char *text)
{
    fuzz_put(t, text, strlen(text));
}

static inline void fuzz_put_view(struct fuzz_text *t, struct view v)
{
    fuzz_put(t, v.at, v.len);
}
