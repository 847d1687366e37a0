/* commands: what gwpctl can be told, one table row a command. main.c finds the row, manual.c makes
 * help and manual pages of it, completion.c what the shells complete, and the handler does it and
 * answers with an exit code. A new command is a row here, its options rows in arguments.def. */
#pragma once

#include <stdio.h>

#include "controlplane/ctl/arguments.h"
#include "controlplane/ctl/client.h"

#define COMMAND_DEFAULT_WAIT_SECONDS 10.
#define COMMAND_MAX_OPERANDS 2
#define COMMAND_MAX_EXAMPLES 5
#define COMMAND_MAX_FIELDS 32

/* Scripts rely on these; --help tells them. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_NO = 1,          /* the answer is no: configuration invalid, or refused */
    EXIT_UNREACHABLE = 2, /* the control plane cannot be reached, or answered nonsense */
    EXIT_USAGE = 64,
    EXIT_OUTPUT = 74, /* what there was to say could not be written */
};

/* One call of gwpctl. All text is borrowed from the command line or from the environment. */
struct invocation {
    const char *admin, *token;
    struct client client;                       /* not for a command that is offline */
    const char *operands[COMMAND_MAX_OPERANDS]; /* what the command takes; NULL = not given */
    struct arguments arguments;
    bool wants_json;
    bool color_out, color_err; /* of stdout and of stderr */
};

/* A word behind the command's name. */
struct operand {
    const char *name;  /* "FILE": how help calls it; NULL = there is no more */
    const char *wants; /* "a file": what is said to be missing */
    bool is_optional;
    bool is_file;      /* shells complete names of files */
    const char *words; /* "bash zsh fish": shells complete these; or NULL */
};

/* A member of the document that -o json prints: "config.generation", "routes[].name". */
struct field {
    const char *path; /* NULL = there is no more */
    const char *says;
};

struct command {
    const char *name;    /* one word or two: "push config" */
    const char *summary; /* one line, without full stop */
    const char *text;    /* what --help says below it: paragraphs, "\n\n" between two */
    struct operand operands[COMMAND_MAX_OPERANDS + 1];
    unsigned takes; /* TAKES(WAIT) | ...: the options besides those of all */
    const char *examples[COMMAND_MAX_EXAMPLES + 1];
    const struct field *fields; /* ended by one without path; NULL: -o json makes no difference */
    bool is_offline;            /* no control plane is asked */
    int (*run)(const struct invocation *in); /* returns an exit code */
};

extern const struct command commands[];
extern const size_t command_count;
