/* arguments: gwpctl's command line taken apart. Options are the rows of arguments.def and may stand
 * before or after the command, whose words are what is left. One thread; all text is borrowed from
 * the command line. */
#pragma once

#include "proto/base/err.h"

enum argument {
#define ARGUMENT(name, word, letter, value, kind, help) ARG_##name,
#include "controlplane/ctl/arguments.def"
#undef ARGUMENT
    ARG_COUNT
};

#define ARG_OF_ALL (ARG_VERSION + 1) /* so many go with every command */
#define TAKES(name) (1u << ARG_##name)

enum argument_kind {
    IS_SWITCH,
    IS_TEXT,
    IS_FILE,
    IS_OUTPUT,
    IS_SECONDS, /* 0 up to ARGUMENTS_MAX_SECONDS */
    IS_COUNT,   /* a whole number */
};

#define ARGUMENTS_MAX_SECONDS 3600
#define ARGUMENTS_MAX_WORDS 8
#define ARGUMENTS_MAX_GIVEN 64

struct argument_row {
    const char *word;  /* "--wait" */
    char letter;       /* 0 = it has none */
    const char *value; /* what stands for its value, NULL for a switch */
    enum argument_kind kind;
    const char *help;
};

extern const struct argument_row argument_rows[ARG_COUNT];

struct arguments {
    const char *words[ARGUMENTS_MAX_WORDS];
    size_t word_count;
    struct {
        enum argument argument;
        const char *value;        /* "" of a switch */
    } given[ARGUMENTS_MAX_GIVEN]; /* in their order */
    size_t given_count;
};

/* -1 with `err`: an option that does not exist, lacks its value, or has one of another kind. */
MUST_CHECK int arguments_parse(struct arguments *a, int argc, char **argv, struct err *err);

/* Its last value, NULL when it was not given; "" of a switch. */
const char *arguments_value(const struct arguments *a, enum argument argument);

/* The same as a number, which it is; `preset` when it was not given. */
double arguments_number(const struct arguments *a, enum argument argument, double preset);
