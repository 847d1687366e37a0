#include "controlplane/config/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "controlplane/config/load.h"
#include "controlplane/config/rules.h"
#include "controlplane/config/schema.h"
#include "controlplane/config/suggest.h"
#include "proto/base/pace.h"

struct checker {
    struct value_reader reader;
    struct rules rules;
    struct arena *scratch; /* borrowed */
};

#define MEMBER(type, base, at) (*(type *)(void *)((char *)(base) + (at)))

/* ---- defaults ---- */

/* Read once into one struct for each kind of section: ten thousand routes then start as copies. */
static void preset_section(struct checker *c, struct section *s, void *base)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct key *k = s->keys[i].key;
        struct section *inner = s->keys[i].section;
        if (!inner) {
            value_preset(&c->reader, k, base);
        } else if (k->type == VALUE_SECTION) {
            preset_section(c, inner, (char *)base + k->offset);
        } else {
            inner->preset = arena_alloc(c->scratch, k->bytes);
            preset_section(c, inner, inner->preset);
        }
    }
}

/* ---- keys ---- */

/* Where else a key of this name has its place: the last word of that section, or an empty view. */
static struct view other_home(struct view name)
{
    size_t count;
    const struct key *keys = schema_keys(&count);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(keys[i].path, '.');
        if (!dot || !view_equal(schema_name(&keys[i]), name))
            continue;
        struct view section = {keys[i].path, (size_t)(dot - keys[i].path)};
        const char *before = memrchr(section.at, '.', section.len);
        if (before)
            section = (struct view){before + 1, (size_t)(dot - before - 1)};
        if (section.at[section.len - 1] == ']')
            section.len -= 2;
        return section;
    }
    return (struct view){NULL, 0};
}

static void report_unknown(struct checker *c, const struct section *s, const struct node *key)
{
    char advice[160];
    struct suggest near = {.wanted = key->text};
    bool kept = c->reader.d->count < DIAGNOSTICS_MAX; /* a million of them need no advice */
    for (size_t i = 0; i < s->count && kept; i++)
        suggest_consider(&near, s->keys[i].name);
    struct view best = suggest_best(&near);
    struct view home = kept ? other_home(key->text) : (struct view){NULL, 0};
    if (best.len > 0)
        snprintf(advice, sizeof(advice), "did you mean \"%.*s\"?", VIEW_ARG(best));
    else if (home.len > 0)
        snprintf(advice, sizeof(advice), "it belongs under \"%.*s\"", VIEW_ARG(home));
    node_error(c->reader.d, key, best.len > 0 || home.len > 0 ? advice : NULL,
               "unknown key \"%.60s\"%s", key->text.at, key->text.len > 60 ? "..." : "");
}

static void report_missing(struct checker *c, const struct section *s, const struct node *map)
{
    for (size_t i = 0; i < s->count; i++) {
        bool found = !(s->keys[i].key->flags & KEY_REQUIRED);
        for (const struct node *n = map->first; n && !found; n = n->next)
            found = view_equal(n->key->text, s->keys[i].name);
        if (!found)
            node_error(c->reader.d, map->key ? map->key : map, NULL, "\"%.*s\" is missing",
                       VIEW_ARG(s->keys[i].name));
    }
}

static void report_null(struct checker *c, const struct key *k, const struct node *n)
{
    const struct node *key = n->key;
    if (k->flags & KEY_REQUIRED)
        node_error(c->reader.d, key, NULL, "\"%s\" has no value", key->text.at);
    else if (k->type == VALUE_OPTIONAL_SECTION)
        node_warning(c->reader.d, key, NULL, "\"%s\" has nothing under it, so there is none",
                     key->text.at);
    else if (k->preset)
        node_warning(c->reader.d, key, NULL, "\"%s\" has no value, so the default applies: %s",
                     key->text.at, *k->preset ? k->preset : "\"\"");
}

/* ---- sections ---- */

static void check_map(struct checker *c, const struct section *s, struct node *map, void *base);

static void check_list(struct checker *c, const struct section *s, struct node *list, void *base)
{
    const struct key *k = s->key;
    if (list->kind != NODE_LIST) {
        list->bad = !value_mismatch(&c->reader, k, list, NULL);
        return;
    }
    if (list->count == 0 && (k->flags & KEY_REQUIRED))
        node_error(c->reader.d, list, NULL, "\"%.*s\" is empty", VIEW_ARG(schema_name(k)));
    char *at = arena_array(c->reader.arena, list->count, k->bytes);
    MEMBER(void *, base, k->offset) = at;
    MEMBER(size_t, base, k->count_offset) = list->count;
    for (struct node *n = list->first; n; n = n->next, at += k->bytes) {
        memcpy(at, s->preset, k->bytes);
        check_map(c, s, n, at);
    }
}

