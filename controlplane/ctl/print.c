#include "controlplane/ctl/print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/arena.h"
#include "proto/base/log.h"

#define GAP 2 /* spaces between columns */

struct cell {
    const char *text; /* in the arena */
    size_t width;
    enum tint tint;
};

struct print_table {
    struct arena *arena; /* owned; holds the texts, and this struct */
    struct cell *cells;  /* owned; the titles first */
    size_t columns, count, room;
};

static const char *const tints[] = {
    [TINT_NONE] = "",          [TINT_GOOD] = "\033[32m",  [TINT_WARN] = "\033[33m",
    [TINT_BAD] = "\033[1;31m", [TINT_STRONG] = "\033[1m",
};

bool print_wants_color(FILE *out)
{
    const char *no_color = getenv("NO_COLOR");
    return !(no_color && *no_color) && isatty(fileno(out)) == 1;
}

/* Columns that a UTF-8 text takes, wide characters aside. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* How many bytes at `text` are a character that a terminal might act on: C0, DEL, and C1 as UTF-8.
 */
static size_t control_bytes(const char *text)
{
    unsigned char first = (unsigned char)text[0];
    if (first == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80)
        return 2;
    return first < 0x20 || first == 0x7f;
}

void print_text(FILE *out, const char *text)
{
    while (*text) {
        size_t bytes = *text == '\n' || *text == '\t' ? 0 : control_bytes(text);
        putc(bytes ? '?' : *text, out);
        text += bytes ? bytes : 1;
    }
}

void print_tinted(FILE *out, bool color, enum tint tint, const char *text)
{
    bool tinted = color && tint != TINT_NONE;
    if (tinted)
        fputs(tints[tint], out);
    print_text(out, text);
    if (tinted)
        fputs("\033[0m", out);
}

void print_json(FILE *out, const json_t *document)
{
    /* 15 digits: what a person wrote as 0.1 is shown as 0.1. */
    json_dumpf(document, out, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    putc('\n', out);
}

const char *print_value(const json_t *object, const char *key, char room[PRINT_VALUE_BYTES])
{
    const json_t *v = json_object_get(object, key);
    room[0] = '\0';
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING:
        return json_string_value(v);
    case JSON_INTEGER:
        snprintf(room, PRINT_VALUE_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        snprintf(room, PRINT_VALUE_BYTES, "%.10g", json_real_value(v));
        break;
    case JSON_TRUE:
        return "yes";
    case JSON_FALSE:
        return "no";
    case JSON_ARRAY:
        snprintf(room, PRINT_VALUE_BYTES, "%zu", json_array_size(v));
        break;
    default:
        break;
    }
    return room;
}

void print_bytes(char out[PRINT_VALUE_BYTES], double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    for (; bytes >= 1024 && u + 1 < COUNT_OF(units); u++)
        bytes /= 1024;
    snprintf(out, PRINT_VALUE_BYTES, "%.*f %s", u == 0 || bytes >= 100 ? 0 : 1, bytes, units[u]);
}

void print_seconds(char out[PRINT_VALUE_BYTES], double seconds)
{
    static const struct {
        const char *word;
        double seconds;
    } units[] = {{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}};
    size_t u = 0;
    seconds = floor(seconds);
    while (u + 1 < COUNT_OF(units) && seconds < units[u].seconds)
        u++;
    double whole = floor(seconds / units[u].seconds), rest = seconds - whole * units[u].seconds;
    if (u + 1 == COUNT_OF(units) || rest < units[u + 1].seconds)
        snprintf(out, PRINT_VALUE_BYTES, "%.0f %s", whole, units[u].word);
    else
        snprintf(out, PRINT_VALUE_BYTES, "%.0f %s %.0f %s", whole, units[u].word,
                 floor(rest / units[u + 1].seconds), units[u + 1].word);
}

void print_microseconds(char out[PRINT_VALUE_BYTES], double us)
{
    if (us < 1000)
        snprintf(out, PRINT_VALUE_BYTES, "%.0f us", us);
    else if (us < 1000000)
        snprintf(out, PRINT_VALUE_BYTES, "%.3g ms", us / 1000);
    else
        snprintf(out, PRINT_VALUE_BYTES, "%.3g s", us / 1000000);
}

/* ---- tables ---- */

struct print_table *print_table_new(const char *const *titles, size_t columns)
{
    struct arena *arena = arena_new(4096);
    struct print_table *t = arena_alloc(arena, sizeof(*t));
    t->arena = arena;
    t->columns = columns;
    for (size_t i = 0; i < columns; i++)
        print_table_cell(t, TINT_STRONG, titles[i]);
    return t;
}

void print_table_free(struct print_table **t)
{
    if (!*t)
        return;
    struct arena *arena = (*t)->arena; /* the table lies in it */
    free((*t)->cells);
    arena_free(&arena);
    *t = NULL;
}

void print_table_cell(struct print_table *t, enum tint tint, const char *text)
{
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 64;
        struct cell *grown = reallocarray(t->cells, t->room, sizeof(*grown));
        if (!grown)
            log_fatal("print", "out of memory");
        t->cells = grown;
    }
    char *copy = arena_copy(t->arena, view_of(*text ? text : "-"));
    /* A line break within a cell would tear the table. */
    for (char *c = copy; *c; c++)
        if (control_bytes(c) == 1)
            *c = '?';
    t->cells[t->count++] = (struct cell){copy, width_of(copy), tint};
}

static size_t column_width(const struct print_table *t, size_t column)
{
    size_t width = 0;
    for (size_t i = column; i < t->count; i += t->columns)
        width = MAX(width, t->cells[i].width);
    return width;
}

void print_table_write(const struct print_table *t, FILE *out, bool color)
{
    size_t *widths = arena_array(t->arena, t->columns, sizeof(*widths));
    for (size_t i = 0; i < t->columns; i++)
        widths[i] = column_width(t, i);
    for (const struct cell *c = t->cells; c < t->cells + t->count;) {
        for (size_t i = 0; i < t->columns; i++, c++) {
            print_tinted(out, color, c->tint, c->text);
            if (i + 1 < t->columns)
                fprintf(out, "%*s", (int)(widths[i] - c->width + GAP), "");
        }
        putc('\n', out);
    }
}
