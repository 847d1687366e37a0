#include "controlplane/health/probe.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/health/status_line.h"
#include "proto/base/log.h"
#include "proto/base/version.h"

enum stage { CONNECTING, SENDING, RECEIVING };

struct probe {
    struct ev_loop *loop;
    struct probe_request request;
    probe_done_fn *done;
    void *owner;
    int fd; /* -1 = none */
    enum stage stage;
    ev_io io;
    ev_timer deadline;
    double started_at;
    char *text; /* owned: the request; NULL = nothing to send */
    size_t len, sent, received;
    struct status_line line;
    struct probe_outcome outcome;
    bool is_decided; /* before the loop has turned: the deadline tells it at once */
};

const char *probe_word(enum probe_result result)
{
    static const char *const words[] = {
#define PROBE_RESULT(NAME, word) word,
        PROBE_RESULTS
#undef PROBE_RESULT
    };
    return words[result];
}

bool probe_is_expected(const struct status_set *expected, int status)
{
    for (size_t i = 0; i < expected->count; i++)
        if (status >= expected->at[i].first && status <= expected->at[i].last)
            return true;
    return false;
}

static double monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the end ---- */

static void probe_free(struct probe *p)
{
    ev_io_stop(p->loop, &p->io);
    ev_timer_stop(p->loop, &p->deadline);
    if (p->fd >= 0)
        close(p->fd);
    free(p->text);
    free(p);
}

static void decide(struct probe *p, enum probe_result result, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

static void decide(struct probe *p, enum probe_result result, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->outcome.reason, sizeof(p->outcome.reason), fmt, ap);
    va_end(ap);
    p->outcome.result = result;
    p->outcome.seconds = monotonic() - p->started_at;
    p->is_decided = true;
}

static void decide_by_errno(struct probe *p, int error)
{
    enum probe_result result = PROBE_UNREACHABLE;
    char words[64];
    switch (error) {
    case ECONNREFUSED:
        result = PROBE_REFUSED;
        break;
    case ECONNRESET:
    case EPIPE:
        result = PROBE_RESET;
        break;
    case ETIMEDOUT:
        result = PROBE_TIMEOUT;
        break;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL: /* no local port is left */
    case EAFNOSUPPORT:
        result = PROBE_NOT_MADE;
        break;
    default:
        break;
    }
    decide(p, result, "%s", strerror_r(error, words, sizeof(words)));
}

/* The one way out, from the loop. The owner may start the next one at once. */
static void finish(struct probe *p)
{
    struct probe_outcome outcome = p->outcome;
    probe_done_fn *done = p->done;
    void *owner = p->owner;
    probe_free(p);
    done(owner, &outcome);
}

void probe_cancel(struct probe **p)
{
    if (*p)
        probe_free(*p);
    *p = NULL;
}

/* ---- the response ---- */

static void on_status(struct probe *p)
{
    int status = p->outcome.status = p->line.status;
    if (probe_is_expected(p->request.expected, status))
        decide(p, PROBE_OK, "status %d", status);
    else
        decide(p, PROBE_STATUS, "status %d is not expected", status);
}

/* What has already arrived is read away, so that closing is no reset in the backend's log. */
static void drain(struct probe *p)
{
    char rest[4096];
    while (p->received < PROBE_MAX_BYTES) {
        ssize_t n = recv(p->fd, rest, sizeof(rest), MSG_DONTWAIT);
        if (n <= 0)
            return;
        p->received += (size_t)n;
    }
}

static void receive(struct probe *p)
{
    char bytes[4096];
    size_t room = MIN(sizeof(bytes), PROBE_MAX_BYTES - p->received);
    ssize_t n = recv(p->fd, bytes, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        decide_by_errno(p, errno);
        return;
    }
    if (n == 0) {
        decide(p, PROBE_CLOSED, "closed without a response");
        return;
    }
    p->received += (size_t)n;
    switch (status_line_feed(&p->line, (struct view){bytes, (size_t)n})) {
    case STATUS_LINE_DONE:
        on_status(p);
        drain(p);
        break;
    case STATUS_LINE_BAD:
        decide(p, PROBE_BAD_RESPONSE, "the response is not HTTP/1");
        break;
    case STATUS_LINE_MORE:
        if (p->received >= PROBE_MAX_BYTES)
            decide(p, PROBE_BAD_RESPONSE, "no status within %u bytes", PROBE_MAX_BYTES);
        break;
    }
}

