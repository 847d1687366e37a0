/* descriptors: what the drivers share that send descriptors along: things to send, and whether any
 * was lost on the way. */
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "proto/frame.h"

enum { FD_NULL, FD_MEMORY, FD_LISTENING, FD_KINDS };

/* One of each, made once. */
static inline int descriptor_of(unsigned kind)
{
    static int fds[FD_KINDS] = {-1, -1, -1};
    if (fds[FD_NULL] < 0) {
        struct sockaddr_un any = {.sun_family = AF_UNIX};
        fds[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
        fds[FD_MEMORY] = memfd_create("fuzz", MFD_CLOEXEC);
        fds[FD_LISTENING] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        PROMISE(bind(fds[FD_LISTENING], (struct sockaddr *)&any, sizeof(sa_family_t)) == 0);
        PROMISE(listen(fds[FD_LISTENING], 8) == 0);
    }
    return fds[kind % FD_KINDS];
}

/* The next bytes, as many as the byte before them says and as there are. */
static inline struct view fuzz_some(struct fuzz_input *in)
{
    size_t len = fuzz_byte(in);
    struct view v = {in->at, MIN(len, in->len)};
    in->at += v.len;
    in->len -= v.len;
    return v;
}

/* The number that the next one gets: the same before and after when none is left open. */
static inline int next_descriptor(void)
{
    int fd = dup(descriptor_of(FD_NULL));
    PROMISE(fd >= 0);
    close(fd);
    return fd;
}

/* Bytes with descriptors on their first one, as frame.h says. */
static inline bool send_with(int fd, const void *bytes, size_t len, const int *fds, unsigned count)
{
    char room[CMSG_SPACE(sizeof(int) * FRAME_MAX_FDS)] = {0};
    struct iovec piece = {(void *)bytes, len};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (count > 0) {
        m.msg_control = room;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}
