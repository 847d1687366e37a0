/* A ring is a plain byte queue: lines lie behind one another, so the writer passes long runs of
 * them to write(2) as they are. Positions only grow; the place in the ring is their remainder.
 * Where a line does not fit before the ring's end, the producer begins it at the ring's start and
 * leaves the position of the gap in `gap`. A new gap is made only when the former one has been read
 * over: both lie at ends of the ring, and between tail and head there is at most one such end.
 *
 * Sleeping: the writer sets `sleeping`, looks at all rings once more and sleeps on an eventfd. The
 * producer stores `head` and looks at `sleeping`. Both do so sequentially consistent, so at least
 * one of them sees the other: no line is left behind, and no line but the first after a silence
 * costs a system call. */
#include "dataplane/report/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "proto/base/str.h"

#define RING_BYTES ((uint64_t)1024 * 1024)
#define GATHER_MS 5   /* after a silence, so that a burst becomes few writes */
#define RETRY_MS 1000 /* after the sink failed; how often a path is looked after */
#define STOP_MS 1000  /* for what is left at the end */
#define INTERRUPT                                                                                  \
    SIGURG /* to the thread, ends its blocked write; nobody minds one from outside                 \
            */
#define INTERRUPT_MS 10
#define FILE_CHUNK (256 * 1024)
#define PIPE_CHUNK PIPE_BUF /* what a writable pipe takes without blocking, and whole */

struct log_ring {
    char *bytes;                                      /* owned */
    struct log_writer *writer;                        /* borrowed */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t head; /* written by the producer */
    _Atomic uint64_t gap; /* written by the producer before head: valid bytes end here */
    uint64_t begin;       /* the producer's: where the reserved line goes */
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t tail; /* written by the writer */
};

struct sink {
    int fd;              /* owned unless it is stdout or stderr; -1 = off */
    char path[PATH_MAX]; /* "" unless it is a file of ours */
    bool is_file;        /* never blocks for long, takes long runs */
};

struct log_writer {
    pthread_t thread;
    int wake; /* owned eventfd */
    unsigned ring_count;
    struct log_ring *rings; /* owned array */
    _Atomic bool off, stop, give_up, sleeping;
    _Atomic bool has_next, reopen; /* requests of the control thread */
    pthread_mutex_t lock;          /* of next */
    struct sink next;              /* to be taken by the writer */
    struct sink sink;              /* the writer's */
    bool failing;                  /* the writer's: the last write failed */
    time_t looked_after;           /* the writer's: when the path was last compared */
};

/* ---- the ring: producer ---- */

bool log_ring_is_off(const struct log_ring *r)
{
    return atomic_load_explicit(&r->writer->off, memory_order_relaxed);
}

char *log_ring_reserve(struct log_ring *r, size_t bytes)
{
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    uint64_t place = head % RING_BYTES;
    r->begin = place + bytes <= RING_BYTES ? head : head - place + RING_BYTES;
    if (r->begin + bytes - tail > RING_BYTES)
        return NULL;
    return r->bytes + r->begin % RING_BYTES;
}

static void wake_writer(struct log_writer *w)
{
    uint64_t one = 1;
    ssize_t ignored = write(w->wake, &one, sizeof(one)); /* cannot fail: it is never full */
    (void)ignored;
}

void log_ring_commit(struct log_ring *r, size_t bytes)
{
    if (bytes == 0)
        return;
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (r->begin != head)
        atomic_store_explicit(&r->gap, head, memory_order_relaxed);
    atomic_store(&r->head, r->begin + bytes);
    if (atomic_load(&r->writer->sleeping) && atomic_exchange(&r->writer->sleeping, false))
        wake_writer(r->writer);
}

/* ---- the ring: writer ---- */

/* The next run of bytes; empty when there is none. Steps over the gap. */
static struct view ring_peek(struct log_ring *r)
{
    uint64_t head = atomic_load(&r->head);
    uint64_t gap = atomic_load_explicit(&r->gap, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint64_t turn = tail - tail % RING_BYTES + RING_BYTES; /* the ring's end */
    bool has_gap = gap >= tail && gap < head && gap < turn;
    if (has_gap && gap == tail) {
        tail = turn;
        atomic_store_explicit(&r->tail, tail, memory_order_release);
        turn += RING_BYTES;
        has_gap = false;
    }
    uint64_t end = has_gap ? gap : MIN(head, turn);
    return (struct view){r->bytes + tail % RING_BYTES, end - tail};
}

static void ring_consume(struct log_ring *r, size_t bytes)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + bytes, memory_order_release);
}

/* ---- the sink ---- */

static void sink_close(struct sink *s)
{
    if (s->fd > STDERR_FILENO)
        close(s->fd);
    s->fd = -1;
}

/* Non-blocking for the sake of pipes with a name: one that nobody reads is an error, not a wait. */
static int open_path(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
}

