#include "controlplane/config/load.h"

#include <stdio.h>

#include <yaml.h>

#include "controlplane/config/env.h"
#include "controlplane/config/scan.h"
#include "controlplane/config/symbols.h"
#include "controlplane/config/written.h"
#include "proto/base/pace.h"

#define PAIRWISE_MAX 16 /* maps up to here are checked for duplicate keys without a table */
#define MERGE_MAX 100   /* "<<" compares keys pairwise; nothing real comes near this */

struct loader {
    yaml_parser_t parser;
    struct scan scan;
    bool scans, gave_up;      /* events come from `scan`; it cannot read this text */
    struct view text, masked; /* the second is what libyaml reads, written_mask()ed */
    struct written written;
    struct arena *nodes, *texts; /* borrowed */
    struct diagnostics *d;       /* borrowed */
    struct symbols anchors;      /* name -> struct anchor */
    size_t values;               /* so far, as LOAD_MAX_VALUES counts them */
    size_t expanded_bytes;
    bool in_headers; /* within the value of a key "headers" */
};

struct anchor {
    struct node *node;
    bool complete; /* false: we are still inside of it */
};

static struct place place_of(yaml_mark_t mark)
{
    return (struct place){(uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

static uint32_t length_of(const yaml_event_t *e)
{
    if (e->start_mark.line != e->end_mark.line)
        return 0;
    return (uint32_t)(e->end_mark.column - e->start_mark.column);
}

/* ---- what libyaml refuses ---- */

/* For bytes that are not text libyaml gives an offset only; where a character is cut off it is that
 * of the byte behind. */
static struct place place_of_bytes(const struct loader *l, bool cut_off)
{
    const char *from = l->masked.at, *at = from + MIN(l->parser.problem_offset, l->masked.len);
    while (cut_off && at > from && (unsigned char)*--at < 0xc0)
        ;
    return written_place((struct place){1, 1}, from, at);
}

static char byte_at(const struct loader *l, yaml_mark_t mark)
{
    size_t line = 0, i = 0;
    while (i < l->text.len && line < mark.line)
        line += l->text.at[i++] == '\n';
    i += mark.column;
    return i < l->text.len ? l->text.at[i] : '\0';
}

static void report_syntax(struct loader *l)
{
    const yaml_parser_t *p = &l->parser;
    const char *problem = p->problem ? p->problem : "it cannot be parsed";
    if (p->error == YAML_MEMORY_ERROR) {
        diagnostics_add(l->d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL, "out of memory");
    } else if (p->error == YAML_READER_ERROR) {
        diagnostics_add(l->d, SEVERITY_ERROR, place_of_bytes(l, strstr(problem, "trailing")), 0,
                        "the file must be UTF-8 text", "not text: %s", problem);
    } else if (byte_at(l, p->problem_mark) == '\t') {
        diagnostics_add(l->d, SEVERITY_ERROR, place_of(p->problem_mark), 0, "use spaces",
                        "a tab cannot indent in YAML");
    } else if (p->context && p->context_mark.line != p->problem_mark.line) {
        diagnostics_add(l->d, SEVERITY_ERROR, place_of(p->problem_mark), 0, NULL,
                        "not valid YAML: %s %s that begins on line %zu", problem, p->context,
                        p->context_mark.line + 1);
    } else {
        diagnostics_add(l->d, SEVERITY_ERROR, place_of(p->problem_mark), 0, NULL,
                        "not valid YAML: %s%s%s", problem, p->context ? " " : "",
                        p->context ? p->context : "");
    }
}

static MUST_CHECK int next_event(struct loader *l, yaml_event_t *e)
{
    if (l->scans) {
        l->gave_up = !scan_next(&l->scan, e);
        return l->gave_up ? -1 : 0;
    }
    if (yaml_parser_parse(&l->parser, e))
        return 0;
    report_syntax(l);
    return -1;
}

static void delete_event(const struct loader *l, yaml_event_t *e)
{
    if (!l->scans)
        yaml_event_delete(e);
}

/* ---- nodes ---- */

static int count_values(struct loader *l, size_t values, struct place place)
{
    l->values += values;
    if (l->values <= LOAD_MAX_VALUES)
        return 0;
    diagnostics_add(l->d, SEVERITY_ERROR, place, 0, NULL,
                    "more than %d values, counted with those that aliases repeat", LOAD_MAX_VALUES);
    return -1;
}

/* Tags would say what a value is; here its key does. */
static void check_tag(struct loader *l, const yaml_char_t *tag, struct node *n)
{
    const char *text = (const char *)tag;
    if (!text || strcmp(text, "!") == 0 || strncmp(text, "tag:yaml.org,2002:", 18) == 0)
        return;
    n->bad = true;
    node_error(l->d, n, "leave it out", "the tag \"%.60s\" means nothing here", text);
}

static struct node *new_node(struct loader *l, const yaml_event_t *e, enum node_kind kind)
{
    struct node *n = arena_alloc(l->nodes, sizeof(*n));
    n->kind = kind;
    n->place = place_of(e->start_mark);
    n->length = length_of(e);
    n->weight = 1;
    return n;
}

/* Redefining an anchor is allowed: later aliases mean the later one. */
static struct anchor *define_anchor(struct loader *l, const yaml_char_t *name, struct node *n)
{
    if (!name)
        return NULL;
    struct view word = view_of((const char *)name);
    struct anchor *a = symbols_get(&l->anchors, word);
    if (!a) {
        a = arena_alloc(l->nodes, sizeof(*a));
        word.at = arena_copy(l->nodes, word);
        (void)symbols_put(&l->anchors, word, a);
    }
    *a = (struct anchor){n, false};
    return a;
}

static uint32_t characters(struct view v)
{
    return written_place((struct place){1, 0}, v.at, v.at + v.len).column;
}

/* `rest` is what is left of the scalar as it is written, from `place` on: there the piece stands,
 * unless escapes or line breaks hide it. */
static void report_fault(struct loader *l, struct node *n, const struct env_fault *f,
                         struct view *rest, struct place *place)
{
    const char *suggestion = *f->advice.text ? f->advice.text : NULL;
    const char *at = memmem(rest->at, rest->len, f->piece.at, f->piece.len);
    n->bad = true;
    if (!at) {
        node_error(l->d, n, suggestion, "%s", f->why.text);
        return;
    }
    *place = written_place(*place, rest->at, at);
    diagnostics_add(l->d, SEVERITY_ERROR, *place, characters(f->piece), suggestion, "%s",
                    f->why.text);
    const char *behind = at + f->piece.len;
    *place = written_place(*place, at, behind);
    *rest = (struct view){behind, (size_t)(rest->at + rest->len - behind)};
}

/* Reports all that is wrong with a scalar's variables, each where it stands. */
static void expand_variables(struct loader *l, struct node *n, const yaml_event_t *e)
{
    struct env_fault fault;
    struct view text = n->text, rest = {NULL, 0}, out;
    struct place place = n->place;
    while (!(out = env_expand(l->texts, text, l->in_headers, &fault)).at) {
        if (!rest.at)
            rest = written_between(&l->written, e->start_mark.index, e->end_mark.index);
        report_fault(l, n, &fault, &rest, &place);
        const char *behind = fault.piece.at + fault.piece.len;
        text = (struct view){behind, (size_t)(text.at + text.len - behind)};
    }
    if (n->bad)
        return;
    if (*fault.advice.text)
        node_warning(l->d, n, fault.advice.text, "a variable without braces is not expanded");
    l->expanded_bytes += out.len;
    n->text = out;
}

static bool is_null(struct view text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (view_equal(text, view_of(words[i])))
            return true;
    return false;
}

static struct node *read_scalar(struct loader *l, const yaml_event_t *e, bool is_key)
{
    struct node *n = new_node(l, e, NODE_SCALAR);
    struct view text = {(const char *)e->data.scalar.value, e->data.scalar.length};
    check_tag(l, e->data.scalar.tag, n);
    n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    n->null = n->plain && !is_key && is_null(text);
    char *copy = arena_copy(is_key ? l->nodes : l->texts, text);
    n->text = (struct view){copy, l->masked.len > l->text.len ? written_unmask(copy, text.len)
                                                              : text.len};
    if (memchr(text.at, '\0', text.len)) {
        n->bad = true;
        node_error(l->d, n, NULL, "a NUL byte can be part of no value");
    } else if (env_concerns(text)) {
        expand_variables(l, n, e);
    }
    if (l->expanded_bytes > LOAD_MAX_EXPANDED_BYTES) {
        node_error(l->d, n, NULL, "environment variables make this file longer than %u MiB",
                   LOAD_MAX_EXPANDED_BYTES >> 20);
        return NULL;
    }
    struct anchor *a = define_anchor(l, e->data.scalar.anchor, n);
    if (a)
        a->complete = true;
    return n;
}

/* A copy of what the anchor names, its children shared. Checking goes through them again for each
 * alias, so each alias is counted with its whole weight: nested ones cannot explode. */
static struct node *read_alias(struct loader *l, const yaml_event_t *e)
{
    struct view name = view_of((const char *)e->data.alias.anchor);
    const struct anchor *a = symbols_get(&l->anchors, name);
    struct place place = place_of(e->start_mark);
    if (!a || !a->complete) {
        diagnostics_add(l->d, SEVERITY_ERROR, place, length_of(e), NULL,
                        a ? "the alias \"*%.60s\" stands inside of what it names"
                          : "the alias \"*%.60s\" names nothing that comes before it",
                        name.at);
        return NULL;
    }
    if (count_values(l, a->node->weight, place))
        return NULL;
    struct node *n = arena_alloc(l->nodes, sizeof(*n));
    *n = *a->node;
    n->key = n->next = NULL;
    n->place = place;
    n->length = length_of(e);
    return n;
}

static struct node *read_node(struct loader *l, const yaml_event_t *e, unsigned depth);

static struct node *read_list(struct loader *l, const yaml_event_t *start, unsigned depth)
{
    struct node *list = new_node(l, start, NODE_LIST), **tail = &list->first;
    struct anchor *a = define_anchor(l, start->data.sequence_start.anchor, list);
    check_tag(l, start->data.sequence_start.tag, list);
    for (;;) {
        yaml_event_t e;
        if (next_event(l, &e))
            return NULL;
        bool end = e.type == YAML_SEQUENCE_END_EVENT;
        struct node *n = end ? NULL : read_node(l, &e, depth + 1);
        delete_event(l, &e);
        if (end)
            break;
        if (!n)
            return NULL;
        list->count++;
        list->weight += n->weight;
        *tail = n;
        tail = &n->next;
    }
    if (a)
        a->complete = true;
    return list;
}

static struct node *find_key(const struct node *map, const struct node *before, struct view key)
{
    for (struct node *n = map->first; n && n != before; n = n->next)
        if (view_equal(n->key->text, key))
            return n;
    return NULL;
}

/* Of two values under one key, YAML readers keep the first, the last or neither. This is refused;
 * the later one is left out, so that those who look for a key all find the same. */
static void refuse_duplicates(struct loader *l, struct node *map)
{
    struct symbols seen = {.arena = map->count > PAIRWISE_MAX ? arena_new(8192) : NULL};
    for (struct node **at = &map->first; *at;) {
        struct node *n = *at;
        const struct node *earlier =
            seen.arena ? symbols_put(&seen, n->key->text, n) : find_key(map, n, n->key->text);
        if (!earlier) {
            at = &n->next;
            continue;
        }
        node_error(l->d, n->key, NULL, "duplicate key \"%.60s\", first given on line %u",
                   n->key->text.at, earlier->key->place.line);
        *at = n->next;
        map->count--;
    }
    arena_free(&seen.arena);
}

static bool is_merge(const struct node *n)
{
    return n->key->plain && view_equal(n->key->text, view_of("<<"));
}

/* Takes over from `source` what the map does not say itself. */
static int merge_map(struct loader *l, struct node *map, const struct node *source)
{
    struct node **tail = &map->first;
    while (*tail)
        tail = &(*tail)->next;
    if (source->kind != NODE_MAP) {
        node_error(l->d, source, NULL, "\"<<\" takes keys from a map or a list of maps");
        return 0;
    }
    if (map->count + source->count > MERGE_MAX) {
        node_error(l->d, source, NULL, "\"<<\" makes a map of more than %d keys", MERGE_MAX);
        return -1;
    }
    for (const struct node *n = source->first; n; n = n->next) {
        if (find_key(map, NULL, n->key->text))
            continue;
        struct node *copy = arena_alloc(l->nodes, sizeof(*copy));
        *copy = *n;
        copy->next = NULL;
        if (count_values(l, copy->weight, source->place))
            return -1;
        map->count++;
        map->weight += copy->weight;
        *tail = copy;
        tail = &copy->next;
    }
    return 0;
}

static struct node *take_merge_key(struct node *map)
{
    for (struct node **n = &map->first; *n; n = &(*n)->next) {
        struct node *found = *n;
        if (!is_merge(found))
            continue;
        *n = found->next;
        map->count--;
        return found;
    }
    return NULL;
}

static int merge(struct loader *l, struct node *map)
{
    const struct node *source = take_merge_key(map);
    if (!source)
        return 0;
    if (source->kind != NODE_LIST)
        return merge_map(l, map, source);
    for (const struct node *n = source->first; n; n = n->next)
        if (merge_map(l, map, n))
            return -1;
    return 0;
}

static struct node *read_key(struct loader *l, const yaml_event_t *e)
{
    if (e->type == YAML_SCALAR_EVENT)
        return read_scalar(l, e, true);
    diagnostics_add(l->d, SEVERITY_ERROR, place_of(e->start_mark), length_of(e), NULL,
                    "a key must be a single word");
    return NULL;
}

static struct node *read_pair(struct loader *l, const yaml_event_t *key_event, unsigned depth)
{
    struct node *key = read_key(l, key_event), *value;
    yaml_event_t e;
    if (!key || next_event(l, &e))
        return NULL;
    /* In there ${client_ip} and its like are for the data plane. */
    bool outside = !l->in_headers;
    l->in_headers = !outside || view_equal(key->text, view_of("headers"));
    value = read_node(l, &e, depth);
    if (outside)
        l->in_headers = false;
    delete_event(l, &e);
    if (value)
        value->key = key;
    return value;
}

static struct node *read_map(struct loader *l, const yaml_event_t *start, unsigned depth)
{
    struct node *map = new_node(l, start, NODE_MAP), **tail = &map->first;
    struct anchor *a = define_anchor(l, start->data.mapping_start.anchor, map);
    bool merges = false;
    check_tag(l, start->data.mapping_start.tag, map);
    for (;;) {
        yaml_event_t e;
        if (next_event(l, &e))
            return NULL;
        bool end = e.type == YAML_MAPPING_END_EVENT;
        struct node *n = end ? NULL : read_pair(l, &e, depth + 1);
        delete_event(l, &e);
        if (end)
            break;
        if (!n)
            return NULL;
        merges |= is_merge(n);
        map->count++;
        map->weight += n->weight;
        *tail = n;
        tail = &n->next;
    }
    refuse_duplicates(l, map);
    if (merges && merge(l, map))
        return NULL;
    if (a)
        a->complete = true;
    return map;
}

static struct node *read_node(struct loader *l, const yaml_event_t *e, unsigned depth)
{
    pace_yield();
    if (e->type == YAML_ALIAS_EVENT)
        return read_alias(l, e);
    if (depth > LOAD_MAX_DEPTH) {
        diagnostics_add(l->d, SEVERITY_ERROR, place_of(e->start_mark), length_of(e), NULL,
                        "nested more than %d levels deep", LOAD_MAX_DEPTH);
        return NULL;
    }
    if (count_values(l, 1, place_of(e->start_mark)))
        return NULL;
    if (e->type == YAML_SEQUENCE_START_EVENT)
        return read_list(l, e, depth);
    if (e->type == YAML_MAPPING_START_EVENT)
        return read_map(l, e, depth);
    return read_scalar(l, e, false);
}

/* ---- the document ---- */

static void report_root(struct loader *l, const struct node *root)
{
    if (root->kind == NODE_SCALAR && root->null)
        /* Whoever truncates a file before writing it shows us this for a moment. */
        diagnostics_add(l->d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL, "the file is empty");
    else
        node_error(l->d, root, NULL,
                   "the file must hold keys such as \"server:\" and \"routes:\", not %s",
                   root->kind == NODE_LIST ? "a list" : "a single text");
}

/* The first document's root. Another document, or something libyaml refuses behind it, is an error.
 */
static struct node *read_stream(struct loader *l)
{
    struct node *root = NULL;
    for (;;) {
        yaml_event_t e;
        if (next_event(l, &e))
            return NULL;
        yaml_event_type_t type = e.type;
        bool again = type == YAML_DOCUMENT_START_EVENT && root;
        if (again)
            diagnostics_add(l->d, SEVERITY_ERROR, place_of(e.start_mark), length_of(&e), NULL,
                            "a second document begins here, but a file is one configuration");
        bool outside = type == YAML_STREAM_START_EVENT || type == YAML_STREAM_END_EVENT ||
                       type == YAML_DOCUMENT_START_EVENT || type == YAML_DOCUMENT_END_EVENT;
        if (!outside)
            root = read_node(l, &e, 1);
        delete_event(l, &e);
        if (again || (!outside && !root))
            return NULL;
        if (type == YAML_STREAM_END_EVENT)
            break;
    }
    if (!root)
        diagnostics_add(l->d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL, "the file is empty");
    else if (root->kind != NODE_MAP)
        report_root(l, root);
    return root && root->kind == NODE_MAP ? root : NULL;
}

/* NULL with nothing said when libyaml has to read it. */
static struct node *scan_tree(struct loader *l)
{
    const struct diagnostics before = *l->d;
    l->scans = scan_init(&l->scan, l->text);
    l->gave_up = !l->scans;
    struct node *root = l->scans ? read_stream(l) : NULL;
    if (l->gave_up) { /* what was said so far will be said again */
        l->d->count = before.count;
        l->d->errors = before.errors;
        l->d->dropped = before.dropped;
    }
    return root;
}

static struct node *parse_tree(struct loader *l)
{
    if (!yaml_parser_initialize(&l->parser)) {
        diagnostics_add(l->d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL, "out of memory");
        return NULL;
    }
    l->masked = written_mask(l->nodes, l->text);
    yaml_parser_set_encoding(&l->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&l->parser, (const unsigned char *)l->masked.at, l->masked.len);
    struct node *root = read_stream(l);
    yaml_parser_delete(&l->parser);
    return root;
}

struct node *load_tree(struct view text, struct arena *nodes, struct arena *texts,
                       struct diagnostics *d)
{
    const struct loader fresh = {.text = text,
                                 .written = {text, 0, 0},
                                 .nodes = nodes,
                                 .texts = texts,
                                 .d = d,
                                 .anchors = {.arena = nodes}};
    struct loader l = fresh;
    if (text.len > LOAD_MAX_BYTES) {
        diagnostics_add(d, SEVERITY_ERROR, (struct place){0, 0}, 0, NULL,
                        "the file is larger than %u MiB", LOAD_MAX_BYTES >> 20);
        return NULL;
    }
    struct node *root = scan_tree(&l);
    if (!l.gave_up)
        return root;
    l = fresh;
    return parse_tree(&l);
}
