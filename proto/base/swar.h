/* swar: text looked at in words of eight bytes, or in blocks as large as the processor has them.
 * Each test gives hits, with a bit for each byte that meets it; those above the lowest one may be
 * wrong, so only the first hit counts. */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define SWAR_BYTES sizeof(uint64_t)
#define SWAR_ALL(c) (0x0101010101010101u * (uint8_t)(c))
#define SWAR_HIGH SWAR_ALL(0x80)

/* The first byte in the lowest place, whatever the machine's order. */
static inline uint64_t swar_load(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return le64toh(word);
}

static inline uint64_t swar_equal(uint64_t word, char c)
{
    uint64_t x = word ^ SWAR_ALL(c);
    return (x - SWAR_ALL(1)) & ~x & SWAR_HIGH;
}

/* Of 1 to 7 bytes, some of them twice. */
static inline uint64_t swar_load_short(const char *at, size_t len)
{
    uint32_t start, end;
    if (len < sizeof(start))
        return (uint8_t)at[0] * SWAR_ALL(1) << 24 | (uint64_t)(uint8_t)at[0] |
               (uint64_t)(uint8_t)at[len / 2] << 8 | (uint64_t)(uint8_t)at[len - 1] << 16;
    memcpy(&start, at, sizeof(start));
    memcpy(&end, at + len - sizeof(end), sizeof(end));
    return (uint64_t)start << 32 | end;
}

/* Not printable ASCII: a control byte, or beyond 126. */
static inline uint64_t swar_unprintable(uint64_t word)
{
    return ((word - SWAR_ALL(' ')) | word | swar_equal(word, 127)) & SWAR_HIGH;
}

/* Which byte, of a test that found one. */
static inline unsigned swar_first(uint64_t hits)
{
    return (unsigned)__builtin_ctzll(hits) / 8;
}

#ifdef __SSE2__

#define BLOCK_BYTES 16
typedef __m128i block;

static inline block block_load(const char *at)
{
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

static inline uint64_t block_equal(block b, char c)
{
    return (uint64_t)_mm_movemask_epi8(_mm_cmpeq_epi8(b, _mm_set1_epi8(c)));
}

static inline uint64_t block_unprintable(block b) /* bytes beyond 127 are negative */
{
    return (uint64_t)_mm_movemask_epi8(
        _mm_or_si128(_mm_cmplt_epi8(b, _mm_set1_epi8(' ')), _mm_cmpeq_epi8(b, _mm_set1_epi8(127))));
}

static inline unsigned block_first(uint64_t hits)
{
    return (unsigned)__builtin_ctzll(hits);
}

#else

#define BLOCK_BYTES SWAR_BYTES
typedef uint64_t block;
#define block_load swar_load
#define block_equal swar_equal
#define block_unprintable swar_unprintable
#define block_first swar_first

#endif
