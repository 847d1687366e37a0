/* limit_commands: gwpctl limits, and limits reset. Each is one request to the control plane, which
 * asks the data planes. One thread. */
#pragma once

#include "controlplane/ctl/commands.h"

int limit_commands_show(const struct invocation *in);
int limit_commands_reset(const struct invocation *in);
