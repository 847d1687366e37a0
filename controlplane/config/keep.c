#include "controlplane/config/keep.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "controlplane/config/env.h"
#include "controlplane/config/suggest.h"
#include "controlplane/config/url.h"
#include "proto/base/addr.h"

#define HEADER_VALUE_MAX_BYTES 4096
#define NAME_MAX_BYTES 128

/* ---- names ---- */

static bool is_visible(struct view v)
{
    for (size_t i = 0; i < v.len; i++)
        if ((unsigned char)v.at[i] <= ' ' || v.at[i] == 0x7f)
            return false;
    return true;
}

const char *keep_token(const struct value_reader *r, const struct key *k, const struct node *n)
{
    if (!is_visible(n->text)) {
        value_mismatch(r, k, n, NULL);
        return NULL;
    }
    return n->text.at;
}

/* Names are labels of metrics and words in logs and on command lines. */
const char *keep_name(const struct value_reader *r, const struct key *k, const struct node *n)
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

const char *keep_host(const struct value_reader *r, const struct key *k, const struct node *n)
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

/* Requests are compared once their unreserved characters are decoded and hex digits are upper case:
 * a prefix that is written otherwise matches none. */
static void warn_of_escapes(const struct value_reader *r, const struct node *n, struct view path)
{
    if (!memchr(path.at, '%', path.len))
        return;
    char *better = arena_copy(r->d->arena, path), *out = better;
    for (size_t i = 0; i < path.len; i++) {
        const char *at = path.at + i;
        char digits[3] = {0}, c;
        if (*at != '%') {
            *out++ = *at;
            continue;
        }
        memcpy(digits, at + 1, 2); /* refuse_path() has seen that they are there */
        c = (char)strtol(digits, NULL, 16);
        if (isalnum((unsigned char)c) || (c && strchr("-._~", c)))
            *out++ = c;
        else
            out += sprintf(out, "%%%c%c", toupper(at[1]), toupper(at[2]));
        i += 2;
    }
    *out = '\0';
    if (strlen(better) != path.len || memcmp(better, path.at, path.len) != 0)
        node_warning(r->d, n, arena_printf(r->d->arena, "write \"%.100s\"", better),
                     "no request matches this: its path is compared in normal form");
}

