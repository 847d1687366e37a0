/* limit_reply: what Redis answers, as far as anything that is asked here can be answered: one
 * number, one text, or up to four of these. hiredis parses; it is given functions that put what it
 * finds into a reply of fixed size, so that no answer, however hostile, takes memory or is anything
 * else than this. What does not fit ends the connection. */
#pragma once

#include <hiredis/async.h>

#include "proto/base/defs.h"

#define REPLY_PARTS 4
#define REPLY_TEXT_BYTES 192 /* of a longer text, its beginning */

enum reply_kind { REPLY_NIL, REPLY_NUMBER, REPLY_TEXT, REPLY_STATUS, REPLY_ERROR, REPLY_LIST };

struct reply_part {
    enum reply_kind kind;
    int64_t number;
    uint8_t len;
    char text[REPLY_TEXT_BYTES]; /* terminated */
};

/* One for each connection: hiredis has one reply at a time. */
struct limit_reply {
    redisReply shape; /* hiredis looks at its type, and at `str` of an error */
    enum reply_kind kind;
    struct reply_part parts[REPLY_PARTS]; /* of anything but a list, the first */
    unsigned count;                       /* of a list */
    uint32_t owed; /* commands that are not answered yet; kept by who sends them */
};

/* From now on the context's replies are `reply`. */
void limit_reply_attach(struct limit_reply *reply, redisAsyncContext *context);

/* Has the peer sent more than any reply of ours may take? */
bool limit_reply_is_flooded(const redisAsyncContext *context);
