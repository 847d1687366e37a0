/* gwpctl: the command line of the pair. Takes the command line apart and hands over to commands.c.
 * Options may stand before or after the command, whose words are what is left. */
#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/commands.h"
#include "controlplane/ctl/print.h"
#include "proto/base/version.h"

#define MAX_WORDS 8
#define DEFAULT_SOCKET "/run/gwp/admin.sock"

enum option {
    OPT_ADMIN,
    OPT_TOKEN,
    OPT_OUTPUT,
    OPT_WAIT,
    OPT_DRY_RUN,
    OPT_ROUTE,
    OPT_HELP,
    OPT_VERSION
};

static const struct option_word {
    const char *word;
    enum option option;
    bool has_value;
    enum command_options of; /* the commands that take it */
} option_words[] = {
    {"--admin", OPT_ADMIN, true, OPTIONS_COMMON},
    {"--token", OPT_TOKEN, true, OPTIONS_COMMON},
    {"-o", OPT_OUTPUT, true, OPTIONS_COMMON},
    {"--output", OPT_OUTPUT, true, OPTIONS_COMMON},
    {"--wait", OPT_WAIT, true, OPTIONS_PUSH},
    {"--dry-run", OPT_DRY_RUN, false, OPTIONS_PUSH},
    {"--route", OPT_ROUTE, true, OPTIONS_ENDPOINT},
    {"-h", OPT_HELP, false, OPTIONS_COMMON},
    {"--help", OPT_HELP, false, OPTIONS_COMMON},
    {"--version", OPT_VERSION, false, OPTIONS_COMMON},
};

/* What the command line said. */
struct words {
    const char *at[MAX_WORDS]; /* borrowed from argv */
    size_t count;
    bool wants_help, wants_version;
    const char *options[OPTIONS_KINDS]; /* the last one of each kind, or NULL */
};

/* ---- help ---- */

static void print_overview(void)
{
    printf("gwpctl: watches and changes a running gateway\n\n"
           "Usage: gwpctl [OPTION]... COMMAND [ARGUMENT]...\n\n"
           "Commands:\n");
    for (size_t i = 0; i < command_count; i++)
        printf("  %-18s %s\n", commands[i].name, commands[i].summary);
    printf("  %-18s %s\n", "help COMMAND", "more about a command, with examples");
    printf("\nOptions, before or after the command:\n"
           "  --admin ADDRESS    where the control plane listens: unix:PATH or http://HOST:PORT\n"
           "                     [GWP_ADMIN] (default unix:$GWP_ADMIN_SOCKET, else unix:%s)\n"
           "  --token TOKEN      for changes over http://, as admin.token says [GWP_TOKEN]\n"
           "  -o table|json      for people (default) or for programs\n"
           "  --help             print this and exit\n"
           "  --version          print the version and exit\n\n"
           "Exit codes:\n"
           "   0  done; after a push: every data plane has accepted\n"
           "   1  the answer is no: the configuration is invalid, or was refused\n"
           "   2  the control plane cannot be reached, or answered nonsense\n"
           "  64  wrong usage\n"
           "  74  the output could not be written\n\n"
           "Colours appear only on a terminal, and not with NO_COLOR.\n",
           DEFAULT_SOCKET);
}

static void print_command_help(const struct command *c)
{
    printf("gwpctl %s: %s\n\nUsage: gwpctl %s%s%s\n\n%s", c->name, c->summary, c->name,
           *c->arguments ? " " : "", c->arguments, c->help);
}

/* ---- taking the command line apart ---- */

static int take_option(struct invocation *in, struct words *w, enum option option,
                       const char *value, struct err *err)
{
    char *end;
    switch (option) {
    case OPT_ADMIN:
        in->admin = value;
        return 0;
    case OPT_TOKEN:
        in->token = value;
        return 0;
    case OPT_OUTPUT:
        if (strcmp(value, "table") != 0 && strcmp(value, "json") != 0)
            return err_set(err, "-o %s: say table or json", value);
        in->output = strcmp(value, "json") == 0 ? OUTPUT_JSON : OUTPUT_TABLE;
        return 0;
    case OPT_WAIT:
        in->wait_seconds = strtod(value, &end);
        if (end == value || *end || !(in->wait_seconds >= 0) ||
            in->wait_seconds > COMMAND_MAX_WAIT_SECONDS)
            return err_set(err, "--wait %s: say a number of seconds, at most %d", value,
                           COMMAND_MAX_WAIT_SECONDS);
        return 0;
    case OPT_DRY_RUN:
        in->dry_run = true;
        return 0;
    case OPT_ROUTE:
        in->route = value;
        return 0;
    case OPT_HELP:
        w->wants_help = true;
        return 0;
    case OPT_VERSION:
        w->wants_version = true;
        return 0;
    }
    return 0;
}

