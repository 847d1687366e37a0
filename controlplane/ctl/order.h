/* order: commands about endpoints (drain, undrain, weight, breaker reset) and data planes
 * (replace). Each is one request to the control plane, which tells the data planes; answers with an
 * exit code. One thread. */
#pragma once

#include "controlplane/ctl/commands.h"

int order_drain(const struct invocation *in);
int order_undrain(const struct invocation *in);
int order_weight(const struct invocation *in);
int order_breaker_reset(const struct invocation *in);
int order_replace(const struct invocation *in); /* of a data plane */
