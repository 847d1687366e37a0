#include "controlplane/ctl/inquire.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/builder.h"
#include "controlplane/config/diagnostics.h"
#include "controlplane/ctl/call.h"
#include "controlplane/ctl/print.h"
#include "controlplane/explanation.h"
#include "proto/base/log.h"

#define HEAD_MAX_BYTES (1u << 20)
#define PROGRAM "gwp-dataplane"

/* ---- the request ---- */

/* "http://host:port/path?query", "host/path", or "/path": what a client would put into Host and
 * into the request line, which begins with "/" whatever the URL does. */
struct url_parts {
    struct view host, target;
    const char *slash; /* before the target */
};

static struct url_parts split(const char *url)
{
    const char *host = url + strcspn(url, ":/?#");
    host = strncmp(host, "://", 3) == 0 ? host + 3 : url;
    size_t host_len = *url == '*' ? 0 : strcspn(host, "/?#");
    const char *target = host + host_len, *at = memrchr(host, '@', host_len);
    const char *name = at ? at + 1 : host; /* who logs in says so in a header */
    return (struct url_parts){{name, (size_t)(target - name)},
                              {target, strcspn(target, "#")},
                              *target == '/' || *target == '*' ? "" : "/"};
}

/* A line break would end the head, or add to it. */
static bool is_one_line(const char *text)
{
    return strpbrk(text, "\r\n") == NULL;
}

static bool gives_host(const struct arguments *a)
{
    for (size_t i = 0; i < a->given_count; i++)
        if (a->given[i].argument == ARG_HEADER && strncasecmp(a->given[i].value, "host:", 5) == 0)
            return true;
    return false;
}

/* The head, owned by the caller; NULL: it cannot be one, which has been said. */
static char *write_head(const struct invocation *in, size_t *len)
{
    const struct arguments *a = &in->arguments;
    struct url_parts url = split(in->operands[1]);
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    bool ok = is_one_line(in->operands[0]) && is_one_line(in->operands[1]);
    if (!out)
        log_fatal("inquire", "out of memory");
    fprintf(out, "%s %s%.*s HTTP/1.1\r\n", in->operands[0], url.slash, VIEW_ARG(url.target));
    if (!gives_host(a))
        fprintf(out, "Host: %.*s\r\n", VIEW_ARG(url.host));
    for (size_t i = 0; i < a->given_count && ok; i++) {
        const char *value = a->given[i].value;
        if (a->given[i].argument != ARG_HEADER)
            continue;
        ok = is_one_line(value) && strchr(value, ':');
        fprintf(out, "%s\r\n", value);
    }
    fputs("\r\n", out);
    if (fclose(out) == 0 && ok && *len <= HEAD_MAX_BYTES)
        return text;
    call_complain(EXIT_USAGE, "method, URL and headers (-H 'Name: value') are one line each");
    free(text);
    return NULL;
}

/* ---- the answer ---- */

static const char *text_of(const json_t *d, const char *key)
{
    const char *text = json_string_value(json_object_get(d, key));
    return text ? text : "";
}

static void show_place(const json_t *d, const char *key, FILE *out)
{
    const char *place = text_of(d, key);
    fputs(*place ? "  (" : "", out);
    print_text(out, place);
    fputs(*place ? ")\n" : "\n", out);
}

static void show_outcome(const json_t *d, FILE *out, bool color)
{
    const char *chosen = text_of(d, "chosen"), *detail = text_of(d, "detail");
    char room[PRINT_VALUE_BYTES];
    fputs("host \"", out);
    print_text(out, text_of(d, "host"));
    fputs("\", path \"", out);
    print_text(out, text_of(d, "path"));
    fputs("\", client ", out);
    print_text(out, text_of(d, "client"));
    fputs(json_is_true(json_object_get(d, "peer_trusted")) ? ", the peer is a trusted proxy\n"
                                                           : "\n",
          out);
    fprintf(out, "by generation %s it ", print_value(d, "generation", room));
    if (*chosen) {
        print_tinted(out, color, TINT_GOOD, "would be passed on to ");
        print_tinted(out, color, TINT_GOOD, chosen);
    } else {
        print_tinted(out, color, TINT_BAD, "would be answered ");
        print_tinted(out, color, TINT_BAD, print_value(d, "status", room));
        fputs(" (", out);
        print_text(out, text_of(d, "reason"));
        fputs(*detail ? "): " : ")", out);
        print_text(out, detail);
    }
    putc('\n', out);
}

