/* reasons: how an exchange ended, as an enum; the rest of each row of reasons.def by function.
 * Pure, any thread. */
#pragma once

#include "proto/base/str.h"

/* The first is R_SERVED and not R_OK, which <unistd.h> defines for something else. */
enum reason {
#define REASON(NAME, status, word, message, closes) R_##NAME,
#include "dataplane/http/reasons.def"
#undef REASON
    R_COUNT
};

unsigned reason_status(enum reason r);
const char *reason_word(enum reason r);    /* for logs, metrics and the "error" of our answers */
const char *reason_message(enum reason r); /* a sentence for the client */
bool reason_closes(enum reason r);         /* must our answer end the client's connection? */
