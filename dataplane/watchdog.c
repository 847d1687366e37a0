#include "dataplane/watchdog.h"

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"

#define BEATS 4 /* that a worker misses before it counts as stuck */
#define FRAMES 64
#define LAST_WORDS_S 1 /* for the stack: a thread that hangs in the kernel has none to tell */

/* On the stuck thread. Nothing here allocates: backtrace() has been called once before. */
static void on_stuck(int signal_number)
{
    static const char title[] = "stack of the worker that makes no progress:\n";
    void *frames[FRAMES];
    int count = backtrace(frames, FRAMES);
    if (write(STDERR_FILENO, title, sizeof(title) - 1) > 0)
        backtrace_symbols_fd(frames, count, STDERR_FILENO);
    abort();
}

static void give_up(const struct watchdog *w, const struct worker *worker)
{
    log_error(
        "watchdog",
        "worker %u has made no progress for %.1f s: this process ends, so that another can serve",
        worker->index, w->allowed_ms / 1000.);
    if (pthread_kill(worker->thread, WORKER_STACK_SIGNAL) == 0)
        sleep(LAST_WORDS_S);
    abort();
}

static void look_at(struct watchdog *w, struct worker *worker)
{
    unsigned *missed = &w->missed[worker->index];
    if (atomic_load_explicit(&worker->ended, memory_order_acquire))
        return;
    if (worker_has_answered(worker))
        *missed = 0;
    else if (++*missed >= BEATS)
        give_up(w, worker);
    worker_ping(worker);
}

static void on_beat(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct watchdog *w = timer->data;
    double now = clock_s();
    if (now - w->beat_at > 2 * timer->repeat) /* we were not there ourselves */
        memset(w->missed, 0, sizeof(w->missed));
    w->beat_at = now;
    for (unsigned i = 0; i < w->rollout->worker_count; i++)
        look_at(w, w->rollout->workers[i]);
}

void watchdog_init(struct watchdog *w, struct rollout *rollout)
{
    struct sigaction action = {.sa_handler = on_stuck};
    void *frame;
    memset(w, 0, sizeof(*w));
    w->rollout = rollout;
    ev_timer_init(&w->beat, on_beat, 0, 0);
    w->beat.data = w;
    backtrace(&frame, 1); /* loads what it needs */
    sigaction(WORKER_STACK_SIGNAL, &action, NULL);
}

void watchdog_set(struct watchdog *w, uint32_t allowed_ms)
{
    if (allowed_ms == w->allowed_ms)
        return;
    w->allowed_ms = allowed_ms;
    ev_timer_stop(w->rollout->loop, &w->beat);
    memset(w->missed, 0, sizeof(w->missed));
    if (allowed_ms == 0)
        return;
    double interval = allowed_ms / 1000. / BEATS;
    w->beat_at = clock_s();
    ev_timer_set(&w->beat, interval, interval);
    ev_timer_start(w->rollout->loop, &w->beat);
}

void watchdog_fini(struct watchdog *w)
{
    watchdog_set(w, 0);
}
