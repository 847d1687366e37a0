/* digits: numbers as text, without printf. Pure, any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DIGITS_MAX 20 /* of 2^64 - 1 */

/* In decimal, without leading zeros; returns how many bytes were written, at most DIGITS_MAX. */
size_t digits_decimal(char *out, uint64_t n);

/* 16 hexadecimal digits in lower case, the highest first. */
void digits_hex(char out[16], uint64_t n);
