#include "controlplane/ctl/limit_commands.h"

#include <string.h>

#include "controlplane/ctl/call.h"
#include "controlplane/ctl/print.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* ---- limits ---- */

static void add_count(struct print_table *t, json_int_t n, enum tint tint)
{
    char text[32];
    snprintf(text, sizeof(text), "%lld", (long long)n);
    print_table_cell(t, n > 0 ? tint : TINT_NONE, n > 0 ? text : "-");
}

static void add_keys(struct print_table *t, const json_t *route, const char *list,
                     const char *called)
{
    const json_t *keys = json_object_get(route, list);
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *key = json_array_get(keys, i);
        print_table_cell(t, TINT_NONE, text_of(route, "route"));
        print_table_cell(t, TINT_NONE, called);
        print_table_cell(t, TINT_NONE, text_of(key, "key"));
        add_count(t, number_of(key, "requests"), TINT_NONE);
        add_count(t, number_of(key, "limited"), TINT_WARN);
    }
}

/* Not every data plane has answered: then this is not all. */
static void note_silent(const json_t *document, FILE *out, bool color)
{
    const json_t *planes = json_object_get(document, "dataplanes");
    json_int_t asked = number_of(planes, "asked"), answered = number_of(planes, "answered");
    char text[100];
    if (asked > 0 && asked == answered)
        return;
    snprintf(text, sizeof(text), "%lld of %lld data planes answered\n", (long long)answered,
             (long long)asked);
    print_tinted(out, color, TINT_WARN, text);
}

static void show(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"ROUTE", "LIST", "KEY", "REQUESTS", "LIMITED"};
    const json_t *routes = json_object_get(document, "routes");
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(routes); i++) {
        add_keys(t, json_array_get(routes, i), "busiest", "busiest");
        add_keys(t, json_array_get(routes, i), "most_limited", "most limited");
    }
    if (json_array_size(routes) > 0)
        print_table_write(t, out, color);
    else
        fputs("nobody was counted by a rate limit in the last minutes\n", out);
    print_table_free(&t);
    if (is_true(document, "truncated"))
        print_tinted(out, color, TINT_WARN, "there are more routes: name one\n");
    note_silent(document, out, color);
}

int limit_commands_show(const struct invocation *in)
{
    char route[1600], target[1700] = "/api/v1/limits/clients";
    if (in->operands[0]) {
        if (!client_encode(route, sizeof(route), in->operands[0]))
            return call_complain(EXIT_USAGE, "the name of the route is too long");
        snprintf(target, sizeof(target), "/api/v1/limits/clients?route=%s", route);
    }
    return call_get(in, target, show);
}

/* ---- limits reset ---- */

static void show_forgotten(const json_t *document, FILE *out, bool color)
{
    json_int_t count = number_of(document, "forgotten");
    print_text(out, text_of(document, "route"));
    fprintf(out, ": %lld key%s forgotten\n", (long long)count, count == 1 ? "" : "s");
    if (is_true(document, "redis_away"))
        print_tinted(
            out, color, TINT_WARN,
            "what Redis holds could not be forgotten: it is away, or was not told which\n");
    note_silent(document, out, color);
}

int limit_commands_reset(const struct invocation *in)
{
    char route[1600], key[3200] = "", target[5000];
    if (!client_encode(route, sizeof(route), in->operands[0]) ||
        (in->operands[1] && !client_encode(key, sizeof(key), in->operands[1])))
        return call_complain(EXIT_USAGE, "the name of the route or the key is too long");
    snprintf(target, sizeof(target), "/api/v1/limits/reset?route=%s%s%s", route,
             in->operands[1] ? "&key=" : "", key);
    const struct client_request request = {
        .method = "POST", .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show_forgotten);
}
