#include "controlplane/ctl/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/ctl/print.h"
#include "controlplane/ctl/show.h"

#define ANSWER_SECONDS 10          /* for what needs no data plane */
#define MAX_FILE_BYTES (16u << 20) /* of a configuration that is pushed */

typedef void show_fn(const json_t *document, FILE *out, bool color);

static int complain(enum exit_code code, const char *text)
{
    fputs("gwpctl: ", stderr);
    print_text(stderr, text);
    putc('\n', stderr);
    return code;
}

/* ---- asking ---- */

/* Asks and reads the document. NULL: `err` says why there is none. */
static json_t *ask(const struct invocation *in, const struct client_request *request, int *status,
                   struct err *err)
{
    struct client_response response;
    json_error_t problem;
    if (client_call(&in->client, request, &response, err) < 0)
        return NULL;
    json_t *document = json_loadb(response.body, response.len, 0, &problem);
    *status = response.status;
    if (!document)
        err_set(err, "what answers on %s is not a control plane: status %d and no JSON (%s)",
                in->admin, response.status, problem.text);
    client_response_fini(&response);
    return document;
}

/* The control plane says no, and why. Something else that happens to speak JSON is not taken for
 * one. */
static int show_refusal(const struct invocation *in, const json_t *document, int status)
{
    struct err err;
    const char *message = json_string_value(json_object_get(document, "message"));
    if (!json_is_string(json_object_get(document, "error"))) {
        err_set(&err, "what answers on %s is not a control plane: status %d without a reason",
                in->admin, status);
        return complain(EXIT_UNREACHABLE, err.text);
    }
    if (in->output == OUTPUT_JSON)
        print_json(stdout, document);
    show_diagnostics(document, stderr, in->color_err);
    const json_t *planes = json_object_get(document, "dataplanes");
    for (size_t i = 0; i < json_array_size(planes); i++) {
        const json_t *plane = json_array_get(planes, i);
        const char *name = json_string_value(json_object_get(plane, "name"));
        const char *reason = json_string_value(json_object_get(plane, "reason"));
        if (reason && *reason) {
            err_set(&err, "%s: %s", name ? name : "data plane", reason);
            complain(EXIT_NO, err.text);
        }
    }
    return complain(EXIT_NO, message && *message ? message : "the control plane refused");
}

static int ask_and_show(const struct invocation *in, const char *target, show_fn *show)
{
    struct err err;
    int status = 0;
    const struct client_request request = {
        .method = "GET", .target = target, .timeout_ms = ANSWER_SECONDS * 1000};
    json_t *document = ask(in, &request, &status, &err);
    if (!document)
        return complain(EXIT_UNREACHABLE, err.text);
    int code = EXIT_OK;
    if (status != 200)
        code = show_refusal(in, document, status);
    else if (in->output == OUTPUT_JSON)
        print_json(stdout, document);
    else
        show(document, stdout, in->color_out);
    json_decref(document);
    return code;
}

static int run_status(const struct invocation *in)
{
    return ask_and_show(in, "/api/v1/status", show_status);
}

static int run_backends(const struct invocation *in)
{
    return ask_and_show(in, "/api/v1/backends", show_backends);
}

static int run_routes(const struct invocation *in)
{
    return ask_and_show(in, "/api/v1/routes", show_routes);
}

static int run_dataplanes(const struct invocation *in)
{
    return ask_and_show(in, "/api/v1/dataplanes", show_dataplanes);
}

/* ---- changing ---- */

/* A change is answered once the data planes have: longer than they may take. */
static int change(const struct invocation *in, const char *target, struct view body)
{
    struct err err;
    int status = 0;
    const struct client_request request = {
        .method = "POST",
        .target = target,
        .content_type = body.at ? "application/yaml" : NULL,
        .body = body,
        .timeout_ms = (unsigned)((in->wait_seconds + ANSWER_SECONDS) * 1000),
    };
    json_t *document = ask(in, &request, &status, &err);
    if (!document)
        return complain(EXIT_UNREACHABLE, err.text);
    int code = EXIT_OK;
    if (status != 200) {
        code = show_refusal(in, document, status);
    } else {
        if (in->output == OUTPUT_JSON)
            print_json(stdout, document);
        else
            show_push(document, stdout, in->color_out);
        show_diagnostics(document, stderr, in->color_err);
        if (!show_all_accepted(document))
            code = complain(EXIT_NO, "not every data plane has accepted; gwpctl status tells more");
    }
    json_decref(document);
    return code;
}

