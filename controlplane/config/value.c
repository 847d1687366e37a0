#include "controlplane/config/value.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "controlplane/config/suggest.h"
#include "controlplane/config/url.h"
#include "proto/base/addr.h"

#define HEADER_EDITS_MAX 64
#define HEADER_VALUE_MAX_BYTES 4096
#define BUCKETS_MAX 32
#define NAME_MAX_BYTES 128

/* Reports, and is false: for functions that return whether the value was read. */
#define fail(r, n, suggestion, ...) (node_error((r)->d, n, suggestion, __VA_ARGS__), false)

/* ": did you mean ..." for texts made here. */
struct advice {
    char text[160];
};

static const char *PRINTF_LIKE(2, 3) advise(struct advice *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof(a->text), fmt, ap);
    va_end(ap);
    return a->text;
}

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
    struct advice a;
    int word = word_index(k, n->text);
    size_t len = scan_number(n->text, &number);
    if (word >= 0)
        number = word;
    else if (len > 0 && len + 1 == n->text.len && n->text.at[len] == '%' && in_range(k, number))
        return value_mismatch(r, k, n, advise(&a, "write %.15g", number));
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
    struct advice a;
    size_t len = scan_number(n->text, &number);
    struct view unit = view_trim((struct view){n->text.at + len, n->text.len - len});
    if (len == 0 || has_leading_zero(n->text))
        return value_mismatch(r, k, n, NULL);
    if (size_unit(unit, false) == 0 && size_unit(unit, true) > 0)
        return value_mismatch(
            r, k, n, advise(&a, "write %.15g%ciB", number, toupper((unsigned char)unit.at[0])));
    number *= size_unit(unit, false);
    if (size_unit(unit, false) == 0 || !in_range(k, number) || floor(number) != number)
        return value_mismatch(r, k, n, NULL);
    store_number(k, number, member);
    return true;
}

/* "30s" and "500ms" are what other programs take: say how it is written here. */
static const char *advise_seconds(struct advice *a, double number, struct view unit)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"sec", 1}, {"m", 60}, {"min", 60}, {"h", 3600}};
    for (size_t i = 0; i < COUNT_OF(units); i++)
        if (view_equal(unit, view_of(units[i].unit)))
            return advise(a, "write %.15g", number * units[i].seconds);
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
    struct advice a = {""};
    size_t len = scan_number(n->text, &number);
    if (len > 0 && len < n->text.len)
        return value_mismatch(
            r, k, n,
            advise_seconds(&a, number, (struct view){n->text.at + len, n->text.len - len}));
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
    if (len == 0 || len < n->text.len || !in_range(k, number))
        return value_mismatch(r, k, n, NULL);
    *(double *)member = number;
    return true;
}

/* ---- words and texts ---- */

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
    struct advice a;
    struct suggest s = {.wanted = n->text};
    int word = word_index(k, n->text);
    if (word >= 0) {
        *(int *)member = word;
        return true;
    }
    for (size_t i = 0; k->words[i]; i++)
        suggest_consider(&s, view_of(k->words[i]));
    struct view best = suggest_best(&s);
    return value_mismatch(r, k, n,
                          best.len ? advise(&a, "did you mean \"%.*s\"?", VIEW_ARG(best)) : NULL);
}

static bool is_visible(struct view v)
{
    for (size_t i = 0; i < v.len; i++)
        if ((unsigned char)v.at[i] <= ' ' || v.at[i] == 0x7f)
            return false;
    return true;
}

static const char *keep_token(const struct value_reader *r, const struct key *k,
                              const struct node *n)
{
    if (!is_visible(n->text)) {
        value_mismatch(r, k, n, NULL);
        return NULL;
    }
    return n->text.at;
}

/* Names are labels of metrics and words in logs and on command lines. */
static const char *keep_name(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    if (n->text.len == 0 || n->text.len > NAME_MAX_BYTES || !is_visible(n->text) ||
        strpbrk(n->text.at, "\"\\")) {
        value_mismatch(r, k, n, NULL);
        return NULL;
    }
    if (strcmp(n->text.at, "none") == 0) {
        node_error(r->d, n, NULL, "\"none\" is the name of requests that match no route");
        return NULL;
    }
    return n->text.at;
}

