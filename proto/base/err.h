/* err: a failure that a person has to read. Filled where the knowledge is, logged or sent once at
 * the top. A sentence: what happened, where, and what to do about it. */
#pragma once

#include "proto/base/defs.h"

#define ERR_MAX_BYTES 512

struct err {
    char text[ERR_MAX_BYTES];
};

/* Always returns -1, so that a failing function can `return err_set(err, ...)`. `err` may be NULL.
 */
int err_set(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* The same with ": " and the words for the current errno behind. */
int err_set_errno(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
