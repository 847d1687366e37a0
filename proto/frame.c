#include "proto/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/base/log.h"

#define FIRST_BUFFER_BYTES 4096
#define IOV_PER_WRITE 16

struct frame_out {
    struct frame_out *next;
    size_t len, sent; /* of bytes[] */
    unsigned fd_count;
    int fds[FRAME_MAX_FDS]; /* owned until sent */
    uint8_t bytes[];
};

static void put_u32(uint8_t *p, uint32_t n)
{
    p[0] = (uint8_t)(n >> 24);
    p[1] = (uint8_t)(n >> 16);
    p[2] = (uint8_t)(n >> 8);
    p[3] = (uint8_t)n;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* ---- reading ---- */

void frame_reader_init(struct frame_reader *r, frame_bound_fn *bound)
{
    memset(r, 0, sizeof(*r));
    r->bound = bound;
}

void frame_reader_fini(struct frame_reader *r)
{
    close_all(r->fds, r->fd_count);
    free(r->buffer);
    memset(r, 0, sizeof(*r));
}

/* Makes room for `want` bytes from the first untaken one on. Only called with a bound-checked
 * length. */
static void reserve(struct frame_reader *r, size_t want)
{
    if (r->taken > 0) {
        memmove(r->buffer, r->buffer + r->taken, r->used - r->taken);
        r->used -= r->taken;
        r->taken = 0;
    }
    if (want > r->size) {
        uint8_t *bigger = realloc(r->buffer, want);
        if (!bigger)
            log_fatal("frame", "out of memory: %zu bytes for a frame", want);
        r->buffer = bigger;
        r->size = want;
    }
}

/* After a large frame the buffer goes back, so that one snapshot does not stay in memory twice. */
static void shrink(struct frame_reader *r)
{
    if (r->taken == r->used && r->size > 16 * FIRST_BUFFER_BYTES) {
        free(r->buffer);
        r->buffer = NULL;
        r->size = r->used = r->taken = 0;
    }
}

static enum frame_status check_head(const struct frame_reader *r, uint32_t len, uint16_t type,
                                    uint8_t fd_count, uint8_t zero, struct err *err)
{
    uint32_t bound = r->bound(type);
    if (bound == 0) {
        err_set(err, "a frame of unknown type %u", type);
        return FRAME_BROKEN;
    }
    if (len > bound || len > FRAME_MAX_BYTES) {
        err_set(err, "a frame of type %u and %u bytes, more than the %u allowed", type, len, bound);
        return FRAME_BROKEN;
    }
    if (fd_count > FRAME_MAX_FDS || zero != 0) {
        err_set(err, "a malformed frame head");
        return FRAME_BROKEN;
    }
    return FRAME_READY;
}

/* Yields a buffered frame, or says how many bytes the one being received needs. */
static enum frame_status take_frame(struct frame_reader *r, struct frame *f, size_t *need,
                                    struct err *err)
{
    size_t have = r->used - r->taken;
    *need = FRAME_HEAD_BYTES;
    if (have < FRAME_HEAD_BYTES)
        return FRAME_AGAIN;
    const uint8_t *head = r->buffer + r->taken;
    uint32_t len = get_u32(head);
    uint16_t type = (uint16_t)(head[4] << 8 | head[5]);
    enum frame_status status = check_head(r, len, type, head[6], head[7], err);
    if (status != FRAME_READY)
        return status;
    *need = FRAME_HEAD_BYTES + (size_t)len;
    if (have < *need)
        return FRAME_AGAIN;
    if (head[6] > r->fd_count) {
        err_set(err, "a frame of type %u announced %u descriptors and brought %u", type, head[6],
                r->fd_count);
        return FRAME_BROKEN;
    }
    f->type = type;
    f->len = len;
    f->payload = head + FRAME_HEAD_BYTES;
    f->fd_count = head[6];
    memcpy(f->fds, r->fds, f->fd_count * sizeof(int));
    r->fd_count -= f->fd_count;
    memmove(r->fds, r->fds + f->fd_count, r->fd_count * sizeof(int));
    r->taken += *need;
    return FRAME_READY;
}

static int collect_fds(struct frame_reader *r, struct msghdr *msg, struct err *err)
{
    int result = msg->msg_flags & MSG_CTRUNC ? err_set(err, "more descriptors than fit") : 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        const int *fds = (const int *)(const void *)CMSG_DATA(c);
        for (unsigned i = 0; i < count; i++) {
            if (r->fd_count < FRAME_MAX_FDS) {
                r->fds[r->fd_count++] = fds[i];
            } else {
                close(fds[i]);
                result = err_set(err, "more descriptors than a frame may carry");
            }
        }
    }
    return result;
}

