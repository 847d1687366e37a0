#include "controlplane/ctl/show.h"

#include <string.h>

#include "controlplane/ctl/print.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* What the words of the API mean to whoever looks at the table. */
static enum tint tint_of(const char *word)
{
    static const struct {
        const char *word;
        enum tint tint;
    } words[] = {
        {"in_sync", TINT_GOOD},  {"pending", TINT_WARN},   {"refused", TINT_BAD},
        {"up", TINT_GOOD},       {"healthy", TINT_GOOD},   {"down", TINT_BAD},
        {"unhealthy", TINT_BAD}, {"unknown", TINT_WARN},   {"closed", TINT_GOOD},
        {"open", TINT_BAD},      {"half_open", TINT_WARN}, {"draining", TINT_WARN},
    };
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].tint;
    return TINT_NONE;
}

static void add_value(struct print_table *t, const json_t *row, const char *key)
{
    char room[PRINT_VALUE_BYTES];
    const char *text = print_value(row, key, room);
    print_table_cell(t, tint_of(text), text);
}

static void add_bytes(struct print_table *t, const json_t *row, const char *key)
{
    char room[PRINT_VALUE_BYTES] = "";
    const json_t *v = json_object_get(row, key);
    if (json_is_number(v))
        print_bytes(room, json_number_value(v));
    print_table_cell(t, TINT_NONE, room);
}

static void add_microseconds(struct print_table *t, const json_t *row, const char *key)
{
    char room[PRINT_VALUE_BYTES] = "";
    const json_t *v = json_object_get(row, key);
    if (json_is_number(v))
        print_microseconds(room, json_number_value(v));
    print_table_cell(t, TINT_NONE, room);
}

static void write_and_free(struct print_table *t, FILE *out, bool color)
{
    print_table_write(t, out, color);
    print_table_free(&t);
}

/* ---- data planes, status ---- */

void show_dataplanes(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"DATA PLANE",  "ROLE",     "STATE",   "GENERATION",
                                         "VERSION",     "PID",      "WORKERS", "CONNECTED",
                                         "CONNECTIONS", "REQUESTS", "MEMORY",  "REASON"};
    static const char *const keys[] = {
        "name", "role",    "state",           "generation",         "version",
        "pid",  "workers", "connected_since", "active_connections", "requests_total"};
    const json_t *planes = json_object_get(document, "dataplanes");
    if (json_array_size(planes) == 0) {
        print_tinted(out, color, TINT_WARN, "no data plane is connected\n");
        return;
    }
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(planes); i++) {
        const json_t *plane = json_array_get(planes, i);
        for (size_t k = 0; k < COUNT_OF(keys); k++)
            add_value(t, plane, keys[k]);
        add_bytes(t, plane, "rss_bytes");
        add_value(t, plane, "reason");
    }
    write_and_free(t, out, color);
}

static void show_last_reload(const json_t *reload, FILE *out, bool color)
{
    char at[PRINT_VALUE_BYTES];
    if (!json_is_object(reload))
        return;
    bool failed = json_is_false(json_object_get(reload, "ok"));
    fputs("last reload: ", out);
    print_tinted(out, color, failed ? TINT_BAD : TINT_GOOD, failed ? "refused" : "accepted");
    const char *when = print_value(reload, "at", at);
    if (*when) {
        fputs(" at ", out);
        print_text(out, when);
    }
    const char *message = text_of(reload, "message");
    if (*message) {
        fputs(": ", out);
        print_text(out, message);
    }
    putc('\n', out);
}

static void show_config(const json_t *config, FILE *out, bool color)
{
    static const char *const facts[][2] = {
        {" from ", "source"}, {", by ", "origin"}, {", in force since ", "since"}};
    static const char *const counts[][2] = {
        {"", "routes"}, {", ", "backends"}, {", ", "endpoints"}};
    char room[PRINT_VALUE_BYTES];
    fputs("generation ", out);
    print_tinted(out, color, TINT_STRONG, print_value(config, "generation", room));
    for (size_t i = 0; i < COUNT_OF(facts); i++) {
        const char *text = print_value(config, facts[i][1], room);
        if (*text) {
            fputs(facts[i][0], out);
            print_text(out, text);
        }
    }
    putc('\n', out);
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        fputs(counts[i][0], out);
        print_text(out, print_value(config, counts[i][1], room));
        fprintf(out, " %s", counts[i][1]);
    }
    putc('\n', out);
    show_last_reload(json_object_get(config, "last_reload"), out, color);
    if (*text_of(config, "next_start")) {
        fputs("next start: ", out);
        print_text(out, text_of(config, "next_start"));
        putc('\n', out);
    }
}