/* The whole of a stream, which the caller frees. */
static char *read_all(FILE *in, size_t *len, struct err *err)
{
    size_t room = 65536;
    char *text = malloc(room);
    *len = 0;
    while (text && *len <= MAX_FILE_BYTES) {
        *len += fread(text + *len, 1, room - *len, in);
        if (*len < room)
            break;
        room *= 2;
        char *grown = realloc(text, room);
        if (!grown)
            free(text);
        text = grown;
    }
    if (text && !ferror(in) && *len <= MAX_FILE_BYTES)
        return text;
    if (!text)
        err_set(err, "does not fit into memory");
    else if (ferror(in))
        err_set_errno(err, "cannot be read");
    else
        err_set(err, "is larger than %u MiB", MAX_FILE_BYTES >> 20);
    free(text);
    return NULL;
}

static char *read_file(const char *path, size_t *len, struct err *err)
{
    struct err why;
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *in = is_stdin ? stdin : fopen(path, "re");
    if (!in) {
        err_set_errno(err, "%s cannot be read", path);
        return NULL;
    }
    char *text = read_all(in, len, &why);
    if (!text)
        err_set(err, "%s %s", is_stdin ? "standard input" : path, why.text);
    if (!is_stdin)
        fclose(in);
    return text;
}

static int run_push(const struct invocation *in)
{
    struct err err;
    char source[1024], target[1200];
    size_t len = 0;
    const char *base = strrchr(in->words[0], '/') ? strrchr(in->words[0], '/') + 1 : in->words[0];
    if (!client_encode(source, sizeof(source), strcmp(base, "-") == 0 ? "stdin" : base))
        return complain(EXIT_USAGE, "the name of the file is too long");
    snprintf(target, sizeof(target), "/api/v1/config?wait=%g&source=%s%s", in->wait_seconds, source,
             in->dry_run ? "&dry_run=1" : "");
    char *text = read_file(in->words[0], &len, &err);
    if (!text)
        return complain(EXIT_NO, err.text);
    int code = change(in, target, (struct view){text, len});
    free(text);
    return code;
}

static int run_reload(const struct invocation *in)
{
    return change(in, "/api/v1/reload", (struct view){NULL, 0});
}

/* ---- orders about endpoints ---- */

static int order_about(const struct invocation *in, const char *about, const char *method,
                       const char *what, const char *query)
{
    struct err err;
    int status = 0;
    char endpoint[400], route[1600] = "", target[2200];
    if (!client_encode(endpoint, sizeof(endpoint), about) ||
        (in->route && !client_encode(route, sizeof(route), in->route)))
        return complain(EXIT_USAGE, "the name of the endpoint or of the route is too long");
    snprintf(target, sizeof(target), "/api/v1/endpoints/%s/%s?%s%s%s", endpoint, what, query,
             in->route ? "&route=" : "", route);
    const struct client_request request = {
        .method = method, .target = target, .timeout_ms = ANSWER_SECONDS * 1000};
    json_t *document = ask(in, &request, &status, &err);
    if (!document)
        return complain(EXIT_UNREACHABLE, err.text);
    int code = EXIT_OK;
    if (status != 200)
        code = show_refusal(in, document, status);
    else if (in->output == OUTPUT_JSON)
        print_json(stdout, document);
    else
        show_ordered(document, stdout, in->color_out);
    json_decref(document);
    return code;
}

static int order(const struct invocation *in, const char *method, const char *what,
                 const char *query)
{
    return order_about(in, in->words[0], method, what, query);
}

static int run_drain(const struct invocation *in)
{
    return order(in, "POST", "drain", "");
}

static int run_undrain(const struct invocation *in)
{
    return order(in, "DELETE", "drain", "");
}

