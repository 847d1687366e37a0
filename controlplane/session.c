#include "controlplane/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/clock.h"
#include "proto/base/json.h"
#include "proto/base/log.h"
#include "proto/base/version.h"

#define GREETING_SECONDS 5.
#define ACCEPTS_PER_TURN 16
#define SEND_BUFFER_BYTES (4 * 1024 * 1024)
#define CAPABILITY_KEEPING "keeping"
#define CAPABILITY_LIMITS "limits"

/* ---- ending ---- */

static void session_free(struct session *s)
{
    ev_io_stop(s->sessions->loop, &s->io);
    list_remove(&s->link);
    s->sessions->count--;
    channel_free(&s->channel);
    free(s->name);
    free(s->instance_id);
    free(s->version);
    free(s->reason);
    free(s);
}

/* The one way out. */
static void session_end(struct session *s, const struct err *why)
{
    struct sessions *ss = s->sessions;
    if (s->is_open) {
        s->is_open = false;
        ss->open_count--;
        log_about(LOG_INFO, "session",
                  LOG_FIELDS(about_dataplane(s->name), about_instance_id(s->instance_id),
                             about_cause(why->text)),
                  "data plane %s disconnected: %s", s->name, why->text);
        ss->events->gone(ss->events->owner, s);
    } else {
        log_about(LOG_WARN, "session",
                  LOG_FIELDS(about_dataplane(s->name), about_instance_id(s->instance_id),
                             about_cause(why->text)),
                  "a data plane was turned away: %s", why->text);
    }
    session_free(s);
}

/* For those who are called from within a session's own events, or from another's. */
static void doom(struct session *s, const struct err *why)
{
    if (s->doomed.text[0])
        return;
    s->doomed = *why;
    ev_feed_event(s->sessions->loop, &s->io, EV_CUSTOM);
}

/* ---- sending ---- */

static void watch(struct session *s)
{
    int events = EV_READ | (channel_wants_write(s->channel) ? EV_WRITE : 0);
    if (s->io.events == events)
        return;
    ev_io_stop(s->sessions->loop, &s->io);
    ev_io_set(&s->io, channel_fd(s->channel), events);
    ev_io_start(s->sessions->loop, &s->io);
}

/* Once something could not be said to it, nothing else is: a snapshot without the sockets that
 * should have come before it would make a data plane open them itself. */
static bool is_doomed(const struct session *s)
{
    return s->doomed.text[0] != '\0';
}

/* What the socket takes at once goes at once. */
static void flush(struct session *s)
{
    struct err err;
    if (!channel_write(s->channel, &err))
        doom(s, &err);
    watch(s);
}

void session_send_snapshot(struct session *s, uint64_t generation, bool dry_run,
                           const uint8_t *packed, size_t len)
{
    struct err err;
    if (!dry_run)
        s->sent = generation;
    if (is_doomed(s))
        return;
    if (channel_send_packed(s->channel, MSG_SNAPSHOT, packed, (uint32_t)len, &err))
        flush(s);
    else
        doom(s, &err);
}

void session_send_state(struct session *s, const uint8_t *packed, size_t len)
{
    struct err err;
    if (is_doomed(s))
        return;
    if (channel_send_packed(s->channel, MSG_ENDPOINT_STATE, packed, (uint32_t)len, &err))
        flush(s);
    else
        doom(s, &err);
}

void session_send(struct session *s, enum msg_type type, const ProtobufCMessage *body,
                  const int *fds, unsigned fd_count)
{
    struct err err;
    if (is_doomed(s))
        return;
    if (channel_send(s->channel, type, body, fds, fd_count, &err))
        flush(s);
    else
        doom(s, &err);
}

void session_send_drain(struct session *s, bool replaced, const char *reason)
{
    Gwp__Drain drain = GWP__DRAIN__INIT;
    drain.replaced = replaced;
    drain.reason = (char *)reason;
    s->leaving = true;
    session_send(s, MSG_DRAIN, &drain.base, NULL, 0);
}

static void send_heartbeat(struct session *s, double now)
{
    Gwp__Heartbeat beat = GWP__HEARTBEAT__INIT;
    beat.sequence = s->sessions->sequence;
    beat.sent_ms = (uint64_t)(now * 1000);
    session_send(s, MSG_HEARTBEAT, &beat.base, NULL, 0);
}

const char *session_role(const struct session *s)
{
    return s->leaving ? "draining" : s->serves ? "serving" : "starting";
}

/* ---- greeting ---- */

