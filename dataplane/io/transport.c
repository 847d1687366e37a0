#include "dataplane/io/transport.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* The ready function is kept in the watcher's data, the object follows from the watcher's address.
 */
static void on_event(struct ev_loop *loop, ev_io *io, int events)
{
    struct transport *t = CONTAINER_OF(io, struct transport, io);
    transport_ready_fn *ready = (transport_ready_fn *)io->data;
    ready(t, events & (EV_READ | EV_WRITE));
}

void transport_init(struct transport *t, int fd, transport_ready_fn *ready)
{
    ev_io_init(&t->io, on_event, fd, 0);
    t->io.data = (void *)ready;
}

void transport_close(struct transport *t, struct ev_loop *loop)
{
    if (t->io.fd < 0)
        return;
    ev_io_stop(loop, &t->io);
    close(t->io.fd);
    t->io.fd = -1;
}

void transport_watch(struct transport *t, struct ev_loop *loop, int events)
{
    if (transport_watched(t) == events)
        return;
    ev_io_stop(loop, &t->io);
    if (events) {
        ev_io_set(&t->io, t->io.fd, events);
        ev_io_start(loop, &t->io);
    }
}

enum io_status transport_read(struct transport *t, char *to, size_t room, size_t *got)
{
    ssize_t n = recv(t->io.fd, to, room, 0);
    *got = n > 0 ? (size_t)n : 0;
    if (n > 0)
        return IO_OK;
    if (n == 0)
        return IO_EOF;
    return errno == EAGAIN || errno == EINTR ? IO_AGAIN : IO_ERROR;
}

enum io_status transport_write(struct transport *t, const struct iovec *iov, int count,
                               size_t *sent)
{
    ssize_t n;
    if (count == 1) {
        n = send(t->io.fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    } else {
        struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
        n = sendmsg(t->io.fd, &msg, MSG_NOSIGNAL);
    }
    *sent = n > 0 ? (size_t)n : 0;
    if (n >= 0)
        return IO_OK;
    return errno == EAGAIN || errno == EINTR ? IO_AGAIN : IO_ERROR;
}
