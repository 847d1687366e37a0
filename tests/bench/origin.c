/* origin: the backend of the benchmark, as cheap as HTTP can be answered, so that its core is left
 * to the clients. It trusts its peer: only proxies under test talk to it.
 *
 *   origin LISTEN [COUNT]       "127.0.0.1:port", and COUNT - 1 addresses after it
 *
 *   GET /anything        200 and 12 bytes
 *   GET /bytes/N         200 and N bytes, up to 16 MiB
 *   with a body          taken, thrown away, then answered like GET
 *   Upgrade: websocket   101, then every byte comes back */
#include "endpoints.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define HEAD_BYTES 8192
#define BODY_BYTES (16u * 1024 * 1024)
#define SCRATCH_BYTES (256 * 1024)

struct connection {
    bool open, closing, echo, stuck; /* stuck: has not taken all of its answer */
    uint32_t used;                   /* of head */
    uint64_t body_left;              /* of the request under way */
    uint64_t answer_bytes;           /* asked for by it */
    const char *out;                 /* what is left of the answer's body */
    size_t out_left;
    char head[HEAD_BYTES];
};

static struct connection **connections;
static size_t connection_count;
static int epoll;
static char *body, *scratch;

static const char head_format[] = "HTTP/1.1 200 OK\r\nServer: origin\r\n"
                                  "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                                  "Content-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n";
static const char switching[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void drop(int fd)
{
    connections[fd]->open = false;
    close(fd);
}

/* The value of a field in a head that ends with an empty line; NULL if it has none. */
static const char *find_field(const char *head, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " ");
    }
    return NULL;
}

/* Sends what is left; the rest waits for room. */
static void push(int fd)
{
    struct connection *c = connections[fd];
    while (c->out_left > 0) {
        ssize_t sent = send(fd, c->out, c->out_left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            c->stuck = true;
            watch(epoll, EPOLL_CTL_MOD, fd, EPOLLOUT);
            return;
        }
        if (sent < 0) {
            drop(fd);
            return;
        }
        c->out += sent;
        c->out_left -= (size_t)sent;
    }
    if (c->stuck)
        watch(epoll, EPOLL_CTL_MOD, fd, EPOLLIN);
    c->stuck = false;
    if (c->closing)
        drop(fd);
}

static void answer(int fd)
{
    struct connection *c = connections[fd];
    char head[512];
    size_t len = (size_t)snprintf(head, sizeof(head), head_format, (size_t)c->answer_bytes,
                                  c->closing ? "Connection: close\r\n" : "");
    struct iovec iov[2] = {{head, len}, {body, c->answer_bytes}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
    if (sent < (ssize_t)len) { /* an empty socket takes a head */
        drop(fd);
        return;
    }
    c->out = body + (sent - (ssize_t)len);
    c->out_left = c->answer_bytes - (size_t)(sent - (ssize_t)len);
    push(fd);
}

/* A head is complete. */
static void begin(int fd)
{
    struct connection *c = connections[fd];
    const char *length = find_field(c->head, "Content-Length");
    const char *connection = find_field(c->head, "Connection");
    const char *size = strstr(c->head, " /bytes/");
    c->closing = connection && strncasecmp(connection, "close", 5) == 0;
    c->body_left = length ? strtoull(length, NULL, 10) : 0;
    c->answer_bytes = 12;
    if (size && size < strstr(c->head, "\r\n"))
        c->answer_bytes = strtoull(size + 8, NULL, 10);
    if (c->answer_bytes > BODY_BYTES)
        die("more bytes asked for than there are");
    c->echo = find_field(c->head, "Upgrade") != NULL;
    if (c->echo && send(fd, switching, sizeof(switching) - 1, MSG_NOSIGNAL) < 0)
        drop(fd);
}

/* Bytes of the head and perhaps of what follows it have arrived. */
static void look_for_head(int fd)
{
    struct connection *c = connections[fd];
    c->head[c->used] = '\0';
    const char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->used == HEAD_BYTES - 1)
            die("a head is longer than %d bytes", HEAD_BYTES);
        return;
    }
    size_t beyond = c->used - (size_t)(end + 4 - c->head);
    c->head[end + 4 - c->head] = '\0';
    c->used = 0;
    begin(fd);
    if (!c->open || c->echo)
        return;
    if (beyond > c->body_left)
        die("pipelined requests are not for this backend");
    c->body_left -= beyond;
    if (c->body_left == 0)
        answer(fd);
}

static void receive(int fd)
{
    struct connection *c = connections[fd];
    bool in_head = c->body_left == 0 && !c->echo;
    char *to = in_head ? c->head + c->used : scratch;
    ssize_t got = recv(fd, to, in_head ? HEAD_BYTES - 1 - c->used : SCRATCH_BYTES, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(fd);
    } else if (c->echo) {
        if (send(fd, scratch, (size_t)got, MSG_NOSIGNAL) != got)
            die("an echo was not taken: send less, or read");
    } else if (in_head) {
        c->used += (uint32_t)got;
        look_for_head(fd);
    } else {
        c->body_left -= (uint64_t)got;
        if (c->body_left == 0)
            answer(fd);
    }
}

static void take_clients(int listening)
{
    int fd;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if ((size_t)fd >= connection_count)
            die("no descriptor for another client");
        if (!connections[fd])
            connections[fd] = malloc(sizeof(*connections[fd]));
        if (!connections[fd])
            die("out of memory");
        memset(connections[fd], 0, offsetof(struct connection, head));
        connections[fd]->open = true;
        no_delay(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_PER_TURN];
    if (argc < 2 || argc > 3)
        die("usage: origin LISTEN [COUNT]");
    unsigned count = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 10) : 1;
    connection_count = raise_descriptors();
    connections = calloc(connection_count, sizeof(*connections));
    body = calloc(1, BODY_BYTES);
    scratch = malloc(SCRATCH_BYTES);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int first = 0, last = 0;
    for (unsigned i = 0; i < count; i++) {
        last = listen_on(parse_address(argv[1], i));
        first = i == 0 ? last : first;
        watch(epoll, EPOLL_CTL_ADD, last, EPOLLIN);
    }
    memset(body, 'x', BODY_BYTES);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_PER_TURN, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd >= first && fd <= last)
                take_clients(fd);
            else if (connections[fd] && connections[fd]->stuck)
                push(fd);
            else if (connections[fd] && connections[fd]->open)
                receive(fd);
        }
    }
}
