/* Preloaded: a recv() that brings "X-Stuck" never comes back. For tests of the watchdog. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>

ssize_t recv(int fd, void *bytes, size_t room, int flags)
{
    static ssize_t (*real)(int, void *, size_t, int);
    if (!real)
        real = (ssize_t(*)(int, void *, size_t, int))dlsym(RTLD_NEXT, "recv");
    ssize_t n = real(fd, bytes, room, flags);
    for (volatile int forever = n > 0 && memmem(bytes, (size_t)n, "X-Stuck", 7) != NULL; forever;)
        ;
    return n;
}
