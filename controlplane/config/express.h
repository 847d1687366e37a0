/* express: values of a configuration as a file would have them, and whether two are the same, by
 * their rows of the schema. Pure. */
#pragma once

#include "controlplane/config/schema.h"

/* The member of the struct at `base`: "10", "64KiB", "true", "[GET, POST]". Not for sections. Taken
 * from `a`; of a secret it is "***". */
const char *express_value(const struct key *k, const void *base, struct arena *a);

/* Do the members of two such structs stand for the same? Not for sections. */
bool express_same(const struct key *k, const void *x, const void *y);
