/* http1_parse: bytes of a buffer -> struct head and body pieces, for requests and responses (RFC
 * 9112), on llhttp with all its lenient switches off. What llhttp lets through and should not is
 * http1_check's business. One worker's. Hot path.
 *
 *   HEAD --http1_parse_head() says PARSE_HEAD--> (check, choose framing)
 * --http1_parse_start_body()--> BODY --> DONE
 *
 * Bytes are consumed from buffer.parsed on. llhttp reads heads and chunks; bodies of known length
 * are only counted. */
#pragma once

#include <llhttp.h>

#include "dataplane/http/head.h"
#include "dataplane/http/reasons.h"

enum parse_status {
    PARSE_AGAIN, /* all that was there is consumed */
    PARSE_HEAD,  /* a head is complete; buffer.parsed stands behind it */
    PARSE_DONE,  /* the message is complete; buffer.parsed stands behind it */
    PARSE_BAD    /* not HTTP/1; `detail` says why */
};

struct http1_parser {
    llhttp_t llhttp;
    struct head *head;     /* borrowed: being filled */
    struct buffer *buffer; /* borrowed during a call */
    uint64_t left;         /* of a body with a length */
    uint64_t body_bytes;   /* of this message so far */
    uint32_t piece_at,
        piece_len; /* body bytes that the last call found, packed together, in the buffer */
    uint32_t name_at, name_end, value_at, value_end;
    uint32_t overhead; /* chunk framing and trailers since the last body byte */
    uint16_t max_fields;
    uint8_t framing;
    bool is_response, head_done, message_done, too_large;
    const char *detail; /* static words about PARSE_BAD */
};

void http1_parser_init(struct http1_parser *p, bool is_response, struct head *head,
                       uint32_t max_fields);

/* PARSE_BAD with too_large set: more fields, or longer ones, than allowed (431). */
enum parse_status http1_parse_head(struct http1_parser *p, struct buffer *b);

/* The body that follows, as http1_check has judged it. */
void http1_parse_start_body(struct http1_parser *p, enum framing framing, uint64_t length);

/* Only while the piece that the last call found has been dealt with: its place may be used again.
 * FRAMING_UNTIL_CLOSE never says PARSE_DONE; the end of the connection is its end. */
enum parse_status http1_parse_body(struct http1_parser *p, struct buffer *b);