/* One line for endpoints as a whole, one for each order of an operator. */
static void show_health(const json_t *document, FILE *out, bool color)
{
    static const struct {
        const char *key, *words;
        enum tint tint;
    } counts[] = {{"up", "up", TINT_NONE},
                  {"down", "down", TINT_BAD},
                  {"unknown", "not checked yet", TINT_WARN},
                  {"draining", "draining", TINT_WARN},
                  {"routes_without_backend", "routes without a healthy backend", TINT_BAD}};
    const json_t *health = json_object_get(document, "health");
    const json_t *overrides = json_object_get(document, "overrides");
    char text[64], room[PRINT_VALUE_BYTES];
    if (json_is_object(health))
        fputs("endpoints: ", out);
    for (size_t i = 0; json_is_object(health) && i < COUNT_OF(counts); i++) {
        json_int_t n = json_integer_value(json_object_get(health, counts[i].key));
        if (n == 0 && i > 0)
            continue;
        snprintf(text, sizeof(text), "%s%" JSON_INTEGER_FORMAT " %s", i > 0 ? ", " : "", n,
                 counts[i].words);
        print_tinted(out, color, counts[i].tint, text);
    }
    if (json_is_object(health))
        putc('\n', out);
    for (size_t i = 0; i < json_array_size(overrides); i++) {
        const json_t *one = json_array_get(overrides, i);
        const char *route = text_of(one, "route");
        fputs("ordered: ", out);
        print_text(out, text_of(one, "address"));
        if (json_is_true(json_object_get(one, "draining")))
            print_tinted(out, color, TINT_WARN, " draining");
        if (json_is_integer(json_object_get(one, "weight")))
            fprintf(out, " weight %s", print_value(one, "weight", room));
        fputs(*route ? " in route " : " in every route", out);
        print_text(out, route);
        fputs(", since ", out);
        print_text(out, text_of(one, "since"));
        putc('\n', out);
    }
}

void show_status(const json_t *document, FILE *out, bool color)
{
    char room[PRINT_VALUE_BYTES];
    const json_t *config = json_object_get(document, "config");
    fputs("gwp-controlplane ", out);
    print_text(out, print_value(document, "version", room));
    fputs(", protocol ", out);
    print_text(out, print_value(document, "protocol", room));
    print_seconds(room, json_number_value(json_object_get(document, "uptime_seconds")));
    fprintf(out, ", up %s\n", room);
    if (json_integer_value(json_object_get(config, "generation")) > 0)
        show_config(config, out, color);
    else {
        print_tinted(out, color, TINT_WARN, "no configuration is in force yet\n");
        show_last_reload(json_object_get(config, "last_reload"), out, color);
    }
    show_health(document, out, color);
    putc('\n', out);
    show_dataplanes(document, out, color);
}

/* ---- routes, backends ---- */

/* "GET,POST" or "all". */
static void add_methods(struct print_table *t, const json_t *methods)
{
    char text[256] = "";
    for (size_t i = 0, n = 0; i < json_array_size(methods) && n < sizeof(text); i++) {
        const char *method = json_string_value(json_array_get(methods, i));
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? "," : "",
                              method ? method : "?");
    }
    print_table_cell(t, TINT_NONE, *text ? text : "all");
}

static void add_timeout(struct print_table *t, const json_t *route)
{
    char room[PRINT_VALUE_BYTES], text[PRINT_VALUE_BYTES + 2] = "";
    const char *seconds = print_value(route, "timeout_seconds", room);
    if (*seconds)
        snprintf(text, sizeof(text), "%s s", seconds);
    print_table_cell(t, TINT_NONE, text);
}

void show_routes(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"ROUTE",     "HOST",      "PREFIX",  "METHODS",
                                         "STRIP",     "ALGORITHM", "TIMEOUT", "BACKENDS",
                                         "ENDPOINTS", "REQUESTS",  "PLACE"};
    const json_t *routes = json_object_get(document, "routes");
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(routes); i++) {
        const json_t *route = json_array_get(routes, i);
        const char *host = text_of(route, "host");
        add_value(t, route, "name");
        print_table_cell(t, TINT_NONE, *host ? host : "any");
        add_value(t, route, "path_prefix");
        add_methods(t, json_object_get(route, "methods"));
        add_value(t, route, "strip_prefix");
        add_value(t, route, "algorithm");
        add_timeout(t, route);
        add_value(t, route, "backends");
        add_value(t, route, "endpoints");
        add_value(t, route, "requests_total");
        add_value(t, route, "place");
    }
    write_and_free(t, out, color);
}

