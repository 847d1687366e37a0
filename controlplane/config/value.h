/* value: one value of a known type, read from its node into the member that its row of the schema
 * names. What is wrong with it is reported with its place, and the member keeps what it held. */
#pragma once

#include "controlplane/config/load.h"
#include "controlplane/config/schema.h"

struct value_reader {
    struct arena *arena;   /* borrowed; for what the member will point at */
    struct diagnostics *d; /* borrowed */
};

/* `base` is the struct that the key's offset counts from. Texts are borrowed from the node. False
 * when something was reported. */
bool value_read(const struct value_reader *r, const struct key *k, const struct node *n,
                void *base);

/* The key's default into the member. */
void value_preset(const struct value_reader *r, const struct key *k, void *base);

/* Reports that `n` is not what its key takes, and what that is. Always false. */
bool value_mismatch(const struct value_reader *r, const struct key *k, const struct node *n,
                    const char *suggestion);
