#include "controlplane/config/diagnostics.h"

#include <stdarg.h>
#include <stdlib.h>

#include "proto/base/log.h"

#define LOGGED 50
#define SHOWN_COLUMNS 100 /* of a line that is longer, this much around the place is shown */

void diagnostics_init(struct diagnostics *d)
{
    *d = (struct diagnostics){.arena = arena_new(4096), .source = ""};
}

void diagnostics_fini(struct diagnostics *d)
{
    arena_free(&d->arena);
    *d = (struct diagnostics){.source = ""};
}

static bool continues_character(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

/* Bytes of the character that `v` begins with; 0 when a terminal might act on it or it is no UTF-8
 * at all. U+0080 to U+009F are control characters too. */
static size_t harmless(struct view v)
{
    unsigned char first = (unsigned char)v.at[0];
    size_t len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
    if (first < 0x20 || first == 0x7f || (first >= 0x80 && first < 0xc2) || first > 0xf4 ||
        len > v.len || (first == 0xc2 && (unsigned char)v.at[1] < 0xa0))
        return 0;
    for (size_t i = 1; i < len; i++)
        if (!continues_character(v.at[i]))
            return 0;
    return len;
}

/* Messages quote what the file or the environment says, perhaps cut off within a character: an
 * escape sequence in there would be acted on by the terminal of whoever reads about it. */
static void disarm(char *text)
{
    struct view rest = view_of(text);
    while (rest.len > 0) {
        size_t len = harmless(rest);
        if (len == 0)
            text[rest.at - text] = '?';
        len = MAX(len, 1);
        rest = (struct view){rest.at + len, rest.len - len};
    }
}

static struct diagnostic *next_free(struct diagnostics *d)
{
    if (d->count == d->room) {
        size_t room = d->room ? 2 * d->room : 16;
        struct diagnostic *bigger = arena_array(d->arena, room, sizeof(*bigger));
        if (d->count > 0)
            memcpy(bigger, d->at, d->count * sizeof(*bigger));
        d->at = bigger;
        d->room = room;
    }
    return &d->at[d->count++];
}

void diagnostics_add(struct diagnostics *d, enum severity severity, struct place place,
                     uint32_t length, const char *suggestion, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    d->errors += severity == SEVERITY_ERROR;
    if (d->count == DIAGNOSTICS_MAX) {
        d->dropped++;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);

    char *message = arena_copy(d->arena, view_of(text));
    disarm(message);
    char *advice = suggestion ? arena_copy(d->arena, view_of(suggestion)) : NULL;
    if (advice)
        disarm(advice);
    *next_free(d) = (struct diagnostic){.severity = severity,
                                        .place = place,
                                        .length = length,
                                        .message = message,
                                        .suggestion = advice};
}

static int compare(const void *pa, const void *pb)
{
    const struct diagnostic *a = pa, *b = pb;
    if (a->place.line != b->place.line)
        return a->place.line < b->place.line ? -1 : 1;
    if (a->place.column != b->place.column)
        return a->place.column < b->place.column ? -1 : 1;
    if (a->severity != b->severity)
        return a->severity < b->severity ? -1 : 1;
    return strcmp(a->message, b->message);
}

void diagnostics_sort(struct diagnostics *d)
{
    size_t kept = 0;
    if (d->count > 0)
        qsort(d->at, d->count, sizeof(*d->at), compare);
    for (size_t i = 0; i < d->count; i++) {
        if (kept > 0 && compare(&d->at[kept - 1], &d->at[i]) == 0)
            d->errors -= d->at[i].severity == SEVERITY_ERROR;
        else
            d->at[kept++] = d->at[i];
    }
    d->count = kept;
}

/* ---- printing ---- */

/* Walks the text once, line by line: diagnostics come sorted. */
struct cursor {
    const char *at, *end;
    uint32_t line;    /* number of the line that `at` begins */
    struct view seen; /* that line, once it was asked for: a long one is measured once */
};

/* Length of the line break at `p`, 0 = there is none. Those that libyaml counts (YAML 1.1, 5.4), or
 * else our lines would not be its lines. */
static size_t break_length(const char *p, const char *end)
{
    size_t left = (size_t)(end - p);
    if (left >= 2 && memcmp(p, "\r\n", 2) == 0)
        return 2;
    if (left >= 1 && (*p == '\n' || *p == '\r'))
        return 1;
    if (left >= 2 && memcmp(p, "\xc2\x85", 2) == 0)
        return 2;
    if (left >= 3 && (memcmp(p, "\xe2\x80\xa8", 3) == 0 || memcmp(p, "\xe2\x80\xa9", 3) == 0))
        return 3;
    return 0;
}

static struct view line_at(struct cursor *c, uint32_t line)
{
    if (c->line == line && c->seen.at == c->at)
        return c->seen;
    while (c->line < line && c->at < c->end) {
        size_t n = break_length(c->at, c->end);
        c->at += n ? n : 1;
        c->line += n > 0;
    }
    const char *p = c->at;
    while (p < c->end && break_length(p, c->end) == 0)
        p++;
    c->seen = (struct view){c->at, (size_t)(p - c->at)};
    return c->seen;
}

/* Bytes that the first `characters` characters of `v` take. */
static size_t bytes_of(struct view v, size_t characters)
{
    size_t i = 0;
    while (i < v.len && (characters > 0 || continues_character(v.at[i]))) {
        characters -= !continues_character(v.at[i]);
        i++;
    }
    return i;
}

static void print_line(struct view line, FILE *out)
{
    while (line.len > 0) {
        size_t len = harmless(line);
        if (len > 0)
            fwrite(line.at, 1, len, out);
        else
            fputc(*line.at == '\t' ? ' ' : '?', out);
        len = MAX(len, 1);
        line = (struct view){line.at + len, line.len - len};
    }
}

/* The line and, below the offending text, "^~~~". Columns count characters, so a line in UTF-8 is
 * underlined where it is seen. */
static void print_excerpt(struct view line, uint32_t column, uint32_t length, FILE *out, bool color)
{
    uint32_t skip = 0;
    while (skip < line.len && skip + 1 < column && (line.at[skip] == ' ' || line.at[skip] == '\t'))
        skip++;
    if (column > skip + SHOWN_COLUMNS - 20)
        skip = column - 40;
    size_t from = bytes_of(line, skip);
    line = (struct view){line.at + from, line.len - from};
    line.len = bytes_of(line, SHOWN_COLUMNS);

    fputs("    ", out);
    print_line(line, out);
    fputs("\n    ", out);
    for (uint32_t i = skip + 1; i < column; i++)
        fputc(' ', out);
    fputs(color ? "\033[1;32m^" : "^", out);
    size_t before = bytes_of(line, column - 1 - skip);
    struct view rest = {line.at + before, line.len - before};
    for (size_t i = bytes_of(rest, 1); i < bytes_of(rest, length); i++)
        if (!continues_character(rest.at[i]))
            fputc('~', out);
    fputs(color ? "\033[0m\n" : "\n", out);
}

static void print_one(const struct diagnostic *one, const char *source, FILE *out, bool color)
{
    bool error = one->severity == SEVERITY_ERROR;
    fputs(color ? "\033[1m" : "", out);
    fputs(source, out);
    if (one->place.line > 0)
        fprintf(out, ":%u:%u", one->place.line, one->place.column);
    fprintf(out, ": %s%s%s: %s", color ? (error ? "\033[31m" : "\033[35m") : "",
            error ? "error" : "warning", color ? "\033[39m" : "", one->message);
    if (one->suggestion)
        fprintf(out, ": %s", one->suggestion);
    fputs(color ? "\033[0m\n" : "\n", out);
}

void diagnostics_print(const struct diagnostics *d, FILE *out, bool color)
{
    struct cursor cursor = {.at = d->text.at, .end = d->text.at + d->text.len, .line = 1};
    for (size_t i = 0; i < d->count; i++) {
        const struct diagnostic *one = &d->at[i];
        print_one(one, d->source, out, color);
        if (one->place.line == 0 || d->text.len == 0)
            continue;
        struct view line = line_at(&cursor, one->place.line);
        if (line.len > 0)
            print_excerpt(line, one->place.column, one->length, out, color);
    }
    if (d->dropped > 0)
        fprintf(out, "%s: %zu more like these\n", d->source, d->dropped);
}

void diagnostics_log(const struct diagnostics *d)
{
    for (size_t i = 0; i < d->count && i < LOGGED; i++) {
        const struct diagnostic *one = &d->at[i];
        log_about(one->severity == SEVERITY_ERROR ? LOG_ERROR : LOG_WARN, "config",
                  LOG_FIELDS(about_source(d->source), about_line(one->place.line),
                             about_cause(one->message)),
                  "%s:%u:%u: %s%s%s", d->source ? d->source : "", one->place.line,
                  one->place.column, one->message, one->suggestion ? ": " : "",
                  one->suggestion ? one->suggestion : "");
    }
    if (d->count > LOGGED)
        log_about(LOG_WARN, "config", LOG_FIELDS(about_source(d->source)),
                  "%s: %zu more like these; gwpctl validate prints them all",
                  d->source ? d->source : "", d->count + d->dropped - LOGGED);
}
