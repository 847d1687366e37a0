#include "controlplane/config/value.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "controlplane/config/keep.h"
#include "controlplane/config/suggest.h"

#define HEADER_EDITS_MAX 64
#define BUCKETS_MAX 32

/* For functions that return whether the value was read. */
#define fail(r, n, suggestion, ...) (node_error((r)->d, n, suggestion, __VA_ARGS__), false)

bool value_mismatch(const struct value_reader *r, const struct key *k, const struct node *n,
                    const char *suggestion)
{
    char what[SCHEMA_DESCRIPTION_BYTES];
    struct view name = schema_name(k);
    schema_describe(k, what);
    if (n->kind == NODE_LIST)
        return fail(r, n, suggestion, "\"%.*s\" must be %s, not a list", VIEW_ARG(name), what);
    if (n->kind == NODE_MAP)
        return fail(r, n, suggestion, "\"%.*s\" must be %s, not a map", VIEW_ARG(name), what);
    if (k->flags & KEY_SECRET)
        return fail(r, n, suggestion, "\"%.*s\" must be %s", VIEW_ARG(name), what);
    return fail(r, n, suggestion, "\"%.*s\" must be %s, not \"%.60s%s\"", VIEW_ARG(name), what,
                n->text.at, n->text.len > 60 ? "..." : "");
}

/* ---- numbers ---- */

/* A decimal number and nothing else: no hex, no octal, no infinity, no locale. Returns how long the
 * number is that the text begins with. */
static size_t scan_number(struct view v, double *number)
{
    size_t i = v.len > 0 && v.at[0] == '-', digits = 0;
    for (; i < v.len && isdigit((unsigned char)v.at[i]); i++)
        digits++;
    if (i < v.len && v.at[i] == '.')
        for (i++; i < v.len && isdigit((unsigned char)v.at[i]); i++)
            digits++;
    if (digits == 0)
        return 0;
    if (i + 1 < v.len && (v.at[i] == 'e' || v.at[i] == 'E')) {
        size_t j = i + 1 + (v.at[i + 1] == '-' || v.at[i + 1] == '+');
        for (; j < v.len && isdigit((unsigned char)v.at[j]); j++)
            i = j + 1;
    }
    *number = strtod(v.at, NULL);
    return i;
}

/* "010" is 8 to one YAML reader and 10 to the next. */
static bool has_leading_zero(struct view v)
{
    return v.len > 1 && v.at[0] == '0' && isdigit((unsigned char)v.at[1]);
}

static bool in_range(const struct key *k, double number)
{
    return number >= k->min && number <= k->max;
}

static int word_index(const struct key *k, struct view text)
{
    for (int i = 0; k->words && k->words[i]; i++)
        if (view_equal(text, view_of(k->words[i])))
            return i;
    return -1;
}

static void store_number(const struct key *k, double number, void *member)
{
    if (k->bytes == sizeof(uint64_t))
        *(uint64_t *)member = (uint64_t)number;
    else
        *(uint32_t *)member = (uint32_t)number;
}

static bool read_int(const struct value_reader *r, const struct key *k, const struct node *n,
                     void *member)
{
    double number;
    int word = word_index(k, n->text);
    size_t len = scan_number(n->text, &number);
    if (word >= 0)
        number = word;
    else if (len > 0 && len + 1 == n->text.len && n->text.at[len] == '%' && in_range(k, number))
        return value_mismatch(r, k, n, arena_printf(r->d->arena, "write %.15g", number));
    else if (has_leading_zero(n->text))
        return value_mismatch(r, k, n, "write it without leading zeros");
    else if (len == 0 || len < n->text.len || !in_range(k, number) || floor(number) != number)
        return value_mismatch(r, k, n, NULL);
    store_number(k, number, member);
    return true;
}

static double size_unit(struct view unit, bool lenient)
{
    static const char *const names[] = {"KiB", "MiB", "GiB"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct view name = view_of(names[i]);
        bool loose = unit.len > 0 && unit.len <= 3 && tolower(unit.at[0]) == tolower(name.at[0]) &&
                     (unit.len == 1 || tolower(unit.at[unit.len - 1]) == 'b');
        if (view_equal(unit, name) || (lenient && loose))
            return (double)(1u << (10 * (i + 1)));
    }
    return unit.len == 0 ? 1 : 0;
}

