#include "dataplane/successor.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define DELETED " (deleted)" /* what the kernel says of a program whose file was replaced */

extern char **environ;

static int find_own(char path[PATH_BYTES], struct err *err)
{
    ssize_t len = readlink("/proc/self/exe", path, PATH_BYTES - 1);
    if (len < 0)
        return err_set_errno(err, "the path of this program cannot be found");
    path[len] = '\0';
    size_t mark = strlen(DELETED);
    if ((size_t)len > mark && strcmp(path + len - mark, DELETED) == 0)
        path[(size_t)len - mark] = '\0';
    return 0;
}

/* Signals that this process ignores or blocks are not the successor's affair. */
static int spawn(pid_t *pid, const char *path, char *const *argv)
{
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_init(&attributes);
    if (error)
        return error;
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    error = posix_spawn(pid, path, NULL, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    return error;
}

pid_t successor_start(const char *binary, char *const *argv, struct err *err)
{
    char own[PATH_BYTES];
    pid_t pid = 0;
    if (getpid() == 1) {
        err_set(err, "it is the first process of its container, which ends with it: restart the "
                     "container instead");
        return 0;
    }
    if (binary[0] == '\0') {
        if (find_own(own, err) < 0)
            return 0;
        binary = own;
    } else if (binary[0] != '/') {
        err_set(err, "%.200s is no absolute path", binary);
        return 0;
    }
    int error = spawn(&pid, binary, argv);
    if (error) {
        errno = error;
        err_set_errno(err, "%.200s cannot be started", binary);
        return 0;
    }
    return pid;
}
