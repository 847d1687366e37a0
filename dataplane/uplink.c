#include "dataplane/uplink.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/state/snapshot.h"
#include "proto/base/addr.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/version.h"

#define FIRST_PAUSE_S 0.05
#define LAST_PAUSE_S                                                                               \
    0.5 /* less than a second: who leaves then is back in time to leave its sockets */
#define GREETING_S 5.
#define SILENCE_S 10. /* at least; a busy control plane is no dead one */
#define SILENT_BEATS 4
#define LAST_WORDS_MS 500

/* ---- losing it ---- */

/* Up to a quarter more or less, so that many data planes do not come back in step. */
static double jittered(double seconds)
{
    return seconds * (0.75 + 0.5 * (double)random() / (double)RAND_MAX);
}

static void try_later(struct uplink *u)
{
    ev_timer_stop(u->loop, &u->retry);
    ev_timer_set(&u->retry, jittered(u->pause_s), 0);
    ev_timer_start(u->loop, &u->retry);
    u->pause_s = MIN(u->pause_s * 2, LAST_PAUSE_S);
}

static void tell_absent(const struct uplink *u)
{
    if (u->events->absent)
        u->events->absent(u->events->owner);
}

static void disconnect(struct uplink *u)
{
    ev_io_stop(u->loop, &u->io);
    ev_timer_stop(u->loop, &u->retry);
    ev_timer_stop(u->loop, &u->heartbeat);
    channel_free(&u->channel);
    u->state = UPLINK_AWAY;
    u->broken.text[0] = '\0';
}

/* The one way from GREETING or OPEN. After the loss itself only new reasons are told: attempts that
 * find nobody are silent, a refusal with words of its own is not. */
static void lose(struct uplink *u, const struct err *why)
{
    if (u->state == UPLINK_OPEN)
        log_about(LOG_WARN, "uplink", LOG_FIELDS(about_address(u->path), about_cause(why->text)),
                  "control plane at %s was lost: %s; traffic goes on as it is", u->path, why->text);
    else if (strcmp(u->told.text, why->text) != 0)
        log_about(LOG_WARN, "uplink", LOG_FIELDS(about_address(u->path), about_cause(why->text)),
                  "control plane at %s did not greet: %s", u->path, why->text);
    u->told = *why;
    disconnect(u);
    try_later(u);
    tell_absent(u);
}

/* For failures in the middle of the session's own events. */
static void set_broken(struct uplink *u, const struct err *why)
{
    if (u->broken.text[0] == '\0')
        u->broken = *why;
    ev_feed_event(u->loop, &u->io, EV_CUSTOM);
}

/* ---- sending ---- */

static void watch(struct uplink *u)
{
    int events = EV_READ | (channel_wants_write(u->channel) ? EV_WRITE : 0);
    if (u->io.events == events)
        return;
    ev_io_stop(u->loop, &u->io);
    ev_io_set(&u->io, channel_fd(u->channel), events);
    ev_io_start(u->loop, &u->io);
}

static bool send_now(struct uplink *u, enum msg_type type, const ProtobufCMessage *body,
                     const int *fds, unsigned fd_count, struct err *err)
{
    if (!channel_send(u->channel, type, body, fds, fd_count, err) ||
        !channel_write(u->channel, err)) {
        set_broken(u, err);
        return false;
    }
    watch(u);
    return true;
}

bool uplink_is_open(const struct uplink *u)
{
    return u->state == UPLINK_OPEN && u->broken.text[0] == '\0';
}

bool uplink_is_behind(const struct uplink *u)
{
    return u->channel && channel_wants_write(u->channel);
}

bool uplink_send_fds(struct uplink *u, enum msg_type type, const ProtobufCMessage *body,
                     const int *fds, unsigned fd_count, struct err *err)
{
    if (!uplink_is_open(u)) {
        err_set(err, "the control plane is away");
        return false;
    }
    return send_now(u, type, body, fds, fd_count, err);
}

bool uplink_send(struct uplink *u, enum msg_type type, const ProtobufCMessage *body,
                 struct err *err)
{
    return uplink_send_fds(u, type, body, NULL, 0, err);
}

static void beat(struct uplink *u)
{
    struct err err;
    Gwp__Heartbeat beat = GWP__HEARTBEAT__INIT;
    beat.sequence = ++u->sequence;
    beat.sent_ms = (uint64_t)(ev_time() * 1000);
    beat.ending = u->is_ending;
    if (!send_now(u, MSG_HEARTBEAT, &beat.base, NULL, 0, &err))
        log_debug("uplink", "a heartbeat was not sent: %s", err.text);
}

void uplink_tell_end(struct uplink *u)
{
    u->is_ending = true;
    if (uplink_is_open(u))
        beat(u);
}

static void on_heartbeat(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct uplink *u = timer->data;
    struct err err;
    double silence = clock_s() - u->heard_at;
    if (silence > MAX(SILENCE_S, SILENT_BEATS * timer->repeat)) {
        err_set(&err, "it was silent for %.0f s", silence);
        lose(u, &err);
        return;
    }
    beat(u);
}

/* ---- receiving ---- */

