/* renewal: the tallies of the aggregate written anew: in other bucket bounds, or with what lineages
 * and generations of long ago have counted added up under owner 0. One thread. */
#pragma once

#include "controlplane/tallies.h"
#include "controlplane/totals.h"

struct renewal_bounds {
    const double *at; /* ascending */
    size_t count;     /* less than AGGREGATE_MAX_BUCKETS */
};

struct renewal {
    struct renewal_bounds from, to;
    const uint64_t *folded; /* lineages that are added up */
    size_t folded_count;
};

/* -1 with `err`: they are as they were. Otherwise every row has moved. */
MUST_CHECK int renewal_write(struct tallies *t, const struct renewal *r, struct err *err);

/* map[i]: the bucket of `to` that covers all of bucket i of `from`. */
void renewal_map(const struct renewal_bounds *from, const struct renewal_bounds *to,
                 size_t map[AGGREGATE_MAX_BUCKETS]);

/* Is it the row whose values are the bounds that the others were counted in? */
bool renewal_is_bounds(const struct tally *row);
