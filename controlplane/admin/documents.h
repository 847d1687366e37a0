/* documents: what the admin API tells, as JSON. Each returns a new document that the caller owns.
 * On the control plane's loop; reads the publisher, the sessions and the aggregate as they are now.
 */
#pragma once

#include <jansson.h>

#include "controlplane/admin/admin.h"

json_t *document_status(const struct admin_context *c);
json_t *document_routes(const struct admin_context *c);
json_t *document_backends(const struct admin_context *c);
json_t *document_dataplanes(const struct admin_context *c);
json_t *document_limits(const struct admin_context *c);
json_t *document_log_levels(const struct admin_context *c);

/* A sentence for each route that has no endpoint to send requests to. `serves`: is there a route
 * that has one, or no route at all? */
json_t *document_dead_routes(const struct admin_context *c, bool *serves);

/* An order that was carried out, and what it came to; `unkept` says why it is not on disk, "" = it
 * is. */
json_t *document_ordered(const struct endpoints *es, const struct order *order, const char *unkept);

/* What became of a push, for every verdict. */
json_t *document_outcome(const struct push_outcome *outcome);

/* The generations that are kept, the newest first; one of them with its text. */
json_t *document_history(const struct admin_context *c);
json_t *document_entry(const struct admin_context *c, const struct history_entry *e,
                       const char *text);

/* {"valid": true, "diagnostics": [...], "text": "..."} */
json_t *document_validity(const struct diagnostics *d);

/* Text of others (names, reasons) may be no UTF-8: then what is not ASCII becomes a question mark.
 */
json_t *document_text(const char *text);

/* RFC 3339 in UTC; `seconds` of the wall clock. NULL text for 0. */
json_t *document_time(double seconds);