/* ---- the request ---- */

static void watch(struct probe *p, enum stage stage, int events)
{
    p->stage = stage;
    ev_io_stop(p->loop, &p->io);
    ev_io_set(&p->io, p->fd, events);
    ev_io_start(p->loop, &p->io);
}

static void send_rest(struct probe *p)
{
    ssize_t n = send(p->fd, p->text + p->sent, p->len - p->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        decide_by_errno(p, errno);
        return;
    }
    p->sent += n > 0 ? (size_t)n : 0;
    if (p->sent == p->len)
        watch(p, RECEIVING, EV_READ);
}

static void make_request(struct probe *p)
{
    int len = asprintf(&p->text,
                       "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gateway-pro-health/" GWP_VERSION
                       "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                       p->request.path, p->request.host);
    if (len < 0)
        log_fatal("probe", "out of memory");
    p->len = (size_t)len;
}

/* Linux connects a socket to itself when it happens to choose the port that it connects to: there
 * is nobody else then. */
static bool is_self(int fd)
{
    struct addr own = {.len = sizeof(own.sa)}, other = {.len = sizeof(other.sa)};
    return getsockname(fd, &own.sa.any, &own.len) == 0 &&
           getpeername(fd, &other.sa.any, &other.len) == 0 && addr_equal(&own, &other);
}

static void on_connected(struct probe *p)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error != 0) {
        decide_by_errno(p, error);
    } else if (is_self(p->fd)) {
        decide_by_errno(p, ECONNREFUSED);
    } else if (p->request.path[0] == '\0') {
        decide(p, PROBE_OK, "connected");
    } else {
        make_request(p);
        watch(p, SENDING, EV_WRITE);
        send_rest(p);
    }
}

static void go_on(struct probe *p)
{
    switch (p->stage) {
    case CONNECTING:
        on_connected(p);
        break;
    case SENDING:
        send_rest(p);
        break;
    case RECEIVING:
        receive(p);
        break;
    }
}

static void on_io(struct ev_loop *loop, ev_io *w, int events)
{
    struct probe *p = w->data;
    go_on(p);
    if (p->is_decided)
        finish(p);
}

/* What has arrived counts, however late this process is to look at it: that it was frozen itself,
 * or had no processor, says nothing about the endpoint. */
static void look_once_more(struct probe *p)
{
    struct pollfd fd = {.fd = p->fd, .events = p->stage == RECEIVING ? POLLIN : POLLOUT};
    while (!p->is_decided && poll(&fd, 1, 0) == 1) {
        enum stage stage = p->stage;
        go_on(p);
        if (p->stage == stage)
            return;
        fd.events = p->stage == RECEIVING ? POLLIN : POLLOUT;
    }
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int events)
{
    struct probe *p = w->data;
    look_once_more(p);
    if (!p->is_decided)
        decide(p, PROBE_TIMEOUT, "%s within %g s",
               p->stage == CONNECTING ? "no connection" : "no response",
               p->request.timeout_ms / 1000.);
    finish(p);
}

/* ---- the beginning ---- */

static void connect_now(struct probe *p)
{
    int family = p->request.addr->sa.any.sa_family;
    p->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd >= 0 && (connect(p->fd, &p->request.addr->sa.any, p->request.addr->len) == 0 ||
                       errno == EINPROGRESS)) {
        watch(p, CONNECTING, EV_WRITE);
        return;
    }
    decide_by_errno(p, errno);
}

struct probe *probe_start(struct ev_loop *loop, const struct probe_request *request,
                          probe_done_fn *done, void *owner)
{
    struct probe *p = calloc(1, sizeof(*p));
    if (!p)
        log_fatal("probe", "out of memory");
    p->loop = loop;
    p->request = *request;
    p->done = done;
    p->owner = owner;
    p->started_at = monotonic();
    ev_io_init(&p->io, on_io, -1, 0);
    ev_timer_init(&p->deadline, on_deadline, 0., 0.);
    p->io.data = p->deadline.data = p;
    connect_now(p);
    /* Relative to now, not to when the loop last looked at the clock. */
    ev_now_update(loop);
    ev_timer_set(&p->deadline, p->is_decided ? 0. : request->timeout_ms / 1000., 0.);
    ev_timer_start(loop, &p->deadline);
    return p;
}
