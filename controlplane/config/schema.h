/* schema: every key that gateway.yaml may hold, one row each. Reading, defaults, limits,
 * suggestions and the printed reference all come from these rows; nothing else knows a key's type
 * or default. The table is constant; a struct schema is its index, made for one load in that load's
 * arena. */
#pragma once

#include <stdio.h>

#include "controlplane/config/config.h"

/* Type, then what a value of it is, for messages ("... must be a whole number") and the reference.
 */
#define VALUE_TYPES(TYPE)                                                                          \
    TYPE(SECTION, "a map of keys")                                                                 \
    TYPE(OPTIONAL_SECTION, "a map of keys")                                                        \
    TYPE(SECTION_LIST, "a list of maps")                                                           \
    TYPE(BOOL, "true or false")                                                                    \
    TYPE(INT, "a whole number")                                                                    \
    TYPE(SIZE, "a number of bytes")                                                                \
    TYPE(SECONDS, "a number of seconds")                                                           \
    TYPE(FLOAT, "a number")                                                                        \
    TYPE(FLOATS, "a list of numbers")                                                              \
    TYPE(WORD, "one of")                                                                           \
    TYPE(TOKEN, "text of visible characters")                                                      \
    TYPE(NAME, "a name of at most 128 visible characters")                                         \
    TYPE(HOST, "a host name or \"\"")                                                              \
    TYPE(HOST_PATTERN, "a host name, \"*.\" and a domain, or \"\" for any")                        \
    TYPE(PREFIX, "a path that begins with \"/\"")                                                  \
    TYPE(PATH, "a path that begins with \"/\", or \"\"")                                           \
    TYPE(METHODS, "a list of methods")                                                             \
    TYPE(CIDRS, "a list of networks such as 10.0.0.0/8")                                           \
    TYPE(LISTEN, "an address such as \"host:port\" or \":port\", or \"\"")                         \
    TYPE(LISTENS,                                                                                  \
         "an address such as \"host:port\", \":port\" or \"unix:/path\", or a list of these")      \
    TYPE(FILE_PATH, "an absolute path")                                                            \
    TYPE(LOG_TARGET, "stdout, stderr, off or an absolute path")                                    \
    TYPE(BACKEND_URL, "a URL such as http://host:port/base")                                       \
    TYPE(REDIS_URL, "a URL such as redis://host:6379/0 or unix:///path, or \"\"")                  \
    TYPE(HEADER_NAME, "the name of a header")                                                      \
    TYPE(HEADER_NAMES, "a list of header names")                                                   \
    TYPE(HEADER_FIELDS, "a map of header names and values")                                        \
    TYPE(STATUSES, "a status, a range such as 200-399, or a list of these")

enum value_type {
#define TYPE(name, what) VALUE_##name,
    VALUE_TYPES(TYPE)
#undef TYPE
};

/* Which function of rules.c looks at a section as a whole once it is read. */
enum rule {
    RULE_NONE,
    RULE_SERVER,
    RULE_ADMIN,
    RULE_HEADERS,
    RULE_ROUTE,
    RULE_HEALTH_CHECK,
    RULE_RATE_LIMIT,
    RULE_CIRCUIT_BREAKER,
};

enum {
    KEY_GO = 1,       /* the predecessor had it */
    KEY_REQUIRED = 2, /* has no default */
    KEY_SECRET = 4,   /* no message shows its value */
    KEY_PLACE = 8,    /* a section whose struct begins with a struct place */
};

/* Where a value goes is counted from the struct of its section: the nearest one around it that has
 * a struct of its own. */
struct key {
    const char *path; /* "routes[].backends[].url": a section's path begins those of its keys */
    enum value_type type;
    enum rule rule;
    unsigned flags;
    const char *preset;       /* the default, as it would be written; NULL for sections */
    double min, max;          /* of numbers: in the unit they are written in */
    const char *const *words; /* ended by NULL; a word's number is its enum's */
    size_t offset, bytes; /* of the member; of a section that is listed or optional: its struct */
    size_t count_offset;  /* of a list: where the count goes */
    const char *doc;      /* a sentence */
};

/* A section with its keys, as a tree. */
struct section {
    const struct key *key; /* NULL for the whole file */
    struct section_key {
        struct view name;
        const struct key *key;
        struct section *section; /* if it is one */
    } * keys;
    size_t count;
    void *preset; /* one struct with all defaults, for listed and optional sections; made by check.c
                   */
};

/* The whole file's section. */
struct section *schema_open(struct arena *a);

/* By name, or NULL. */
const struct section_key *schema_find(const struct section *s, struct view name);

/* All rows, in the order of the reference. */
const struct key *schema_keys(size_t *count);

/* The last word of the path: "url". */
struct view schema_name(const struct key *k);

/* What a value has to be: "a whole number from 1 to 256, or auto". Returns `out`. */
#define SCHEMA_DESCRIPTION_BYTES 256
const char *schema_describe(const struct key *k, char out[SCHEMA_DESCRIPTION_BYTES]);

/* The reference for people: each key with type, range, default and sentence. */
void schema_print_reference(FILE *out);
