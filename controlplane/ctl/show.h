/* show: what the admin API answers, for people. Tolerant: a member that is missing or of another
 * type than expected leaves a gap, so that gwpctl and the control plane may be of different
 * releases. One thread. */
#pragma once

#include <stdio.h>

#include <jansson.h>

#include "proto/base/defs.h"

void show_status(const json_t *document, FILE *out, bool color);
void show_backends(const json_t *document, FILE *out, bool color);
void show_routes(const json_t *document, FILE *out, bool color);
void show_dataplanes(const json_t *document, FILE *out, bool color);

/* What a push or a reload came to. */
void show_push(const json_t *document, FILE *out, bool color);

/* The generations that are kept; one of them in a line; what is different between two. */
void show_history(const json_t *document, FILE *out, bool color);
void show_entry(const json_t *document, FILE *out, bool color);
void show_changes(const json_t *document, FILE *out, bool color);

/* What an order about an endpoint came to. */
void show_replaced(const json_t *document, FILE *out, bool color);
void show_ordered(const json_t *document, FILE *out, bool color);
void show_breaker_reset(const json_t *document, FILE *out, bool color);

/* What has happened, a line each; the levels of the programs' logs. */
void show_events(const json_t *document, FILE *out, bool color);
void show_log_levels(const json_t *document, FILE *out, bool color);

/* Each error and warning as file:line:column. The control plane's own rendering, which shows the
 * lines as well, is preferred where there is one. */
void show_diagnostics(const json_t *document, FILE *out, bool color);

/* Did every data plane that is named in the answer to a push take the configuration? */
MUST_CHECK bool show_all_accepted(const json_t *document);
