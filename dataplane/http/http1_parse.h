/* http1_parse: bytes of a buffer -> struct head and body pieces, for requests and responses (RFC
 * 9112). Heads that are all there at first sight and plainly right are http1_scan's. All others are
 * read by llhttp with its lenient switches off, but for the one that lets HTTP versions it does not
 * know through to http1_check; what else it lets through and should not is http1_check's business
 * as well. Chunked bodies are http1_chunked's; those of known length are only counted. One
 * worker's. Hot path.
 *
 *   HEAD --http1_parse_head() says PARSE_HEAD--> (check, choose framing)
 *        --http1_parse_start_body()--> BODY --> DONE
 *
 * Bytes are consumed from buffer.parsed on; a head begins at the buffer's first byte. */
#pragma once

#include <llhttp.h>

#include "dataplane/http/head.h"
#include "dataplane/http/http1_chunked.h"
#include "dataplane/http/reasons.h"

enum parse_status {
    PARSE_AGAIN, /* all that was there is consumed, but for an incomplete trailer section */
    PARSE_HEAD,  /* a head is complete; buffer.parsed stands behind it */
    PARSE_DONE,  /* the message is complete; buffer.parsed stands behind it */
    PARSE_BAD    /* refused; `reason` and `detail` say why */
};

struct http1_parser {
    llhttp_t llhttp;
    struct head *head;     /* borrowed: being filled */
    struct buffer *buffer; /* borrowed during a call */
    uint64_t left;         /* of a body with a length */
    uint32_t piece_at,
        piece_len; /* body bytes that the last call found, packed together, in the buffer */
    uint32_t name_at, name_end, value_at, value_end;
    uint16_t max_fields;
    uint8_t framing;
    bool is_response, head_done, message_done, too_large;
    bool begun;         /* llhttp is in use: http1_scan has had its look */
    bool odd_method;    /* llhttp does not know it: to be judged once it is all here */
    bool extension;     /* it was, and llhttp reads the rest of the head as if it were POST */
    enum reason reason; /* of PARSE_BAD, as a request's; a response's is R_BAD_RESPONSE */
    const char *detail; /* static words about PARSE_BAD */
    struct http1_chunked chunked;
};

void http1_parser_init(struct http1_parser *p, bool is_response, struct head *head,
                       uint32_t max_fields);

/* PARSE_BAD with `reason`: R_HEAD_TOO_LARGE for more fields, or longer ones, than allowed (then
 * too_large is set as well), R_NOT_IMPLEMENTED for what could be a method but is not written like
 * one, R_BAD_VERSION for the preface of HTTP/2, else R_BAD_REQUEST. */
enum parse_status http1_parse_head(struct http1_parser *p, struct buffer *b);

/* The body that follows, as http1_check has judged it. */
void http1_parse_start_body(struct http1_parser *p, enum framing framing, uint64_t length);

/* Only while the piece that the last call found has been dealt with: its place may be used again.
 * FRAMING_UNTIL_CLOSE never says PARSE_DONE; the end of the connection is its end.
 *
 * With PARSE_DONE, http1_trailers() are those of a chunked body, and stay so until the buffer is
 * compacted, consumed or given away: whoever wants to pass them on writes them before that. They
 * may be kept for as long as the piece itself. (buffer_grow() leaves them valid.) */
enum parse_status http1_parse_body(struct http1_parser *p, struct buffer *b);

static inline const struct trailers *http1_trailers(const struct http1_parser *p)
{
    return &p->chunked.trailers;
}
