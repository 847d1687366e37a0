/* Hot path: no allocation once clients are recycled, no lock, no log line, no system call but recv.
 */
#include "dataplane/http/downstream.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/http/exchange.h"
#include "dataplane/http/proxy_header.h"
#include "dataplane/http/request.h"
#include "dataplane/http/tunnel.h"
#include "proto/base/digits.h"
#include "proto/base/log.h"

/* How long a connection is read on after its last answer, so that what the client still sends does
 * not make the kernel reset it and destroy the answer. */
#define LINGER_MS 2000   /* of silence */
#define LINGER_ROUNDS 15 /* so often at most */

static void on_ready(struct transport *t, int events);
static void process(struct downstream *c);

static struct downstream *take_spare(struct worker *w)
{
    struct downstream *c;
    if (list_is_empty(&w->spare_clients)) {
        c = malloc(sizeof(*c));
        if (!c)
            log_fatal("downstream", "out of memory");
        return c;
    }
    c = CONTAINER_OF(w->spare_clients.next, struct downstream, link);
    list_remove(&c->link);
    return c;
}

static void note_peer(struct downstream *c, const struct sockaddr *peer)
{
    c->family = (uint8_t)peer->sa_family;
    memset(c->ip, 0, sizeof(c->ip));
    if (peer->sa_family == AF_INET)
        memcpy(c->ip, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    if (peer->sa_family != AF_INET6)
        return;
    const struct in6_addr *ip = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(ip)) { /* an IPv4 client on a socket for both families */
        c->family = AF_INET;
        memcpy(c->ip, ip->s6_addr + 12, 4);
    } else {
        memcpy(c->ip, ip->s6_addr, 16);
    }
}

/* The one door between the worker's lists. */
static void file_under(struct downstream *c, struct list *list)
{
    list_remove(&c->link);
    list_push_back(list, &c->link);
    c->idle = list == &c->worker->idle_clients;
}

double downstream_idle_since(const struct downstream *c)
{
    const struct server_settings *server = &c->worker->snapshot->server;
    uint32_t after_ms = c->state == DOWN_LINGERING ? LINGER_MS
                        : c->requests == 0         ? server->header_timeout_ms
                                                   : server->idle_timeout_ms;
    return wheel_due_s(&c->worker->wheel, &c->deadline) - after_ms / 1000.0;
}

/* Clients of all workers, lingering ones included: what server.max_connections bounds. */
static _Atomic uint32_t open_clients;