static enum frame_status receive(struct frame_reader *r, int fd, struct err *err)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FRAME_MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {r->buffer + r->used, r->size - r->used};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return FRAME_AGAIN;
        err_set_errno(err, "it could not be read from");
        return FRAME_BROKEN;
    }
    if (collect_fds(r, &msg, err) < 0)
        return FRAME_BROKEN;
    if (n == 0) {
        if (r->used == r->taken)
            return FRAME_CLOSED;
        err_set(err, "it closed the connection in the middle of a frame");
        return FRAME_BROKEN;
    }
    r->used += (size_t)n;
    return FRAME_READY;
}

enum frame_status frame_read(struct frame_reader *r, int fd, struct frame *f, struct err *err)
{
    size_t need;
    shrink(r);
    enum frame_status status = take_frame(r, f, &need, err);
    if (status != FRAME_AGAIN)
        return status;
    /* Memory grows with what has arrived, not with what a head promises: a liar costs what it
     * sends, doubled. */
    size_t have = r->used - r->taken;
    reserve(r, MAX(FIRST_BUFFER_BYTES, MIN(need, have * 2 + FIRST_BUFFER_BYTES)));
    status = receive(r, fd, err);
    if (status != FRAME_READY)
        return status;
    return take_frame(r, f, &need, err);
}

bool frame_is_buffered(const struct frame_reader *r)
{
    size_t have = r->used - r->taken;
    return have >= FRAME_HEAD_BYTES && have - FRAME_HEAD_BYTES >= get_u32(r->buffer + r->taken);
}

/* ---- writing ---- */

void frame_writer_init(struct frame_writer *w)
{
    memset(w, 0, sizeof(*w));
}

static void drop_first(struct frame_writer *w)
{
    struct frame_out *o = w->first;
    w->first = o->next;
    if (!w->first)
        w->last = NULL;
    w->queued_bytes -= o->len;
    close_all(o->fds, o->fd_count);
    free(o);
}

void frame_writer_fini(struct frame_writer *w)
{
    while (w->first)
        drop_first(w);
}

uint8_t *frame_append(struct frame_writer *w, uint16_t type, uint32_t len, const int *fds,
                      unsigned fd_count)
{
    struct frame_out *o = malloc(sizeof(*o) + FRAME_HEAD_BYTES + len);
    if (!o)
        log_fatal("frame", "out of memory: %u bytes for a frame", len);
    o->next = NULL;
    o->len = FRAME_HEAD_BYTES + (size_t)len;
    o->sent = 0;
    for (o->fd_count = 0; o->fd_count < fd_count; o->fd_count++) {
        o->fds[o->fd_count] = fcntl(fds[o->fd_count], F_DUPFD_CLOEXEC, 0);
        if (o->fds[o->fd_count] < 0) {
            close_all(o->fds, o->fd_count);
            free(o);
            return NULL;
        }
    }
    put_u32(o->bytes, len);
    o->bytes[4] = (uint8_t)(type >> 8);
    o->bytes[5] = (uint8_t)type;
    o->bytes[6] = (uint8_t)fd_count;
    o->bytes[7] = 0;
    if (w->last)
        w->last->next = o;
    else
        w->first = o;
    w->last = o;
    w->queued_bytes += o->len;
    return o->bytes + FRAME_HEAD_BYTES;
}

/* Gathers queued frames up to the next one that brings descriptors, which must begin a sendmsg of
 * its own. */
static int gather(const struct frame_writer *w, struct iovec *iov)
{
    int n = 0;
    for (struct frame_out *o = w->first; o && n < IOV_PER_WRITE; o = o->next) {
        if (n > 0 && o->fd_count > 0)
            break;
        iov[n++] = (struct iovec){o->bytes + o->sent, o->len - o->sent};
    }
    return n;
}

static ssize_t send_first(const struct frame_writer *w, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * FRAME_MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov[IOV_PER_WRITE];
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)gather(w, iov)};
    const struct frame_out *o = w->first;
    if (o->fd_count > 0 && o->sent == 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * o->fd_count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * o->fd_count);
        memcpy(CMSG_DATA(c), o->fds, sizeof(int) * o->fd_count);
    }
    return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

enum frame_status frame_write(struct frame_writer *w, int fd, struct err *err)
{
    while (w->first) {
        ssize_t n = send_first(w, fd);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return FRAME_AGAIN;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return FRAME_CLOSED;
        if (n < 0) {
            err_set_errno(err, "it could not be written to");
            return FRAME_BROKEN;
        }
        for (size_t left = (size_t)n; left > 0;) {
            size_t piece = MIN(left, w->first->len - w->first->sent);
            w->first->sent += piece;
            left -= piece;
            if (w->first->sent == w->first->len)
                drop_first(w);
        }
    }
    return FRAME_READY;
}