/* "--wait=5", "--wait 5" and "-ojson" are all as good. `value` is set where it stands in `arg`. */
static const struct option_word *find_option(const char *arg, const char **value)
{
    for (size_t i = 0; i < COUNT_OF(option_words); i++) {
        const struct option_word *o = &option_words[i];
        size_t len = strlen(o->word);
        if (strncmp(arg, o->word, len) != 0)
            continue;
        if (arg[len] == '\0')
            return o;
        if (o->has_value && (arg[len] == '=' || o->word[1] != '-')) {
            *value = arg + len + (arg[len] == '=');
            return o;
        }
    }
    return NULL;
}

static int take_apart(int argc, char **argv, struct invocation *in, struct words *w,
                      struct err *err)
{
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = "";
        if (options_ended || arg[0] != '-' || arg[1] == '\0') { /* "-" is standard input */
            if (w->count == MAX_WORDS)
                return err_set(err, "too many words, from \"%s\" on", arg);
            w->at[w->count++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            options_ended = true;
            continue;
        }
        const struct option_word *o = find_option(arg, &value);
        if (!o)
            return err_set(err, "unknown option \"%s\"", arg);
        if (o->has_value && arg[strlen(o->word)] == '\0' && i + 1 < argc)
            value = argv[++i];
        if (o->has_value && !*value)
            return err_set(err, "option %s wants a value", o->word);
        w->options[o->of] = o->word;
        if (take_option(in, w, o->option, value, err) < 0)
            return -1;
    }
    return 0;
}

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

static const struct command *find_command(const char *const *words, size_t count, size_t *used,
                                          struct err *err)
{
    for (size_t i = 0; i < command_count; i++)
        if ((*used = match(&commands[i], words, count)) > 0)
            return &commands[i];
    for (size_t i = 0; i < command_count; i++) {
        size_t len = strlen(words[0]);
        if (strncmp(commands[i].name, words[0], len) == 0 && commands[i].name[len] == ' ') {
            err_set(err, "\"%s\" is half a command: gwpctl %s %s", words[0], commands[i].name,
                    commands[i].arguments);
            return NULL;
        }
    }
    err_set(err, "unknown command \"%s\"", words[0]);
    return NULL;
}

/* Do the words behind the name and the options fit the command? */
static int check_arguments(const struct command *c, const struct words *w, size_t used,
                           struct invocation *in, struct err *err)
{
    size_t wanted = 0, given = w->count - used;
    for (int i = OPTIONS_COMMON + 1; i < OPTIONS_KINDS; i++)
        if (w->options[i] && c->options != (enum command_options)i)
            return err_set(err, "%s is nothing for \"%s\"", w->options[i], c->name);
    while (wanted < COMMAND_MAX_WORDS && c->wants[wanted])
        wanted++;
    if (given < wanted)
        return err_set(err, "\"%s\" wants %s: gwpctl %s %s", c->name, c->wants[given], c->name,
                       c->arguments);
    if (given > wanted)
        return err_set(err, "\"%s\" has no use for \"%s\"", c->name, w->at[used + wanted]);
    for (size_t i = 0; i < wanted; i++)
        in->words[i] = w->at[used + i];
    return 0;
}

static int misuse(const struct err *err)
{
    fputs("gwpctl: ", stderr);
    print_text(stderr, err->text);
    fputs("; gwpctl --help tells more\n", stderr);
    return EXIT_USAGE;
}

static int dispatch(struct invocation *in, const struct words *w)
{
    struct err err;
    size_t used = 0;
    if (w->wants_version) {
        printf("gwpctl %s\n", GWP_VERSION);
        return EXIT_OK;
    }
    bool is_help = w->count > 0 && strcmp(w->at[0], "help") == 0;
    const char *const *words = w->at + is_help;
    size_t count = w->count - is_help;
    if (count == 0 && (is_help || w->wants_help)) {
        print_overview();
        return EXIT_OK;
    }
    if (count == 0) {
        err_set(&err, "say what to do");
        return misuse(&err);
    }
    const struct command *c = find_command(words, count, &used, &err);
    if (!c)
        return misuse(&err);
    if (is_help || w->wants_help) {
        print_command_help(c);
        return EXIT_OK;
    }
    if (check_arguments(c, w, used, in, &err) < 0)
        return misuse(&err);
    if (!c->is_offline && client_init(&in->client, in->admin, in->token, &err) < 0)
        return misuse(&err);
    return c->run(in);
}

/* ---- where the control plane is ---- */

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
    snprintf(room, cap, "unix:%s", path ? path : DEFAULT_SOCKET);
    return room;
}

int main(int argc, char **argv)
{
    struct err err;
    struct words words = {0};
    char admin[4096];
    struct invocation in = {
        .admin = default_admin(admin, sizeof(admin)),
        .token = environment("GWP_TOKEN"),
        .wait_seconds = COMMAND_DEFAULT_WAIT_SECONDS,
        .color_out = print_wants_color(stdout),
        .color_err = print_wants_color(stderr),
    };
    int code = take_apart(argc, argv, &in, &words, &err) < 0 ? misuse(&err) : dispatch(&in, &words);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        perror("gwpctl: standard output");
        return EXIT_OUTPUT;
    }
    return code;
}
