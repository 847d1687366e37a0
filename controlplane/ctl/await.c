#include "controlplane/ctl/await.h"

#include <string.h>
#include <time.h>

#include "controlplane/ctl/call.h"

#define PAUSE_MS 50

/* Is it so? `why` says what is in the way. */
typedef bool state_fn(const json_t *document, int status, struct err *why);

static bool is_ready(const json_t *document, int status, struct err *why)
{
    const char *reason = json_string_value(json_array_get(json_object_get(document, "reasons"), 0));
    err_set(why, "not ready: %s", reason ? reason : "it does not say why");
    return status == 200;
}

static bool is_drained(const json_t *document, int status, struct err *why)
{
    const json_t *planes = json_object_get(document, "dataplanes");
    err_set(why, "%zu data planes are connected", json_array_size(planes));
    return status == 200 && json_is_array(planes) && json_array_size(planes) == 0;
}

static const struct state {
    const char *word, *target;
    state_fn *is_so;
} states[] = {
    {"ready", "/readyz", is_ready},
    {"drained", "/api/v1/dataplanes", is_drained},
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Once. A control plane that cannot be reached may be about to start. */
static enum exit_code ask(const struct invocation *in, const struct state *s, struct err *why)
{
    const struct client_request request = {
        .method = "GET", .target = s->target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    int status = 0;
    json_t *document = call_ask(in, &request, &status, why);
    if (!document)
        return EXIT_UNREACHABLE;
    enum exit_code code = s->is_so(document, status, why) ? EXIT_OK : EXIT_NO;
    json_decref(document);
    return code;
}

int await_run(const struct invocation *in)
{
    const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
    const struct state *s = NULL;
    struct err why;
    for (size_t i = 0; i < COUNT_OF(states); i++)
        if (strcmp(in->operands[0], states[i].word) == 0)
            s = &states[i];
    if (!s)
        return call_complain(EXIT_USAGE, "what can be waited for is: ready, drained");
    double end = now() + arguments_number(&in->arguments, ARG_WAIT, COMMAND_DEFAULT_WAIT_SECONDS);
    enum exit_code code;
    while ((code = ask(in, s, &why)) != EXIT_OK && now() < end)
        nanosleep(&pause, NULL);
    return code == EXIT_OK ? EXIT_OK : call_complain(code, why.text);
}
