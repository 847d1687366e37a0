/* metrics: everything that Prometheus may ask for, in its text format (version 0.0.4). On the
 * control plane's loop. */
#pragma once

#include "controlplane/admin/admin.h"

/* The whole text, owned by the caller. */
char *metrics_print(const struct admin_context *c, size_t *len);

/* The same for the merged reports alone. Pure. */
void metrics_print_aggregate(const struct aggregate *a, FILE *out);