/* Not the channel's own last words, which say "malformed". Those are said as well, and not read. */
static int refuse(struct session *s, const char *code, struct err *why)
{
    struct err ignored;
    Gwp__Refusal refusal = GWP__REFUSAL__INIT;
    refusal.reason = why->text;
    refusal.code = (char *)code;
    if (channel_send(s->channel, MSG_REFUSAL, &refusal.base, NULL, 0, &ignored) &&
        !channel_write(s->channel, &ignored))
        log_debug("session", "a refusal was not heard: %s", ignored.text);
    return -1;
}

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        log_fatal("session", "out of memory");
    return out;
}

/* The same process again: its old session has died without our noticing. */
static void end_older_self(const struct session *s)
{
    sessions_each(other, s->sessions)
    {
        struct err why;
        if (strcmp(other->instance_id, s->instance_id) != 0)
            continue;
        err_set(&why, "it connected again");
        doom(other, &why);
    }
}

static int send_welcome(struct session *s, uint32_t protocol, struct err *err)
{
    static const char *const capabilities[] = {CAPABILITY_KEEPING};
    Gwp__Welcome welcome = GWP__WELCOME__INIT;
    welcome.protocol = protocol;
    welcome.version = (char *)GWP_VERSION;
    welcome.instance_id = s->sessions->instance_id;
    welcome.n_capabilities = s->sessions->events->listeners ? COUNT_OF(capabilities) : 0;
    welcome.capabilities = (char **)capabilities;
    welcome.report_interval_ms = SESSION_REPORT_INTERVAL_MS;
    welcome.heartbeat_interval_ms = SESSION_HEARTBEAT_INTERVAL_MS;
    return channel_send(s->channel, MSG_WELCOME, &welcome.base, NULL, 0, err) ? 0 : -1;
}

/* Text that needs no escape anywhere: it is a label of metrics, and one that is no UTF-8 would cost
 * the whole scrape. */
static bool is_plain(const char *text)
{
    char escaped[1024];
    struct view v = view_of(text);
    size_t len = json_escape(escaped, sizeof(escaped), v);
    return view_equal((struct view){escaped, len}, v);
}

static int on_hello(struct session *s, const Gwp__Hello *hello, struct err *err)
{
    struct sessions *ss = s->sessions;
    if (hello->instance_id[0] == '\0' || hello->name[0] == '\0')
        return err_set(err, "a Hello without name or instance id");
    if (!is_plain(hello->name) || !is_plain(hello->instance_id) || !is_plain(hello->version)) {
        err_set(err, "a data plane's name (--id) is text in UTF-8 without control characters, "
                     "quotes and backslashes");
        return refuse(s, "name", err);
    }
    uint32_t protocol = channel_negotiate(GWP_PROTOCOL_MIN, GWP_PROTOCOL_MAX, hello->protocol_min,
                                          hello->protocol_max, err);
    if (protocol == 0)
        return refuse(s, "protocol", err);
    s->name = copy(hello->name);
    s->instance_id = copy(hello->instance_id);
    s->version = copy(hello->version);
    s->pid = hello->pid;
    s->started_ms = hello->started_ms;
    for (size_t i = 0; i < hello->n_capabilities; i++) {
        s->keeps = s->keeps || strcmp(hello->capabilities[i], CAPABILITY_KEEPING) == 0;
        s->tells_limits = s->tells_limits || strcmp(hello->capabilities[i], CAPABILITY_LIMITS) == 0;
    }
    s->served = hello->generation;
    for (size_t i = 0; i < hello->n_capabilities; i++)
        s->explains |= strcmp(hello->capabilities[i], "explain") == 0;
    if (send_welcome(s, protocol, err) < 0)
        return -1;
    channel_opened(s->channel);
    end_older_self(s);
    s->is_open = true;
    ss->open_count++;
    log_about(LOG_INFO, "session",
              LOG_FIELDS(about_dataplane(s->name), about_instance_id(s->instance_id),
                         about_version(s->version), about_process(s->pid)),
              "data plane %s connected: version %s, process %llu, protocol %u", s->name, s->version,
              (unsigned long long)s->pid, protocol);
    ss->events->opened(ss->events->owner, s);
    return 0;
}

/* ---- receiving ---- */

