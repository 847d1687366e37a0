/* suggest: the known word that somebody probably meant. Pure functions, any thread. */
#pragma once

#include "proto/base/str.h"

/* How many single characters have to be inserted, left out, replaced or swapped with their
 * neighbour to make `b` from `a`; ASCII case does not count. Words over 40 bytes are "far" from
 * everything: SUGGEST_FAR. */
#define SUGGEST_FAR 1000
unsigned suggest_distance(struct view a, struct view b);

/* Goes through words one by one and keeps the nearest. Start with {.wanted = ...}. */
struct suggest {
    struct view wanted;
    struct view best;
    unsigned distance;
};

void suggest_consider(struct suggest *s, struct view word);

/* The nearest word, or an empty view when none is near enough to be what was meant: a third of its
 * letters may differ. */
struct view suggest_best(const struct suggest *s);
