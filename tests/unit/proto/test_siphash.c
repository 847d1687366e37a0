#include <criterion/criterion.h>

#include "proto/base/siphash.h"

/* The key of the authors' test vectors: bytes 0 to 15. */
static const uint64_t secret[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

Test(siphash, published_vectors)
{
    char bytes[16];
    for (int i = 0; i < 16; i++)
        bytes[i] = (char)i;
    static const struct {
        size_t len;
        uint64_t low, high; /* the output's bytes as two little-endian words */
    } vectors[] = {
        {0, 0xe6a825ba047f81a3, 0x930255c71472f66d},  {1, 0x44af996bd8c187da, 0x45fc229b11597634},
        {7, 0x53c1dbd8beebf1a1, 0x3982f01fa64ab8c0},  {8, 0x61f55862baa9623b, 0xb49714f364e2830f},
        {15, 0x11a8b03399e99354, 0xd9c3cf970fec087e}, {16, 0xbb54b067caa4e26e, 0x77052385bf1533fd},
    };
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        struct digest128 d = siphash128(secret, (struct view){bytes, vectors[i].len});
        cr_expect_eq(d.low, vectors[i].low, "%zu bytes", vectors[i].len);
        cr_expect_eq(d.high, vectors[i].high, "%zu bytes", vectors[i].len);
    }
}

Test(siphash, secret_length_and_every_byte_count)
{
    const uint64_t other[2] = {secret[0], secret[1] ^ 1};
    char bytes[32] = {0};
    for (size_t len = 0; len < sizeof(bytes); len++) {
        struct digest128 d = siphash128(secret, (struct view){bytes, len});
        cr_expect_neq(d.low, siphash128(other, (struct view){bytes, len}).low);
        cr_expect_neq(d.low, siphash128(secret, (struct view){bytes, len + 1}).low);
        for (size_t i = 0; i < len; i++) {
            bytes[i] = 1;
            cr_expect_neq(d.high, siphash128(secret, (struct view){bytes, len}).high);
            bytes[i] = 0;
        }
    }
}