static void take_result(struct session *s, const Gwp__SnapshotResult *r)
{
    struct sessions *ss = s->sessions;
    if (!r->dry_run) {
        if (r->accepted)
            s->generation = r->generation;
        s->serves = s->serves || (r->accepted && !s->keeps);
        if (r->generation == s->sent) {
            s->refused = !r->accepted;
            free(s->reason);
            s->reason = r->accepted ? NULL : copy(r->reason);
        }
    }
    ss->events->result(ss->events->owner, s, r);
}

static void take_report(struct session *s, const Gwp__StatsReport *r)
{
    if (r->rss_bytes > 0)
        s->rss_bytes = r->rss_bytes;
    s->sessions->events->report(s->sessions->events->owner, s, r);
}

static int take_listeners(struct session *s, const struct message *m, struct err *err)
{
    const struct session_events *events = s->sessions->events;
    return events->listeners(events->owner, s, (const Gwp__Listeners *)(const void *)m->body,
                             m->fds, m->fd_count, err);
}

/* Both sides read the same machine's clock. */
static void take_heartbeat(struct session *s, const Gwp__Heartbeat *beat)
{
    double lag = ev_time() - (double)beat->sent_ms / 1000;
    s->lag_seconds = beat->sent_ms > 0 && lag > 0 ? lag : 0;
    s->ending = beat->ending;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static int on_message(void *owner, const struct message *m, struct err *err)
{
    struct session *s = owner;
    if (m->type == MSG_LISTENERS && s->sessions->events->listeners)
        return take_listeners(s, m, err);
    close_all(m->fds, m->fd_count); /* no other message brings any */
    switch (m->type) {
    case MSG_HELLO:
        return on_hello(s, (const Gwp__Hello *)(const void *)m->body, err);
    case MSG_SNAPSHOT_RESULT:
        take_result(s, (const Gwp__SnapshotResult *)(const void *)m->body);
        return 0;
    case MSG_STATS_REPORT:
        take_report(s, (const Gwp__StatsReport *)(const void *)m->body);
        return 0;
    case MSG_REPLACE_RESULT:
        if (s->sessions->events->replaced)
            s->sessions->events->replaced(s->sessions->events->owner, s,
                                          (const Gwp__ReplaceResult *)(const void *)m->body);
        return 0;
    case MSG_LIMITS_REPORT:
        if (s->sessions->events->limits)
            s->sessions->events->limits(s->sessions->events->owner, s,
                                        (const Gwp__LimitsReport *)(const void *)m->body);
        return 0;
    case MSG_HEARTBEAT:
        take_heartbeat(s, (const Gwp__Heartbeat *)(const void *)m->body);
        return 0;
    case MSG_EXPLANATION:
        if (s->sessions->events->explained)
            s->sessions->events->explained(s->sessions->events->owner,
                                           (const Gwp__Explanation *)(const void *)m->body);
        return 0;
    case MSG_REFUSAL:
        return err_set(err, "it refused: %s",
                       ((const Gwp__Refusal *)(const void *)m->body)->reason);
    default: /* kept for later versions */
        return 0;
    }
}

/* A second control plane asks like this whether the socket is served: nothing to log. */
static bool left_silently(const struct session *s)
{
    char byte;
    return !s->name && recv(channel_fd(s->channel), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    struct session *s = w->data;
    struct err err;
    if (left_silently(s)) {
        session_free(s);
        return;
    }
    if (is_doomed(s)) {
        session_end(s, &s->doomed);
        return;
    }
    if (revents & EV_READ) {
        s->heard_at = clock_s();
        if (!channel_read(s->channel, &err)) {
            session_end(s, &err);
            return;
        }
    }
    flush(s);
}

/* ---- accepting ---- */

static void session_new(struct sessions *ss, int fd)
{
    /* A snapshot of ten thousand routes at once, as far as the system allows: else the two sides
     * would take turns, a piece for each. */
    int room = SEND_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)) < 0)
        log_debug("session", "the socket's buffer stays as it is: %s", strerror(errno));
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        log_fatal("session", "out of memory");
    s->sessions = ss;
    s->connected_at = ev_time();
    s->heard_at = clock_s();
    s->channel = channel_new(CHANNEL_CONTROLPLANE, fd, on_message, s);
    ev_io_init(&s->io, on_io, fd, EV_READ);
    s->io.data = s;
    ev_io_start(ss->loop, &s->io);
    list_push_back(&ss->all, &s->link);
    ss->count++;
}

static void turn_away(int fd, const char *code, struct err *why)
{
    struct session s = {.channel = channel_new(CHANNEL_CONTROLPLANE, fd, on_message, NULL)};
    refuse(&s, code, why);
    log_about(LOG_WARN, "session", LOG_FIELDS(about_cause(why->text)),
              "a data plane was turned away: %s", why->text);
    channel_free(&s.channel);
}

