/* http1_chunked: the chunked transfer coding, taken apart (RFC 9112 7.1). Ours and not llhttp's,
 * because every byte of the framing has to be looked at: a bare LF, a stray CR or a sign that one
 * server overlooks is where the next one's request begins. One worker's. Hot path: data is moved,
 * framing is read byte by byte.
 *
 *   SIZE [-> EXTENSION ...] -> DATA -> SIZE ... -> size 0 -> TRAILERS -> done
 *
 * The grammar is taken at its word: 1 to 16 hex digits, extensions only as names with an optional
 * token or quoted string, white space only around ";" and "=", CRLF and nothing else at the end of
 * lines. A trailer section is kept to the rules of a head. */
#pragma once

#include "dataplane/http/head.h"

#define TRAILERS_MAX_FIELDS 32
#define TRAILERS_MAX_BYTES (8u * 1024)

/* By so much the extensions of a body may be longer than the data before them: one that has more to
 * say beside its data than in it is an attack, not a message. */
#define CHUNKED_MAX_EXTRA_BYTES (16u * 1024)

enum chunked_status { CHUNKED_AGAIN, CHUNKED_DONE, CHUNKED_BAD };

/* The fields behind the last chunk: valid from CHUNKED_DONE on, as offsets into the buffer like
 * those of a head, until somebody moves or forgets the buffer's bytes. */
struct trailers {
    uint32_t count;
    struct field fields[TRAILERS_MAX_FIELDS];
};

struct http1_chunked {
    uint64_t left;    /* of the present chunk; while its size is read, the size so far */
    uint32_t extras;  /* bytes of extensions beyond those of data, of the body so far */
    uint32_t scanned; /* complete lines of the trailer section, in bytes */
    uint8_t state, digits;
    bool is_response;
    const char *detail; /* static words about CHUNKED_BAD */
    struct trailers trailers;
};

void http1_chunked_init(struct http1_chunked *c, bool is_response);

/* Decodes from buffer.parsed on. The data found is packed together into `piece_len` bytes at
 * `piece_at`. DONE: buffer.parsed stands behind the message. AGAIN: all is consumed but for an
 * incomplete trailer section, which stays not parsed so that it ends up in one piece: the caller
 * must be able to make TRAILERS_MAX_BYTES of room.
 *
 * A trailer field that may not be one (field_may_trail(), look-alikes included) makes a request
 * BAD, and is left out of a response's. */
enum chunked_status http1_chunked_decode(struct http1_chunked *c, struct buffer *b,
                                         uint32_t *piece_at, uint32_t *piece_len);
