/* revisions: commands about configurations that were in force: history, show, diff, rollback. One
 * thread; each answers with an exit code. */
#pragma once

#include "controlplane/ctl/commands.h"

int revisions_history(const struct invocation *in);
int revisions_show(const struct invocation *in);
int revisions_diff(const struct invocation *in);