static int run_weight(const struct invocation *in)
{
    char query[48], *end;
    if (strcmp(in->words[1], "default") == 0)
        return order(in, "DELETE", "weight", "");
    long weight = strtol(in->words[1], &end, 10);
    if (end == in->words[1] || *end || weight < 1 || weight > 1000)
        return complain(EXIT_USAGE, "a weight is a number from 1 to 1000, or \"default\"");
    snprintf(query, sizeof(query), "weight=%ld", weight);
    return order(in, "POST", "weight", query);
}

static int run_breaker(const struct invocation *in)
{
    if (strcmp(in->words[0], "reset") != 0)
        return complain(EXIT_USAGE, "what can be done to a breaker is: reset");
    return order_about(in, in->words[1], "POST", "breaker/reset", "");
}

/* ---- offline ---- */

static json_t *diagnostic_document(const struct diagnostics *d, const struct diagnostic *one)
{
    return json_pack("{s:s, s:s?, s:i, s:i, s:i, s:s, s:s?}", "severity",
                     one->severity == SEVERITY_ERROR ? "error" : "warning", "source", d->source,
                     "line", (int)one->place.line, "column", (int)one->place.column, "length",
                     (int)one->length, "message", one->message, "suggestion", one->suggestion);
}

static void print_verdict(const struct diagnostics *d, bool is_valid)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->count; i++)
        json_array_append_new(list, diagnostic_document(d, &d->at[i]));
    json_t *document = json_pack("{s:b, s:o}", "valid", is_valid, "diagnostics", list);
    print_json(stdout, document);
    json_decref(document);
}

static int run_validate(const struct invocation *in)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *config = config_load_file(in->words[0], &d);
    bool is_valid = config != NULL;
    if (in->output == OUTPUT_JSON) {
        print_verdict(&d, is_valid);
    } else {
        diagnostics_print(&d, stderr, in->color_err);
        if (config) {
            size_t backends = 0;
            for (size_t i = 0; i < config->route_count; i++)
                backends += config->routes[i].backend_count;
            printf("%s is valid: %zu route%s, %zu backend%s\n", config->source, config->route_count,
                   config->route_count == 1 ? "" : "s", backends, backends == 1 ? "" : "s");
        }
    }
    config_free(&config);
    diagnostics_fini(&d);
    return is_valid ? EXIT_OK : EXIT_NO;
}

/* ---- the table ---- */

