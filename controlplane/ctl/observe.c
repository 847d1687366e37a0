#include "controlplane/ctl/observe.h"

#include <string.h>
#include <time.h>

#include "controlplane/ctl/call.h"
#include "controlplane/ctl/print.h"
#include "controlplane/ctl/show.h"

#define FOLLOW_SECONDS 1

/* ---- events ---- */

static json_t *ask_events(const struct invocation *in, long long since, int *status,
                          struct err *err)
{
    char kind[200] = "", target[300];
    const char *wanted = arguments_value(&in->arguments, ARG_KIND);
    if (wanted && !client_encode(kind, sizeof(kind), wanted))
        kind[0] = '\0';
    snprintf(target, sizeof(target), "/api/v1/events?since=%lld%s%s", since,
             kind[0] ? "&kind=" : "", kind);
    const struct client_request request = {
        .method = "GET", .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_ask(in, &request, status, err);
}

/* Of those that are followed each is a line of its own, for programs too. */
static void print_events(const struct invocation *in, const json_t *document, bool follows)
{
    const json_t *list = json_object_get(document, "events");
    if (!in->wants_json) {
        show_events(document, stdout, in->color_out);
    } else if (!follows) {
        print_json(stdout, document);
    } else {
        for (size_t i = 0; i < json_array_size(list); i++) {
            json_dumpf(json_array_get(list, i), stdout, JSON_COMPACT);
            putc('\n', stdout);
        }
    }
    fflush(stdout);
}

int observe_events(const struct invocation *in)
{
    bool follows = arguments_value(&in->arguments, ARG_FOLLOW) != NULL;
    const struct timespec pause = {.tv_sec = FOLLOW_SECONDS};
    long long since = 0;
    for (;;) {
        struct err err;
        int status = 0;
        json_t *document = ask_events(in, since, &status, &err);
        if (!document)
            return call_complain(EXIT_UNREACHABLE, err.text);
        if (status != 200) {
            int code = call_show_refusal(in, document, status);
            json_decref(document);
            return code;
        }
        print_events(in, document, follows);
        since = json_integer_value(json_object_get(document, "last"));
        json_decref(document);
        if (!follows || ferror(stdout))
            return EXIT_OK;
        nanosleep(&pause, NULL);
    }
}

/* ---- log levels ---- */

static bool is_program(const char *word)
{
    return word && (strcmp(word, "controlplane") == 0 || strcmp(word, "dataplane") == 0);
}

/* "loglevel", "loglevel LEVEL" and "loglevel PROGRAM LEVEL". */
int observe_log_level(const struct invocation *in)
{
    char level[100], target[300];
    const char *program = is_program(in->operands[0]) ? in->operands[0] : NULL;
    const char *word = program ? in->operands[1] : in->operands[0];
    if (!program && in->operands[1])
        return call_complain(EXIT_USAGE, "the program is controlplane or dataplane, and goes "
                                         "before the level");
    if (!word)
        return call_get(in, "/api/v1/loglevel", show_log_levels);
    if (!client_encode(level, sizeof(level), word))
        return call_complain(EXIT_USAGE, "a level is debug, info, warn, error or default");
    snprintf(target, sizeof(target), "/api/v1/loglevel?level=%s%s%s", level,
             program ? "&program=" : "", program ? program : "");
    const struct client_request request = {
        .method = "POST", .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show_log_levels);
}
