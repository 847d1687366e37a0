/* siphash: SipHash-2-4 with 128 bits of output (Aumasson, Bernstein). Whoever does not know the
 * secret can neither predict a digest nor find two inputs that share one, however many digests are
 * put to use before their eyes: for keys that strangers choose. Pure; any thread. */
#pragma once

#include "proto/base/str.h"

struct digest128 {
    uint64_t low, high;
};

struct digest128 siphash128(const uint64_t secret[2], struct view text);
