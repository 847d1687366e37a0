#include "proto/base/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/addr.h"

#define TEXT_BYTES 512

/* "/path", or "@name" of the abstract namespace. */
static bool find_manager(struct addr *a)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || (path[0] != '/' && path[0] != '@') || len >= sizeof(a->sa.un.sun_path))
        return false;
    memset(a, 0, sizeof(*a));
    a->sa.un.sun_family = AF_UNIX;
    memcpy(a->sa.un.sun_path, path, len);
    if (path[0] == '@')
        a->sa.un.sun_path[0] = '\0';
    a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return true;
}

void notify_manager(const char *fmt, ...)
{
    struct addr manager;
    char text[TEXT_BYTES];
    va_list args;
    if (!find_manager(&manager))
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* Who does not listen is not waited for, and misses nothing that will not be said again. */
    ssize_t sent =
        sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, &manager.sa.any, manager.len);
    (void)sent;
    close(fd);
}

double notify_watchdog_seconds(void)
{
    const char *text = getenv("WATCHDOG_USEC");
    double micros = text && getenv("NOTIFY_SOCKET") ? strtod(text, NULL) : 0;
    return micros >= 1000 && micros < 1e12 ? micros / 1e6 / 2 : 0;
}
