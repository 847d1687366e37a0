/* roff: text for manual pages, so that nothing in it is taken for an instruction. */
#pragma once

#include <stdio.h>

/* Backslashes, quotes and dashes stay what they are, also at the beginning of a line; an empty line
 * begins a paragraph. */
void roff_put(FILE *out, const char *text);

/* An item of a list: a word, and what it means. */
void roff_put_item(FILE *out, const char *word, const char *text);
