/* manual: what gwpctl says of itself: --help and the manual page, made from the tables of commands
 * and options. Writes only; one thread. */
#pragma once

#include "controlplane/ctl/commands.h"

#define MANUAL_DEFAULT_SOCKET "/run/gwp/admin.sock"

void manual_print_overview(FILE *out);
void manual_print_command(const struct command *c, FILE *out);

/* "push config FILE [--dry-run] [--wait SECONDS]". Returns `out`. */
#define MANUAL_USAGE_BYTES 512
const char *manual_usage(const struct command *c, char out[MANUAL_USAGE_BYTES]);

/* gwpctl(1), in the man macros of roff. */
void manual_print_page(FILE *out);
int manual_run(const struct invocation *in); /* the command that prints it */