static bool read_size(const struct value_reader *r, const struct key *k, const struct node *n,
                      void *member)
{
    double number;
    size_t len = scan_number(n->text, &number);
    struct view unit = view_trim((struct view){n->text.at + len, n->text.len - len});
    if (len == 0 || has_leading_zero(n->text))
        return value_mismatch(r, k, n, NULL);
    if (size_unit(unit, false) == 0 && size_unit(unit, true) > 0)
        return value_mismatch(r, k, n,
                              arena_printf(r->d->arena, "write %.15g%ciB", number,
                                           toupper((unsigned char)unit.at[0])));
    number *= size_unit(unit, false);
    if (size_unit(unit, false) == 0 || !in_range(k, number) || floor(number) != number)
        return value_mismatch(r, k, n, NULL);
    store_number(k, number, member);
    return true;
}

/* "30s" and "500ms" are what other programs take: say how it is written here. */
static const char *advise_seconds(const struct value_reader *r, double number, struct view unit)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"sec", 1}, {"m", 60}, {"min", 60}, {"h", 3600}};
    for (size_t i = 0; i < COUNT_OF(units); i++)
        if (view_equal(unit, view_of(units[i].unit)))
            return arena_printf(r->d->arena, "write %.15g", number * units[i].seconds);
    return NULL;
}

/* What Go reads as "not set" meant the default there, and still does. */
static bool is_go_zero(const struct value_reader *r, const struct key *k, const struct node *n,
                       double number)
{
    if (number != 0 || k->min <= 0 || !(k->flags & KEY_GO) || !k->preset)
        return false;
    node_warning(r->d, n, NULL, "0 cannot be meant, so the default applies: %s", k->preset);
    return true;
}

static bool read_seconds(const struct value_reader *r, const struct key *k, const struct node *n,
                         void *member)
{
    double number;
    size_t len = scan_number(n->text, &number);
    if (len > 0 && len < n->text.len)
        return value_mismatch(
            r, k, n,
            advise_seconds(r, number,
                           view_trim((struct view){n->text.at + len, n->text.len - len})));
    if (has_leading_zero(n->text))
        return value_mismatch(r, k, n, "write it without leading zeros");
    if (len > 0 && is_go_zero(r, k, n, number))
        return true;
    if (len == 0 || !in_range(k, number))
        return value_mismatch(r, k, n, NULL);
    store_number(k, ceil(number * 1000 - 1e-6), member);
    return true;
}

static bool read_float(const struct value_reader *r, const struct key *k, const struct node *n,
                       void *member)
{
    double number;
    size_t len = scan_number(n->text, &number);
    if (has_leading_zero(n->text))
        return value_mismatch(r, k, n, "write it without leading zeros");
    if (len == 0 || len < n->text.len || !in_range(k, number))
        return value_mismatch(r, k, n, NULL);
    *(double *)member = number;
    return true;
}

/* ---- words ---- */

static bool read_bool(const struct value_reader *r, const struct key *k, const struct node *n,
                      void *member)
{
    /* All that YAML 1.1 knows, and so the predecessor. */
    static const char *const words[] = {"true", "yes", "on", "false", "no", "off"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (view_equal_nocase(n->text, view_of(words[i]))) {
            *(bool *)member = i < 3;
            return true;
        }
    }
    return value_mismatch(r, k, n, NULL);
}

static bool read_word(const struct value_reader *r, const struct key *k, const struct node *n,
                      void *member)
{
    struct suggest s = {.wanted = n->text};
    int word = word_index(k, n->text);
    if (word >= 0) {
        *(int *)member = word;
        return true;
    }
    for (size_t i = 0; k->words[i]; i++)
        suggest_consider(&s, view_of(k->words[i]));
    struct view best = suggest_best(&s);
    return value_mismatch(
        r, k, n,
        best.len ? arena_printf(r->d->arena, "did you mean \"%.*s\"?", VIEW_ARG(best)) : NULL);
}

/* ---- header fields and statuses ---- */

static bool add_field(const struct value_reader *r, const struct node *key, const struct node *n,
                      struct header_field *fields, size_t *count)
{
    if (n->bad)
        return false;
    if (n->kind != NODE_SCALAR)
        return fail(r, n, NULL, "the value of header \"%.60s\" must be text", key->text.at);
    if (*count == HEADER_EDITS_MAX)
        return fail(r, n, NULL, "more than %d headers to edit", HEADER_EDITS_MAX);
    const char *value = keep_header_value(r, n);
    if (!value)
        return false;
    fields[(*count)++] = (struct header_field){key->text.at, value};
    return true;
}

