#include "controlplane/config/watcher.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/log.h"

/* Everything that can give a name in the directory another content. Not IN_MODIFY: half a write is
 * of no use, and a log in the same directory would keep us busy. */
#define EVENTS                                                                                     \
    (IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB |            \
     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static struct file_identity identify(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return (struct file_identity){.size = -1};
    return (struct file_identity){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
}

static bool same_identity(const struct file_identity *a, const struct file_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Of the directory that the path leads to when its symlinks are followed; -1 if to none. */
static int watch_target(const struct watcher *w)
{
    char *target = realpath(w->path, NULL);
    int watch = target ? inotify_add_watch(w->events.fd, dirname(target), EVENTS) : -1;
    free(target);
    return watch;
}

/* Whatever had been watched under this path, from now on it is the directories that are there now.
 */
static void watch_directories(struct watcher *w)
{
    if (w->events.fd < 0)
        return;
    int before[] = {w->directory_watch, w->target_watch};
    w->directory_watch = inotify_add_watch(w->events.fd, w->dir, EVENTS);
    w->target_watch = watch_target(w);
    for (size_t i = 0; i < COUNT_OF(before); i++)
        if (before[i] >= 0 && before[i] != w->directory_watch && before[i] != w->target_watch)
            inotify_rm_watch(w->events.fd, before[i]);
}

static void on_settled(struct ev_loop *loop, ev_timer *t, int revents)
{
    struct watcher *w = t->data;
    ev_timer_stop(loop, t);
    watch_directories(w);
    w->seen = identify(w->path);
    if (w->seen.size >= 0) /* while it is away there is nothing to read: it will come back */
        w->changed(w->owner);
}

/* Begins the quiet time anew. */
static void settle(struct watcher *w, double seconds)
{
    double now = ev_now(w->loop);
    if (!ev_is_active(&w->settle))
        w->first_at = now;
    double left = w->first_at + WATCHER_PATIENCE_SECONDS - now;
    ev_timer_stop(w->loop, &w->settle);
    ev_timer_set(&w->settle, MAX(MIN(seconds, left), 0.), 0.);
    ev_timer_start(w->loop, &w->settle);
}

static double quiet_after(uint32_t events)
{
    if (events & IN_MOVED_TO)
        return WATCHER_RENAMED_SECONDS;
    return events & IN_CLOSE_WRITE ? WATCHER_COMPLETE_SECONDS : WATCHER_SETTLE_SECONDS;
}

/* The file's own events begin the quiet time anew. What happens to other names counts when the path
 * leads somewhere else since: that is how a symlink on the way is swapped. */
static void take_event(struct watcher *w, const struct inotify_event *e)
{
    struct file_identity now;
    double seconds = quiet_after(e->mask);
    if (e->len > 0 && strcmp(e->name, w->base) == 0) {
        settle(w, seconds);
        return;
    }
    if (ev_is_active(&w->settle))
        return;
    now = identify(w->path);
    if (!same_identity(&now, &w->seen))
        settle(w, seconds);
}

static void on_events(struct ev_loop *loop, ev_io *io, int revents)
{
    _Alignas(struct inotify_event) char buffer[4096];
    ssize_t n;
    while ((n = read(io->fd, buffer, sizeof(buffer))) > 0) {
        for (const char *at = buffer; at < buffer + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)at;
            take_event(io->data, e);
            at += sizeof(*e) + e->len;
        }
    }
}

static void on_poll(struct ev_loop *loop, ev_timer *t, int revents)
{
    struct watcher *w = t->data;
    struct file_identity now = identify(w->path);
    bool rests = same_identity(&now, &w->looked_at);
    w->looked_at = now;
    watch_directories(w);
    if (rests && !same_identity(&now, &w->seen) && !ev_is_active(&w->settle))
        settle(w, WATCHER_SETTLE_SECONDS);
}

void watcher_init(struct watcher *w, struct ev_loop *loop, const char *path, watcher_fn *changed,
                  void *owner)
{
    memset(w, 0, sizeof(*w));
    w->loop = loop;
    w->changed = changed;
    w->owner = owner;
    w->path = strdup(path);
    char *scratch = strdup(path);
    w->dir = scratch ? strdup(dirname(scratch)) : NULL;
    free(scratch);
    if (!w->path || !w->dir)
        log_fatal("watcher", "out of memory");
    const char *slash = strrchr(w->path, '/');
    w->base = slash ? slash + 1 : w->path;
    w->directory_watch = w->target_watch = -1;
    w->seen = identify(path);
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    ev_io_init(&w->events, on_events, fd, EV_READ);
    w->events.data = w;
    watch_directories(w);
    if (fd >= 0)
        ev_io_start(loop, &w->events);
    if (w->directory_watch < 0)
        log_warn("watcher",
                 "changes of %s are not told by the system, it is looked at every %.0f s", path,
                 WATCHER_POLL_SECONDS);
    ev_timer_init(&w->settle, on_settled, 0., 0.);
    ev_timer_init(&w->poll, on_poll, WATCHER_POLL_SECONDS, WATCHER_POLL_SECONDS);
    w->settle.data = w->poll.data = w;
    ev_timer_start(loop, &w->poll);
}

void watcher_fini(struct watcher *w)
{
    if (!w->path)
        return;
    if (w->events.fd >= 0) {
        ev_io_stop(w->loop, &w->events);
        close(w->events.fd);
    }
    ev_timer_stop(w->loop, &w->settle);
    ev_timer_stop(w->loop, &w->poll);
    free(w->path);
    free(w->dir);
    w->path = w->dir = NULL;
}
