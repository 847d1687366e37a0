/* commands: what gwpctl can be told. One table row a command: main.c finds the row and makes the
 * --help out of it; the handler talks to the control plane and answers with an exit code. */
#pragma once

#include <stdio.h>

#include "controlplane/ctl/client.h"

#define COMMAND_DEFAULT_WAIT_SECONDS 10
#define COMMAND_MAX_WAIT_SECONDS 3600
#define COMMAND_MAX_WORDS 2

/* Scripts rely on these; --help tells them. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_NO = 1,          /* the answer is no: configuration invalid, or refused */
    EXIT_UNREACHABLE = 2, /* the control plane cannot be reached, or answered nonsense */
    EXIT_USAGE = 64,
    EXIT_OUTPUT = 74, /* what there was to say could not be written */
};

enum output { OUTPUT_TABLE, OUTPUT_JSON };

/* The command line, taken apart. All text is borrowed from it or from the environment. */
struct invocation {
    const char *admin, *token;
    struct client client; /* made from the two; not for a command that is offline */
    const char
        *words[COMMAND_MAX_WORDS]; /* what the command takes: a file, or an endpoint and so on */
    const char *route;             /* of a command about endpoints; NULL = every one */
    enum output output;
    bool dry_run;
    double wait_seconds;
    bool color_out, color_err; /* of stdout and of stderr */
};

/* Which options a command takes besides those that all do. */
enum command_options { OPTIONS_COMMON, OPTIONS_PUSH, OPTIONS_ENDPOINT, OPTIONS_KINDS };

struct command {
    const char *name;                     /* one word or two: "push config" */
    const char *arguments;                /* behind the name, for --help */
    const char *summary;                  /* one line */
    const char *help;                     /* what --help says below it, with examples */
    const char *wants[COMMAND_MAX_WORDS]; /* "a file", for each word that it takes */
    enum command_options options;
    bool is_offline;
    int (*run)(const struct invocation *in); /* returns an exit code */
};

extern const struct command commands[];
extern const size_t command_count;
