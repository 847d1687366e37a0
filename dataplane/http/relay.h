/* relay: one direction of an exchange: a head, then body pieces with their framing, from where they
 * lie in the buffer of one side to the transport of the other, in as few writes as the socket
 * allows. What the socket does not take stays here, which is how back-pressure begins: nobody reads
 * more while a relay is not empty. Hot path: a head that is sent at once is never copied. */
#pragma once

#include "dataplane/io/buffer.h"
#include "dataplane/io/transport.h"

struct relay {
    const char *head; /* borrowed until the first flush, which copies what is left into `rest` */
    uint32_t head_len, head_sent;
    struct buffer *rest;          /* owned; unsent part of a head */
    uint32_t piece_at, piece_len; /* unsent part of a body piece, in the source's buffer */
    uint8_t prefix_len, prefix_sent, suffix_len, suffix_sent;
    struct buffer *tail; /* owned; what follows the last chunk: trailers and the final CRLF */
    uint32_t tail_sent;
    bool chunked;        /* this side's framing of the body */
    bool ends;           /* the connection ends right behind what was put: see transport_write() */
    char prefix[12];     /* chunk size line */
    char suffix[8];      /* CRLF after a chunk, and the last chunk */
    uint64_t sent_bytes; /* in all, since relay_reset() */
};

void relay_reset(struct relay *r, struct buffer_stock *stock);

/* Next to be sent. `head` must stay until the first relay_flush(). */
void relay_put_head(struct relay *r, const char *head, size_t len);

/* Next to be sent after the head: `len` bytes (0 allowed) at `at` of the source's buffer, and the
 * end of the message when `last`. Only when the piece before is gone. */
void relay_put_piece(struct relay *r, uint32_t at, uint32_t len, bool last);

/* After the last piece was put: trailer fields, each a whole line, instead of none. Copied. Without
 * effect unless chunked. */
void relay_put_trailers(struct relay *r, const char *lines, size_t len, struct buffer_stock *stock);

static inline bool relay_piece_is_gone(const struct relay *r)
{
    return r->piece_len == 0 && r->prefix_sent == r->prefix_len &&
           r->suffix_sent == r->suffix_len && !r->tail;
}

/* Not a byte of the head that was put has been sent. */
static inline bool relay_head_is_unsent(const struct relay *r)
{
    return r->head_len > 0 && r->head_sent == 0 && !r->rest;
}

static inline bool relay_is_empty(const struct relay *r)
{
    return r->head_sent == r->head_len && relay_piece_is_gone(r);
}

/* Sends. IO_OK: all is gone. IO_AGAIN: the rest waits for the socket. IO_ERROR: the peer is gone.
 * `source` may be NULL when there is no piece. */
MUST_CHECK enum io_status relay_flush(struct relay *r, struct transport *to,
                                      const struct buffer *source, struct buffer_stock *stock);