static void show_limit(const json_t *limit, FILE *out, bool color)
{
    char left[PRINT_VALUE_BYTES], quota[PRINT_VALUE_BYTES], retry[PRINT_VALUE_BYTES];
    if (!json_is_object(limit))
        return;
    bool allowed = json_is_true(json_object_get(limit, "allowed"));
    fputs("limit: ", out);
    print_text(out, text_of(limit, "algorithm"));
    fputs(", counted under ", out);
    print_text(out, text_of(limit, "key"));
    fputs(json_is_true(json_object_get(limit, "keyed_by_header")) ? " (header): " : " (address): ",
          out);
    print_tinted(out, color, allowed ? TINT_GOOD : TINT_BAD, allowed ? "passes" : "is refused");
    fprintf(out, ", %s of %s left then", print_value(limit, "remaining", left),
            print_value(limit, "quota", quota));
    if (!allowed)
        fprintf(out, ", again in %s s", print_value(limit, "retry_seconds", retry));
    if (json_is_true(json_object_get(limit, "observe")))
        fputs(", only observed", out);
    show_place(limit, "place", out);
}

static void show_candidates(const json_t *d, FILE *out, bool color)
{
    static const char *const titles[] = {"",        "ENDPOINT", "BACKEND", "HEALTH",
                                         "BREAKER", "WEIGHT",   "ACTIVE",  "PLACE"};
    static const char *const keys[] = {"breaker", "weight", "active", "place"};
    const json_t *list = json_object_get(d, "candidates");
    char room[PRINT_VALUE_BYTES];
    if (json_array_size(list) == 0)
        return;
    struct print_table *t = print_table_new(titles, COUNT_OF(titles));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        bool is_chosen = json_is_true(json_object_get(c, "chosen"));
        bool is_usable = json_is_true(json_object_get(c, "usable"));
        print_table_cell(t, is_chosen ? TINT_GOOD : TINT_WARN,
                         is_chosen   ? "chosen"
                         : is_usable ? "usable"
                                     : "passed over");
        print_table_cell(t, TINT_NONE, text_of(c, "address"));
        print_table_cell(t, TINT_NONE, text_of(c, "url"));
        print_table_cell(t, TINT_NONE,
                         json_is_true(json_object_get(c, "draining"))   ? "draining"
                         : json_is_true(json_object_get(c, "starting")) ? "starting"
                         : json_is_true(json_object_get(c, "healthy"))  ? "up"
                                                                        : "down");
        for (size_t k = 0; k < COUNT_OF(keys); k++)
            print_table_cell(t, TINT_NONE, print_value(c, keys[k], room));
    }
    print_table_write(t, out, color);
    print_table_free(&t);
}

/* Line by line, without the line breaks of the wire. */
static void show_head(const char *head, FILE *out)
{
    char line[8192];
    fputs(*head ? "sent there:\n" : "", out);
    for (size_t len; (len = strcspn(head, "\r")) > 0; head += len + (head[len] ? 2 : 0)) {
        snprintf(line, sizeof(line), "  %.*s\n", (int)MIN(len, sizeof(line) - 4), head);
        print_text(out, line);
    }
}

static void show_explanation(const json_t *d, FILE *out, bool color)
{
    show_outcome(d, out, color);
    if (*text_of(d, "route")) {
        fputs("route: ", out);
        print_tinted(out, color, TINT_STRONG, text_of(d, "route"));
        fputs(", ", out);
        print_text(out, text_of(d, "algorithm"));
        show_place(d, "place", out);
    }
    show_limit(json_object_get(d, "limit"), out, color);
    if (*text_of(d, "breaker_place")) {
        fputs("circuit breaker of each endpoint", out);
        show_place(d, "breaker_place", out);
    }
    show_candidates(d, out, color);
    show_head(text_of(d, "forwarded"), out);
}

/* ---- live ---- */

static int ask_live(const struct invocation *in, struct view head)
{
    char client[256] = "", target[400];
    const char *address = arguments_value(&in->arguments, ARG_CLIENT);
    if (address && !client_encode(client, sizeof(client), address))
        return call_complain(EXIT_USAGE, "the client's address is too long");
    snprintf(target, sizeof(target), "/api/v1/explain?client=%s", client);
    const struct client_request request = {.method = "POST",
                                           .target = target,
                                           .content_type = "message/http",
                                           .body = head,
                                           .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show_explanation);
}

/* ---- offline ---- */

