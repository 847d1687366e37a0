/* load: a YAML text as a tree of nodes that know where they stand. Aliases and merge keys ("<<")
 * are resolved, ${VAR}s expanded; what a key means is not known here. Nothing in the tree changes
 * once it is made, but that check.c marks as bad what it reported. */
#pragma once

#include "controlplane/config/diagnostics.h"

#define LOAD_MAX_BYTES (16u * 1024 * 1024)
#define LOAD_MAX_DEPTH 32
#define LOAD_MAX_VALUES 2000000                     /* those that aliases repeat included */
#define LOAD_MAX_EXPANDED_BYTES (64u * 1024 * 1024) /* that ${VAR}s put in */

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
    enum node_kind kind;
    bool plain; /* a scalar without quotes */
    bool null;  /* nothing, "~" or "null": the key has no value */
    bool bad;   /* was reported: not worth a second message */
    struct place place;
    uint32_t length; /* on its line; 0 = not known */
    uint32_t weight; /* values in here, itself included, each as often as aliases repeat it */
    union {
        struct view text; /* of a scalar; terminated */
        struct {
            struct node *first; /* of a list or map, in the order of the text */
            uint32_t count;
        };
    };
    struct node *key;  /* of a value in a map: its key, a scalar */
    struct node *next; /* in the same list or map */
};

/* About one node, where it stands. */
#define node_error(d, n, suggestion, ...)                                                          \
    diagnostics_add(d, SEVERITY_ERROR, (n)->place, (n)->length, suggestion, __VA_ARGS__)
#define node_warning(d, n, suggestion, ...)                                                        \
    diagnostics_add(d, SEVERITY_WARNING, (n)->place, (n)->length, suggestion, __VA_ARGS__)

/* The root, always a map; or NULL with errors in `d`. It may also come with errors in `d`: those of
 * single values, marked bad, so that the others are still checked. Nodes are taken from `nodes`,
 * texts of values from `texts`: who keeps only the texts may free the rest. */
struct node *load_tree(struct view text, struct arena *nodes, struct arena *texts,
                       struct diagnostics *d);
