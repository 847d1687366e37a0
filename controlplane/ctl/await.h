/* await: gwpctl wait. Asks again and again until the gateway is in the state that the command line
 * names. One thread. */
#pragma once

#include "controlplane/ctl/commands.h"

int await_run(const struct invocation *in);
