/* print: what gwpctl shows: tables, sentences, JSON. Knows nothing about commands. Text from the
 * other side never reaches a terminal raw: control characters are replaced. One thread. */
#pragma once

#include <stdio.h>

#include <jansson.h>

#include "proto/base/defs.h"

enum tint { TINT_NONE, TINT_GOOD, TINT_WARN, TINT_BAD, TINT_STRONG };

/* Colours are for people: only when `out` is a terminal, and not with NO_COLOR (no-color.org). */
bool print_wants_color(FILE *out);

/* Text whose control characters are replaced by "?", but for line breaks and tabs. */
void print_text(FILE *out, const char *text);

/* The same, tinted where `color` says so. */
void print_tinted(FILE *out, bool color, enum tint tint, const char *text);

/* A document, indented, with a line break at its end. */
void print_json(FILE *out, const json_t *document);

/* A member for people, whatever its type: "" when it is missing, "yes" and "no" for booleans. The
 * result lives in `room` or in the document. */
#define PRINT_VALUE_BYTES 64
const char *print_value(const json_t *object, const char *key, char room[PRINT_VALUE_BYTES]);

/* "1.5 MiB", "3 min 20 s", "1.25 ms". */
void print_bytes(char out[PRINT_VALUE_BYTES], double bytes);
void print_seconds(char out[PRINT_VALUE_BYTES], double seconds);
void print_microseconds(char out[PRINT_VALUE_BYTES], double us);

/* A table: cells go in row by row, from left to right; columns take the width that they need. */
struct print_table;

struct print_table *print_table_new(const char *const *titles, size_t columns);
void print_table_free(struct print_table **t);                                  /* nulls *t */
void print_table_cell(struct print_table *t, enum tint tint, const char *text); /* copied */
void print_table_write(const struct print_table *t, FILE *out, bool color);
