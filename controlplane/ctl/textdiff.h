/* textdiff: two texts as a unified diff, the least number of lines (Myers, "An O(ND) Difference
 * Algorithm"), up to a bound: texts that differ in more are shown as one replaced part. Pure but
 * for the output. */
#pragma once

#include <stdio.h>

#include "proto/base/str.h"

#define TEXTDIFF_CONTEXT 3
#define TEXTDIFF_MAX_EDITS 2000

/* Nothing is written when they are equal. */
void textdiff_print(struct view from, struct view to, const char *from_name, const char *to_name,
                    FILE *out, bool color);
