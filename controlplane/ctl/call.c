#include "controlplane/ctl/call.h"

#include "controlplane/ctl/print.h"
#include "controlplane/ctl/show.h"

int call_complain(enum exit_code code, const char *text)
{
    fputs("gwpctl: ", stderr);
    print_text(stderr, text);
    putc('\n', stderr);
    return code;
}

json_t *call_ask(const struct invocation *in, const struct client_request *request, int *status,
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

int call_show_refusal(const struct invocation *in, const json_t *document, int status)
{
    struct err err;
    const char *message = json_string_value(json_object_get(document, "message"));
    if (!json_is_string(json_object_get(document, "error"))) {
        err_set(&err, "what answers on %s is not a control plane: status %d without a reason",
                in->admin, status);
        return call_complain(EXIT_UNREACHABLE, err.text);
    }
    if (in->wants_json)
        print_json(stdout, document);
    show_diagnostics(document, stderr, in->color_err);
    const json_t *planes = json_object_get(document, "dataplanes");
    for (size_t i = 0; i < json_array_size(planes); i++) {
        const json_t *plane = json_array_get(planes, i);
        const char *name = json_string_value(json_object_get(plane, "name"));
        const char *reason = json_string_value(json_object_get(plane, "reason"));
        if (reason && *reason) {
            err_set(&err, "%s: %s", name ? name : "data plane", reason);
            call_complain(EXIT_NO, err.text);
        }
    }
    return call_complain(EXIT_NO, message && *message ? message : "the control plane refused");
}

int call_and_show(const struct invocation *in, const struct client_request *request,
                  call_show_fn *show)
{
    struct err err;
    int status = 0, code = EXIT_OK;
    json_t *document = call_ask(in, request, &status, &err);
    if (!document)
        return call_complain(EXIT_UNREACHABLE, err.text);
    if (status != 200)
        code = call_show_refusal(in, document, status);
    else if (in->wants_json)
        print_json(stdout, document);
    else
        show(document, stdout, in->color_out);
    json_decref(document);
    return code;
}

int call_get(const struct invocation *in, const char *target, call_show_fn *show)
{
    const struct client_request request = {
        .method = "GET", .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show);
}
