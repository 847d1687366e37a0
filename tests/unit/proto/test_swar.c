#include <criterion/criterion.h>

#include "proto/base/swar.h"

/* Every byte at every place, between plain ones: the first hit is where it is, and only if it is
 * one. */
Test(swar, finds_the_first_byte_that_is_meant)
{
    for (unsigned c = 0; c < 256; c++) {
        for (unsigned at = 0; at < SWAR_BYTES; at++) {
            char text[] = "aaaaaaaa";
            text[at] = (char)c;
            uint64_t word = swar_load(text), hits = swar_unprintable(word);
            bool unprintable = c < 32 || c > 126;
            cr_assert_eq(hits != 0, unprintable, "byte %u at %u", c, at);
            cr_assert(!unprintable || swar_first(hits) == at, "byte %u at %u", c, at);
            hits = swar_equal(word, (char)c);
            cr_assert(hits && swar_first(hits) == (c == 'a' ? 0 : at), "byte %u at %u", c, at);
            cr_assert(c == ':' || swar_equal(word, ':') == 0);
        }
    }
}

Test(swar, blocks_find_the_same)
{
    for (unsigned c = 0; c < 256; c++) {
        for (unsigned at = 0; at < BLOCK_BYTES; at++) {
            char text[BLOCK_BYTES];
            memset(text, 'a', sizeof(text));
            text[at] = (char)c;
            uint64_t hits = block_unprintable(block_load(text));
            bool unprintable = c < 32 || c > 126;
            cr_assert_eq(hits != 0, unprintable, "byte %u at %u", c, at);
            cr_assert(!unprintable || block_first(hits) == at, "byte %u at %u", c, at);
            hits = block_equal(block_load(text), (char)c);
            cr_assert(hits && block_first(hits) == (c == 'a' ? 0 : at), "byte %u at %u", c, at);
        }
    }
}

Test(swar, short_text_is_seen_whole)
{
    static const char text[] = "abcdefg";
    for (size_t len = 1; len < SWAR_BYTES; len++)
        for (size_t i = 0; i < SWAR_BYTES - 1; i++)
            cr_assert_eq(swar_equal(swar_load_short(text, len), text[i]) != 0, i < len,
                         "%zu of %zu", i, len);
}
