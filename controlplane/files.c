#include "controlplane/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/addr.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

#define LOCK_TRIES 100
#define LOCK_PAUSE_US 5000

int files_make_parent(const char *path, struct err *err)
{
    char dir[4096];
    int len = snprintf(dir, sizeof(dir), "%s", path);
    if (len < 0 || (size_t)len >= sizeof(dir))
        return err_set(err, "the path %s is too long", path);
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
            return err_set_errno(err, "the directory %s cannot be made", dir);
        *slash = '/';
    }
    return 0;
}

static int write_all(int fd, struct view text)
{
    while (text.len > 0) {
        ssize_t n = write(fd, text.at, MIN(text.len, PACE_BYTES));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        text.at += n;
        text.len -= (size_t)n;
        pace_look();
    }
    return 0;
}

static int write_parts(int fd, const struct view *parts, size_t count, bool durable)
{
    for (size_t i = 0; i < count; i++)
        if (write_all(fd, parts[i]) < 0)
            return -1;
    return durable ? fsync(fd) : 0;
}

/* A rename is on the disk once its directory is. */
static int sync_directory_of(const char *path, struct err *err)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 ? -1 : fsync(fd);
    if (result < 0)
        err_set_errno(err, "the directory %s cannot be synced", dir);
    if (fd >= 0)
        close(fd);
    return result;
}

static int replace(const char *path, const struct view *parts, size_t count, bool durable,
                   struct err *err)
{
    char beside[4096];
    int len = snprintf(beside, sizeof(beside), "%s.new", path);
    if (len < 0 || (size_t)len >= sizeof(beside))
        return err_set(err, "the path %s is too long", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_set_errno(err, "%s cannot be written", beside);
    int result = write_parts(fd, parts, count, durable);
    if (result < 0)
        err_set_errno(err, "%s cannot be written", beside);
    close(fd);
    if (result == 0 && rename(beside, path) < 0)
        result = err_set_errno(err, "%s cannot be renamed to %s", beside, path);
    if (result < 0)
        unlink(beside);
    else if (durable)
        result = sync_directory_of(path, err);
    return result;
}

int files_write_parts(const char *path, const struct view *parts, size_t count, struct err *err)
{
    return replace(path, parts, count, true, err);
}

int files_write(const char *path, struct view text, struct err *err)
{
    return replace(path, &text, 1, true, err);
}

int files_write_soon(const char *path, struct view text, struct err *err)
{
    return replace(path, &text, 1, false, err);
}

/* Reads up to `room` bytes; -1 with errno. */
static ssize_t read_all(int fd, char *out, size_t room)
{
    size_t used = 0;
    while (used < room) {
        ssize_t n = read(fd, out + used, MIN(room - used, PACE_BYTES));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        used += (size_t)n;
        pace_look();
    }
    return (ssize_t)used;
}

char *files_read(const char *path, size_t max_bytes, size_t *len, struct err *err)
{
    struct stat st;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no pipe shall keep us waiting */
    if (fd < 0 || fstat(fd, &st) < 0) {
        err_set_errno(err, "%s cannot be read", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size > max_bytes) {
        err_set(err, "%s is not a file of at most %zu bytes", path, max_bytes);
        goto out;
    }
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        log_fatal("files", "out of memory: %s has %zu bytes", path, (size_t)st.st_size);
    ssize_t n = read_all(fd, text, (size_t)st.st_size);
    if (n < 0) {
        err_set_errno(err, "%s cannot be read", path);
        free(text);
        text = NULL;
        goto out;
    }
    text[n] = '\0';
    *len = (size_t)n;
out:
    if (fd >= 0)
        close(fd);
    return text;
}

/* ---- Unix sockets ---- */

static bool is_alive(const struct addr *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool alive = fd >= 0 && (connect(fd, &a->sa.any, a->len) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return alive;
}

static int bind_private(int fd, const struct addr *a)
{
    mode_t before = umask(0117); /* so that it never has another mode than 0660, not for a moment */
    int result = bind(fd, &a->sa.any, a->len);
    umask(before);
    return result;
}

/* Of two that start at once neither shall remove what the other has just made. -1: there is no
 * lock, and most likely no other. */
static int lock_directory_of(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) < 0; i++)
        usleep(LOCK_PAUSE_US);
    return fd;
}

static int listen_there(const struct addr *a, const char *path, struct err *err)
{
    struct stat st;
    if (is_alive(a))
        return err_set(
            err, "another process already listens on %s; stop it first, or choose another path",
            path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && bind_private(fd, a) == 0 && listen(fd, 64) == 0)
        return fd;
    err_set_errno(err, "the socket %s cannot be opened", path);
    if (fd >= 0)
        close(fd);
    return -1;
}

int files_listen_unix(const char *path, struct err *err)
{
    struct addr a;
    char text[ADDR_TEXT_BYTES + 8];
    snprintf(text, sizeof(text), "unix:%s", path);
    if (addr_parse(&a, strlen(path) < ADDR_TEXT_BYTES ? text : "unix:", err) < 0 ||
        files_make_parent(path, err) < 0)
        return -1;
    int lock = lock_directory_of(path);
    int fd = listen_there(&a, path, err);
    if (lock >= 0)
        close(lock);
    return fd;
}