static int sink_open(struct sink *s, const char *name, struct err *err)
{
    struct stat st;
    memset(s, 0, sizeof(*s));
    s->fd = -1;
    if (strcmp(name, "off") == 0)
        return 0;
    if (strcmp(name, "stdout") == 0 || strcmp(name, "stderr") == 0) {
        s->fd = name[3] == 'o' ? STDOUT_FILENO : STDERR_FILENO;
    } else {
        if (snprintf(s->path, sizeof(s->path), "%s", name) >= (int)sizeof(s->path))
            return err_set(err, "access log: the path \"%.80s...\" is too long", name);
        s->fd = open_path(s->path);
        if (s->fd < 0)
            return err_set_errno(err, "access log %s could not be opened", s->path);
    }
    s->is_file = fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode);
    return 0;
}

static void sink_reopen(struct sink *s)
{
    int fd = open_path(s->path);
    if (fd < 0) {
        log_warn("log_writer", "access log %s could not be reopened: %s; the old file goes on",
                 s->path, strerror(errno));
        return;
    }
    close(s->fd);
    s->fd = fd;
}

/* Has the file been moved away from under its name? Asked once a second at most. */
static bool was_rotated(struct log_writer *w)
{
    struct stat named, open_one;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!w->sink.is_file || w->sink.path[0] == '\0' || now.tv_sec == w->looked_after)
        return false;
    w->looked_after = now.tv_sec;
    if (fstat(w->sink.fd, &open_one) < 0)
        return false;
    if (stat(w->sink.path, &named) < 0)
        return errno == ENOENT;
    return named.st_ino != open_one.st_ino || named.st_dev != open_one.st_dev;
}

/* ---- the thread ---- */

static bool is_interrupted(struct log_writer *w)
{
    return atomic_load(&w->stop) || atomic_load(&w->has_next);
}

static void clear_wake(struct log_writer *w)
{
    uint64_t ignored;
    ssize_t n = read(w->wake, &ignored, sizeof(ignored)); /* non-blocking; nothing there is fine */
    (void)n;
}

/* One line of complaint when the sink begins to fail and one when it is well again. The lines stay
 * in the rings meanwhile; when those are full, the workers drop and count. */
static void set_failing(struct log_writer *w, bool failing)
{
    if (failing && !w->failing)
        log_warn("log_writer", "access log could not be written: %s; lines are kept, then dropped",
                 strerror(errno));
    if (!failing && w->failing)
        log_info("log_writer", "access log is written again");
    w->failing = failing;
}

/* Whole lines where they fit, so that nothing else that writes to the same pipe gets in between. */
static size_t chunk_of(const struct sink *s, struct view v)
{
    size_t most = s->is_file ? FILE_CHUNK : PIPE_CHUNK;
    if (v.len <= most)
        return v.len;
    const char *last = memrchr(v.at, '\n', most);
    return last ? (size_t)(last - v.at) + 1 : most;
}

/* Waits until the sink takes something; false when there is other work to do first. */
static bool wait_for_sink(struct log_writer *w)
{
    if (w->sink.is_file)
        return true;
    while (!is_interrupted(w)) {
        struct pollfd fds[] = {{.fd = w->sink.fd, .events = POLLOUT},
                               {.fd = w->wake, .events = POLLIN}};
        if (poll(fds, COUNT_OF(fds), RETRY_MS) < 0 && errno != EINTR)
            return true;
        if (fds[1].revents)
            clear_wake(w);
        if (fds[0].revents)
            return true;
    }
    /* What a ready sink takes is not lost at a change; at the end even a slow one gets its time. */
    struct pollfd last = {.fd = w->sink.fd, .events = POLLOUT};
    return poll(&last, 1, atomic_load(&w->stop) ? STOP_MS : 0) > 0;
}

/* false when the sink takes no more for now. */
static bool drain_ring(struct log_writer *w, struct log_ring *r)
{
    for (struct view v; (v = ring_peek(r)).len > 0;) {
        if (atomic_load(&w->give_up))
            return false;
        if (w->sink.fd < 0) {
            ring_consume(r, v.len);
            continue;
        }
        if (!wait_for_sink(w))
            return false;
        ssize_t n = write(w->sink.fd, v.at, chunk_of(&w->sink, v));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        set_failing(w, n < 0);
        if (n < 0)
            return false;
        ring_consume(r, (size_t)n);
    }
    return true;
}

static void drain_all(struct log_writer *w)
{
    for (unsigned i = 0; i < w->ring_count; i++)
        if (!drain_ring(w, &w->rings[i]))
            return;
}

static bool all_empty(struct log_writer *w)
{
    for (unsigned i = 0; i < w->ring_count; i++)
        if (ring_peek(&w->rings[i]).len > 0)
            return false;
    return true;
}