const struct command commands[] = {
    {"push config",
     "FILE [--dry-run] [--wait SECONDS]",
     "put a configuration in force",
     "Sends FILE (\"-\" is standard input) to the control plane, which checks it whole and hands "
     "it\n"
     "to every connected data plane. Prints the new generation and what changed. Exits with 0 "
     "only\n"
     "when every data plane has accepted; otherwise the old configuration stays in force and all\n"
     "errors are printed as file:line:column.\n"
     "\n"
     "  --dry-run          check it here and in the data planes, but change nothing\n"
     "  --wait SECONDS     how long the data planes may take (default 10)\n"
     "\n"
     "Examples:\n"
     "  gwpctl push config gateway.yaml\n"
     "  gwpctl push config gateway.yaml --dry-run\n"
     "  sed s/9001/9002/ gateway.yaml | gwpctl push config - --wait 30\n",
     {"a file"},
     OPTIONS_PUSH,
     false,
     run_push},
    {"validate",
     "FILE",
     "check a configuration without a control plane",
     "Reads FILE (\"-\" is standard input) and prints every error and warning with its line. Needs "
     "no\n"
     "running program; ${VAR} is taken from the environment of this command.\n"
     "\n"
     "Examples:\n"
     "  gwpctl validate gateway.yaml\n"
     "  gwpctl validate gateway.yaml -o json | jq '.diagnostics[].message'\n",
     {"a file"},
     OPTIONS_COMMON,
     true,
     run_validate},
    {"status",
     "",
     "show the configuration in force and the data planes",
     "Shows which configuration is in force since when, how the last reload went, and for each\n"
     "connected data plane whether it serves that configuration.\n"
     "\n"
     "Examples:\n"
     "  gwpctl status\n"
     "  gwpctl status -o json | jq .config.generation\n",
     {NULL},
     OPTIONS_COMMON,
     false,
     run_status},
    {"backends",
     "",
     "show every backend's endpoints with health and breaker",
     "Shows for each route the addresses that its backends have, whether they are healthy, what "
     "their\n"
     "circuit breakers do, and how many requests they had.\n"
     "\n"
     "Examples:\n"
     "  gwpctl backends\n"
     "  gwpctl --admin http://gateway-1:9090 backends\n",
     {NULL},
     OPTIONS_COMMON,
     false,
     run_backends},
    {"routes",
     "",
     "show the routes in force",
     "Shows the routes with what they match, where they stand in the file, and their requests so "
     "far.\n"
     "\n"
     "Examples:\n"
     "  gwpctl routes\n"
     "  gwpctl routes -o json | jq -r '.routes[] | select(.requests_total == 0) | .name'\n",
     {NULL},
     OPTIONS_COMMON,
     false,
     run_routes},
    {"dataplanes",
     "",
     "show the connected data planes",
     "Shows the data planes that are connected, the generation each serves and what it carries.\n"
     "\n"
     "Examples:\n"
     "  gwpctl dataplanes\n"
     "  watch gwpctl dataplanes\n",
     {NULL},
     OPTIONS_COMMON,
     false,
     run_dataplanes},
    {"drain",
     "ENDPOINT [--route ROUTE]",
     "send no new requests to an endpoint",
     "ENDPOINT is an address as gwpctl backends shows it. New requests go to the other endpoints "
     "at\n"
     "once; those under way are finished. It stays so, over restarts too, until gwpctl undrain.\n"
     "\n"
     "  --route ROUTE      only for this route (default: every one that uses the address)\n"
     "\n"
     "Examples:\n"
     "  gwpctl drain 10.0.0.7:8080\n"
     "  gwpctl drain 10.0.0.7:8080 --route users\n",
     {"an endpoint"},
     OPTIONS_ENDPOINT,
     false,
     run_drain},
    {"undrain",
     "ENDPOINT [--route ROUTE]",
     "let requests go to an endpoint again",
     "Takes a drain back. Without --route it takes back all of them, whatever route they are for.\n"
     "\n"
     "  --route ROUTE      only what was ordered for this route\n"
     "\n"
     "Examples:\n"
     "  gwpctl undrain 10.0.0.7:8080\n"
     "  gwpctl undrain 10.0.0.7:8080 --route users\n",
     {"an endpoint"},
     OPTIONS_ENDPOINT,
     false,
     run_undrain},
    {"weight",
     "ENDPOINT N|default [--route ROUTE]",
     "give an endpoint another weight",
     "N is 1 to 1000 and counts instead of the configured weight at once, over restarts too, "
     "until\n"
     "gwpctl weight ENDPOINT default. Algorithms that know no weights do not look at it.\n"
     "\n"
     "  --route ROUTE      only for this route (default: every one that uses the address)\n"
     "\n"
     "Examples:\n"
     "  gwpctl weight 10.0.0.7:8080 5\n"
     "  gwpctl weight 10.0.0.7:8080 default\n",
     {"an endpoint", "a weight"},
     OPTIONS_ENDPOINT,
     false,
     run_weight},
    {"breaker",
     "reset ENDPOINT [--route ROUTE]",
     "close an endpoint's circuit breaker",
     "Requests go to the endpoint again at once, and what its breaker has counted is forgotten. If "
     "it\n"
     "goes on failing, the breaker opens again as configured.\n"
     "\n"
     "  --route ROUTE      only for this route (default: every one that uses the address)\n"
     "\n"
     "Examples:\n"
     "  gwpctl breaker reset 10.0.0.7:8080\n"
     "  gwpctl breaker reset 10.0.0.7:8080 --route users\n",
     {"what to do", "an endpoint"},
     OPTIONS_ENDPOINT,
     false,
     run_breaker},
    {"reload",
     "",
     "read the control plane's own file again",
     "Tells the control plane to read its file now, as SIGHUP does. It does so by itself whenever "
     "the\n"
     "file changes; this command waits and tells how it went.\n"
     "\n"
     "Examples:\n"
     "  gwpctl reload\n"
     "  gwpctl reload -o json\n",
     {NULL},
     OPTIONS_COMMON,
     false,
     run_reload},
};

const size_t command_count = COUNT_OF(commands);
