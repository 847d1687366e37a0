/* http1_scan: heads as nearly all of them are, read in one pass over their bytes: complete, every
 * line ended by CRLF, printable ASCII throughout, names that are tokens, a method and a version
 * that everybody knows. Half of what a request cost was llhttp going byte by byte and http1_check
 * going over the same bytes again; this takes a fifth of that.
 *
 * It decides nothing but that: whatever looks different in any way, also where it would be right,
 * is left to llhttp and http1_check, which give the answer, and the reason when it is no. Whether
 * both ways agree is held by every test and fuzz driver that reads a message whole and in pieces,
 * since a head that comes in pieces goes the long way. Pure; hot path. */
#pragma once

#include "dataplane/http/head.h"

/* `b` begins with a head and `h` is cleared: true when it is one of these, then `h` is as
 * http1_parse would have filled it, with `scanned` set, and buffer.parsed stands behind it. false:
 * `h` may hold anything. */
MUST_CHECK bool http1_scan_request(struct head *h, struct buffer *b, unsigned max_fields);
MUST_CHECK bool http1_scan_response(struct head *h, struct buffer *b, unsigned max_fields);
