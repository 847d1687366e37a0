/* commands: what gwpctl can be told. One table row a command: main.c finds the row and makes the
 * --help out of it; the handler talks to the control plane and answers with an exit code. */
#pragma once

#include <stdio.h>

#include "controlplane/ctl/client.h"

#define COMMAND_DEFAULT_WAIT_SECONDS 10
#define COMMAND_MAX_WAIT_SECONDS 3600

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
    const char *file;     /* of a command that takes one */
    enum output output;
    bool dry_run;
    double wait_seconds;
    bool color_out, color_err; /* of stdout and of stderr */
};

struct command {
    const char *name;      /* one word or two: "push config" */
    const char *arguments; /* behind the name, for --help */
    const char *summary;   /* one line */
    const char *help;      /* what --help says below it, with examples */
    bool takes_file, takes_push_options, is_offline;
    int (*run)(const struct invocation *in); /* returns an exit code */
};

extern const struct command commands[];
extern const size_t command_count;
