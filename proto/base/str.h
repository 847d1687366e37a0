/* str: a view is a piece of somebody else's text: not owned, not terminated. Pure functions, any
 * thread. */
#pragma once

#include <string.h>
#include <strings.h>

#include "proto/base/defs.h"

struct view {
    const char *at;
    size_t len;
};

/* For printf: "%.*s" with VIEW_ARG(v). */
#define VIEW_ARG(v) (int)(v).len, (v).at

/* Of a literal, without counting its bytes. */
#define VIEW(literal) ((struct view){"" literal, sizeof(literal) - 1})

static inline struct view view_of(const char *text)
{
    return (struct view){text, text ? strlen(text) : 0};
}

static inline bool view_equal(struct view a, struct view b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/* Equal but for ASCII case, as field names and hosts are compared. */
static inline bool view_equal_nocase(struct view a, struct view b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.at, b.at, a.len) == 0);
}

static inline bool view_starts_with(struct view v, struct view prefix)
{
    return v.len >= prefix.len && memcmp(v.at, prefix.at, prefix.len) == 0;
}

/* Without spaces and tabs at both ends (the OWS of RFC 9110 5.6.3). */
static inline struct view view_trim(struct view v)
{
    while (v.len > 0 && (v.at[0] == ' ' || v.at[0] == '\t')) {
        v.at++;
        v.len--;
    }
    while (v.len > 0 && (v.at[v.len - 1] == ' ' || v.at[v.len - 1] == '\t'))
        v.len--;
    return v;
}
