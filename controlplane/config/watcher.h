/* watcher: says when a configuration file may have new content. Watches the file's directory, not
 * the file, because editors and config managers replace it: written in place, renamed over, deleted
 * and made again, or a symlink swapped somewhere on the way to it, as a ConfigMap's `..data` is.
 * The directory that a symlink leads to in the end is watched as well.
 * Speaks only when it has been quiet for a moment, so that half of a write is not read: a short one
 * behind a file that was closed, and the shortest behind one that was renamed into its place, which
 * is complete then; and at the latest a quarter of a second after the first sign, whoever goes on
 * writing. A slow look at the file's identity (device, inode, size, time) is the second line, for
 * what inotify does not tell: other hosts' writes on a network file system, a directory that is
 * itself replaced. It speaks when it finds the same twice: who fills a file for long has not closed
 * it yet, and a configuration that is cut off may well be valid.
 *
 * It may speak although nothing is different; whoever listens compares content. Owned by main.c; on
 * the loop. */
#pragma once

#include <ev.h>
#include <sys/types.h>
#include <time.h>

#include "proto/base/err.h"

#define WATCHER_RENAMED_SECONDS 0.001
#define WATCHER_COMPLETE_SECONDS 0.003
#define WATCHER_SETTLE_SECONDS 0.015
#define WATCHER_PATIENCE_SECONDS 0.25
#define WATCHER_POLL_SECONDS 1.

typedef void watcher_fn(void *owner);

/* What tells two states of a file apart without reading it. */
struct file_identity {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct watcher {
    struct ev_loop *loop;
    watcher_fn *changed;
    void *owner;         /* borrowed */
    char *path, *dir;    /* owned */
    const char *base;    /* its name in the directory, within path */
    int directory_watch; /* of inotify, -1 = the directory is not watched now */
    int target_watch;    /* of the directory that symlinks lead to in the end; the same, or -1 */
    ev_io events;
    ev_timer settle, poll;
    double first_at;                      /* loop time of the first sign that has not been told */
    struct file_identity seen, looked_at; /* when it was told; by the slow look before */
};

/* Without inotify (none left for this user) a warning is logged and the slow look is all there is.
 */
void watcher_init(struct watcher *w, struct ev_loop *loop, const char *path, watcher_fn *changed,
                  void *owner);
void watcher_fini(struct watcher *w);