static const char *lower_case(const struct value_reader *r, struct view v)
{
    char *copy = arena_copy(r->arena, v);
    for (char *c = copy; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return copy;
}

static const char *keep_host(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    struct err err;
    struct view host = n->text;
    if (host.len == 0)
        return "";
    if (k->type == VALUE_HOST_PATTERN && view_starts_with(host, view_of("*.")))
        host = (struct view){host.at + 2, host.len - 2};
    const char *colon = memchr(host.at, ':', host.len);
    if (colon && host.at[0] != '[') {
        node_error(r->d, n, "leave the port out", "a host is matched without its port");
        return NULL;
    }
    if (url_check_host(host, &err)) {
        node_error(r->d, n, NULL, "%s", err.text);
        return NULL;
    }
    return lower_case(r, n->text);
}

/* ---- paths ---- */

/* Why requests could never match this prefix, or NULL. */
static const char *refuse_path(struct view path)
{
    if (memchr(path.at, '?', path.len) || memchr(path.at, '#', path.len))
        return "\"?\" and \"#\" are not part of a path";
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.at[i];
        if (c <= ' ' || c >= 0x7f || strchr("\"<>\\^`{|}", c))
            return "a path holds no spaces and no bytes beyond ASCII: percent-encode them";
        if (c == '%' && (i + 2 >= path.len || !isxdigit((unsigned char)path.at[i + 1]) ||
                         !isxdigit((unsigned char)path.at[i + 2])))
            return "\"%\" in a path is followed by two hexadecimal digits";
    }
    if (strstr(path.at, "//"))
        return "\"//\" in a path is an empty segment";
    for (const char *p = path.at; (p = strstr(p, "/.")); p++) {
        size_t dots = p[2] == '.' ? 2 : 1;
        if (p[1 + dots] == '/' || p[1 + dots] == '\0')
            return "\".\" and \"..\" are no segments of a path";
    }
    return NULL;
}

static const char *keep_path(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    struct advice a;
    struct view path = n->text;
    if (k->type == VALUE_PATH && path.len == 0)
        return "";
    if (path.len == 0 || path.at[0] != '/') {
        value_mismatch(r, k, n, advise(&a, "write \"/%.100s\"", path.at));
        return NULL;
    }
    /* A check's path may carry a query; a prefix is compared with paths only. */
    if (k->type == VALUE_PATH) {
        if (is_visible(path) && !strchr(path.at, '#'))
            return path.at;
        value_mismatch(r, k, n, NULL);
        return NULL;
    }
    const char *reason = refuse_path(path);
    if (reason) {
        node_error(r->d, n, NULL, "%s", reason);
        return NULL;
    }
    while (path.len > 1 && path.at[path.len - 1] == '/')
        path.len--;
    if (path.at[path.len - 1] == '*')
        node_warning(r->d, n, "leave it out: a prefix matches all below it",
                     "\"*\" in a prefix is itself");
    return path.len == n->text.len ? path.at : arena_copy(r->arena, path);
}

static const char *keep_file_path(const struct value_reader *r, const struct key *k,
                                  const struct node *n)
{
    struct advice a;
    struct suggest s = {.wanted = n->text};
    static const char *const words[] = {"stdout", "stderr", "off"};
    if (n->text.len > 1 && n->text.at[0] == '/')
        return n->text.at;
    for (size_t i = 0; k->type == VALUE_LOG_TARGET && i < COUNT_OF(words); i++) {
        if (view_equal(n->text, view_of(words[i])))
            return n->text.at;
        suggest_consider(&s, view_of(words[i]));
    }
    struct view best = suggest_best(&s);
    value_mismatch(r, k, n, best.len ? advise(&a, "did you mean \"%.*s\"?", VIEW_ARG(best)) : NULL);
    return NULL;
}

/* ---- addresses ---- */

