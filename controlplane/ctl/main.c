/* gwpctl: the command line of the pair. Finds the command in the table of commands.c, checks that
 * the words behind it and the options fit, and hands over. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/config/suggest.h"
#include "controlplane/ctl/commands.h"
#include "controlplane/ctl/manual.h"
#include "controlplane/ctl/print.h"
#include "proto/base/version.h"

/* ---- finding the command ---- */

/* How many of the words are the command's name; 0 = it is another one. */
static size_t match(const struct command *c, const char *const *words, size_t count)
{
    const char *name = c->name;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(words[i]);
        if (strncmp(name, words[i], len) != 0 || (name[len] != ' ' && name[len] != '\0'))
            return 0;
        if (name[len] == '\0')
            return i + 1;
        name += len + 1;
    }
    return 0;
}

static int fail_half(const char *word, struct err *err)
{
    char list[256];
    int n = 0;
    size_t len = strlen(word);
    for (size_t i = 0; i < command_count && n < (int)sizeof(list); i++)
        if (strncmp(commands[i].name, word, len) == 0 && commands[i].name[len] == ' ')
            n += snprintf(list + n, sizeof(list) - (size_t)n, "%sgwpctl %s", n > 0 ? ", " : "",
                          commands[i].name);
    return n > 0 ? err_set(err, "\"%s\" is half a command: %s", word, list) : 0;
}

static void fail_unknown(const char *const *words, size_t count, struct err *err)
{
    char two[128];
    struct suggest one = {.wanted = view_of(words[0])}, both = {.wanted = {two, 0}};
    if (fail_half(words[0], err) < 0)
        return;
    both.wanted.len =
        (size_t)snprintf(two, sizeof(two), "%.50s %.50s", words[0], count > 1 ? words[1] : "");
    for (size_t i = 0; i < command_count; i++) {
        struct view name = view_of(commands[i].name);
        const char *blank = strchr(name.at, ' ');
        suggest_consider(&one, blank ? (struct view){name.at, (size_t)(blank - name.at)} : name);
        suggest_consider(&both, name);
    }
    struct view best = suggest_best(&both).len > 0 ? suggest_best(&both) : suggest_best(&one);
    if (best.len > 0)
        err_set(err, "unknown command \"%s\": did you mean \"%.*s\"?", words[0], VIEW_ARG(best));
    else
        err_set(err, "unknown command \"%s\"", words[0]);
}

static const struct command *find_command(const char *const *words, size_t count, size_t *used,
                                          struct err *err)
{
    const struct command *found = NULL;
    *used = 0;
    for (size_t i = 0; i < command_count; i++) {
        size_t matched = match(&commands[i], words, count);
        if (matched <= *used)
            continue;
        *used = matched; /* "limits reset" before "limits" */
        found = &commands[i];
    }
    if (!found)
        fail_unknown(words, count, err);
    return found;
}

/* Do the words behind the name and the options fit the command? */
static int check_fit(const struct command *c, size_t used, struct invocation *in, struct err *err)
{
    const struct arguments *a = &in->arguments;
    char usage[MANUAL_USAGE_BYTES];
    size_t given = a->word_count - used, i = 0;
    for (size_t k = 0; k < a->given_count; k++) {
        enum argument argument = a->given[k].argument;
        if (argument >= ARG_OF_ALL && !(c->takes & (1u << argument)))
            return err_set(err, "%s is nothing for \"%s\"", argument_rows[argument].word, c->name);
    }
    for (const struct operand *o = c->operands; o->name; o++, i++) {
        in->operands[i] = i < given ? a->words[used + i] : NULL;
        if (i >= given && !o->is_optional)
            return err_set(err, "\"%s\" wants %s: gwpctl %s", c->name, o->wants,
                           manual_usage(c, usage));
    }
    if (given > i)
        return err_set(err, "\"%s\" has no use for \"%s\"", c->name, a->words[used + i]);
    return 0;
}

static int misuse(const struct err *err)
{
    fputs("gwpctl: ", stderr);
    print_text(stderr, err->text);
    fputs(err->text[strlen(err->text) - 1] == '?' ? " " : "; ", stderr);
    fputs("gwpctl --help tells more\n", stderr);
    return EXIT_USAGE;
}

static int run(const struct command *c, size_t used, struct invocation *in)
{
    struct err err;
    if (check_fit(c, used, in, &err) < 0)
        return misuse(&err);
    if (!c->is_offline && client_init(&in->client, in->admin, in->token, &err) < 0)
        return misuse(&err);
    return c->run(in);
}

static int dispatch(struct invocation *in)
{
    struct err err;
    size_t used = 0;
    const struct arguments *a = &in->arguments;
    if (arguments_value(a, ARG_VERSION)) {
        printf("gwpctl %s\n", GWP_VERSION);
        return EXIT_OK;
    }
    bool is_help = a->word_count > 0 && strcmp(a->words[0], "help") == 0;
    bool wants_help = is_help || arguments_value(a, ARG_HELP);
    size_t count = a->word_count - is_help;
    if (count == 0 && wants_help) {
        manual_print_overview(stdout);
        return EXIT_OK;
    }
    if (count == 0) {
        err_set(&err, "say what to do");
        return misuse(&err);
    }
    const struct command *c = find_command(a->words + is_help, count, &used, &err);
    if (!c)
        return misuse(&err);
    if (!wants_help)
        return run(c, used, in);
    manual_print_command(c, stdout);
    return EXIT_OK;
}

/* ---- what the environment says ---- */

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static const char *default_admin(char *room, size_t cap)
{
    const char *admin = environment("GWP_ADMIN"), *path = environment("GWP_ADMIN_SOCKET");
    if (admin)
        return admin;
    snprintf(room, cap, "unix:%s", path ? path : MANUAL_DEFAULT_SOCKET);
    return room;
}

/* Options come before the environment. */
static void complete(struct invocation *in, char *room, size_t cap)
{
    struct arguments *a = &in->arguments;
    const char *admin = arguments_value(a, ARG_ADMIN), *output = arguments_value(a, ARG_OUTPUT);
    in->admin = admin ? admin : default_admin(room, cap);
    in->token = arguments_value(a, ARG_TOKEN);
    in->token = in->token ? in->token : environment("GWP_TOKEN");
    in->wants_json = output && strcmp(output, "json") == 0;
    in->color_out = print_wants_color(stdout);
    in->color_err = print_wants_color(stderr);
}

int main(int argc, char **argv)
{
    struct invocation in = {0};
    struct err err;
    char admin[4096];
    int code;
    if (arguments_parse(&in.arguments, argc, argv, &err) < 0) {
        code = misuse(&err);
    } else {
        complete(&in, admin, sizeof(admin));
        code = dispatch(&in);
    }
    if (fflush(stdout) == EOF || ferror(stdout)) {
        perror("gwpctl: standard output");
        return EXIT_OUTPUT;
    }
    return code;
}
