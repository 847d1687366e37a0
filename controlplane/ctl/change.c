#include "controlplane/ctl/change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/config/json_schema.h"
#include "controlplane/ctl/call.h"
#include "controlplane/ctl/print.h"
#include "controlplane/ctl/show.h"

#define MAX_FILE_BYTES (16u << 20) /* of a configuration that is pushed */

static double wait_of(const struct invocation *in)
{
    return arguments_number(&in->arguments, ARG_WAIT, COMMAND_DEFAULT_WAIT_SECONDS);
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
        .timeout_ms = (unsigned)((wait_of(in) + CALL_SECONDS) * 1000),
    };
    json_t *document = call_ask(in, &request, &status, &err);
    if (!document)
        return call_complain(EXIT_UNREACHABLE, err.text);
    int code = EXIT_OK;
    if (status != 200) {
        code = call_show_refusal(in, document, status);
    } else {
        if (in->wants_json)
            print_json(stdout, document);
        else
            show_push(document, stdout, in->color_out);
        show_diagnostics(document, stderr, in->color_err);
        if (!show_all_accepted(document))
            code = call_complain(EXIT_NO,
                                 "not every data plane has accepted; gwpctl status tells more");
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

char *change_read_file(const char *path, size_t *len, struct err *err)
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

/* What all changes may say: how long to wait, why, and what must still be in force. False: a part
 * of it is too long. */
static bool describe(const struct invocation *in, char *out, size_t cap)
{
    char message[3200] = "";
    const struct arguments *a = &in->arguments;
    const char *text = arguments_value(a, ARG_MESSAGE);
    const char *expected = arguments_value(a, ARG_IF_GENERATION);
    if (text && !client_encode(message, sizeof(message), text))
        return false;
    snprintf(out, cap, "wait=%g%s%s%s%s%s", wait_of(in), text ? "&message=" : "", message,
             expected ? "&if_generation=" : "", expected ? expected : "",
             arguments_value(a, ARG_DRY_RUN) ? "&dry_run=1" : "");
    return true;
}

int change_push(const struct invocation *in)
{
    struct err err;
    char source[1024], more[4000], target[5200];
    size_t len = 0;
    const char *file = in->operands[0], *slash = strrchr(file, '/');
    const char *base = slash ? slash + 1 : file;
    if (!client_encode(source, sizeof(source), strcmp(base, "-") == 0 ? "stdin" : base))
        return call_complain(EXIT_USAGE, "the name of the file is too long");
    if (!describe(in, more, sizeof(more)))
        return call_complain(EXIT_USAGE, "the message is too long");
    snprintf(target, sizeof(target), "/api/v1/config?%s&source=%s", more, source);
    char *text = change_read_file(file, &len, &err);
    if (!text)
        return call_complain(EXIT_NO, err.text);
    int code = change(in, target, (struct view){text, len});
    free(text);
    return code;
}

int change_rollback(const struct invocation *in)
{
    char more[4000], target[4200];
    const char *number = in->operands[0];
    if (number &&
        (!*number || strspn(number, "0123456789") != strlen(number) || strlen(number) > 18))
        return call_complain(EXIT_USAGE, "a generation is a number; gwpctl history lists them");
    if (!describe(in, more, sizeof(more)))
        return call_complain(EXIT_USAGE, "the message is too long");
    snprintf(target, sizeof(target), "/api/v1/rollback?%s%s%s%s", number ? "generation=" : "",
             number ? number : "", number ? "&" : "", more);
    return change(in, target, (struct view){NULL, 0});
}

int change_reload(const struct invocation *in)
{
    return change(in, "/api/v1/reload", (struct view){NULL, 0});
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

int change_validate(const struct invocation *in)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *config = config_load_file(in->operands[0], &d);
    bool is_valid = config != NULL;
    if (in->wants_json) {
        print_verdict(&d, is_valid);
    } else {
        diagnostics_print(&d, stderr, in->color_err);
        if (config)
            config_print_validity(config, stdout);
    }
    config_free(&config);
    diagnostics_fini(&d);
    return is_valid ? EXIT_OK : EXIT_NO;
}

int change_schema(const struct invocation *in)
{
    json_t *document = json_schema_document();
    print_json(stdout, document);
    json_decref(document);
    return EXIT_OK;
}