/* "10", or "3 (10)" while an operator's 3 counts instead. */
static void add_weight(struct print_table *t, const json_t *backend, const json_t *endpoint)
{
    char configured[PRINT_VALUE_BYTES], ordered[PRINT_VALUE_BYTES];
    char text[2 * PRINT_VALUE_BYTES + 8];
    const char *now = print_value(endpoint, "weight_override", ordered);
    const char *weight = print_value(backend, "weight", configured);
    bool is_overridden = json_is_integer(json_object_get(endpoint, "weight_override"));
    if (is_overridden)
        snprintf(text, sizeof(text), "%s (%s)", now, weight);
    print_table_cell(t, is_overridden ? TINT_WARN : TINT_NONE, is_overridden ? text : weight);
}

/* "connection refused, 0.2 ms". */
static void add_check(struct print_table *t, const json_t *endpoint)
{
    char took[PRINT_VALUE_BYTES], text[256] = "";
    const char *reason = text_of(endpoint, "reason");
    const json_t *checked = json_object_get(endpoint, "checked");
    print_microseconds(took, json_number_value(json_object_get(endpoint, "check_seconds")) * 1e6);
    if (*reason)
        snprintf(text, sizeof(text), "%.180s, %s", reason, took);
    else if (json_is_boolean(checked))
        snprintf(text, sizeof(text), "%s", json_is_true(checked) ? "none yet" : "off");
    print_table_cell(t, TINT_NONE, text);
}

/* `endpoint` NULL: the backend's name has no address yet. */
static void add_endpoint(struct print_table *t, const json_t *route, const json_t *backend,
                         const json_t *endpoint)
{
    static const char *const keys[] = {"breaker", "active", "requests", "failures"};
    add_value(t, route, "name");
    add_value(t, backend, "url");
    add_weight(t, backend, endpoint);
    if (endpoint)
        add_value(t, endpoint, "address");
    else
        print_table_cell(t, TINT_BAD, "no address");
    if (json_is_true(json_object_get(endpoint, "draining")))
        print_table_cell(t, TINT_WARN, "draining");
    else
        add_value(t, endpoint, "health");
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        add_value(t, endpoint, keys[i]);
    add_check(t, endpoint);
}

void show_backends(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"ROUTE",    "BACKEND",   "WEIGHT", "ENDPOINT",
                                         "HEALTH",   "BREAKER",   "ACTIVE", "REQUESTS",
                                         "FAILURES", "LAST CHECK"};
    const json_t *routes = json_object_get(document, "routes");
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t r = 0; r < json_array_size(routes); r++) {
        const json_t *route = json_array_get(routes, r);
        const json_t *backends = json_object_get(route, "backends");
        for (size_t b = 0; b < json_array_size(backends); b++) {
            const json_t *backend = json_array_get(backends, b);
            const json_t *endpoints = json_object_get(backend, "endpoints");
            size_t count = json_array_size(endpoints);
            if (count == 0)
                add_endpoint(t, route, backend, NULL);
            for (size_t e = 0; e < count; e++)
                add_endpoint(t, route, backend, json_array_get(endpoints, e));
        }
    }
    write_and_free(t, out, color);
}

/* ---- orders ---- */

void show_replaced(const json_t *document, FILE *out, bool color)
{
    char before[PRINT_VALUE_BYTES], after[PRINT_VALUE_BYTES];
    print_text(out, text_of(document, "name"));
    fprintf(out, ": process %s serves, ", print_value(document, "new_pid", after));
    fprintf(out, "process %s finishes what it has under way\n",
            print_value(document, "old_pid", before));
}

void show_ordered(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"ROUTE", "BACKEND", "DRAINING", "WEIGHT"};
    const json_t *targets = json_object_get(document, "targets");
    const char *note = text_of(document, "note");
    print_text(out, text_of(document, "address"));
    if (json_array_size(targets) == 0) {
        fputs(" is not in use; nothing is ordered of it any more\n", out);
    } else {
        fputs(" as the data planes have been told now\n", out);
        struct print_table *t = print_table_new(titles, COUNT_OF(titles));
        for (size_t i = 0; i < json_array_size(targets); i++) {
            const json_t *target = json_array_get(targets, i);
            bool is_draining = json_is_true(json_object_get(target, "draining"));
            add_value(t, target, "route");
            add_value(t, target, "url");
            print_table_cell(t, is_draining ? TINT_WARN : TINT_NONE, is_draining ? "yes" : "no");
            add_weight(t, target, target);
        }
        write_and_free(t, out, color);
    }
    if (*note) {
        print_tinted(out, color, TINT_WARN, note);
        putc('\n', out);
    }
}