/* "localhost" is the one name that everybody resolves alike. */
static const char *keep_address(const struct value_reader *r, const struct key *k,
                                const struct node *n)
{
    struct err err;
    struct addr addr;
    struct advice a;
    const char *text = n->text.at, *suggestion = NULL;
    if (n->text.len == 0 && k->type == VALUE_LISTEN)
        return "";
    if (strncmp(text, "localhost:", 10) == 0)
        text = arena_printf(r->arena, "127.0.0.1%s", text + 9);
    if (addr_parse(&addr, text, &err) == 0)
        return text;
    double port;
    if (scan_number(n->text, &port) == n->text.len && port >= 0 && port <= 65535)
        suggestion = advise(&a, "write \":%s\"", text);
    node_error(r->d, n, suggestion, "%s", err.text);
    return NULL;
}

static const char *keep_backend_url(const struct value_reader *r, const struct key *k,
                                    const struct node *n)
{
    struct url url;
    struct err err, advice;
    if (url_parse_backend(&url, r->arena, n->text.at, &advice, &err) == 0)
        return n->text.at;
    node_error(r->d, n, *advice.text ? advice.text : NULL, "%s", err.text);
    return NULL;
}

static const char *keep_redis_url(const struct value_reader *r, const struct key *k,
                                  const struct node *n)
{
    struct err err;
    if (n->text.len == 0 || url_check_redis(n->text.at, &err) == 0)
        return n->text.at;
    node_error(r->d, n, NULL, "%s", err.text);
    return NULL;
}

static const char *keep_cidr(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    struct err err;
    struct advice a;
    char out[URL_CIDR_BYTES];
    if (url_parse_cidr(out, n->text.at, &err)) {
        node_error(r->d, n, NULL, "%s", err.text);
        return NULL;
    }
    const char *slash = strchr(n->text.at, '/');
    if (slash && strncmp(out, n->text.at, (size_t)(slash - n->text.at) + 1) != 0 &&
        !strchr(n->text.at, ':'))
        node_warning(r->d, n, advise(&a, "write \"%s\"", out),
                     "\"%.60s\" has bits behind its length", n->text.at);
    if (strcmp(slash ? slash : "", "/0") == 0)
        node_warning(r->d, n, NULL,
                     "whoever connects is believed: anybody can claim any client address");
    return arena_copy(r->arena, view_of(out));
}

/* ---- header fields ---- */

/* RFC 9110 5.6.2 */
static bool is_header_name(struct view v)
{
    for (size_t i = 0; i < v.len; i++)
        if (!isalnum((unsigned char)v.at[i]) && !strchr("!#$%&'*+-.^_`|~", v.at[i]))
            return false;
    return v.len > 0 && v.len <= 256;
}

static const char *keep_header_name(const struct value_reader *r, const struct key *k,
                                    const struct node *n)
{
    if (is_header_name(n->text))
        return n->text.at;
    node_error(r->d, n, NULL, "\"%.60s\" is not the name of a header", n->text.at);
    return NULL;
}

/* Those that say where a message ends or belong to one connection are made anew on each side: an
 * edit would desynchronise the two. */
static const char *keep_edited_name(const struct value_reader *r, const struct key *k,
                                    const struct node *n)
{
    static const char *const ours[] = {"Content-Length", "Transfer-Encoding", "Connection",
                                       "Keep-Alive",     "Proxy-Connection",  "TE",
                                       "Trailer",        "Upgrade",           "Expect"};
    if (!keep_header_name(r, k, n))
        return NULL;
    if (view_equal_nocase(n->text, view_of("Host"))) {
        node_error(r->d, n, "use \"preserve_host\"", "\"Host\" cannot be edited");
        return NULL;
    }
    for (size_t i = 0; i < COUNT_OF(ours); i++) {
        if (view_equal_nocase(n->text, view_of(ours[i]))) {
            node_error(r->d, n, NULL, "\"%s\" belongs to the connection and cannot be edited",
                       ours[i]);
            return NULL;
        }
    }
    return n->text.at;
}