static int on_welcome(struct uplink *u, const Gwp__Welcome *welcome, struct err *err)
{
    if (welcome->protocol < GWP_PROTOCOL_MIN || welcome->protocol > GWP_PROTOCOL_MAX)
        return err_set(err, "it wants to speak protocol %u", welcome->protocol);
    channel_opened(u->channel);
    ev_timer_stop(u->loop, &u->retry);
    u->state = UPLINK_OPEN;
    u->pause_s = FIRST_PAUSE_S;
    u->told.text[0] = '\0';
    log_about(LOG_INFO, "uplink",
              LOG_FIELDS(about_address(u->path), about_version(welcome->version)),
              "control plane at %s greeted: version %s, protocol %u", u->path, welcome->version,
              welcome->protocol);
    if (welcome->heartbeat_interval_ms > 0) {
        double interval = welcome->heartbeat_interval_ms / 1000.;
        ev_timer_set(&u->heartbeat, interval, interval);
        ev_timer_start(u->loop, &u->heartbeat);
    }
    u->events->opened(u->events->owner, welcome);
    if (u->is_ending)
        beat(u);
    return 0;
}

static int on_message(void *owner, const struct message *m, struct err *err)
{
    struct uplink *u = owner;
    switch (m->type) {
    case MSG_WELCOME:
        return on_welcome(u, (const Gwp__Welcome *)(const void *)m->body, err);
    case MSG_REFUSAL:
        return err_set(err, "it refused: %s",
                       ((const Gwp__Refusal *)(const void *)m->body)->reason);
    case MSG_HEARTBEAT:
        return 0; /* that it was heard is enough: each side sends its own */
    default:
        return u->events->message(u->events->owner, m, err);
    }
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct uplink *u = io->data;
    struct err err;
    if (events & EV_READ) {
        u->heard_at = clock_s();
        if (!channel_read(u->channel, &err)) {
            lose(u, &err);
            return;
        }
    }
    if (u->broken.text[0]) {
        struct err why = u->broken;
        lose(u, &why);
        return;
    }
    if (!channel_write(u->channel, &err))
        lose(u, &err);
    else
        watch(u);
}

/* ---- connecting ---- */

static int connect_to(const char *path, struct err *err)
{
    struct addr addr = {0};
    size_t len = strlen(path);
    if (len >= sizeof(addr.sa.un.sun_path))
        return err_set(err, "the socket's path is too long");
    addr.sa.un.sun_family = AF_UNIX;
    memcpy(addr.sa.un.sun_path, path, len + 1);
    addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, "no socket");
    if (connect(fd, &addr.sa.any, addr.len) < 0) {
        int saved = errno;
        err_set_errno(err, "connect");
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void greet(struct uplink *u)
{
    struct err err;
    Gwp__Hello hello = GWP__HELLO__INIT;
    hello.protocol_min = GWP_PROTOCOL_MIN;
    hello.protocol_max = GWP_PROTOCOL_MAX;
    hello.version = (char *)GWP_VERSION;
    hello.name = (char *)u->name;
    hello.instance_id = u->instance_id;
    hello.n_capabilities = snapshot_feature_count;
    hello.capabilities = (char **)snapshot_features;
    hello.pid = (uint64_t)getpid();
    hello.started_ms = u->started_ms;
    u->events->greet(u->events->owner, &hello);
    if (!send_now(u, MSG_HELLO, &hello.base, NULL, 0, &err))
        log_debug("uplink", "the greeting was not sent: %s", err.text);
}

static void attempt(struct uplink *u)
{
    struct err err;
    int fd = connect_to(u->path, &err);
    if (fd < 0) {
        if (u->told.text[0] == '\0') {
            log_about(LOG_WARN, "uplink", LOG_FIELDS(about_address(u->path), about_cause(err.text)),
                      "control plane at %s is not there: %s; it is tried again", u->path, err.text);
            u->told = err;
        }
        try_later(u);
        tell_absent(u);
        return;
    }
    u->state = UPLINK_GREETING;
    u->channel = channel_new(CHANNEL_DATAPLANE, fd, on_message, u);
    ev_io_set(&u->io, fd, EV_READ);
    ev_io_start(u->loop, &u->io);
    ev_timer_set(&u->retry, GREETING_S, 0);
    ev_timer_start(u->loop, &u->retry);
    greet(u);
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct uplink *u = timer->data;
    struct err err;
    if (u->state == UPLINK_AWAY) {
        attempt(u);
        return;
    }
    err_set(&err, "it said nothing for %.0f s", GREETING_S);
    lose(u, &err);
}

/* ---- life ---- */

void uplink_start(struct uplink *u, struct ev_loop *loop, const char *path, const char *name,
                  const struct uplink_events *events)
{
    uint64_t id = 0;
    memset(u, 0, sizeof(*u));
    u->loop = loop;
    u->events = events;
    u->path = path;
    u->name = name;
    u->pause_s = FIRST_PAUSE_S;
    u->started_ms = clock_ms();
    if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
        id = (uint64_t)getpid() << 32 ^ (uint64_t)ev_time();
    srandom((unsigned)id);
    snprintf(u->instance_id, sizeof(u->instance_id), "%016llx", (unsigned long long)id);
    ev_io_init(&u->io, on_io, -1, 0);
    ev_timer_init(&u->retry, on_retry, 0, 0);
    ev_timer_init(&u->heartbeat, on_heartbeat, 0, 0);
    u->io.data = u->retry.data = u->heartbeat.data = u;
    ev_timer_start(loop, &u->retry);
}

void uplink_stop(struct uplink *u)
{
    struct err ignored;
    double deadline = clock_s() + LAST_WORDS_MS / 1000.;
    while (uplink_is_open(u) && channel_wants_write(u->channel) && clock_s() < deadline) {
        struct pollfd fd = {.fd = channel_fd(u->channel), .events = POLLOUT};
        if (poll(&fd, 1, LAST_WORDS_MS) <= 0 || !channel_write(u->channel, &ignored))
            break;
    }
    disconnect(u);
}
