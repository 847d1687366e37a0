/* floor: a byte relay that only does recv and send: what any proxy costs at least. It understands
 * nothing of what it carries; each client has one connection to the backend for as long as it
 * stays.
 *
 *   floor LISTEN BACKEND        both "127.0.0.1:port" */
#include "endpoints.h"

#include <string.h>

#define BUFFER_BYTES (64 * 1024)

struct side {
    int peer; /* descriptor of the other side + 1; 0 = this one is not in use */
    char *rest;
    size_t rest_at, rest_len; /* what this side has not taken yet */
};

static struct side *sides;
static size_t side_count;
static int epoll, listening;
static struct sockaddr_in backend;

static void drop(int fd)
{
    free(sides[fd].rest);
    sides[fd] = (struct side){0};
    close(fd);
}

static void drop_both(int fd)
{
    int peer = sides[fd].peer - 1;
    drop(fd);
    drop(peer);
}

static void take_client(int fd)
{
    int up = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (up < 0 || (size_t)up >= side_count || (size_t)fd >= side_count)
        die("no descriptor for another client");
    if (connect(up, (struct sockaddr *)&backend, sizeof(backend)) < 0 && errno != EINPROGRESS)
        die("connect: %m");
    no_delay(fd);
    no_delay(up);
    sides[fd].peer = up + 1;
    sides[up].peer = fd + 1;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
    watch(epoll, EPOLL_CTL_ADD, up, EPOLLIN);
}

static void take_clients(void)
{
    int fd;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
        take_client(fd);
}

/* `to` takes no more: its peer is not read until it does. */
static void keep_rest(int from, int to, const char *bytes, size_t len)
{
    struct side *s = &sides[to];
    s->rest = malloc(len);
    if (!s->rest)
        die("out of memory");
    memcpy(s->rest, bytes, len);
    s->rest_at = 0;
    s->rest_len = len;
    watch(epoll, EPOLL_CTL_MOD, from, 0);
    watch(epoll, EPOLL_CTL_MOD, to, EPOLLIN | EPOLLOUT);
}

static void carry(int from)
{
    static char buffer[BUFFER_BYTES];
    int to = sides[from].peer - 1;
    ssize_t got = recv(from, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EAGAIN)
        return;
    ssize_t sent = got > 0 ? send(to, buffer, (size_t)got, MSG_NOSIGNAL) : -1;
    if (got <= 0 || (sent < 0 && errno != EAGAIN))
        drop_both(from);
    else if (sent < got)
        keep_rest(from, to, buffer + MAX(sent, 0), (size_t)(got - MAX(sent, 0)));
}

static void carry_rest(int to)
{
    struct side *s = &sides[to];
    ssize_t sent = send(to, s->rest + s->rest_at, s->rest_len - s->rest_at, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        drop_both(to);
        return;
    }
    s->rest_at += (size_t)MAX(sent, 0);
    if (s->rest_at < s->rest_len)
        return;
    free(s->rest);
    s->rest = NULL;
    watch(epoll, EPOLL_CTL_MOD, to, EPOLLIN);
    watch(epoll, EPOLL_CTL_MOD, s->peer - 1, EPOLLIN);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_PER_TURN];
    if (argc != 3)
        die("usage: floor LISTEN BACKEND");
    side_count = raise_descriptors();
    sides = calloc(side_count, sizeof(*sides));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    listening = listen_on(parse_address(argv[1], 0));
    backend = parse_address(argv[2], 0);
    watch(epoll, EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_PER_TURN, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listening)
                take_clients();
            else if (sides[fd].peer && events[i].events & EPOLLOUT && sides[fd].rest)
                carry_rest(fd);
            else if (sides[fd].peer && !sides[sides[fd].peer - 1].rest)
                carry(fd);
        }
    }
}
