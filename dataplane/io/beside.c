#include "dataplane/io/beside.h"

#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ASIDE ".kept"
#define PATH_BYTES (sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(ASIDE))

bool beside_join(int fd)
{
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0;
}

void beside_permit(int fd)
{
    (void)!beside_join(fd);
}

void beside_steer(int fd, enum beside_place place)
{
    struct sock_filter answer = BPF_STMT(BPF_RET | BPF_K, (unsigned)place);
    struct sock_fprog program = {.len = 1, .filter = &answer};
    (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

/* Of a connection the kernel tells who listens: the process that has called listen(). */
static bool is_orphaned(const struct addr *addr)
{
    struct ucred listening = {0};
    socklen_t len = sizeof(listening);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_dead = fd >= 0 && connect(fd, &addr->sa.any, addr->len) == 0 &&
                   getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listening, &len) == 0 &&
                   listening.pid > 0 && kill(listening.pid, 0) < 0 && errno == ESRCH;
    if (fd >= 0)
        close(fd);
    return is_dead;
}

static void path_aside(char out[PATH_BYTES], const struct addr *addr)
{
    snprintf(out, PATH_BYTES, "%s" ASIDE, addr->sa.un.sun_path);
}

bool beside_put_aside(const struct addr *addr)
{
    char aside[PATH_BYTES];
    path_aside(aside, addr);
    return is_orphaned(addr) && rename(addr->sa.un.sun_path, aside) == 0;
}

bool beside_is_aside(const struct addr *addr)
{
    struct addr aside = *addr;
    char path[PATH_BYTES];
    if (addr->sa.any.sa_family != AF_UNIX)
        return false;
    path_aside(path, addr);
    if (access(path, F_OK) < 0)
        return false;
    if (strlen(path) >= sizeof(aside.sa.un.sun_path))
        return true; /* nobody can be asked */
    memcpy(aside.sa.un.sun_path, path, strlen(path) + 1);
    aside.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_there = fd < 0 || connect(fd, &aside.sa.any, aside.len) == 0 || errno != ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    if (!is_there)
        unlink(path);
    return is_there;
}

void beside_put_back(const struct addr *addr)
{
    char aside[PATH_BYTES];
    path_aside(aside, addr);
    if (rename(aside, addr->sa.un.sun_path) < 0)
        unlink(addr->sa.un.sun_path);
}

void beside_forget(const struct addr *addr)
{
    char aside[PATH_BYTES];
    path_aside(aside, addr);
    unlink(aside);
}
