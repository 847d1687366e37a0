#include "controlplane/config/compare.h"

#include <string.h>

#include "controlplane/config/express.h"
#include "controlplane/table.h"
#include "proto/base/pace.h"

#define MEMBER(type, base, at) (*(type *)(const void *)((const char *)(base) + (at)))

struct comparison {
    struct arena *arena; /* borrowed */
    struct changes out;
    /* Where we are. */
    const char *route, *backend;
    uint32_t from_line, to_line;
};

static void compare_section(struct comparison *c, const struct section *s, const void *x,
                            const void *y);

/* ---- telling ---- */

static const char *sentence_of(const struct comparison *c, const struct change *one)
{
    static const char *const words[] = {
        [CHANGE_ADDED] = " added", [CHANGE_REMOVED] = " removed", [CHANGE_CHANGED] = " changed"};
    const char *where = "", *what = one->key;
    if (one->route)
        where = one->backend || one->key ? arena_printf(c->arena, "route %s: ", one->route)
                                         : arena_printf(c->arena, "route %s", one->route);
    if (one->backend)
        where = arena_printf(c->arena, "%sbackend %s%s", where, one->backend, one->key ? ": " : "");
    if (one->from)
        return arena_printf(c->arena, "%s%s %s -> %s", where, what, one->from, one->to);
    return arena_printf(c->arena, "%s%s%s", where, what ? what : "", words[one->kind]);
}

static void tell(struct comparison *c, enum change_kind kind, const char *key, const char *from,
                 const char *to)
{
    struct changes *out = &c->out;
    if (out->count == COMPARE_MAX) {
        out->dropped++;
        return;
    }
    if (out->count == out->room) {
        size_t room = out->room ? 2 * out->room : 16;
        struct change *bigger = arena_array(c->arena, room, sizeof(*bigger));
        if (out->count > 0)
            memcpy(bigger, out->at, out->count * sizeof(*bigger));
        out->at = bigger;
        out->room = room;
    }
    struct change *one = &out->at[out->count++];
    *one = (struct change){.kind = kind,
                           .route = c->route,
                           .backend = c->backend,
                           .key = key,
                           .from = from,
                           .to = to,
                           .from_line = kind == CHANGE_ADDED ? 0 : c->from_line,
                           .to_line = kind == CHANGE_REMOVED ? 0 : c->to_line};
    one->sentence = sentence_of(c, one);
}

/* "rate_limit.rate" of "routes[].rate_limit.rate". */
static const char *name_within(const struct key *k)
{
    const char *name = k->path;
    for (const char *p = name; (p = strstr(p, "[].")); name = p)
        p += 3;
    return name;
}

/* ---- lists: routes and backends ---- */

/* What a member of a list is known by: its name, or its URL. */
static const char *identity(const struct section *s, const void *member)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->keys[i].key->type == VALUE_NAME || s->keys[i].key->type == VALUE_BACKEND_URL)
            return MEMBER(const char *const, member, s->keys[i].key->offset);
    return "";
}

/* Goes into a member, which is a route, or a backend of the route that we are in. */
static void visit(struct comparison *c, const struct section *s, const void *x, const void *y)
{
    struct comparison outer = *c;
    pace_yield();
    const char *name = identity(s, y ? y : x);
    if (c->route)
        c->backend = name;
    else
        c->route = name;
    c->from_line = x ? MEMBER(const struct place, x, 0).line : 0;
    c->to_line = y ? MEMBER(const struct place, y, 0).line : 0;
    if (!x || !y)
        tell(c, x ? CHANGE_REMOVED : CHANGE_ADDED, NULL, NULL, NULL);
    else
        compare_section(c, s, x, y);
    outer.out = c->out;
    *c = outer;
}

struct list_of {
    const char *at;
    size_t count;
};

static struct list_of list_of(const struct key *k, const void *base)
{
    return (struct list_of){MEMBER(const char *const, base, k->offset),
                            MEMBER(const size_t, base, k->count_offset)};
}

/* The same members in the same order: the usual case needs no table. */
static bool is_parallel(const struct section *s, struct list_of a, struct list_of b)
{
    size_t step = s->key->bytes;
    for (size_t i = 0; a.count == b.count && i < a.count; i++)
        if (strcmp(identity(s, a.at + i * step), identity(s, b.at + i * step)) != 0)
            return false;
    return a.count == b.count;
}

static void compare_list(struct comparison *c, const struct section *s, const void *x,
                         const void *y)
{
    struct list_of a = list_of(s->key, x), b = list_of(s->key, y);
    size_t step = s->key->bytes;
    struct table old;
    if (is_parallel(s, a, b)) {
        for (size_t i = 0; i < a.count; i++)
            visit(c, s, a.at + i * step, b.at + i * step);
        return;
    }
    table_init(&old);
    for (size_t i = 0; i < a.count; i++)
        table_add(&old, view_of(identity(s, a.at + i * step)), (void *)(a.at + i * step));
    for (size_t i = 0; i < b.count; i++)
        visit(c, s, table_remove(&old, view_of(identity(s, b.at + i * step))), b.at + i * step);
    for (size_t i = 0; i < a.count && old.count > 0; i++)
        if (table_remove(&old, view_of(identity(s, a.at + i * step))))
            visit(c, s, a.at + i * step, NULL);
    table_fini(&old);
}

/* ---- sections ---- */

static void compare_optional(struct comparison *c, const struct section *s, const void *x,
                             const void *y)
{
    const void *a = MEMBER(const void *const, x, s->key->offset);
    const void *b = MEMBER(const void *const, y, s->key->offset);
    if (a && b)
        compare_section(c, s, a, b);
    else if (a || b)
        tell(c, a ? CHANGE_REMOVED : CHANGE_ADDED, name_within(s->key), NULL, NULL);
}

static void compare_value(struct comparison *c, const struct key *k, const void *x, const void *y)
{
    bool secret = (k->flags & KEY_SECRET) != 0;
    if (!express_same(k, x, y))
        tell(c, CHANGE_CHANGED, name_within(k), secret ? NULL : express_value(k, x, c->arena),
             secret ? NULL : express_value(k, y, c->arena));
}

static void compare_section(struct comparison *c, const struct section *s, const void *x,
                            const void *y)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct key *k = s->keys[i].key;
        const struct section *inner = s->keys[i].section;
        if (!inner)
            compare_value(c, k, x, y);
        else if (k->type == VALUE_SECTION_LIST)
            compare_list(c, inner, x, y);
        else if (k->type == VALUE_OPTIONAL_SECTION)
            compare_optional(c, inner, x, y);
        else
            compare_section(c, inner, (const char *)x + k->offset, (const char *)y + k->offset);
    }
}

struct changes compare_configs(const struct config *before, const struct config *now,
                               struct arena *a)
{
    struct comparison c = {.arena = a};
    if (before)
        compare_section(&c, schema_open(a), before, now);
    return c.out;
}
