#include "controlplane/config/env.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "controlplane/config/suggest.h"

#define NAME_MAX_BYTES 128

const char *const env_request_variables[] = {"client_ip", "request_id", "host", "route", NULL};

struct out {
    char *at; /* NULL while measuring */
    size_t len;
    bool keep_request_variables;
};

static void put(struct out *o, struct view v)
{
    if (o->at && v.len > 0)
        memcpy(o->at + o->len, v.at, v.len);
    o->len += v.len;
}

static size_t name_length(struct view v)
{
    size_t n = 0;
    while (n < v.len && (isalpha((unsigned char)v.at[n]) || v.at[n] == '_' ||
                         (n > 0 && isdigit((unsigned char)v.at[n]))))
        n++;
    return n;
}

static bool is_request_variable(const char *name)
{
    for (size_t i = 0; env_request_variables[i]; i++)
        if (strcmp(name, env_request_variables[i]) == 0)
            return true;
    return false;
}

/* In the value of a header what is nearly a variable of the request was meant to be one. */
static struct view nearest_request_variable(const char *name)
{
    struct suggest near = {.wanted = view_of(name)};
    for (size_t i = 0; env_request_variables[i]; i++)
        suggest_consider(&near, view_of(env_request_variables[i]));
    return suggest_best(&near);
}

static void unset(const char *name, bool in_header, struct env_fault *f)
{
    struct err *advice = &f->advice;
    *advice->text = '\0'; /* of a "$HOME" before it */
    struct view near = in_header ? nearest_request_variable(name) : (struct view){NULL, 0};
    if (near.len > 0)
        snprintf(advice->text, sizeof(advice->text), "did you mean \"${%.*s}\"?", VIEW_ARG(near));
    else if (is_request_variable(name))
        snprintf(advice->text, sizeof(advice->text),
                 "outside header values it must be set, or have a default: ${%s:-default}", name);
    if (!*advice->text)
        snprintf(advice->text, sizeof(advice->text), "set it, or write ${%s:-default}", name);
    err_set(&f->why, "environment variable %s is not set", name);
}

/* `v` begins behind "${". Returns what was read of it, "}" included; 0 with a fault if it is wrong.
 */
static size_t expand_one(struct out *o, struct view v, struct env_fault *f)
{
    size_t len = name_length(v);
    const char *close = memchr(v.at, '}', v.len);
    f->piece = (struct view){v.at - 2, v.len + 2};
    if (!close) {
        snprintf(f->advice.text, sizeof(f->advice.text), "write $$ for a dollar");
        err_set(&f->why, "\"${\" without \"}\"");
        return 0;
    }
    struct view inside = {v.at, (size_t)(close - v.at)};
    f->piece.len = inside.len + 3;
    bool has_default = len + 2 <= inside.len && memcmp(inside.at + len, ":-", 2) == 0;
    struct view preset = {inside.at + len + 2, has_default ? inside.len - len - 2 : 0};
    if (len == 0 || len >= NAME_MAX_BYTES || (len != inside.len && !has_default) ||
        memchr(inside.at, '$', inside.len)) {
        snprintf(f->advice.text, sizeof(f->advice.text),
                 "write ${NAME} or ${NAME:-default}, or $$ for a dollar");
        err_set(&f->why, "\"${%.*s}\" is not a variable", (int)MIN(inside.len, 60), inside.at);
        return 0;
    }

    char name[NAME_MAX_BYTES];
    memcpy(name, inside.at, len);
    name[len] = '\0';
    const char *value = getenv(name);
    if (!value && !has_default && o->keep_request_variables && is_request_variable(name)) {
        put(o, (struct view){v.at - 2, inside.len + 3});
        return inside.len + 1;
    }
    if (!value && !has_default) {
        unset(name, o->keep_request_variables, f);
        return 0;
    }
    put(o, has_default && (!value || !*value) ? preset : view_of(value));
    return inside.len + 1;
}

static int expand(struct out *o, struct view text, struct env_fault *f)
{
    for (size_t i = 0; i < text.len;) {
        const char *dollar = memchr(text.at + i, '$', text.len - i);
        size_t plain = dollar ? (size_t)(dollar - text.at) - i : text.len - i;
        put(o, (struct view){text.at + i, plain});
        i += plain;
        if (!dollar)
            break;
        struct view rest = {text.at + i + 1, text.len - i - 1};
        if (rest.len > 0 && rest.at[0] == '{') {
            size_t n = expand_one(o, (struct view){rest.at + 1, rest.len - 1}, f);
            if (n == 0)
                return -1;
            i += 2 + n;
            continue;
        }
        put(o, (struct view){"$", 1});
        bool doubled = rest.len > 0 && rest.at[0] == '$';
        int name = doubled ? 0 : (int)MIN(name_length(rest), NAME_MAX_BYTES);
        if (name > 0)
            snprintf(f->advice.text, sizeof(f->advice.text),
                     "write ${%.*s} for the variable, or $$ for a dollar", name, rest.at);
        i += doubled ? 2 : 1;
    }
    return 0;
}

struct view env_expand(struct arena *a, struct view text, bool keep_request_variables,
                       struct env_fault *fault)
{
    struct out o = {NULL, 0, keep_request_variables};
    *fault->advice.text = '\0';
    if (expand(&o, text, fault))
        return (struct view){NULL, 0};
    o = (struct out){arena_alloc(a, o.len + 1), 0, keep_request_variables};
    if (expand(&o, text, fault))
        return (struct view){NULL, 0};
    return (struct view){o.at, o.len};
}