/* Keys live as long as the tree only; fields live on. */
static bool read_fields(const struct value_reader *r, const struct key *k, const struct node *n,
                        void *base)
{
    struct header_field fields[HEADER_EDITS_MAX];
    size_t count = 0;
    bool many = view_equal(schema_name(k), view_of("add")), ok = true;
    if (n->kind != NODE_MAP)
        return value_mismatch(r, k, n, NULL);
    for (const struct node *v = n->first; v; v = v->next) {
        size_t before = count;
        if (v->key->bad || !keep_edited_name(r, k, v->key)) {
            ok = false;
            continue;
        }
        for (size_t i = 0; i < before; i++)
            if (strcasecmp(fields[i].name, v->key->text.at) == 0)
                ok = fail(r, v->key, many ? "write a list of values" : NULL,
                          "header \"%.60s\" is given twice", v->key->text.at);
        if (many && v->kind == NODE_LIST)
            for (const struct node *item = v->first; item; item = item->next)
                ok &= add_field(r, v->key, item, fields, &count);
        else
            ok &= add_field(r, v->key, v, fields, &count);
    }
    struct header_field *kept = arena_array(r->arena, count, sizeof(*kept));
    for (size_t i = 0; i < count; i++)
        kept[i] =
            (struct header_field){arena_copy(r->arena, view_of(fields[i].name)), fields[i].value};
    *(struct header_field **)((char *)base + k->offset) = kept;
    *(size_t *)((char *)base + k->count_offset) = count;
    return ok;
}

static bool read_status(const struct value_reader *r, const struct key *k, const struct node *n,
                        struct status_range *range)
{
    if (n->kind != NODE_SCALAR)
        return value_mismatch(r, k, n, NULL);
    double first, last;
    struct view v = n->text;
    size_t dash = strcspn(v.at, "-");
    bool ranged = dash < v.len;
    struct view left = view_trim((struct view){v.at, dash});
    struct view right = ranged ? view_trim((struct view){v.at + dash + 1, v.len - dash - 1}) : left;
    if (left.len != 3 || right.len != 3 || scan_number(left, &first) != 3 ||
        scan_number(right, &last) != 3 || !in_range(k, first) || !in_range(k, last))
        return value_mismatch(r, k, n, NULL);
    if (first > last)
        return fail(r, n, NULL, "\"%s\" is empty: its end is before its beginning", v.at);
    *range = (struct status_range){(uint16_t)first, (uint16_t)last};
    return true;
}

/* ---- lists ---- */

static bool read_statuses(const struct value_reader *r, const struct key *k, const struct node *n,
                          void *base)
{
    struct status_set *set = (void *)((char *)base + k->offset);
    bool ok = true;
    if (n->kind == NODE_MAP)
        return value_mismatch(r, k, n, NULL);
    if (n->kind == NODE_LIST && n->count == 0)
        return fail(r, n, NULL, "\"%.*s\" is empty", VIEW_ARG(schema_name(k)));
    size_t count = n->kind == NODE_LIST ? n->count : 1, i = 0;
    struct status_range *ranges = arena_array(r->arena, count, sizeof(*ranges));
    for (const struct node *item = n->kind == NODE_LIST ? n->first : n; item && i < count;
         item = item->next, i++)
        ok &= !item->bad && read_status(r, k, item, &ranges[i]);
    if (ok)
        *set = (struct status_set){ranges, count};
    return ok;
}

static bool read_floats(const struct value_reader *r, const struct key *k, const struct node *n,
                        void *base)
{
    if (n->kind != NODE_LIST)
        return value_mismatch(r, k, n, NULL);
    if (n->count == 0 || n->count > BUCKETS_MAX)
        return fail(r, n, NULL, "\"%.*s\" must hold 1 to %d numbers, not %u",
                    VIEW_ARG(schema_name(k)), BUCKETS_MAX, n->count);
    double *numbers = arena_array(r->arena, n->count, sizeof(*numbers));
    size_t i = 0;
    bool ok = true;
    for (const struct node *item = n->first; item; item = item->next, i++) {
        if (item->kind != NODE_SCALAR)
            ok = value_mismatch(r, k, item, NULL);
        else if (item->bad || !read_float(r, k, item, &numbers[i]))
            ok = false;
        else if (ok && i > 0 && numbers[i] <= numbers[i - 1])
            ok = fail(r, item, NULL, "%.15g does not come after %.15g: the numbers must ascend",
                      numbers[i], numbers[i - 1]);
    }
    if (ok) {
        *(double **)((char *)base + k->offset) = numbers;
        *(size_t *)((char *)base + k->count_offset) = n->count;
    }
    return ok;
}

typedef bool read_fn(const struct value_reader *r, const struct key *k, const struct node *n,
                     void *member);

