/* diagnostics: everything that is wrong or odd about one configuration text, collected so that all
 * of it is told at once. Owned by who loads; one thread. */
#pragma once

#include <stdio.h>

#include "controlplane/config/config.h"

/* A text of nothing but mistakes must not fill the memory: beyond this many they are counted only.
 */
#define DIAGNOSTICS_MAX 1000

enum severity { SEVERITY_ERROR, SEVERITY_WARNING };

struct diagnostic {
    enum severity severity;
    struct place place;
    uint32_t length;        /* of the offending text on its line, 0 = unknown */
    const char *message;    /* what is wrong, in one sentence without full stop */
    const char *suggestion; /* what to do instead, or NULL: `did you mean "lb_algorithm"?` */
};

struct diagnostics {
    struct arena *arena; /* owned */
    const char *source;  /* file name for messages */
    struct view text;    /* borrowed: the text, for showing the line */
    struct diagnostic *at;
    size_t count, room, errors;
    size_t dropped; /* counted, not kept */
};

void diagnostics_init(struct diagnostics *d);
void diagnostics_fini(struct diagnostics *d);

/* The suggestion is copied, and bytes that a terminal would act on become "?". */
void diagnostics_add(struct diagnostics *d, enum severity severity, struct place place,
                     uint32_t length, const char *suggestion, const char *fmt, ...)
    PRINTF_LIKE(6, 7);

/* By line and column, so that they read as the file does; what was said twice of one place (the
 * text behind an alias is checked wherever it is used) stays once. Called by config_load(). */
void diagnostics_sort(struct diagnostics *d);

/* For people:
 *     gateway.yaml:12:5: error: unknown key "lb_algoritm": did you mean "lb_algorithm"?
 *         lb_algoritm: round_robin
 *         ^~~~~~~~~~~
 * `color` for a terminal. */
void diagnostics_print(const struct diagnostics *d, FILE *out, bool color);

/* For the log, as errors and warnings. Who pushes is told all of them; a log that repeats them with
 * each change needs a few. */
void diagnostics_log(const struct diagnostics *d);
