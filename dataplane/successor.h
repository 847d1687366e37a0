/* successor: starts the process that is to take over from this one, with the same options and
 * environment. It takes over like any data plane of the same name; if it does not, nothing has
 * changed. Control thread only. */
#pragma once

#include <sys/types.h>

#include "proto/base/err.h"

/* `binary` "": the program that runs now, as it is on disk. Its pid, or 0 with `err`. */
pid_t successor_start(const char *binary, char *const *argv, struct err *err);
