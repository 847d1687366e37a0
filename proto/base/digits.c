#include "proto/base/digits.h"

#include <endian.h>
#include <string.h>

static const char pairs[] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";

static size_t length_of(uint64_t n)
{
    size_t len = 1;
    for (uint64_t limit = 10; n >= limit; limit *= 10)
        if (++len == DIGITS_MAX)
            break;
    return len;
}

size_t digits_decimal(char *out, uint64_t n)
{
    size_t len = length_of(n), at = len;
    for (; n >= 100; n /= 100) {
        at -= 2;
        memcpy(out + at, pairs + n % 100 * 2, 2);
    }
    if (n < 10)
        out[0] = (char)('0' + n);
    else
        memcpy(out, pairs + n * 2, 2);
    return len;
}

/* Eight digits at once: each half byte of `n` goes into a byte of its own; 10 to 15, which carry
 * into the next half when 6 is added, then become letters. */
static uint64_t hex_of(uint32_t n)
{
    uint64_t x = n;
    x = (x | x << 16) & 0x0000ffff0000ffff;
    x = (x | x << 8) & 0x00ff00ff00ff00ff;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0f;
    uint64_t letters = (x + 0x0606060606060606) >> 4 & 0x0101010101010101;
    return htobe64(x + 0x3030303030303030 + letters * ('a' - '9' - 1));
}

void digits_hex(char out[16], uint64_t n)
{
    uint64_t halves[2] = {hex_of((uint32_t)(n >> 32)), hex_of((uint32_t)n)};
    memcpy(out, halves, sizeof(halves));
}
