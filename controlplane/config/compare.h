/* compare: what is different between two configurations, in words for people. Pure. */
#pragma once

#include "controlplane/config/config.h"

/* "route users added", "route orders changed", "server changed": routes by name in the order of
 * `now`, then those that are gone. `before` may be NULL: then everything is new and nothing is
 * worth telling. The texts are taken from `a`. */
struct strings compare_configs(const struct config *before, const struct config *now,
                               struct arena *a);
