#include "proto/base/siphash.h"

#include <endian.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void mix(struct state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 = rotate(s->v2, 32);
}

static inline void absorb(struct state *s, uint64_t word)
{
    s->v3 ^= word;
    mix(s);
    mix(s);
    s->v0 ^= word;
}

static uint64_t squeeze(struct state *s)
{
    for (int i = 0; i < 4; i++)
        mix(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

struct digest128 siphash128(const uint64_t secret[2], struct view text)
{
    /* "somepseudorandomlygeneratedbytes", and the mark of the 128-bit variant */
    struct state s = {secret[0] ^ 0x736f6d6570736575, secret[1] ^ 0x646f72616e646f6d ^ 0xee,
                      secret[0] ^ 0x6c7967656e657261, secret[1] ^ 0x7465646279746573};
    uint64_t word, last = (uint64_t)text.len << 56;
    size_t whole = text.len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&word, text.at + i, sizeof(word));
        absorb(&s, le64toh(word));
    }
    for (size_t i = whole; i < text.len; i++)
        last |= (uint64_t)(uint8_t)text.at[i] << (i - whole) * 8;
    absorb(&s, last);
    s.v2 ^= 0xee;
    struct digest128 d = {.low = squeeze(&s)};
    s.v1 ^= 0xdd;
    d.high = squeeze(&s);
    return d;
}