void show_breaker_reset(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"ROUTE", "BACKEND"};
    const json_t *targets = json_object_get(document, "targets");
    fputs("the breakers of ", out);
    print_text(out, text_of(document, "address"));
    fputs(" are closed: the data planes have been told\n", out);
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(targets); i++) {
        add_value(t, json_array_get(targets, i), "route");
        add_value(t, json_array_get(targets, i), "url");
    }
    write_and_free(t, out, color);
}

/* ---- generations ---- */

/* "push by root", "rollback to 5 by root", "file". */
static void add_origin(struct print_table *t, const json_t *one)
{
    char text[300], again[PRINT_VALUE_BYTES];
    const char *user = text_of(one, "user"), *origin = text_of(one, "origin");
    bool is_again = json_is_integer(json_object_get(one, "again"));
    snprintf(text, sizeof(text), "%.40s%s%s%s%.150s", origin, is_again ? " to " : "",
             is_again ? print_value(one, "again", again) : "", *user ? " by " : "", user);
    print_table_cell(t, TINT_NONE, text);
}

void show_history(const json_t *document, FILE *out, bool color)
{
    static const char *const titles[] = {"GENERATION", "AT", "ORIGIN", "SOURCE", "HASH", "MESSAGE"};
    const json_t *list = json_object_get(document, "generations");
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        char room[PRINT_VALUE_BYTES], number[PRINT_VALUE_BYTES + 16];
        bool is_now = json_is_true(json_object_get(one, "in_force"));
        snprintf(number, sizeof(number), "%s%s", print_value(one, "generation", room),
                 is_now ? " in force" : "");
        print_table_cell(t, is_now ? TINT_GOOD : TINT_NONE, number);
        add_value(t, one, "at");
        add_origin(t, one);
        add_value(t, one, "source");
        add_value(t, one, "hash");
        add_value(t, one, "message");
    }
    write_and_free(t, out, color);
}

void show_entry(const json_t *document, FILE *out, bool color)
{
    json_t *list = json_pack("{s:[O]}", "generations", document);
    show_history(list, out, color);
    json_decref(list);
}

/* One line each, with the place where it stands. */
void show_changes(const json_t *document, FILE *out, bool color)
{
    const json_t *list = json_object_get(document, "changes");
    char room[PRINT_VALUE_BYTES];
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *kind = text_of(one, "change"), *place = text_of(one, "to_place");
        enum tint tint = strcmp(kind, "added") == 0     ? TINT_GOOD
                         : strcmp(kind, "removed") == 0 ? TINT_BAD
                                                        : TINT_WARN;
        print_tinted(out, color, tint, text_of(one, "text"));
        place = *place ? place : text_of(one, "from_place");
        fputs(*place ? "  (" : "", out);
        print_text(out, place);
        fputs(*place ? ")\n" : "\n", out);
    }
    if (json_integer_value(json_object_get(document, "more")) > 0)
        fprintf(out, "%s more changes\n", print_value(document, "more", room));
    if (json_array_size(list) == 0)
        fputs("they mean the same\n", out);
}

/* ---- push ---- */

bool show_all_accepted(const json_t *document)
{
    const json_t *planes = json_object_get(document, "dataplanes");
    for (size_t i = 0; i < json_array_size(planes); i++)
        if (!json_is_true(json_object_get(json_array_get(planes, i), "accepted")))
            return false;
    return true;
}

static void show_answers(const json_t *planes, FILE *out, bool color)
{
    static const char *const titles[] = {"DATA PLANE", "ACCEPTED", "COMPILED", "SWAPPED", "REASON"};
    if (json_array_size(planes) == 0)
        return;
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(planes); i++) {
        const json_t *plane = json_array_get(planes, i);
        const json_t *accepted = json_object_get(plane, "accepted");
        add_value(t, plane, "name");
        if (json_is_boolean(accepted))
            print_table_cell(t, json_is_true(accepted) ? TINT_GOOD : TINT_BAD,
                             json_is_true(accepted) ? "yes" : "no");
        else
            print_table_cell(t, TINT_WARN, "no answer yet");
        add_microseconds(t, json_is_null(accepted) ? NULL : plane, "compile_us");
        add_microseconds(t, json_is_null(accepted) ? NULL : plane, "swap_us");
        add_value(t, plane, "reason");
    }
    write_and_free(t, out, color);
}

static void show_list(const json_t *list, FILE *out)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        fputs("  ", out);
        print_text(out, text ? text : "?");
        putc('\n', out);
    }
}

