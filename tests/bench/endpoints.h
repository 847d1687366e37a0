/* endpoints: what the three programs of the benchmark share: sockets on loopback, one epoll each,
 * ends in sentences. They are single-threaded and keep a table indexed by descriptor, so an event
 * that comes late for a descriptor that was closed and used again costs one recv that finds
 * nothing. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_PER_TURN 256
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args); /* NOLINT(clang-analyzer-valist.Uninitialized) */
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* "127.0.0.1:80"; the address moved on by `step`, so that 1,000 endpoints need one option. */
static inline struct sockaddr_in parse_address(const char *text, unsigned step)
{
    char ip[16];
    unsigned port = 0;
    struct sockaddr_in a = {.sin_family = AF_INET};
    if (sscanf(text, "%15[0-9.]:%u", ip, &port) != 2 || inet_pton(AF_INET, ip, &a.sin_addr) != 1 ||
        port == 0 || port > 65535)
        die("\"%s\" is not an address: write 127.0.0.1:8080", text);
    a.sin_addr.s_addr = htonl(ntohl(a.sin_addr.s_addr) + step);
    a.sin_port = htons((uint16_t)port);
    return a;
}

static inline int listen_on(struct sockaddr_in a)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 65535) < 0)
        die("cannot listen on port %u: %m", ntohs(a.sin_port));
    return fd;
}

static inline void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static inline void watch(int epoll, int operation, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &e) < 0)
        die("epoll_ctl: %m");
}

/* As many descriptors as the system lets a process have, and how many that is. */
static inline size_t raise_descriptors(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        die("getrlimit: %m");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_cur < 65536 ? files.rlim_cur : 65536;
}