static void on_connection(struct ev_loop *loop, ev_io *w, int revents)
{
    struct sessions *ss = w->data;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct err err;
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (channel_check_peer(fd, &err) < 0) {
            turn_away(fd, "credentials", &err);
        } else if (ss->count >= SESSION_MAX) {
            err_set(&err, "%zu data planes are connected already", ss->count);
            turn_away(fd, "busy", &err);
        } else {
            session_new(ss, fd);
        }
    }
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

/* Whoever has deleted the socket's file has only kept new data planes out: it is made again. When
 * something else has taken its place, that is left alone. */
static void mend_socket(struct sessions *ss)
{
    struct err err;
    struct stat st;
    if (lstat(ss->path, &st) == 0) {
        bool is_displaced = st.st_ino != ss->inode;
        if (is_displaced && !ss->is_displaced)
            log_about(LOG_ERROR, "session", LOG_FIELDS(about_address(ss->path)),
                      "%s is another process's now: data planes that come find that one", ss->path);
        ss->is_displaced = is_displaced;
        return;
    }
    if (errno != ENOENT)
        return;
    int fd = files_listen_unix(ss->path, &err);
    if (fd < 0) {
        if (!ss->cannot_listen)
            log_about(LOG_ERROR, "session",
                      LOG_FIELDS(about_address(ss->path), about_cause(err.text)),
                      "the socket's file is gone, and cannot be made again: %s", err.text);
        ss->cannot_listen = true;
        return;
    }
    log_about(LOG_WARN, "session", LOG_FIELDS(about_address(ss->path)),
              "%s was deleted, and has been made again", ss->path);
    ss->cannot_listen = false;
    ss->inode = inode_of(ss->path);
    ev_io_stop(ss->loop, &ss->listener);
    close(ss->listener.fd);
    ev_io_set(&ss->listener, fd, EV_READ);
    ev_io_start(ss->loop, &ss->listener);
}

static void on_file(struct ev_loop *loop, ev_stat *w, int revents)
{
    mend_socket(w->data);
}

static void on_heartbeat(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct sessions *ss = w->data;
    mend_socket(ss);
    struct err why;
    ss->sequence++;
    list_each (node, &ss->all) {
        struct session *s = CONTAINER_OF(node, struct session, link);
        double silence = clock_s() - s->heard_at;
        if (silence > (s->is_open ? SESSION_SILENCE_SECONDS : GREETING_SECONDS)) {
            err_set(&why, "it was silent for %.0f s", silence);
            doom(s, &why);
        } else if (s->is_open) {
            send_heartbeat(s, ev_time());
        }
    }
}

int sessions_init(struct sessions *ss, struct ev_loop *loop, const char *path,
                  const struct session_events *events, struct err *err)
{
    uint64_t id = 0;
    memset(ss, 0, sizeof(*ss));
    ss->loop = loop;
    ss->events = events;
    list_init(&ss->all);
    int fd = files_listen_unix(path, err);
    if (fd < 0)
        return -1;
    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        id = (uint64_t)getpid();
    snprintf(ss->instance_id, sizeof(ss->instance_id), "%016llx", (unsigned long long)id);
    ss->path = copy(path);
    ss->inode = inode_of(path);
    ev_io_init(&ss->listener, on_connection, fd, EV_READ);
    ss->listener.data = ss;
    ev_io_start(loop, &ss->listener);
    double interval = SESSION_HEARTBEAT_INTERVAL_MS / 1000.;
    ev_timer_init(&ss->heartbeat, on_heartbeat, interval, interval);
    ss->heartbeat.data = ss;
    ev_timer_start(loop, &ss->heartbeat);
    ev_stat_init(&ss->file, on_file, ss->path, 0.);
    ss->file.data = ss;
    ev_stat_start(loop, &ss->file);
    return 0;
}

void sessions_fini(struct sessions *ss)
{
    if (!ss->path)
        return;
    list_each_safe (node, &ss->all)
        session_free(CONTAINER_OF(node, struct session, link));
    ev_io_stop(ss->loop, &ss->listener);
    ev_timer_stop(ss->loop, &ss->heartbeat);
    ev_stat_stop(ss->loop, &ss->file);
    close(ss->listener.fd);
    if (inode_of(ss->path) == ss->inode)
        unlink(ss->path);
    free(ss->path);
    ss->path = NULL;
}