static bool is_pending(const json_t *document)
{
    const json_t *planes = json_object_get(document, "dataplanes");
    for (size_t i = 0; i < json_array_size(planes); i++)
        if (json_is_null(json_object_get(json_array_get(planes, i), "accepted")))
            return true;
    return false;
}

/* dry_run | unchanged | pending | sentence
 *   yes   |   either  | either  | would be taken; nothing was changed
 *   no    |   yes     | either  | nothing changed: generation 6 stays in force
 *   no    |   no      |   yes   | generation 7 is sent; 6 stays in force until ...
 *   no    |   no      |   no    | generation 7 is in force, it was 6
 */
static void show_outcome(const json_t *document, FILE *out)
{
    char now[PRINT_VALUE_BYTES], before[PRINT_VALUE_BYTES];
    const char *generation = print_value(document, "generation", now);
    const char *previous = print_value(document, "previous", before);
    if (json_is_true(json_object_get(document, "dry_run")))
        fputs("the configuration is valid and would be taken; nothing was changed\n", out);
    else if (json_is_true(json_object_get(document, "unchanged")))
        fprintf(out, "nothing changed: generation %s stays in force\n", generation);
    else if (is_pending(document))
        fprintf(out,
                "generation %s is sent; %s stays in force until every data plane has taken it\n",
                generation, previous);
    else if (*previous && strcmp(previous, "0") != 0)
        fprintf(out, "generation %s is in force, it was %s\n", generation, previous);
    else
        fprintf(out, "generation %s is in force\n", generation);
}

void show_push(const json_t *document, FILE *out, bool color)
{
    show_outcome(document, out);
    show_list(json_object_get(document, "changes"), out);
    show_answers(json_object_get(document, "dataplanes"), out, color);
    const char *note = text_of(document, "note");
    if (*note) {
        print_text(out, note);
        putc('\n', out);
    }
}

static void show_diagnostic(const json_t *d, FILE *out, bool color)
{
    char line[PRINT_VALUE_BYTES], column[PRINT_VALUE_BYTES];
    const char *severity = text_of(d, "severity"), *suggestion = text_of(d, "suggestion");
    print_text(out, text_of(d, "source"));
    fprintf(out, ":%s:%s: ", print_value(d, "line", line), print_value(d, "column", column));
    print_tinted(out, color, strcmp(severity, "warning") == 0 ? TINT_WARN : TINT_BAD, severity);
    fputs(": ", out);
    print_text(out, text_of(d, "message"));
    if (*suggestion) {
        fputs(": ", out);
        print_text(out, suggestion);
    }
    putc('\n', out);
}

void show_diagnostics(const json_t *document, FILE *out, bool color)
{
    const char *text = text_of(document, "text");
    if (*text) {
        print_text(out, text);
        if (text[strlen(text) - 1] != '\n')
            putc('\n', out);
        return;
    }
    const json_t *list = json_object_get(document, "diagnostics");
    if (!list)
        list = json_object_get(document, "warnings");
    for (size_t i = 0; i < json_array_size(list); i++)
        show_diagnostic(json_array_get(list, i), out, color);
}

/* ---- events and logs ---- */

void show_events(const json_t *document, FILE *out, bool color)
{
    const json_t *list = json_object_get(document, "events");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *level = text_of(one, "level");
        enum tint tint = strcmp(level, "error") == 0  ? TINT_BAD
                         : strcmp(level, "warn") == 0 ? TINT_WARN
                                                      : TINT_NONE;
        char kind[PRINT_VALUE_BYTES];
        snprintf(kind, sizeof(kind), "%-8.20s", text_of(one, "kind"));
        print_text(out, text_of(one, "at"));
        putc(' ', out);
        print_tinted(out, color, tint, kind);
        putc(' ', out);
        print_text(out, text_of(one, "message"));
        putc('\n', out);
    }
}

void show_log_levels(const json_t *document, FILE *out, bool color)
{
    static const char *const programs[] = {"controlplane", "dataplane"};
    for (size_t i = 0; i < COUNT_OF(programs); i++) {
        const char *ordered = text_of(document, programs[i]);
        fprintf(out, "%-13s ", programs[i]);
        print_tinted(out, color, *ordered ? TINT_WARN : TINT_NONE,
                     *ordered ? ordered : text_of(document, "configured"));
        fputs(*ordered ? " (ordered; configured: " : " (as configured)\n", out);
        print_text(out, *ordered ? text_of(document, "configured") : "");
        fputs(*ordered ? ")\n" : "", out);
    }
}
