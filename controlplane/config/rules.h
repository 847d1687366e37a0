/* rules: what no single value can be right or wrong about: keys that contradict each other, routes
 * that are the same, defaults that follow from other values. Called by check.c with each section
 * once its values are read, then with the whole. Lives as long as one load. */
#pragma once

#include "controlplane/config/schema.h"
#include "controlplane/config/symbols.h"
#include "controlplane/config/value.h"

struct rules {
    struct value_reader reader; /* where errors go, and what the configuration keeps */
    struct arena *scratch;      /* borrowed; gone when the load is over */
    struct symbols names;       /* of routes -> struct route_config */
    struct symbols matches;     /* host and prefix -> struct match */
};

void rules_init(struct rules *r, struct arena *kept, struct arena *scratch, struct diagnostics *d);

/* A section as it was written, and the struct made from it. Values with errors are still at their
 * defaults; texts without default are then NULL. */
void rules_section(struct rules *r, const struct section *s, const struct node *map, void *base);

/* Everything, after all sections. */
void rules_file(struct rules *r, const struct node *root, struct config *cfg);
