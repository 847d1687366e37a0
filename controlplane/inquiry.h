/* inquiry: questions to data planes that are under way: what would become of a request. Each goes
 * to the first data plane that can answer, and is answered once: by it, or with why not. Owned by
 * main.c; on the loop. */
#pragma once

#include "controlplane/session.h"
#include "proto/base/str.h"

#define INQUIRY_SECONDS 5.
#define INQUIRY_MAX 64

/* `answer` is NULL when there is none, then `why` says why. Both are borrowed for the call. */
typedef void inquiry_fn(void *owner, const Gwp__Explanation *answer, const char *why);

struct inquiries {
    struct ev_loop *loop;
    struct sessions *sessions; /* borrowed */
    struct list all;           /* of struct inquiry, owned */
    size_t count;
    uint64_t last_id;
};

void inquiries_init(struct inquiries *q, struct ev_loop *loop, struct sessions *sessions);
void inquiries_fini(struct inquiries *q); /* whoever waits is told */

/* `head` and `client` as in the message Explain. `done` may be called before this returns. */
void inquiries_ask(struct inquiries *q, struct view head, const char *client, inquiry_fn *done,
                   void *owner);

/* From the sessions. */
void inquiries_answered(struct inquiries *q, const Gwp__Explanation *answer);