static bool read_texts(const struct value_reader *r, const struct key *k, const struct node *n,
                       keep_fn *keep, void *base)
{
    bool one = n->kind == NODE_SCALAR && k->type == VALUE_LISTENS, ok = true;
    if (n->kind != NODE_LIST && !one)
        return value_mismatch(r, k, n,
                              n->kind == NODE_SCALAR && n->text.len < 60
                                  ? arena_printf(r->d->arena, "write [%s]", n->text.at)
                                  : NULL);
    size_t count = one ? 1 : n->count, i = 0;
    const char **texts = arena_array(r->arena, count, sizeof(*texts));
    for (const struct node *item = one ? n : n->first; item && i < count; item = item->next, i++) {
        if (item->kind != NODE_SCALAR)
            ok = value_mismatch(r, k, item, NULL);
        else if (item->bad || !(texts[i] = keep(r, k, item)))
            ok = false;
    }
    if (ok)
        *(struct strings *)(void *)((char *)base + k->offset) = (struct strings){texts, count};
    return ok;
}

/* ---- by type ---- */

/* How each type is read: a number or word by `read`, a text by `keep`, a list as a whole, or a list
 * of texts by `keep` for each. */
static const struct {
    read_fn *read;
    keep_fn *keep;
    read_fn *whole;
    keep_fn *each;
} readers[] = {
    [VALUE_BOOL] = {.read = read_bool},
    [VALUE_INT] = {.read = read_int},
    [VALUE_SIZE] = {.read = read_size},
    [VALUE_SECONDS] = {.read = read_seconds},
    [VALUE_FLOAT] = {.read = read_float},
    [VALUE_WORD] = {.read = read_word},
    [VALUE_TOKEN] = {.keep = keep_token},
    [VALUE_NAME] = {.keep = keep_name},
    [VALUE_HOST] = {.keep = keep_host},
    [VALUE_HOST_PATTERN] = {.keep = keep_host},
    [VALUE_PREFIX] = {.keep = keep_path},
    [VALUE_PATH] = {.keep = keep_path},
    [VALUE_LISTEN] = {.keep = keep_address},
    [VALUE_FILE_PATH] = {.keep = keep_file_path},
    [VALUE_LOG_TARGET] = {.keep = keep_file_path},
    [VALUE_BACKEND_URL] = {.keep = keep_backend_url},
    [VALUE_REDIS_URL] = {.keep = keep_redis_url},
    [VALUE_HEADER_NAME] = {.keep = keep_header_name},
    [VALUE_FLOATS] = {.whole = read_floats},
    [VALUE_STATUSES] = {.whole = read_statuses},
    [VALUE_HEADER_FIELDS] = {.whole = read_fields},
    [VALUE_METHODS] = {.each = keep_method},
    [VALUE_CIDRS] = {.each = keep_cidr},
    [VALUE_LISTENS] = {.each = keep_address},
    [VALUE_HEADER_NAMES] = {.each = keep_edited_name},
};

bool value_read(const struct value_reader *r, const struct key *k, const struct node *n, void *base)
{
    assert(k->type < COUNT_OF(readers));
    void *member = (char *)base + k->offset;
    if (n->bad)
        return false;
    if (readers[k->type].whole)
        return readers[k->type].whole(r, k, n, base);
    if (readers[k->type].each)
        return read_texts(r, k, n, readers[k->type].each, base);
    if (n->kind != NODE_SCALAR)
        return value_mismatch(r, k, n, NULL);
    if (readers[k->type].read)
        return readers[k->type].read(r, k, n, member);
    const char *text = readers[k->type].keep(r, k, n);
    if (text)
        *(const char **)member = text;
    return text != NULL;
}

/* Defaults are few and short: scalars, "[]", "{}" and lists of numbers. */
void value_preset(const struct value_reader *r, const struct key *k, void *base)
{
    struct node items[BUCKETS_MAX] = {{.kind = NODE_SCALAR}};
    struct node n = {.kind = NODE_SCALAR, .text = view_of(k->preset)};
    if (!k->preset || strcmp(k->preset, "[]") == 0 || strcmp(k->preset, "{}") == 0)
        return;
    if (k->preset[0] == '[') {
        n = (struct node){.kind = NODE_LIST, .first = items};
        for (const char *p = k->preset; *p != ']' && n.count < BUCKETS_MAX; n.count++) {
            p += strspn(p, "[, ");
            items[n.count].text = (struct view){p, strcspn(p, ",]")};
            items[n.count].next = &items[n.count + 1];
            p += items[n.count].text.len;
        }
        items[n.count - 1].next = NULL;
    }
    if (*k->preset == '\0') {
        *(const char **)(void *)((char *)base + k->offset) = ""; /* such as a name: to be made */
        return;
    }
    bool ok = value_read(r, k, &n, base);
    assert(ok);
    (void)ok;
}
