/* scan: the events that libyaml would give, several times as fast, for the plain part of YAML that
 * most configurations are made of: block maps and lists by indentation, scalars on one line (plain,
 * or quoted without escapes), flow lists and maps on one line, comments; ASCII without tabs. It
 * gives up on everything else, and on whatever is wrong: then libyaml reads the text from its
 * beginning, and it is libyaml alone that says what YAML is. Tests and a fuzz driver hold the
 * events of both against each other. Pure; one thread. */
#pragma once

#include <yaml.h>

#include "proto/base/str.h"

#define SCAN_MAX_LEVELS 48 /* more than load.c allows: it is the one to say so */

enum scan_kind { SCAN_MAP, SCAN_LIST, SCAN_FLOW_MAP, SCAN_FLOW_LIST };

struct scan_level {
    enum scan_kind kind;
    uint32_t indent;
    bool same_indent; /* a list whose "-" stand below the key that it belongs to */
};

enum scan_state {
    SCAN_BEGIN,
    SCAN_DOCUMENT,
    SCAN_NODE,  /* a block begins here */
    SCAN_ENTRY, /* at "- " */
    SCAN_KEY,
    SCAN_VALUE, /* behind the ":" of a key */
    SCAN_AFTER, /* behind a value */
    SCAN_FLOW,  /* behind "[", "{" or "," */
    SCAN_FLOW_VALUE,
    SCAN_END,
    SCAN_ENDED,
};

struct scan {
    const char *begin, *at, *end;
    const char *line_start;
    uint32_t line; /* from 0 */
    enum scan_state state;
    bool is_here; /* at the next content already, or at the end */
    uint32_t depth;
    struct scan_level levels[SCAN_MAX_LEVELS];
};

/* False: not even its bytes are plain. */
bool scan_init(struct scan *s, struct view text);

/* The next event; texts in it are borrowed from the scanned text, not terminated, and there is
 * nothing to delete. False: it gives up. Marks of ends, and of the document, mean nothing. */
MUST_CHECK bool scan_next(struct scan *s, yaml_event_t *e);
