/* frame: the framing codec. A frame is an 8-byte head and a payload:
 *
 *     0        4      6      7      8
 *     | length | type | fds  | zero | payload ...      all numbers big-endian; length counts the
 * payload only
 *
 * Descriptors (SCM_RIGHTS) are attached to the first byte of the frame that says how many there
 * are.
 *
 * A reader takes whatever pieces the socket gives and yields whole frames; a writer queues frames
 * and sends what the socket takes. Both are bounded; neither knows a loop. One thread each. */
#pragma once

#include <sys/types.h>

#include "proto/base/err.h"

#define FRAME_HEAD_BYTES 8
#define FRAME_MAX_BYTES (64u * 1024 * 1024) /* no payload is longer, whatever its type */
#define FRAME_MAX_FDS 32

struct frame {
    uint16_t type;
    const uint8_t *payload; /* borrowed from the reader until its next call */
    uint32_t len;
    int fds[FRAME_MAX_FDS]; /* owned by who receives the frame */
    uint8_t fd_count;
};

enum frame_status { FRAME_READY, FRAME_AGAIN, FRAME_CLOSED, FRAME_BROKEN };

/* The bound of a type's payload, 0 if there is no such type. Asked before memory is taken. */
typedef uint32_t frame_bound_fn(uint16_t type);

struct frame_reader {
    frame_bound_fn *bound;
    uint8_t *buffer; /* owned */
    size_t size, used, taken;
    int fds[FRAME_MAX_FDS]; /* owned; received, not yet claimed by a frame */
    unsigned fd_count;
};

void frame_reader_init(struct frame_reader *r, frame_bound_fn *bound);
void frame_reader_fini(struct frame_reader *r); /* closes descriptors that nobody claimed */

/* Reads from `fd` once (recvmsg) unless a whole frame is buffered already. READY fills `f`; AGAIN:
 * wait for the socket; CLOSED: the peer ended the session between two frames; BROKEN: `err` says
 * what it did wrong. */
enum frame_status frame_read(struct frame_reader *r, int fd, struct frame *f, struct err *err);

/* Is there a frame that frame_read() would yield without asking the socket? Then the socket may
 * never become readable again, however much is still to be handled. */
bool frame_is_buffered(const struct frame_reader *r);

struct frame_writer {
    struct frame_out *first, *last; /* owned queue */
    size_t queued_bytes;
};

void frame_writer_init(struct frame_writer *w);
void frame_writer_fini(struct frame_writer *w);

/* Room for a payload of `len` bytes at the queue's end, to be filled at once. The descriptors are
 * duplicated. NULL when one could not be duplicated. */
MUST_CHECK uint8_t *frame_append(struct frame_writer *w, uint16_t type, uint32_t len,
                                 const int *fds, unsigned fd_count);

/* READY: all was sent. AGAIN: more when the socket is writable. CLOSED: the peer is gone. BROKEN:
 * `err`. */
enum frame_status frame_write(struct frame_writer *w, int fd, struct err *err);
