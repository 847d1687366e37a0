/* inquire: the command explain: what would become of a request, told by a data plane from its live
 * state, or offline for a file: then gwp-dataplane is run once with a snapshot that was built here,
 * so that its own code answers without being linked into gwpctl. One thread. */
#pragma once

#include "controlplane/ctl/commands.h"

int inquire_explain(const struct invocation *in);
