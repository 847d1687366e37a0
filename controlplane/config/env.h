/* env: ${VAR} and ${VAR:-default} in a scalar, $$ for a dollar. What comes out is not looked at
 * again, and it is put in after the YAML was parsed: a variable cannot add keys. Reads the
 * environment; otherwise pure. */
#pragma once

#include "proto/base/arena.h"
#include "proto/base/err.h"

/* What the data plane puts into header values for each request: "${client_ip}" and its like are not
 * ours to expand. Ended by NULL. */
extern const char *const env_request_variables[];

/* Is there anything to expand? */
static inline bool env_concerns(struct view text)
{
    return text.len > 0 && memchr(text.at, '$', text.len) != NULL;
}

struct env_fault {
    struct view piece; /* of the text: from its "$" to its "}", or to the end where there is none */
    struct err advice; /* what to do instead, or "" */
    struct err why;
};

/* The text with everything put in, terminated, in the arena; {NULL, 0} with a `fault` when a
 * variable is unset and has no default, or a ${ is malformed: the first one, behind its piece there
 * may be more. As in a shell, ":-" also stands in for a variable that is empty. On success
 * `fault->advice` has something to say of "$HOME" without braces, which stays as it is.
 * `keep_request_variables`: ${client_ip} and its like stay as they are unless the environment has
 * them. */
struct view env_expand(struct arena *a, struct view text, bool keep_request_variables,
                       struct env_fault *fault);
