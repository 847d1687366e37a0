/* edits: what a route changes about header fields, compiled with its snapshot and applied while a
 * head is written. "set" replaces a field, "add" appends one, "remove" drops one, in this order of
 * writing: what came, less what is set or removed, then what is set and added. Values may hold
 * ${client_ip}, ${request_id}, ${host} and ${route}, each of which is known to hold no control
 * bytes. Immutable, any worker. Hot path. */
#pragma once

#include "dataplane/http/http1_write.h"
#include "proto/base/arena.h"
#include "proto/base/err.h"
#include "proto/gateway.pb-c.h"

enum edit_variable {
    EDIT_TEXT,
    EDIT_CLIENT_IP,
    EDIT_REQUEST_ID,
    EDIT_HOST,
    EDIT_ROUTE,
    EDIT_VARIABLES
};

/* What the variables stand for in one request, by enum edit_variable; [EDIT_TEXT] is unused. */
struct edit_values {
    struct view at[EDIT_VARIABLES];
};

struct edit_part {
    enum edit_variable variable;
    struct view text; /* with EDIT_TEXT */
};

struct edit_line {
    struct view name;
    struct edit_part *parts;
    uint32_t part_count;
};

struct edits {
    struct edit_line *lines; /* to be written: set, then add */
    uint32_t line_count;
    struct view *gone; /* names not to be passed on: removed and set */
    uint32_t gone_count;
};

/* `in` may be NULL. -1 with `err`: a name that is no token or belongs to framing or to the
 * connection, a value with control bytes. */
MUST_CHECK int edits_compile(struct edits *e, const Gwp__HeaderEdits *in, struct arena *arena,
                             struct err *err);

/* Is it the same name in any case, or once its "_" are read as "-"? Who reads X_User so must not
 * take a client's for the X-User that the route sets or removes. Of the same length. */
bool edits_match(const char *gone, const char *name, size_t len);

/* Is a field of that name to be left out? */
static inline bool edits_drop(const struct edits *e, struct view name)
{
    for (uint32_t i = 0; i < e->gone_count; i++)
        if (e->gone[i].len == name.len && edits_match(e->gone[i].at, name.at, name.len))
            return true;
    return false;
}

void edits_write(const struct edits *e, const struct edit_values *values, struct head_writer *w);