static void say_no_room(int fd)
{
    static const char answer[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: "
        "69\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
        "{\"error\":\"overload\",\"message\":\"The gateway has no room for clients.\"}\n";
    char request[4096];
    /* What was received and not read would make the kernel reset the connection and the answer with
     * it. */
    ssize_t ignored = recv(fd, request, sizeof(request), MSG_DONTWAIT);
    (void)ignored;
    ignored = send(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)ignored;
    shutdown(fd, SHUT_WR);
}

void downstream_refuse(struct worker *w, int fd)
{
    say_no_room(fd);
    close(fd);
    stats_add(&w->stats, STAT_refused_connections_total, 1);
}

void downstream_shed(struct downstream *c)
{
    if (c->requests == 0)
        say_no_room(transport_fd(&c->io));
    stats_add(&c->worker->stats, STAT_shed_total, 1);
    downstream_close(c, false);
}

/* Only from those who are trusted to say whom they connect for; others begin with HTTP, and fail if
 * they do not. */
static bool expects_proxy(const struct downstream *c)
{
    const struct server_settings *server = &c->worker->snapshot->server;
    struct ip peer;
    return server->proxy_protocol && downstream_peer(c, &peer) &&
           cidr_list_contains(&server->trusted_proxies, peer);
}

void downstream_accept(struct worker *w, int fd, const struct sockaddr *peer)
{
    if (atomic_fetch_add_explicit(&open_clients, 1, memory_order_relaxed) >= w->max_clients &&
        !worker_shed_client(w)) {
        atomic_fetch_sub_explicit(&open_clients, 1, memory_order_relaxed);
        downstream_refuse(w, fd);
        return;
    }
    struct downstream *c = take_spare(w);
    memset(c, 0, sizeof(*c));
    c->worker = w;
    note_peer(c, peer);
    transport_init(&c->io, fd, on_ready);
    c->expects_proxy = expects_proxy(c);
    wheel_entry_init(&c->deadline, DEADLINE_DOWNSTREAM);
    list_init(&c->link);
    file_under(c, &w->idle_clients);
    w->client_count++;
    stats_add(&w->stats, STAT_downstream_connections_total, 1);
    stats_add(&w->stats, STAT_downstream_connections_active, 1);
    wheel_set(&w->wheel, &c->deadline, worker_now(w), w->snapshot->server.header_timeout_ms);
    transport_watch(&c->io, w->loop, EV_READ);
}

/* "1.2.3.4" by hand: inet_ntop() goes through printf, and this is done for every request. */
static size_t format_ipv4(const uint8_t ip[4], char *out)
{
    size_t n = digits_decimal(out, ip[0]);
    for (int i = 1; i < 4; i++) {
        out[n++] = '.';
        n += digits_decimal(out + n, ip[i]);
    }
    return n;
}

bool downstream_peer(const struct downstream *c, struct ip *ip)
{
    if (c->family == AF_UNIX)
        return false;
    *ip = c->family == AF_INET ? ip_from_v4(c->ip) : ip_from_v6(c->ip);
    return true;
}

size_t downstream_ip(const struct downstream *c, char out[INET6_ADDRSTRLEN])
{
    if (c->family == AF_INET)
        return format_ipv4(c->ip, out);
    if (c->family == AF_INET6 && inet_ntop(AF_INET6, c->ip, out, INET6_ADDRSTRLEN))
        return strlen(out);
    memcpy(out, "unix", 4);
    return 4;
}

void downstream_pause(struct downstream *c)
{
    transport_watch(&c->io, c->worker->loop, transport_watched(&c->io) & ~EV_READ);
}

void downstream_resume(struct downstream *c)
{
    if (c->ended)
        return;
    if (!c->in || buffer_room(c->in) > 0)
        transport_watch(&c->io, c->worker->loop, transport_watched(&c->io) | EV_READ);
}

bool downstream_is_at_end(const struct downstream *c)
{
    return c->ended && c->in->parsed == c->in->used;
}

/* ---- ending ---- */

void downstream_close(struct downstream *c, bool reset)
{
    struct worker *w = c->worker;
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(transport_fd(&c->io), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    c->state = DOWN_CLOSED;
    transport_close(&c->io, w->loop);
    wheel_clear(&c->deadline);
    buffer_give(&w->buffers, &c->in);
    stats_sub(&w->stats, STAT_downstream_connections_active, 1);
    w->client_count--;
    atomic_fetch_sub_explicit(&open_clients, 1, memory_order_relaxed);
    file_under(c, &w->dead_clients);
}

void downstream_recycle(struct downstream *c)
{
    list_remove(&c->link);
    list_push_front(&c->worker->spare_clients, &c->link);
}

void downstream_end(struct downstream *c)
{
    /* The answer may wait for this, see transport_write(): close() alone would drop it if the
     * client has sent something else meanwhile. */
    shutdown(transport_fd(&c->io), SHUT_WR);
    downstream_close(c, false);
}

void downstream_finish(struct downstream *c)
{
    struct worker *w = c->worker;
    c->state = DOWN_LINGERING;
    c->linger_rounds = LINGER_ROUNDS;
    shutdown(transport_fd(&c->io), SHUT_WR);
    buffer_give(&w->buffers, &c->in);
    file_under(c, &w->lingering);
    transport_watch(&c->io, w->loop, EV_READ);
    wheel_set(&w->wheel, &c->deadline, worker_now(w), LINGER_MS);
}

static void discard(struct downstream *c)
{
    struct worker *w = c->worker;
    size_t got;
    enum io_status status = transport_read(&c->io, w->scratch, w->scratch_bytes, &got);
    if (status == IO_EOF || status == IO_ERROR)
        downstream_close(c, false);
    c->heard = true;
}

void downstream_on_deadline(struct downstream *c)
{
    struct worker *w = c->worker;
    if (c->exchange) {
        exchange_client_timeout(c->exchange);
    } else if (c->state == DOWN_LINGERING && c->heard && c->linger_rounds-- > 0 &&
               !worker_is_leaving(w)) {
        c->heard = false;
        wheel_set(&w->wheel, &c->deadline, worker_now(w), LINGER_MS);
    } else {
        downstream_close(c, false);
    }
}

/* ---- receiving ---- */

/* When the worker is leaving, the answer began before that and did not say so: the next request may
 * be on its way. */
static void go_idle(struct downstream *c)
{
    struct worker *w = c->worker;
    buffer_give(&w->buffers, &c->in);
    file_under(c, &w->idle_clients);
    wheel_set(&w->wheel, &c->deadline, worker_now(w),
              worker_is_leaving(w) ? WORKER_FRESH_MS : w->snapshot->server.idle_timeout_ms);
    transport_watch(&c->io, w->loop, EV_READ);
}

/* false: more bytes are wanted, or the connection is closed, since what came is no PROXY header. */
static bool take_proxy_header(struct downstream *c)
{
    struct proxy_header header;
    const char *detail;
    switch (proxy_header_parse(c->in->data, c->in->used, &header, &detail)) {
    case PROXY_MORE:
        if (buffer_room(c->in) == 0)
            buffer_grow(&c->worker->buffers, &c->in, BUFFER_MEDIUM_BYTES);
        return false;
    case PROXY_BAD:
        stats_add(&c->worker->stats, STAT_bad_proxy_headers_total, 1);
        downstream_close(c, false);
        return false;
    case PROXY_DONE:
        break;
    }
    c->expects_proxy = false;
    if (header.has_source)
        note_peer(c, &header.source.sa.any);
    buffer_consume(c->in, (uint32_t)header.consumed);
    return true;
}

/* Empty lines before a request are none of it (RFC 9112 2.2): a client that sends one behind its
 * last request has not begun another. */
static void skip_empty_lines(struct downstream *c)
{
    uint32_t n = 0;
    while (c->in->used - n >= 2 && memcmp(c->in->data + n, "\r\n", 2) == 0)
        n += 2;
    if (n > 0)
        buffer_consume(c->in, n);
}

/* Hands received bytes to the exchange, one request after the other; a loop and not a recursion,
 * since one buffer may hold many requests that the gateway answers itself. */
static void process(struct downstream *c)
{
    struct worker *w = c->worker;
    if (c->expects_proxy && !take_proxy_header(c))
        return;
    c->processing = true;
    for (bool begun = false; c->state == DOWN_OPEN && c->in && c->in->used > c->in->parsed;) {
        if (!c->exchange) {
            if (c->requests > 0)
                skip_empty_lines(c);
            if (c->in->used == 0)
                break;
            exchange_begin(c);
            file_under(c, &w->clients);
            begun = true;
        }
        request_readable(c->exchange);
        if (!c->exchange)
            continue;
        /* It waits for something; if for the rest of its head, not for long. */
        if (begun && c->exchange->request_state == REQ_HEAD)
            wheel_set(&w->wheel, &c->deadline, worker_now(w),
                      w->snapshot->server.header_timeout_ms);
        break;
    }
    c->processing = false;
    if (c->state != DOWN_OPEN)
        return;
    if (!c->exchange && c->ended)
        downstream_close(c, false);
    else if (c->ended && c->exchange->request_state == REQ_HEAD)
        exchange_client_gone(c->exchange);
    else if (!c->exchange && c->idle)
        buffer_give(&w->buffers, &c->in); /* empty lines do not prolong its time */
    else if (!c->exchange)
        go_idle(c);
    else if (buffer_room(c->in) == 0)
        downstream_pause(c);
}

void downstream_next(struct downstream *c)
{
    buffer_consume(c->in, c->in->parsed);
    downstream_resume(c);
    if (!c->processing)
        process(c);
}

/* One that half-closes its connection behind its requests waits for the answers. */
static void on_end(struct downstream *c)
{
    if (!c->exchange) {
        downstream_close(c, false);
        return;
    }
    c->ended = true;
    downstream_pause(c); /* the end would be told again and again */
    if (c->exchange->tunnel)
        tunnel_client_end(c->exchange);
    else
        exchange_client_ended(c->exchange);
}

static void on_readable(struct downstream *c)
{
    struct worker *w = c->worker;
    size_t got;
    if (!c->in)
        c->in = buffer_take(&w->buffers, BUFFER_SMALL_BYTES);
    if (buffer_room(c->in) == 0) {
        downstream_pause(c);
        return;
    }
    size_t room = buffer_room(c->in);
    switch (transport_read(&c->io, c->in->data + c->in->used, room, &got)) {
    case IO_OK:
        c->filled = got == room;
        c->in->used += (uint32_t)got;
        stats_add(&w->stats, STAT_received_bytes_total, got);
        process(c);
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        on_end(c);
        break;
    case IO_ERROR:
        if (c->exchange)
            exchange_client_gone(c->exchange);
        else
            downstream_close(c, false);
        break;
    }
}

static void on_ready(struct transport *t, int events)
{
    struct downstream *c = CONTAINER_OF(t, struct downstream, io);
    if (c->state == DOWN_LINGERING) {
        discard(c);
        return;
    }
    if (events & EV_WRITE && c->exchange)
        exchange_client_writable(c->exchange);
    if (events & EV_READ && c->state == DOWN_OPEN)
        on_readable(c);
}