const char *keep_path(const struct value_reader *r, const struct key *k, const struct node *n)
{
    struct view path = n->text;
    if (k->type == VALUE_PATH && path.len == 0)
        return "";
    if (path.len == 0 || path.at[0] != '/') {
        value_mismatch(r, k, n, arena_printf(r->d->arena, "write \"/%.100s\"", path.at));
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
    warn_of_escapes(r, n, path);
    if (path.at[path.len - 1] == '*')
        node_warning(r->d, n, "leave it out: a prefix matches all below it",
                     "\"*\" in a prefix is itself");
    return path.len == n->text.len ? path.at : arena_copy(r->arena, path);
}

const char *keep_file_path(const struct value_reader *r, const struct key *k, const struct node *n)
{
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
    value_mismatch(r, k, n,
                   best.len ? arena_printf(r->d->arena, "did you mean \"%.*s\"?", VIEW_ARG(best))
                            : NULL);
    return NULL;
}

/* ---- addresses ---- */

/* "localhost" is the one name that everybody resolves alike. */
const char *keep_address(const struct value_reader *r, const struct key *k, const struct node *n)
{
    struct err err;
    struct addr addr;
    const char *text = n->text.at, *suggestion = NULL;
    if (n->text.len == 0 && k->type == VALUE_LISTEN)
        return "";
    if (strncmp(text, "unix:", 5) == 0 && text[5] != '/' && text[5] != '\0') {
        node_error(r->d, n, arena_printf(r->d->arena, "write \"unix:/%.100s\"", text + 5),
                   "\"%.60s\": the path of a socket begins with \"/\"", text);
        return NULL;
    }
    if (strncmp(text, "localhost:", 10) == 0)
        text = arena_printf(r->arena, "127.0.0.1%s", text + 9);
    if (addr_parse(&addr, text, &err) == 0)
        return text;
    if (n->text.len > 0 && strspn(text, "0123456789") == n->text.len)
        suggestion = arena_printf(r->d->arena, "write \":%s\"", text);
    node_error(r->d, n, suggestion, "%s", err.text);
    return NULL;
}

const char *keep_backend_url(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    return n->text.at; /* rules.c takes it apart, once */
}

const char *keep_redis_url(const struct value_reader *r, const struct key *k, const struct node *n)
{
    struct redis_url url;
    struct err err;
    if (n->text.len == 0 || url_parse_redis(&url, r->arena, n->text.at, &err) == 0)
        return n->text.at;
    node_error(r->d, n, NULL, "%s", err.text);
    return NULL;
}

const char *keep_cidr(const struct value_reader *r, const struct key *k, const struct node *n)
{
    struct err err;
    char out[URL_CIDR_BYTES];
    if (url_parse_cidr(out, n->text.at, &err)) {
        node_error(r->d, n, NULL, "%s", err.text);
        return NULL;
    }
    const char *slash = strchr(n->text.at, '/');
    if (slash && strncmp(out, n->text.at, (size_t)(slash - n->text.at) + 1) != 0 &&
        !strchr(n->text.at, ':'))
        node_warning(r->d, n, arena_printf(r->d->arena, "write \"%s\"", out),
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

const char *keep_header_name(const struct value_reader *r, const struct key *k,
                             const struct node *n)
{
    if (is_header_name(n->text))
        return n->text.at;
    node_error(r->d, n, NULL, "\"%.60s\" is not the name of a header", n->text.at);
    return NULL;
}

/* Those that say where a message ends or belong to one connection are made anew on each side: an
 * edit would desynchronise the two. */
const char *keep_edited_name(const struct value_reader *r, const struct key *k,
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
    for (const char *p = n->text.at; (p = strstr(p, "${")); p++) {
        struct view name = {p + 2, strcspn(p + 2, "}")};
        struct suggest s = {.wanted = name};
        bool found = false;
        for (size_t i = 0; env_request_variables[i]; i++) {
            found |= view_equal(name, view_of(env_request_variables[i]));
            suggest_consider(&s, view_of(env_request_variables[i]));
        }
        struct view best = suggest_best(&s);
        if (found && name.at[name.len] == '}')
            continue;
        if (name.at[name.len] == '\0')
            node_error(r->d, n, NULL, "\"${\" without \"}\"");
        else
            node_error(r->d, n,
                       best.len
                           ? arena_printf(r->d->arena, "did you mean \"${%.*s}\"?", VIEW_ARG(best))
                           : "there are client_ip, request_id, host and route",
                       "no request has a \"%.*s\"", (int)MIN(name.len, 60), name.at);
        return false;
    }
    return true;
}

const char *keep_header_value(const struct value_reader *r, const struct node *n)
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

/* ---- methods ---- */

/* What the data plane can tell apart. Others in capitals go to routes that list none. */
static const char *const methods[] = {
    "GET",       "HEAD",       "POST",        "PUT",      "DELETE", "OPTIONS",  "PATCH",
    "TRACE",     "ACL",        "BIND",        "CHECKOUT", "COPY",   "LINK",     "LOCK",
    "MERGE",     "MKACTIVITY", "MKCALENDAR",  "MKCOL",    "MOVE",   "M-SEARCH", "NOTIFY",
    "PROPFIND",  "PROPPATCH",  "PURGE",       "REBIND",   "REPORT", "SEARCH",   "SOURCE",
    "SUBSCRIBE", "UNBIND",     "UNSUBSCRIBE", "UNLINK",   "UNLOCK",
};

const char *keep_method(const struct value_reader *r, const struct key *k, const struct node *n)
{
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
        node_error(r->d, n,
                   best.len ? arena_printf(r->d->arena, "did you mean \"%.*s\"?", VIEW_ARG(best))
                            : "only a route without \"methods\" takes others",
                   "\"%.60s\" is not a method that can be listed", n->text.at);
    return NULL;
}