static void check_key(struct checker *c, const struct section_key *found, struct node *n,
                      void *base)
{
    const struct key *k = found->key;
    if (n->null) {
        report_null(c, k, n);
    } else if (!found->section) {
        n->bad = !value_read(&c->reader, k, n, base);
    } else if (k->type == VALUE_SECTION_LIST) {
        check_list(c, found->section, n, base);
    } else if (k->type == VALUE_SECTION) {
        check_map(c, found->section, n, (char *)base + k->offset);
    } else {
        void *own = arena_alloc(c->reader.arena, k->bytes);
        memcpy(own, found->section->preset, k->bytes);
        MEMBER(void *, base, k->offset) = own;
        check_map(c, found->section, n, own);
    }
}

static void check_map(struct checker *c, const struct section *s, struct node *map, void *base)
{
    pace_yield();
    if (map->bad)
        return;
    if (map->kind != NODE_MAP) {
        map->bad = !value_mismatch(&c->reader, s->key, map, NULL);
        return;
    }
    if (s->key && (s->key->flags & KEY_PLACE))
        *(struct place *)base = map->key ? map->key->place : map->place;
    for (struct node *n = map->first; n; n = n->next) {
        const struct section_key *found = schema_find(s, n->key->text);
        if (n->key->bad)
            continue;
        if (found)
            check_key(c, found, n, base);
        else
            report_unknown(c, s, n->key);
    }
    report_missing(c, s, map);
    if (s->key)
        rules_section(&c->rules, s, map, base);
}

/* ---- the door ---- */

static void check_tree(struct node *root, struct arena *scratch, struct config *cfg,
                       struct diagnostics *d)
{
    struct checker c = {.reader = {cfg->arena, d}, .scratch = scratch};
    struct section *file = schema_open(scratch);
    rules_init(&c.rules, cfg->arena, scratch, d);
    preset_section(&c, file, cfg);
    check_map(&c, file, root, cfg);
    rules_file(&c.rules, root, cfg);
}

/* Some editors begin a file with a byte order mark; it is no part of the first line. */
static struct view without_mark(struct view text)
{
    struct view mark = {"\xef\xbb\xbf", 3};
    return view_starts_with(text, mark) ? (struct view){text.at + 3, text.len - 3} : text;
}

struct config *config_load(const char *source, struct view text, struct diagnostics *d)
{
    d->source = arena_copy(d->arena, view_of(source));
    d->text = without_mark(text);
    struct arena *kept = arena_new(64 * 1024), *scratch = arena_new(256 * 1024);
    struct config *cfg = arena_alloc(kept, sizeof(*cfg));
    cfg->arena = kept;
    cfg->source = arena_copy(kept, view_of(source));

    struct node *root = load_tree(d->text, scratch, kept, d);
    if (root)
        check_tree(root, scratch, cfg, d);
    arena_free(&scratch);
    pace_look();
    diagnostics_sort(d);
    if (d->errors > 0) {
        config_free(&cfg);
        return NULL;
    }
    cfg->text = arena_copy(kept, text);
    cfg->text_len = text.len;
    cfg->hash = XXH3_64bits(text.at, text.len);
    return cfg;
}

/* All that is there, or one byte more than is allowed: enough to be refused. */
static int read_all(int fd, struct arena *a, struct view *text)
{
    size_t room = 64 * 1024, len = 0;
    char *buffer = malloc(room);
    ssize_t n = -1;
    while (buffer && (n = read(fd, buffer + len, room - len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (len += (size_t)n) > LOAD_MAX_BYTES)
            break;
        if (len < room)
            continue;
        char *bigger = realloc(buffer, room *= 2);
        if (!bigger)
            free(buffer);
        buffer = bigger;
    }
    if (buffer && n >= 0)
        *text = (struct view){arena_copy(a, (struct view){buffer, len}), len};
    int saved = errno;
    free(buffer);
    errno = saved;
    return buffer && n >= 0 ? 0 : -1;
}

struct config *config_load_file(const char *path, struct diagnostics *d)
{
    struct view text;
    bool standard = strcmp(path, "-") == 0;
    const char *slash = strrchr(path, '/');
    const char *source = standard ? "stdin" : slash ? slash + 1 : path;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    int failed = fd < 0 ? -1 : read_all(fd, d->arena, &text);
    if (failed) {
        d->source = arena_copy(d->arena, view_of(source));
        diagnostics_add(d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL,
                        "\"%s\" cannot be read: %s", path, strerror(errno));
    }
    if (fd >= 0 && !standard)
        close(fd);
    return failed ? NULL : config_load(source, text, d);
}

void config_print_validity(const struct config *cfg, FILE *out)
{
    size_t backends = 0;
    for (size_t i = 0; i < cfg->route_count; i++)
        backends += cfg->routes[i].backend_count;
    fprintf(out, "%s is valid: %zu route%s, %zu backend%s\n", cfg->source, cfg->route_count,
            cfg->route_count == 1 ? "" : "s", backends, backends == 1 ? "" : "s");
}

void config_free(struct config **cfg)
{
    if (!*cfg)
        return;
    struct arena *a = (*cfg)->arena; /* holds *cfg, too */
    *cfg = NULL;
    arena_free(&a);
}
