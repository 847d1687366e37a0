/* target: what a request line asks for (RFC 9112 3.2, RFC 3986), taken apart and normalised. The
 * path that is matched is the path that is forwarded, so that no route can be slipped past:
 * unreserved characters that were percent-encoded are decoded and the hex digits of what stays
 * encoded are upper case; nothing else is changed.
 *
 * A path that could climb is refused, not repaired: any segment that is "." or ".." once %2E is
 * decoded, whether "/", %2F or %5C delimits it, with or without ";parameters" or %3B. So are a bare
 * "\", an encoded NUL and overlong UTF-8, which careless decoders make slashes and dots of.
 *
 * An encoded slash in other places stays as it is and is no segment boundary; a doubly encoded byte
 * (%252F) stays so, since it is decoded once only by whoever reads it; empty segments ("//") stay,
 * as they are segments. The query routes nothing and is left alone, but for
 * controls, spaces, "#" and what is not ASCII. Pure
 * functions. */
#pragma once

#include "dataplane/http/reasons.h"

struct request_target {
    struct view path;      /* normalised; begins with "/", or "*" for OPTIONS */
    struct view query;     /* with its "?", as received; may be empty */
    struct view authority; /* of the absolute form; else empty */
};

/* `method` is llhttp's number. `scratch` has room for raw.len + 1 bytes and holds the path when it
 * had to be changed. */
enum reason target_parse(struct view raw, unsigned method, char *scratch, struct request_target *t,
                         const char **detail);
