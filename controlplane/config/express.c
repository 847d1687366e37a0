#include "controlplane/config/express.h"

#include <stdio.h>
#include <string.h>

#define MEMBER(type, base, at) (*(type *)(const void *)((const char *)(base) + (at)))
#define KIB 1024u

/* ---- how it is kept ---- */

enum kind {
    KIND_NUMBER,
    KIND_BOOL,
    KIND_FLOAT,
    KIND_WORD,
    KIND_TEXT,
    KIND_TEXTS,
    KIND_FLOATS,
    KIND_STATUSES,
    KIND_FIELDS
};

static enum kind kind_of(const struct key *k)
{
    switch (k->type) {
    case VALUE_INT:
    case VALUE_SIZE:
    case VALUE_SECONDS:
        return KIND_NUMBER;
    case VALUE_BOOL:
        return KIND_BOOL;
    case VALUE_FLOAT:
        return KIND_FLOAT;
    case VALUE_WORD:
        return KIND_WORD;
    case VALUE_FLOATS:
        return KIND_FLOATS;
    case VALUE_STATUSES:
        return KIND_STATUSES;
    case VALUE_HEADER_FIELDS:
        return KIND_FIELDS;
    case VALUE_METHODS:
    case VALUE_CIDRS:
    case VALUE_LISTENS:
    case VALUE_HEADER_NAMES:
        return KIND_TEXTS;
    default:
        return KIND_TEXT;
    }
}

static const char *text_at(const struct key *k, const void *base)
{
    const char *text = MEMBER(const char *const, base, k->offset);
    return text ? text : "";
}

/* ---- the same ---- */

static bool same_texts(const struct strings *a, const struct strings *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++)
        if (strcmp(a->at[i], b->at[i]) != 0)
            return false;
    return a->count == b->count;
}

static bool same_statuses(const struct status_set *a, const struct status_set *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++)
        if (a->at[i].first != b->at[i].first || a->at[i].last != b->at[i].last)
            return false;
    return a->count == b->count;
}

static bool same_fields(const struct key *k, const void *x, const void *y)
{
    const struct header_field *a = MEMBER(const struct header_field *const, x, k->offset);
    const struct header_field *b = MEMBER(const struct header_field *const, y, k->offset);
    size_t count = MEMBER(const size_t, x, k->count_offset);
    if (count != MEMBER(const size_t, y, k->count_offset))
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(a[i].name, b[i].name) != 0 || strcmp(a[i].value, b[i].value) != 0)
            return false;
    return true;
}

static bool same_floats(const struct key *k, const void *x, const void *y)
{
    size_t count = MEMBER(const size_t, x, k->count_offset);
    return count == MEMBER(const size_t, y, k->count_offset) &&
           memcmp(MEMBER(const double *const, x, k->offset),
                  MEMBER(const double *const, y, k->offset), count * sizeof(double)) == 0;
}

bool express_same(const struct key *k, const void *x, const void *y)
{
    switch (kind_of(k)) {
    case KIND_NUMBER:
    case KIND_BOOL:
    case KIND_FLOAT:
    case KIND_WORD:
        return memcmp((const char *)x + k->offset, (const char *)y + k->offset, k->bytes) == 0;
    case KIND_TEXT:
        return strcmp(text_at(k, x), text_at(k, y)) == 0;
    case KIND_TEXTS:
        return same_texts(&MEMBER(const struct strings, x, k->offset),
                          &MEMBER(const struct strings, y, k->offset));
    case KIND_FLOATS:
        return same_floats(k, x, y);
    case KIND_STATUSES:
        return same_statuses(&MEMBER(const struct status_set, x, k->offset),
                             &MEMBER(const struct status_set, y, k->offset));
    case KIND_FIELDS:
        return same_fields(k, x, y);
    }
    return false;
}

/* ---- as text ---- */

static const char *number_text(const struct key *k, const void *base, struct arena *a)
{
    uint64_t n = k->bytes == sizeof(uint64_t) ? MEMBER(const uint64_t, base, k->offset)
                                              : MEMBER(const uint32_t, base, k->offset);
    for (size_t i = 0; k->words && k->words[i]; i++)
        if (n == i)
            return k->words[i];
    if (k->type == VALUE_SECONDS)
        return arena_printf(a, "%.15g", (double)n / 1000);
    if (k->type == VALUE_SIZE && n > 0 && n % (KIB * KIB) == 0)
        return arena_printf(a, "%lluMiB", (unsigned long long)(n / KIB / KIB));
    if (k->type == VALUE_SIZE && n > 0 && n % KIB == 0)
        return arena_printf(a, "%lluKiB", (unsigned long long)(n / KIB));
    return arena_printf(a, "%llu", (unsigned long long)n);
}

/* Several as "[one, two]". */
struct listing {
    struct arena *arena;
    const char *text; /* so far, without its end */
};

static void list_item(struct listing *l, const char *item)
{
    l->text = arena_printf(l->arena, "%s%s%s", l->text, l->text[1] ? ", " : "", item);
}

static const char *texts_text(const struct strings *s, struct arena *a)
{
    struct listing l = {a, "["};
    for (size_t i = 0; i < s->count; i++)
        list_item(&l, s->at[i]);
    return arena_printf(a, "%s]", l.text);
}

static const char *statuses_text(const struct status_set *s, struct arena *a)
{
    struct listing l = {a, "["};
    for (size_t i = 0; i < s->count; i++)
        list_item(&l, s->at[i].first == s->at[i].last
                          ? arena_printf(a, "%u", s->at[i].first)
                          : arena_printf(a, "%u-%u", s->at[i].first, s->at[i].last));
    return s->count == 1 ? l.text + 1 : arena_printf(a, "%s]", l.text);
}

static const char *floats_text(const struct key *k, const void *base, struct arena *a)
{
    struct listing l = {a, "["};
    const double *at = MEMBER(const double *const, base, k->offset);
    for (size_t i = 0; i < MEMBER(const size_t, base, k->count_offset); i++)
        list_item(&l, arena_printf(a, "%.15g", at[i]));
    return arena_printf(a, "%s]", l.text);
}

static const char *fields_text(const struct key *k, const void *base, struct arena *a)
{
    struct listing l = {a, "{"};
    const struct header_field *at = MEMBER(const struct header_field *const, base, k->offset);
    for (size_t i = 0; i < MEMBER(const size_t, base, k->count_offset); i++)
        list_item(&l, arena_printf(a, "%s: %s", at[i].name, at[i].value));
    return arena_printf(a, "%s}", l.text);
}

const char *express_value(const struct key *k, const void *base, struct arena *a)
{
    if (k->flags & KEY_SECRET)
        return "***";
    switch (kind_of(k)) {
    case KIND_NUMBER:
        return number_text(k, base, a);
    case KIND_BOOL:
        return MEMBER(const bool, base, k->offset) ? "true" : "false";
    case KIND_FLOAT:
        return arena_printf(a, "%.15g", MEMBER(const double, base, k->offset));
    case KIND_WORD:
        return k->words[MEMBER(const int, base, k->offset)];
    case KIND_TEXT:
        return *text_at(k, base) ? text_at(k, base) : "\"\"";
    case KIND_TEXTS:
        return texts_text(&MEMBER(const struct strings, base, k->offset), a);
    case KIND_FLOATS:
        return floats_text(k, base, a);
    case KIND_STATUSES:
        return statuses_text(&MEMBER(const struct status_set, base, k->offset), a);
    case KIND_FIELDS:
        return fields_text(k, base, a);
    }
    return "";
}