/* Addresses of a name, as the system resolves it now; none is an endpoint less. */
static const struct strings *look_up(void *owner, const char *host)
{
    struct arena *a = owner;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char ip[NI_MAXHOST];
    struct strings *found = arena_alloc(a, sizeof(*found));
    if (getaddrinfo(host, NULL, &hints, &list) != 0)
        return found;
    size_t count = 0;
    for (const struct addrinfo *i = list; i; i = i->ai_next)
        count++;
    found->at = arena_array(a, count, sizeof(*found->at));
    for (const struct addrinfo *i = list; i; i = i->ai_next)
        if (getnameinfo(i->ai_addr, i->ai_addrlen, ip, sizeof(ip), NULL, 0, NI_NUMERICHOST) == 0)
            found->at[found->count++] = arena_copy(a, view_of(ip));
    freeaddrinfo(list);
    return found;
}

/* Beside this program, else wherever the shell would find it. */
static void become_dataplane(void)
{
    char path[4096];
    static char name[] = PROGRAM, option[] = "--explain";
    char *const argv[] = {name, option, NULL};
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(PROGRAM) - 1);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (slash) {
        memcpy(slash + 1, PROGRAM, sizeof(PROGRAM));
        execv(path, argv);
    }
    execvp(PROGRAM, argv);
    perror("gwpctl: " PROGRAM " cannot be run, which answers about files");
    _exit(EXIT_UNREACHABLE);
}

static void put_part(FILE *out, const void *bytes, size_t len)
{
    uint32_t length = (uint32_t)len;
    fwrite(&length, sizeof(length), 1, out);
    fwrite(bytes, 1, len, out);
}

/* What gwp-dataplane writes, owned by the caller; its length 0 when it has failed, and said why. */
static uint8_t *run_dataplane(const struct builder_output *snapshot, const Gwp__Explain *question,
                              size_t *len)
{
    FILE *feed = tmpfile();
    int pipes[2];
    uint8_t packed[HEAD_MAX_BYTES / 8], *room = malloc(HEAD_MAX_BYTES * 4);
    size_t size = gwp__explain__get_packed_size(question);
    uint8_t *head = size <= sizeof(packed) ? packed : malloc(size);
    *len = 0;
    if (!feed || !room || !head || pipe(pipes) < 0)
        log_fatal("inquire", "no temporary file, memory or pipe");
    gwp__explain__pack(question, head);
    put_part(feed, snapshot->packed, snapshot->len);
    put_part(feed, head, size);
    if (head != packed)
        free(head);
    rewind(feed);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(feed), STDIN_FILENO);
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        become_dataplane();
    }
    close(pipes[1]);
    FILE *in = fdopen(pipes[0], "r");
    *len = in && pid > 0 ? fread(room, 1, HEAD_MAX_BYTES * 4, in) : 0;
    if (in)
        fclose(in);
    int status = -1;
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status != 0)
        *len = 0;
    fclose(feed);
    return room;
}

static int show_answer(const struct invocation *in, const uint8_t *packed, size_t len)
{
    Gwp__Explanation *answer = len > 0 ? gwp__explanation__unpack(NULL, len, packed) : NULL;
    if (!answer)
        return call_complain(EXIT_NO, "there is no answer about this file");
    json_t *document = explanation_document(answer);
    if (in->wants_json)
        print_json(stdout, document);
    else
        show_explanation(document, stdout, in->color_out);
    json_decref(document);
    gwp__explanation__free_unpacked(answer, NULL);
    return EXIT_OK;
}

static int ask_file(const struct invocation *in, const char *path, struct view head)
{
    struct diagnostics d;
    struct builder_output snapshot;
    size_t len;
    const char *client = arguments_value(&in->arguments, ARG_CLIENT);
    diagnostics_init(&d);
    struct config *cfg = config_load_file(path, &d);
    diagnostics_print(&d, stderr, in->color_err);
    diagnostics_fini(&d);
    if (!cfg)
        return EXIT_NO;
    struct arena *a = arena_new(16 * 1024);
    builder_build(&(struct builder_input){.config = cfg, .lookup = look_up, .owner = a}, &snapshot);
    Gwp__Explain question = GWP__EXPLAIN__INIT;
    question.head = (ProtobufCBinaryData){head.len, (uint8_t *)head.at};
    question.client = (char *)(client ? client : "");
    uint8_t *answer = run_dataplane(&snapshot, &question, &len);
    int code = show_answer(in, answer, len);
    free(answer);
    free(snapshot.packed);
    arena_free(&a);
    config_free(&cfg);
    return code;
}

int inquire_explain(const struct invocation *in)
{
    size_t len = 0;
    int code = EXIT_USAGE;
    const char *file = arguments_value(&in->arguments, ARG_FILE);
    char *head = write_head(in, &len);
    if (!head)
        return code;
    if (file)
        code = ask_file(in, file, (struct view){head, len});
    else
        code = ask_live(in, (struct view){head, len});
    free(head);
    return code;
}
