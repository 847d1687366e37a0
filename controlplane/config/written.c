#include "controlplane/config/written.h"

#include <string.h>

/* U+FDD0 and those behind it, in UTF-8: \xef\xb7\x90... */
#define MASK_BYTES 3
static const char masked[] = "{}[],";

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

/* ---- places ---- */

static void go_on(struct written *w, size_t index)
{
    while (w->at < w->text.len && w->index < index) {
        for (w->at++; w->at < w->text.len && !begins_character(w->text.at[w->at]);)
            w->at++;
        w->index++;
    }
}

struct view written_between(struct written *w, size_t index, size_t end)
{
    go_on(w, index);
    struct written behind = *w;
    go_on(&behind, end);
    return (struct view){w->text.at + w->at, behind.at - w->at};
}

struct place written_place(struct place place, const char *from, const char *to)
{
    for (const char *p = from; p < to; p++) {
        bool breaks = *p == '\n' || (*p == '\r' && p[1] != '\n');
        place.line += breaks;
        place.column = breaks ? 1 : place.column + begins_character(*p);
    }
    return place;
}

/* ---- variables between brackets ---- */

/* The "}" of the "${" at `p`, on its line; NULL if there is none. */
static const char *closing(const char *p, const char *end)
{
    const char *eol = memchr(p, '\n', (size_t)(end - p));
    return memchr(p, '}', (size_t)((eol ? eol : end) - p));
}

static size_t count_masked(struct view text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += memchr(masked, text.at[i], sizeof(masked) - 1) != NULL;
    return count;
}

struct view written_mask(struct arena *a, struct view text)
{
    const char *end = text.at + text.len, *p = text.at, *found;
    char *out = NULL, *to = NULL;
    while ((found = memmem(p, (size_t)(end - p), "${", 2))) {
        const char *close = closing(found, end), *behind = close ? close + 1 : found + 2;
        if (!out)
            to = out = arena_alloc(a, text.len + (MASK_BYTES - 1) * count_masked(text) + 1);
        to = mempcpy(to, p, (size_t)(found - p));
        for (p = found; p < behind; p++) {
            const char *which = close ? memchr(masked, *p, sizeof(masked) - 1) : NULL;
            if (which)
                to = mempcpy(to, (char[]){'\xef', '\xb7', (char)(0x90 + (which - masked))},
                             MASK_BYTES);
            else
                *to++ = *p;
        }
    }
    if (!out)
        return text;
    to = mempcpy(to, p, (size_t)(end - p));
    return (struct view){out, (size_t)(to - out)};
}

size_t written_unmask(char *text, size_t len)
{
    char *to = text;
    for (size_t i = 0; i < len;) {
        unsigned which = i + 2 < len ? (unsigned char)text[i + 2] - 0x90u : sizeof(masked);
        if (text[i] == '\xef' && text[i + 1] == '\xb7' && which < sizeof(masked) - 1) {
            *to++ = masked[which];
            i += MASK_BYTES;
        } else {
            *to++ = text[i++];
        }
    }
    *to = '\0';
    return (size_t)(to - text);
}
