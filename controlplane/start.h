/* start: which configuration a control plane begins with.
 *
 *   file has another content than when it was read last | -> the file
 *   the same, and a push or rollback came last          | -> that one, from the history
 *   the same, and the file itself came last             | -> the file
 *   the file cannot be read or is wrong                 | -> the newest of the history, with an
 * error
 *   ... and there is no history                         | -> none: it does not start
 *
 * Content counts, not time: a file that is mounted or copied anew is not a change. Once, before the
 * loop runs. */
#pragma once

#include <stdio.h>

#include "controlplane/config/diagnostics.h"
#include "controlplane/generation.h"
#include "controlplane/history.h"

struct start {
    struct config *config; /* owned */
    enum origin origin;
    uint64_t entry; /* of the history; 0 = the file's content is not in it */
    struct diagnostics
        diagnostics;    /* owned: of the text that was taken; its text is the config's */
    struct err refused; /* why not the file; "" when it was taken, or was not the one to take */
    bool unread;        /* it could not be read */
};

/* -1: there is nothing to begin with; what is wrong has been printed on `out`. */
MUST_CHECK int start_choose(struct start *s, const char *path, struct generations *gs,
                            const struct history *h, FILE *out);

void start_free(struct start *s); /* what nobody has taken over */
