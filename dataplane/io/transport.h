/* transport: bytes in and out of one non-blocking socket, and the news that it is readable or
 * writable. The layer below the codec: TLS will be a second transport with the same functions. One
 * worker's. Hot path: one system call per function that moves bytes, none otherwise.
 *
 * Its watcher stays armed for reading while the owner can take bytes, from request to request, so
 * that steady traffic needs no epoll_ctl; writing is watched only after a socket has refused bytes.
 */
#pragma once

#include <ev.h>
#include <sys/uio.h>

#include "proto/base/defs.h"

enum io_status {
    IO_OK,    /* some bytes moved */
    IO_AGAIN, /* none now; readiness will be told */
    IO_EOF,   /* the peer ends its side (reading only) */
    IO_ERROR  /* reset, or worse: errno says */
};

struct transport {
    ev_io io; /* .fd is owned */
};

/* `events` of ev.h: EV_READ, EV_WRITE or both. */
typedef void transport_ready_fn(struct transport *t, int events);

/* Takes over `fd`. Watches nothing yet. */
void transport_init(struct transport *t, int fd, transport_ready_fn *ready);
void transport_close(struct transport *t, struct ev_loop *loop);

/* Watch exactly these events from now on (0 = none). Cheap when nothing changes. */
void transport_watch(struct transport *t, struct ev_loop *loop, int events);

static inline int transport_fd(const struct transport *t)
{
    return t->io.fd;
}

static inline int transport_watched(const struct transport *t)
{
    return ev_is_active(&t->io) ? t->io.events & (EV_READ | EV_WRITE) : 0;
}

/* Has the loop been told of something that the owner has not been told of yet? */
static inline bool transport_has_news(const struct transport *t)
{
    return ev_is_pending(&t->io);
}

MUST_CHECK enum io_status transport_read(struct transport *t, char *to, size_t room, size_t *got);

/* `ends`: the caller will end this side of the connection right behind these bytes: they wait for
 * that and travel in one segment with it. */
MUST_CHECK enum io_status transport_write(struct transport *t, const struct iovec *iov, int count,
                                          bool ends, size_t *sent);
