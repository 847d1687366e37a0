/* stream: events as server-sent events (text/event-stream): what is kept first, then each one as it
 * happens, with a comment now and then so that both sides notice when the other is gone. A stream
 * that has nothing to say sleeps. On the loop; libmicrohttpd owns each with its response. */
#pragma once

#include "controlplane/admin/admin.h"

#define STREAMS_MAX 32

/* Answers with all events after `since` of that kind (NULL = of every kind). */
void stream_reply(struct request *rq, uint64_t since, const char *kind);

/* There may be something new to say, or somebody may have gone. */
void streams_wake(struct admin *a);

/* Those that came in through it end: it is about to be closed. */
void streams_end(struct admin *a, const struct front *f);

/* {"id": 1, "at": "...", "level": "warn", "kind": "breaker", "message": "..."}; owned by the
 * caller. */
json_t *stream_event(const struct event *e);
