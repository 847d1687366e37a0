/* reading: takes one message in through http1_parse, http1_check and target, in pieces as a socket
 * would bring them, compacting the buffer in between as an exchange does. */
#pragma once

#include <stdlib.h>

#include "dataplane/http/http1_check.h"
#include "dataplane/http/http1_parse.h"
#include "dataplane/http/target.h"

#define READING_MAX_FIELDS 100

struct reading {
    struct buffer *buffer;
    struct http1_parser parser;
    struct head head;
    struct request_target target;
    char *scratch;
    char *body;
    size_t body_len;
    size_t fed;   /* bytes given to the parser */
    size_t taken; /* of the message, once it is complete */
    const char *detail;
    enum reason reason;
};

/* A buffer without a byte to spare, so that a sanitizer sees who reads beyond it. */
static inline void reading_init(struct reading *r, size_t len)
{
    memset(r, 0, offsetof(struct reading, head));
    r->buffer = malloc(sizeof(*r->buffer) + len);
    r->buffer->size = (uint32_t)len;
    r->buffer->keep = r->buffer->parsed = r->buffer->used = 0;
    r->scratch = malloc(len + 1);
    r->body = malloc(len + 1);
    memset(&r->target, 0, sizeof(r->target));
    r->body_len = r->fed = r->taken = 0;
    r->detail = NULL;
    r->reason = R_CLIENT_TIMEOUT;
}

static inline void reading_fini(struct reading *r)
{
    free(r->buffer);
    free(r->scratch);
    free(r->body);
}

static inline void reading_feed(struct reading *r, const char *bytes, size_t len)
{
    memcpy(r->buffer->data + r->buffer->used, bytes + r->fed, len);
    r->buffer->used += (uint32_t)len;
    r->fed += len;
}

static inline enum reason reading_check(struct reading *r, bool is_response, unsigned method)
{
    struct head *h = &r->head;
    if (is_response)
        return http1_check_response(h, r->buffer, method, &r->detail);
    enum reason reason = http1_check_request(h, r->buffer, &r->detail);
    if (reason == R_SERVED)
        reason = http1_count_forwards(h, r->buffer, &r->detail);
    if (reason == R_SERVED)
        reason = target_parse(head_view(r->buffer, h->target_at, h->target_len), h->method,
                              r->scratch, &r->target, &r->detail);
    if (reason == R_SERVED && r->target.authority.len > 0 && !http1_is_host(r->target.authority))
        reason = R_BAD_REQUEST;
    return reason;
}

/* The first piece ends at `cut`, those behind it have `step` bytes. */
static inline size_t reading_piece(const struct reading *r, size_t len, size_t cut, size_t step)
{
    size_t piece = r->fed < cut ? cut - r->fed : step;
    return MIN(piece, len - r->fed);
}

/* R_SERVED: the message is complete and accepted. R_CLIENT_TIMEOUT: more would have to come. A body
 * that ends with the connection is complete when all is fed. */
static inline enum reason reading_run(struct reading *r, const char *bytes, size_t len, size_t cut,
                                      size_t step, bool is_response, unsigned method)
{
    enum parse_status status = PARSE_AGAIN;
    http1_parser_init(&r->parser, is_response, &r->head, READING_MAX_FIELDS);
    while (status == PARSE_AGAIN && r->fed < len) {
        reading_feed(r, bytes, reading_piece(r, len, cut, step));
        status = http1_parse_head(&r->parser, r->buffer);
    }
    if (status == PARSE_HEAD) {
        r->reason = reading_check(r, is_response, method);
        if (r->reason != R_SERVED)
            return r->reason;
        r->buffer->keep = r->buffer->parsed;
        http1_parse_start_body(&r->parser, (enum framing)r->head.framing, r->head.content_length);
        for (;;) {
            status = http1_parse_body(&r->parser, r->buffer);
            memcpy(r->body + r->body_len, r->buffer->data + r->parser.piece_at,
                   r->parser.piece_len);
            r->body_len += r->parser.piece_len;
            if (status != PARSE_AGAIN || r->fed == len)
                break;
            buffer_compact(r->buffer);
            reading_feed(r, bytes, reading_piece(r, len, cut, step));
        }
    }
    if (status == PARSE_DONE || (status == PARSE_AGAIN && r->head.framing == FRAMING_UNTIL_CLOSE))
        r->reason = R_SERVED;
    else if (status == PARSE_BAD)
        r->reason = r->parser.reason;
    else
        r->reason = R_CLIENT_TIMEOUT;
    if (status == PARSE_BAD)
        r->detail = r->parser.detail;
    r->taken = r->fed - (r->buffer->used - r->buffer->parsed);
    return r->reason;
}
