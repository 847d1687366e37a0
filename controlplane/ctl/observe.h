/* observe: what has happened, as it happens, and how much of it the programs write down: gwpctl
 * events and loglevel. One thread. */
#pragma once

#include "controlplane/ctl/commands.h"

int observe_events(const struct invocation *in);
int observe_log_level(const struct invocation *in);
