/* selfcheck: whether the data plane that listens on an address of this machine does its work, asked
 * from a second process of the same program. It is what a container's health check runs, where
 * there is no other program to run. */
#pragma once

#include "proto/base/err.h"

#define SELFCHECK_TIMEOUT_MS 2000

/* Connects, says that nothing will follow, and waits for the worker's own end of the connection:
 * that comes from a loop that turns, where the connection alone would come from the kernel. It is
 * no request: nothing is routed, logged or limited. 0, or -1 with `err`. Blocking, for
 * SELFCHECK_TIMEOUT_MS at most. */
MUST_CHECK int selfcheck(const char *address, struct err *err);
