#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>

#include "proto/base/digits.h"

static void expect_as_printf(uint64_t n)
{
    char expected[32], out[32] = "";
    snprintf(expected, sizeof(expected), "%" PRIu64, n);
    out[digits_decimal(out, n)] = '\0';
    cr_assert_str_eq(out, expected);
    snprintf(expected, sizeof(expected), "%016" PRIx64, n);
    digits_hex(out, n);
    out[16] = '\0';
    cr_assert_str_eq(out, expected);
}

Test(digits, are_those_of_printf)
{
    for (uint64_t n = 0; n < 100000; n++)
        expect_as_printf(n);
    for (uint64_t n = 1; n < UINT64_MAX / 10; n *= 10) {
        expect_as_printf(n - 1);
        expect_as_printf(n);
        expect_as_printf(n * 7 + 3);
        expect_as_printf(UINT64_MAX - n);
    }
    expect_as_printf(UINT64_MAX);
    for (unsigned byte = 0; byte < 256; byte++)
        expect_as_printf(0x0101010101010101u * byte);
}
