/* http1_check: the strict rules that a head must keep beyond what llhttp sees to: one unambiguous
 * reading, or none (RFC 9112 11.2). Pure functions over a parsed head; what they find out (framing,
 * keep-alive) they write into it. Hot path. */
#pragma once

#include "dataplane/http/head.h"
#include "dataplane/http/reasons.h"

/* Sets framing, content_length and keep_alive, or returns why the request is refused; *detail then
 * has static words. A minor version above 1 is taken for 1 and becomes so (RFC 9110 2.5): what is
 * sent on is our own HTTP/1.1 in any case. Marks fields with FIELD_LOOKALIKE. */
enum reason http1_check_request(struct head *h, const struct buffer *b, const char **detail);

/* TRACE and OPTIONS may be meant for somebody on the way (RFC 9110 7.6.2): counts their
 * Max-Forwards down, in place. R_SERVED: go on. When it is 0 the gateway has to answer: R_LAST_HOP
 * to OPTIONS, R_NOT_IMPLEMENTED to TRACE, which would tell secrets. Else R_BAD_REQUEST. */
enum reason http1_count_forwards(const struct head *h, struct buffer *b, const char **detail);

/* http1_check_request() for a response to `request_method`. R_SERVED or R_BAD_RESPONSE. */
enum reason http1_check_response(struct head *h, const struct buffer *b, unsigned request_method,
                                 const char **detail);

/* Is `host` a host and optional port as RFC 9110 4.2 has it? Registered names without
 * percent-encoding, IPv4, [IPv6]. */
bool http1_is_host(struct view host);

/* Is it a token, as methods and field names are? (RFC 9110 5.6.2) */
bool http1_is_token(struct view v);

/* The same, and without "_", which some take for "-"? */
bool http1_is_plain_name(struct view name);

/* Does the list field `value` hold that token, in any case? (RFC 9110 5.6.1) */
bool http1_has_token(struct view value, struct view token);

/* Does the list hold it that all fields of that id make together? (RFC 9110 5.3) */
bool http1_lists_token(const struct head *h, const struct buffer *b, enum field_id id,
                       struct view token);
