/* call: one question to the control plane, and its answer shown: what most commands are. One
 * thread. */
#pragma once

#include <jansson.h>

#include "controlplane/ctl/commands.h"

#define CALL_SECONDS 10. /* for what needs no data plane */

typedef void call_show_fn(const json_t *document, FILE *out, bool color);

/* A sentence on stderr; returns `code`. */
int call_complain(enum exit_code code, const char *text);

/* Asks and reads the document, which the caller frees. NULL: `err` says why there is none. */
json_t *call_ask(const struct invocation *in, const struct client_request *request, int *status,
                 struct err *err);

/* The control plane says no, and why. Something else that happens to speak JSON is not taken for
 * one. */
int call_show_refusal(const struct invocation *in, const json_t *document, int status);

/* Asks, then shows the answer as the command line wants it. */
int call_and_show(const struct invocation *in, const struct client_request *request,
                  call_show_fn *show);

/* The same for a GET of `target`. */
int call_get(const struct invocation *in, const char *target, call_show_fn *show);
