/* change: commands that change the configuration in force, or check one: push, reload, validate.
 * One thread; each answers with an exit code. */
#pragma once

#include "controlplane/ctl/commands.h"

int change_push(const struct invocation *in);
int change_reload(const struct invocation *in);
int change_validate(const struct invocation *in);
