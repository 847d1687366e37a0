#include "dataplane/state/snapshot_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/pace.h"
#include "proto/frame.h"

#define FILE_NAME "snapshot"
#define FORMAT 1
#define PATH_BYTES 4096
#define IS_BUSY (-2)
#define LOCK_TRIES 10

static const char magic[8] = "GWPSNAP";

/* As it stands on disk; the file is read by the machine that wrote it. */
struct head {
    char magic[8];
    uint32_t format, zero;
    uint64_t length, hash; /* of the payload */
};

static int build_path(char out[PATH_BYTES], const char *dir, const char *name, struct err *err)
{
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        return err_set(err, "the state directory's path \"%.80s...\" is too long", dir);
    return 0;
}

/* ---- saving ---- */

static int write_all(int fd, const void *bytes, size_t len)
{
    for (const char *p = bytes; len > 0;) {
        ssize_t n = write(fd, p, MIN(len, PACE_BYTES));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t)n;
        pace_look();
    }
    return 0;
}

static int write_file(int fd, const char *path, const uint8_t *packed, size_t len, struct err *err)
{
    struct head head = {.format = FORMAT, .length = len, .hash = XXH3_64bits(packed, len)};
    memcpy(head.magic, magic, sizeof(magic));
    int result = 0;
    if (ftruncate(fd, 0) < 0 || write_all(fd, &head, sizeof(head)) < 0 ||
        write_all(fd, packed, len) < 0 || fsync(fd) < 0)
        result = err_set_errno(err, "%s could not be written", path);
    return result;
}

/* Is it what the path leads to? Whoever had the lock before may have renamed it meanwhile. */
static bool is_at(int fd, const char *path)
{
    struct stat here, there;
    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

/* The descriptor, IS_BUSY, or -1 with `err`. */
static int open_locked(const char *path, struct err *err)
{
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set_errno(err, "%s could not be opened for writing", path);
        bool is_locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (is_locked && is_at(fd, path))
            return fd;
        if (!is_locked && errno != EWOULDBLOCK) {
            err_set_errno(err, "%s could not be locked", path);
            close(fd);
            return -1;
        }
        close(fd);
        if (!is_locked)
            return IS_BUSY;
    }
    return IS_BUSY;
}

/* The lock goes with the descriptor, so the file is in place before it is closed. Two data planes,
 * of which one replaces the other, may share the directory. */
static int write_and_rename(const char *path, const char *fresh, const uint8_t *packed, size_t len,
                            struct err *err)
{
    int fd = open_locked(fresh, err);
    if (fd < 0)
        return fd == IS_BUSY ? 0 : -1;
    int result = write_file(fd, fresh, packed, len, err);
    if (result == 0 && rename(fresh, path) < 0)
        result = err_set_errno(err, "%s could not be renamed to %s", fresh, path);
    if (result < 0)
        unlink(fresh);
    close(fd);
    return result;
}

/* A rename is on disk only when its directory is. */
static int sync_dir(const char *dir, struct err *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0) {
        err_set_errno(err, "directory %s could not be synced", dir);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    close(fd);
    return 0;
}

int snapshot_store_save(const char *state_dir, const uint8_t *packed, size_t len, struct err *err)
{
    char path[PATH_BYTES], fresh[PATH_BYTES];
    if (build_path(path, state_dir, FILE_NAME, err) < 0 ||
        build_path(fresh, state_dir, FILE_NAME ".new", err) < 0)
        return -1;
    if (mkdir(state_dir, 0750) < 0 && errno != EEXIST)
        return err_set_errno(err, "state directory %s could not be made", state_dir);
    if (write_and_rename(path, fresh, packed, len, err) < 0)
        return -1;
    return sync_dir(state_dir, err);
}

/* ---- its age ---- */

double snapshot_store_age(const char *state_dir)
{
    char path[PATH_BYTES];
    struct stat st;
    struct err ignored;
    if (build_path(path, state_dir, FILE_NAME, &ignored) < 0 || stat(path, &st) < 0)
        return 0;
    double age = difftime(time(NULL), st.st_mtime);
    return MAX(age, 0.);
}

void snapshot_store_confirm(const char *state_dir)
{
    char path[PATH_BYTES];
    struct err ignored;
    if (build_path(path, state_dir, FILE_NAME, &ignored) == 0 &&
        utimensat(AT_FDCWD, path, NULL, 0) < 0)
        return; /* read-only, or nothing is stored: the age goes on */
}

/* ---- loading ---- */

static bool read_all(int fd, void *bytes, size_t len)
{
    for (char *p = bytes; len > 0;) {
        ssize_t n = read(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static int check_head(int fd, const char *path, struct head *head, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, "%s could not be read", path);
    if (!read_all(fd, head, sizeof(*head)) || memcmp(head->magic, magic, sizeof(magic)) != 0)
        return err_set(err, "%s is not a stored snapshot", path);
    if (head->format != FORMAT || head->zero != 0)
        return err_set(err, "%s has format %u, this release reads %d", path, head->format, FORMAT);
    if (head->length > FRAME_MAX_BYTES || (uint64_t)st.st_size != sizeof(*head) + head->length)
        return err_set(err, "%s has %lld bytes where its head says %llu", path,
                       (long long)st.st_size, (unsigned long long)head->length + sizeof(*head));
    return 0;
}

static uint8_t *read_file(int fd, const char *path, size_t *len, struct err *err)
{
    struct head head = {0};
    if (check_head(fd, path, &head, err) < 0)
        return NULL;
    uint8_t *packed = malloc(head.length + 1);
    if (!packed || !read_all(fd, packed, head.length)) {
        err_set_errno(err, "%s could not be read", path);
    } else if (XXH3_64bits(packed, head.length) != head.hash) {
        err_set(err, "%s is damaged: its checksum does not match", path);
    } else {
        *len = head.length;
        return packed;
    }
    free(packed);
    return NULL;
}

uint8_t *snapshot_store_load(const char *state_dir, size_t *len, struct err *err)
{
    char path[PATH_BYTES];
    err->text[0] = '\0';
    if (build_path(path, state_dir, FILE_NAME, err) < 0)
        return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT)
            err_set_errno(err, "%s could not be opened", path);
        return NULL;
    }
    uint8_t *packed = read_file(fd, path, len, err);
    close(fd);
    return packed;
}
