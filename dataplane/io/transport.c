#include "dataplane/io/transport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define JOIN_BYTES 2048

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

/* In a program with threads recv() and send() are points of cancellation: two locked instructions
 * and thirty others around each system call. Nobody cancels a worker. */
static ssize_t receive(int fd, char *to, size_t room)
{
    return syscall(SYS_recvfrom, fd, to, room, 0, NULL, NULL);
}

static ssize_t send_one(int fd, const void *from, size_t len, int flags)
{
    return syscall(SYS_sendto, fd, from, len, flags, NULL, 0);
}

/* Head and small body, say: copied together they cost less than the kernel's way through a list. */
static ssize_t send_joined(int fd, const struct iovec *iov, int count, int flags)
{
    char joined[JOIN_BYTES];
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        memcpy(joined + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    return send_one(fd, joined, len, flags);
}

static ssize_t send_all(int fd, const struct iovec *iov, int count, int flags)
{
    size_t len = 0;
    if (count == 1)
        return send_one(fd, iov->iov_base, iov->iov_len, flags);
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (len <= JOIN_BYTES)
        return send_joined(fd, iov, count, flags);
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
    return sendmsg(fd, &msg, flags);
}

enum io_status transport_read(struct transport *t, char *to, size_t room, size_t *got)
{
    ssize_t n = receive(t->io.fd, to, room);
    *got = n > 0 ? (size_t)n : 0;
    if (n > 0)
        return IO_OK;
    if (n == 0)
        return IO_EOF;
    return errno == EAGAIN || errno == EINTR ? IO_AGAIN : IO_ERROR;
}

enum io_status transport_write(struct transport *t, const struct iovec *iov, int count, bool ends,
                               size_t *sent)
{
    ssize_t n = send_all(t->io.fd, iov, count, MSG_NOSIGNAL | (ends ? MSG_MORE : 0));
    *sent = n > 0 ? (size_t)n : 0;
    if (n >= 0)
        return IO_OK;
    return errno == EAGAIN || errno == EINTR ? IO_AGAIN : IO_ERROR;
}
