/* completion: what shells complete behind "gwpctl", as a script for bash, zsh or fish, made from
 * the tables of commands and options. Writes only; one thread. */
#pragma once

#include "controlplane/ctl/commands.h"

#define COMPLETION_SHELLS "bash zsh fish"

void completion_print_bash(FILE *out);
void completion_print_zsh(FILE *out);
void completion_print_fish(FILE *out);

int completion_run(const struct invocation *in); /* the command that prints one of them */
