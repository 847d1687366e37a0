/* status_line: the status of an HTTP/1 response, read byte by byte as it arrives, and nothing else
 * of it. Strict (RFC 9112 4): "HTTP/1.0" or "HTTP/1.1", one space, three digits, CRLF; what is not
 * that is no HTTP answer at the first byte that differs. Interim responses (1xx but for 101) are
 * passed over. Keeps no bytes. Pure, one thread. */
#pragma once

#include "proto/base/str.h"

enum status_line_result {
    STATUS_LINE_MORE, /* not complete yet */
    STATUS_LINE_DONE,
    STATUS_LINE_BAD, /* for ever */
};

/* Zeroed: before the first byte. */
struct status_line {
    int state; /* of status_line.c */
    unsigned matched;
    int status;
};

/* Behind DONE or BAD nothing is read any more. */
enum status_line_result status_line_feed(struct status_line *s, struct view bytes);