static void take_next_sink(struct log_writer *w)
{
    if (!atomic_load(&w->has_next))
        return;
    if (w->sink.fd >= 0)
        drain_all(w); /* what was logged before the change goes where it was meant to go */
    sink_close(&w->sink);
    pthread_mutex_lock(&w->lock);
    w->sink = w->next;
    w->next.fd = -1;
    atomic_store(&w->has_next, false);
    pthread_mutex_unlock(&w->lock);
    w->failing = false;
}

/* Until a worker or the control thread wakes it. */
static void sleep_until_poked(struct log_writer *w)
{
    struct pollfd fd = {.fd = w->wake, .events = POLLIN};
    atomic_store(&w->sleeping, true);
    if ((w->failing || all_empty(w)) && !is_interrupted(w) && !atomic_load(&w->reopen))
        poll(&fd, 1, w->failing ? RETRY_MS : -1);
    atomic_store(&w->sleeping, false);
    clear_wake(w);
    if (!is_interrupted(w)) {
        const struct timespec gather = {.tv_nsec = GATHER_MS * 1000000};
        nanosleep(&gather, NULL);
    }
}

static void *run(void *arg)
{
    struct log_writer *w = arg;
    sigset_t all;
    sigfillset(&all); /* signals are the control thread's */
    sigdelset(&all, INTERRUPT);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) {
        bool last = atomic_load(&w->stop);
        take_next_sink(w);
        if ((atomic_exchange(&w->reopen, false) || was_rotated(w)) && w->sink.path[0])
            sink_reopen(&w->sink);
        drain_all(w);
        if (last)
            return NULL;
        sleep_until_poked(w);
    }
}

/* ---- the control thread's side ---- */

static void ring_init(struct log_ring *r, struct log_writer *w)
{
    memset(r, 0, sizeof(*r));
    r->writer = w;
    r->bytes = malloc(RING_BYTES);
    if (!r->bytes)
        log_fatal("log_writer", "out of memory");
    atomic_init(&r->gap, UINT64_MAX);
}

static void on_interrupt(int signal_number)
{
}

struct log_writer *log_writer_start(unsigned workers)
{
    struct sigaction interrupt = {.sa_handler = on_interrupt}; /* without SA_RESTART */
    sigaction(INTERRUPT, &interrupt, NULL);
    struct log_writer *w = calloc(1, sizeof(*w));
    struct log_ring *rings = aligned_alloc(CACHE_LINE_BYTES, workers * sizeof(*rings));
    if (!w || !rings)
        log_fatal("log_writer", "out of memory");
    w->rings = rings;
    w->ring_count = workers;
    for (unsigned i = 0; i < workers; i++)
        ring_init(&rings[i], w);
    atomic_init(&w->off, true);
    w->sink.fd = w->next.fd = -1;
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&w->lock, NULL);
    if (w->wake < 0 || pthread_create(&w->thread, NULL, run, w) != 0)
        log_fatal("log_writer", "the thread could not be started: %s", strerror(errno));
    pthread_setname_np(w->thread, "log_writer");
    return w;
}

static bool has_ended(struct log_writer *w, int within_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += (long)within_ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return pthread_timedjoin_np(w->thread, NULL, &t) == 0;
}

void log_writer_stop(struct log_writer **wp)
{
    struct log_writer *w = *wp;
    *wp = NULL;
    if (!w)
        return;
    atomic_store(&w->stop, true);
    wake_writer(w);
    /* A write may block for ever where another process filled the pipe between poll and write. The
     * signal may come just before that write: so it is sent until the thread has ended. */
    for (int wait_ms = STOP_MS; !has_ended(w, wait_ms); wait_ms = INTERRUPT_MS) {
        atomic_store(&w->give_up, true);
        pthread_kill(w->thread, INTERRUPT);
    }
    sink_close(&w->sink);
    sink_close(&w->next);
    close(w->wake);
    pthread_mutex_destroy(&w->lock);
    for (unsigned i = 0; i < w->ring_count; i++)
        free(w->rings[i].bytes);
    free(w->rings);
    free(w);
}

struct log_ring *log_writer_ring(struct log_writer *w, unsigned worker)
{
    return &w->rings[worker];
}

int log_writer_set_sink(struct log_writer *w, const char *sink, struct err *err)
{
    struct sink fresh;
    if (sink_open(&fresh, sink, err) < 0)
        return -1;
    pthread_mutex_lock(&w->lock);
    sink_close(&w->next); /* one that was not taken yet */
    w->next = fresh;
    atomic_store(&w->has_next, true);
    pthread_mutex_unlock(&w->lock);
    atomic_store(&w->off, fresh.fd < 0);
    wake_writer(w);
    return 0;
}

void log_writer_reopen(struct log_writer *w)
{
    atomic_store(&w->reopen, true);
    wake_writer(w);
}
