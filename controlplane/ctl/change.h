/* change: commands that change the configuration in force, or check one: push, rollback, reload,
 * validate, and
 * schema, which tells what may be in one. One thread; each answers with an exit code. */
#pragma once

#include "controlplane/ctl/commands.h"

int change_push(const struct invocation *in);
int change_reload(const struct invocation *in);
int change_validate(const struct invocation *in);
int change_schema(const struct invocation *in);
int change_rollback(const struct invocation *in);

/* The whole of a file of at most 16 MiB, "-" is standard input; owned by the caller. NULL with
 * `err`. */
MUST_CHECK char *change_read_file(const char *path, size_t *len, struct err *err);
