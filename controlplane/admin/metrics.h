/* metrics: everything that Prometheus may ask for: what the data planes report, and what the
 * control plane knows itself. On the control plane's loop; the data planes are not asked.
 *
 * Labels are bounded: routes and endpoints are those that have been configured, methods ten, and
 * reasons, decisions and the like closed lists. A series that nothing was counted for is left out.
 */
#pragma once

#include "controlplane/admin/admin.h"
#include "controlplane/admin/exposition.h"

/* The whole text, owned by the caller. */
char *metrics_print(const struct admin_context *c, enum exposition_format format, size_t *len);

/* Those of the merged reports alone. */
void metrics_print_aggregate(struct aggregate *a, struct exposition *x);
