#include "controlplane/stand_in.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/log.h"

#define ACCEPTS_PER_TURN 16
#define HEAD_SECONDS 5.
#define LINGER_SECONDS 1.
#define PAUSE_SECONDS 0.1
#define HEAD_MAX_BYTES (64u * 1024)
#define MESSAGE "No data plane is running; one is expected to be back in a moment"

struct client {
    struct list link; /* of stand_in.clients */
    struct stand_in *owner;
    ev_io io;
    ev_timer deadline;
    size_t seen;     /* bytes of the head */
    unsigned at_end; /* how much of the empty line has come */
    char method[5];  /* its beginning */
    bool answered;
};

/* ---- a client ---- */

static void update_watchers(struct stand_in *si);

static void client_close(struct client *c)
{
    struct stand_in *si = c->owner;
    ev_io_stop(si->loop, &c->io);
    ev_timer_stop(si->loop, &c->deadline);
    close(c->io.fd);
    list_remove(&c->link);
    free(c);
    si->client_count--;
    update_watchers(si);
}

static void on_deadline(struct ev_loop *loop, ev_timer *timer, int events)
{
    client_close(timer->data);
}

/* What does not fit into the socket's empty buffer fits nowhere. */
static void answer(struct client *c)
{
    struct stand_in *si = c->owner;
    uint64_t id = 0;
    char body[256], response[640];
    if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != sizeof(id))
        id = ledger_read(si->answered);
    int len = snprintf(body, sizeof(body),
                       "{\"error\":\"no_data_plane\",\"message\":\"" MESSAGE
                       "\",\"request_id\":\"%016llx\"}",
                       (unsigned long long)id);
    bool has_body = memcmp(c->method, "HEAD ", 5) != 0;
    int total = snprintf(response, sizeof(response),
                         "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                         "Content-Length: %d\r\nRetry-After: 1\r\nX-Request-ID: %016llx\r\n"
                         "Connection: close\r\n\r\n%s",
                         len, (unsigned long long)id, has_body ? body : "");
    c->answered = true;
    ledger_add(si->answered, 1);
    if (send(c->io.fd, response, (size_t)total, MSG_NOSIGNAL | MSG_DONTWAIT) != total ||
        shutdown(c->io.fd, SHUT_WR) < 0) {
        client_close(c);
        return;
    }
    ev_timer_stop(si->loop, &c->deadline);
    ev_timer_set(&c->deadline, LINGER_SECONDS, 0.);
    ev_timer_start(si->loop, &c->deadline);
}

/* True when the head ends within these bytes. */
static bool is_over(struct client *c, const char *bytes, size_t len)
{
    static const char end[] = "\r\n\r\n";
    for (size_t i = 0; i < len; i++) {
        if (c->seen < sizeof(c->method))
            c->method[c->seen] = bytes[i];
        c->seen++;
        c->at_end = bytes[i] == end[c->at_end] ? c->at_end + 1 : bytes[i] == '\r';
        if (c->at_end == 4)
            return true;
    }
    return c->seen > HEAD_MAX_BYTES;
}

static void on_client(struct ev_loop *loop, ev_io *io, int events)
{
    struct client *c = io->data;
    char bytes[4096];
    ssize_t n = recv(io->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    /* Who ends without a head is told, too: gwp-dataplane --self-check asks like that. */
    if (!c->answered && (n == 0 || (n > 0 && is_over(c, bytes, (size_t)n))))
        answer(c);
    else if (n <= 0)
        client_close(c);
}

/* ---- accepting ---- */

static void client_new(struct stand_in *si, int fd)
{
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        log_fatal("stand_in", "out of memory");
    c->owner = si;
    ev_io_init(&c->io, on_client, fd, EV_READ);
    ev_timer_init(&c->deadline, on_deadline, HEAD_SECONDS, 0.);
    c->io.data = c->deadline.data = c;
    ev_io_start(si->loop, &c->io);
    ev_timer_start(si->loop, &c->deadline);
    list_push_back(&si->clients, &c->link);
    si->client_count++;
}

static void update_watchers(struct stand_in *si)
{
    bool has_room = si->client_count < STAND_IN_CLIENTS && !ev_is_active(&si->pause);
    for (unsigned i = 0; i < si->socket_count; i++) {
        if (has_room)
            ev_io_start(si->loop, &si->sockets[i]);
        else
            ev_io_stop(si->loop, &si->sockets[i]);
    }
}

static void on_pause(struct ev_loop *loop, ev_timer *timer, int events)
{
    ev_timer_stop(loop, timer);
    update_watchers(timer->data);
}

static void on_socket(struct ev_loop *loop, ev_io *io, int events)
{
    struct stand_in *si = io->data;
    for (int i = 0; i < ACCEPTS_PER_TURN && si->client_count < STAND_IN_CLIENTS; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            client_new(si, fd);
        } else if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        } else {
            if (errno != EAGAIN) {
                ev_timer_set(&si->pause, PAUSE_SECONDS, 0.);
                ev_timer_start(loop, &si->pause);
            }
            break;
        }
    }
    update_watchers(si);
}

/* ---- life ---- */

void stand_in_init(struct stand_in *si, struct ev_loop *loop, ledger_count *answered)
{
    memset(si, 0, sizeof(*si));
    si->loop = loop;
    si->answered = answered;
    list_init(&si->clients);
    ev_timer_init(&si->pause, on_pause, 0., 0.);
    si->pause.data = si;
}

void stand_in_start(struct stand_in *si, const int *sockets, unsigned count)
{
    stand_in_stop(si);
    si->socket_count = MIN(count, STAND_IN_SOCKETS);
    for (unsigned i = 0; i < si->socket_count; i++) {
        ev_io_init(&si->sockets[i], on_socket, sockets[i], EV_READ);
        si->sockets[i].data = si;
    }
    update_watchers(si);
}

void stand_in_stop(struct stand_in *si)
{
    for (unsigned i = 0; i < si->socket_count; i++)
        ev_io_stop(si->loop, &si->sockets[i]);
    si->socket_count = 0;
    ev_timer_stop(si->loop, &si->pause);
}

void stand_in_fini(struct stand_in *si)
{
    stand_in_stop(si);
    list_each_safe (node, &si->clients)
        client_close(CONTAINER_OF(node, struct client, link));
}