/* ${client_ip} and its like are for the data plane; another name would go out as it stands. */
static bool check_request_variables(const struct value_reader *r, const struct node *n)
{
    static const char *const known[] = {"client_ip", "request_id", "host", "route"};
    struct advice a;
    for (const char *p = n->text.at; (p = strstr(p, "${")); p++) {
        struct view name = {p + 2, strcspn(p + 2, "}")};
        struct suggest s = {.wanted = name};
        bool found = false;
        if (p[2 + name.len] == '\0')
            return fail(r, n, NULL, "\"${\" without \"}\"");
        for (size_t i = 0; i < COUNT_OF(known); i++) {
            found |= view_equal(name, view_of(known[i]));
            suggest_consider(&s, view_of(known[i]));
        }
        struct view best = suggest_best(&s);
        if (!found)
            return fail(r, n,
                        best.len ? advise(&a, "did you mean \"$${%.*s}\"?", VIEW_ARG(best))
                                 : "there are client_ip, request_id, host and route",
                        "no request has a \"%.*s\"", (int)MIN(name.len, 60), name.at);
    }
    return true;
}

static const char *keep_header_value(const struct value_reader *r, const struct node *n)
{
    struct view v = view_trim(n->text);
    if (v.len > HEADER_VALUE_MAX_BYTES) {
        node_error(r->d, n, NULL, "a header's value of %zu bytes: at most %d are possible", v.len,
                   HEADER_VALUE_MAX_BYTES);
        return NULL;
    }
    for (size_t i = 0; i < v.len; i++) {
        unsigned char c = (unsigned char)v.at[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) {
            node_error(r->d, n, NULL, "a header's value cannot hold %s",
                       c == '\r' || c == '\n' ? "a line break" : "control characters");
            return NULL;
        }
    }
    if (!check_request_variables(r, n))
        return NULL;
    return v.len == n->text.len ? v.at : arena_copy(r->arena, v);
}

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

/* ---- methods and statuses ---- */

/* What the data plane's parser knows; whatever else comes is answered 400 before any route. */
static const char *const methods[] = {
    "GET",       "HEAD",       "POST",        "PUT",      "DELETE", "OPTIONS",  "PATCH",
    "TRACE",     "ACL",        "BIND",        "CHECKOUT", "COPY",   "LINK",     "LOCK",
    "MERGE",     "MKACTIVITY", "MKCALENDAR",  "MKCOL",    "MOVE",   "M-SEARCH", "NOTIFY",
    "PROPFIND",  "PROPPATCH",  "PURGE",       "REBIND",   "REPORT", "SEARCH",   "SOURCE",
    "SUBSCRIBE", "UNBIND",     "UNSUBSCRIBE", "UNLINK",   "UNLOCK",
};

static const char *keep_method(const struct value_reader *r, const struct key *k,
                               const struct node *n)
{
    struct advice a;
    struct suggest s = {.wanted = n->text};
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        if (view_equal_nocase(n->text, view_of(methods[i])))
            return methods[i];
        suggest_consider(&s, view_of(methods[i]));
    }
    struct view best = suggest_best(&s);
    if (view_equal_nocase(n->text, view_of("CONNECT")))
        node_error(r->d, n, NULL, "CONNECT asks for a tunnel, which no route gives");
    else
        node_error(r->d, n, best.len ? advise(&a, "did you mean \"%.*s\"?", VIEW_ARG(best)) : NULL,
                   "\"%.60s\" is not a method", n->text.at);
    return NULL;
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

/* A text in the form it is kept in, or NULL when it was refused and reported. */
typedef const char *keep_fn(const struct value_reader *r, const struct key *k,
                            const struct node *n);
typedef bool read_fn(const struct value_reader *r, const struct key *k, const struct node *n,
                     void *member);

static bool read_texts(const struct value_reader *r, const struct key *k, const struct node *n,
                       keep_fn *keep, void *base)
{
    struct advice a;
    bool one = n->kind == NODE_SCALAR && k->type == VALUE_LISTENS, ok = true;
    if (n->kind != NODE_LIST && !one)
        return value_mismatch(r, k, n,
                              n->kind == NODE_SCALAR && n->text.len < 60
                                  ? advise(&a, "write [%s]", n->text.at)
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
