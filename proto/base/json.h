/* json: escaping, for those who write JSON by hand because they may not allocate (log lines, our
 * own replies). Whoever builds or reads documents uses jansson instead. Pure functions, any thread.
 */
#pragma once

#include "proto/base/str.h"

/* Writes `text` as the inside of a JSON string, at most `cap` bytes, never splitting an escape; not
 * terminated. Bytes that are not UTF-8 become U+FFFD, so that the line is valid JSON whatever a
 * client sent. Returns the length. */
size_t json_escape(char *out, size_t cap, struct view text);
