/* cpus: how many workers a machine, or what a container is given of it, can keep busy. */
#pragma once

#include "proto/base/defs.h"

/* CPUs that this process may use: those of its affinity, less where a cgroup's quota (version 1 or
 * 2, its own or of any group above it) allows less, rounded up; at least 1. */
unsigned cpus_allowed(void);

/* The same for a given root of the file system. */
unsigned cpus_of_quota(const char *root, unsigned most);
