/* written: a configuration as it stands in the file, for what libyaml does not tell of it. It knows
 * where in the bytes a scalar is, and lets ${VAR} stand unquoted between brackets and braces, as it
 * may where variables are put in before the YAML is read. Borrows the text. */
#pragma once

#include "controlplane/config/diagnostics.h"

struct written {
    struct view text;
    size_t at, index; /* as many characters are before that byte; only ever goes on */
};

/* From the index'th character up to the end'th. Calls come in the order of the text. */
struct view written_between(struct written *w, size_t index, size_t end);

/* Where the byte at `to` is, when `from` is at `place` before it. */
struct place written_place(struct place place, const char *from, const char *to);

/* The text with the brackets and braces of every ${...} as characters that mean nothing in YAML
 * and are of the same width: one of Unicode's noncharacters each. In the arena; the text itself
 * when there is none. */
struct view written_mask(struct arena *a, struct view text);

/* Takes that back, in place; returns the new length. */
size_t written_unmask(char *text, size_t len);
