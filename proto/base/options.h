/* options: the command line of the two programs. One table row an option: a flag, an environment
 * variable that stands in for it, and a default. --help, --version and --manual (a page for man)
 * come by themselves. */
#pragma once

#include "proto/base/err.h"

struct option_row {
    const char *name;     /* without the dashes */
    const char *env;      /* or NULL */
    const char *preset;   /* value when neither is given; may be NULL */
    const char *argument; /* word for --help, NULL for a switch */
    const char *help;
    const char **value; /* where the text goes, borrowed from argv, environment or this row; for a
                           text option */
    bool *is_set;       /* for a switch */
};

struct option_table {
    const char *program;
    const char *summary; /* one sentence, for --help */
    const struct option_row *rows;
    size_t count;
};

/* 0: go on. 1: --help or one of its like was answered on stdout, exit with 0. -1: `err` says what
 * is wrong, exit with 64. */
MUST_CHECK int options_parse(const struct option_table *t, int argc, char **argv, struct err *err);
