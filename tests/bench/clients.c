/* clients: many HTTP clients in one thread, and how long they waited.
 *
 *   clients ADDRESS [--connections N] [--seconds S] [--rate R] [--paths N | --get PATH] [--upload
 * BYTES]
 *           [--new] [--websocket BYTES] [--count N] [--hold]
 *
 * Closed loop (no --rate): each client asks again as soon as it is answered. Open loop: requests
 * are due at a steady rate whatever the proxy does, and a latency counts from when its request was
 * due, also while it waits for a free connection: a proxy that stalls cannot hide that by being
 * asked less.
 *
 * --paths N    instead of one path, /r00000/hello to N - 1 in turn
 * --new        a connection for each request, which asks to be closed
 * --websocket  each client upgrades first; then a request is so many bytes there and back
 * --count N    no more than so many requests, in a closed loop
 * --hold       each client asks once and then stays, idle, until stdin ends
 *
 * Prints one JSON object: requests that were answered 200 in full, those that were not and why, and
 * latencies in microseconds. `own_delay_us` is how late the clients themselves were although there
 * was a free connection: where it is large, the latencies say more about the machine than the
 * proxy. */
#include "endpoints.h"

#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

#define NS_PER_S 1000000000ull
#define HEAD_BYTES 4096
#define READ_BYTES (256 * 1024)
#define PATIENCE_NS (5 * NS_PER_S) /* after the end, for answers that are still owed */

enum state { CLOSED, FREE, BUSY };

struct client {
    int fd;
    enum state state;
    bool head_done, upgraded, stuck;
    uint64_t due_ns;
    const char *out; /* what is left of the request's head, then of its body */
    size_t out_left, upload_left;
    uint64_t body_left;
    uint32_t used;
    int next_free; /* index of the next free client, -1 = none */
    char head[HEAD_BYTES];
};

struct histogram { /* 128 steps for each power of two: 0.8 % */
    uint64_t count, max, steps[64 * 256];
};

static struct {
    struct sockaddr_in address;
    unsigned connections, paths;
    uint64_t count;
    double seconds, rate;
    size_t upload, websocket;
    const char *get;
    bool fresh, hold;
} options = {.connections = 32, .count = UINT64_MAX, .seconds = 3, .get = "/hello"};

static struct client *clients;
static int *by_fd; /* descriptor -> client */
static int epoll, free_clients = -1;
static unsigned busy;
static char **requests, *upload_bytes, scratch[READ_BYTES];
static uint64_t start_ns, end_ns, issued, done, cut, refused, bad_status;
static struct histogram latency, own_delay;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- latencies ---- */

static void note(struct histogram *h, uint64_t ns)
{
    unsigned power = ns < 256 ? 0 : 63 - (unsigned)__builtin_clzll(ns) - 7;
    h->steps[power * 256 + (ns >> power)]++;
    h->count++;
    h->max = MAX(h->max, ns);
}

static double share_us(const struct histogram *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->count), seen = 0;
    for (unsigned i = 0; i < sizeof(h->steps) / sizeof(*h->steps); i++) {
        seen += h->steps[i];
        if (seen > wanted)
            return (double)((uint64_t)(i % 256) << (i / 256)) / 1e3;
    }
    return (double)h->max / 1e3;
}

static void print_histogram(const char *name, const struct histogram *h)
{
    printf("\"%s\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}",
           name, share_us(h, 0.5), share_us(h, 0.9), share_us(h, 0.99), share_us(h, 0.999),
           (double)h->max / 1e3);
}

/* ---- connections ---- */

static void set_free(struct client *c)
{
    c->state = FREE;
    c->next_free = free_clients;
    free_clients = (int)(c - clients);
}

static void disconnect(struct client *c)
{
    close(c->fd);
    c->fd = -1;
    c->upgraded = false;
}

static bool reconnect(struct client *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("no descriptor for a client: %m");
    if (connect(c->fd, (struct sockaddr *)&options.address, sizeof(options.address)) < 0 &&
        errno != EINPROGRESS) {
        close(c->fd);
        c->fd = -1;
        return false;
    }
    no_delay(c->fd);
    by_fd[c->fd] = (int)(c - clients);
    c->stuck = false;
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN);
    return true;
}

/* The request is over. */
static void finish(struct client *c, uint64_t *counter)
{
    (*counter)++;
    busy--;
    if (counter == &done)
        note(&latency, now_ns() - c->due_ns);
    if (counter != &done || options.fresh)
        disconnect(c);
    set_free(c);
}

/* ---- requests ---- */

static void push(struct client *c)
{
    while (c->out_left > 0 || c->upload_left > 0) {
        if (c->out_left == 0) {
            c->out = upload_bytes;
            c->out_left = c->upload_left;
            c->upload_left = 0;
        }
        ssize_t sent = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            finish(c, &cut);
            return;
        }
        if (sent < 0) {
            c->stuck = true;
            watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT);
            return;
        }
        c->out += sent;
        c->out_left -= (size_t)sent;
    }
    if (c->stuck)
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN);
    c->stuck = false;
}

static void put_request(struct client *c)
{
    bool echo = options.websocket > 0 && c->upgraded;
    c->out = echo ? upload_bytes : requests[issued % options.paths];
    c->out_left = echo ? options.websocket : strlen(c->out);
    c->upload_left = echo ? 0 : options.upload;
    c->body_left = echo ? options.websocket : 0;
    c->head_done = echo;
    c->used = 0;
    push(c);
}

static void begin(uint64_t due_ns)
{
    struct client *c = &clients[free_clients];
    free_clients = c->next_free;
    c->state = BUSY;
    c->due_ns = due_ns;
    busy++;
    if (c->fd < 0 && !reconnect(c))
        finish(c, &refused);
    else
        put_request(c);
    issued++;
}

/* A field's number in a head that ends with an empty line; 0 if it has none. */
static uint64_t find_length(const char *head)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, "Content-Length:", 15) == 0)
            return strtoull(line + 15, NULL, 10);
    }
    return 0;
}

/* More of the answer's head is here. */
static void look_for_head(struct client *c)
{
    c->head[c->used] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end && c->used == HEAD_BYTES - 1)
        die("an answer's head is longer than %d bytes", HEAD_BYTES);
    if (!end)
        return;
    size_t beyond = c->used - (size_t)(end + 4 - c->head);
    end[4] = '\0';
    c->head_done = true;
    const char *status = options.websocket > 0 ? "HTTP/1.1 101" : "HTTP/1.1 200";
    if (strncmp(c->head, status, 12) != 0) {
        finish(c, &bad_status);
        return;
    }
    if (options.websocket > 0) {
        c->upgraded = true;
        put_request(c);
        return;
    }
    c->body_left = find_length(c->head) - beyond;
    if (c->body_left == 0)
        finish(c, &done);
}

/* The other side has closed: fine between requests. */
static void on_end(struct client *c)
{
    if (c->state == BUSY)
        finish(c, errno == ECONNREFUSED ? &refused : &cut);
    else
        disconnect(c);
}

static void receive(struct client *c)
{
    bool in_head = c->state == BUSY && !c->head_done;
    errno = 0;
    ssize_t got = in_head ? recv(c->fd, c->head + c->used, HEAD_BYTES - 1 - c->used, 0)
                          : recv(c->fd, scratch, sizeof(scratch), 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        on_end(c);
    } else if (in_head) {
        c->used += (uint32_t)got;
        look_for_head(c);
    } else if (c->state == BUSY) {
        c->body_left -= (uint64_t)got;
        if (c->body_left == 0)
            finish(c, &done);
    }
}

/* ---- the loop ---- */

/* Starts what is due; returns when the next one is. */
static uint64_t begin_due(uint64_t now)
{
    if (options.rate <= 0) {
        while (free_clients >= 0 && now < end_ns && issued < options.count)
            begin(now_ns());
        return end_ns;
    }
    for (;;) {
        uint64_t due_ns = start_ns + (uint64_t)((double)issued / options.rate * 1e9);
        if (due_ns >= end_ns)
            return UINT64_MAX;
        if (due_ns > now)
            return due_ns;
        if (free_clients < 0)
            return UINT64_MAX; /* an answer will wake us */
        if (issued >= options.connections)
            note(&own_delay, now - due_ns);
        begin(due_ns);
    }
}

static void turn(uint64_t wake_ns)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t now = now_ns(), wait = wake_ns > now ? wake_ns - now : 0;
    struct timespec t = {(time_t)(wait / NS_PER_S), (long)(wait % NS_PER_S)};
    int n = epoll_pwait2(epoll, events, EVENTS_PER_TURN, &t, NULL);
    for (int i = 0; i < n; i++) {
        struct client *c = &clients[by_fd[events[i].data.fd]];
        if (c->fd != events[i].data.fd)
            continue;
        if (c->stuck && events[i].events & EPOLLOUT)
            push(c);
        if (c->fd == events[i].data.fd && events[i].events & ~(uint32_t)EPOLLOUT)
            receive(c);
    }
}

static void run_load(void)
{
    start_ns = now_ns();
    end_ns = start_ns + (uint64_t)(options.seconds * 1e9);
    for (uint64_t now; (now = now_ns()) < end_ns + PATIENCE_NS;) {
        uint64_t wake_ns = begin_due(now);
        if (busy == 0 && (now >= end_ns || issued >= options.count))
            break;
        turn(MIN(wake_ns, now < end_ns ? end_ns : end_ns + PATIENCE_NS));
    }
}

/* Each client asks once, a few at a time so that no backlog overflows. */
static void run_hold(void)
{
    uint64_t over = 0, progress_ns = start_ns = now_ns();
    end_ns = UINT64_MAX;
    while (over < options.connections) {
        while (busy < 64 && issued < options.connections) {
            free_clients = (int)issued;
            clients[issued].next_free = -1;
            begin(now_ns());
        }
        turn(now_ns() + NS_PER_S);
        if (done + cut + refused + bad_status > over)
            progress_ns = now_ns();
        else if (now_ns() - progress_ns > PATIENCE_NS)
            die("%u of %u clients get no answer", busy, options.connections);
        over = done + cut + refused + bad_status;
    }
}

static void print_result(void)
{
    double seconds = (double)(now_ns() - start_ns) / 1e9;
    printf("{\"requests\": %lu, \"unanswered\": %u, \"cut\": %lu, \"refused\": %lu, "
           "\"bad_status\": %lu, "
           "\"seconds\": %.3f, ",
           done, busy, cut, refused, bad_status, options.hold ? seconds : options.seconds);
    print_histogram("latency_us", &latency);
    printf(", ");
    print_histogram("own_delay_us", &own_delay);
    printf("}\n");
    fflush(stdout);
}

/* ---- beginning ---- */

static char *make_request(const char *path)
{
    char *text, length[64] = "";
    if (options.upload > 0)
        snprintf(length, sizeof(length), "Content-Length: %zu\r\n", options.upload);
    if (asprintf(&text,
                 "%s %s HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: clients/1\r\nAccept: "
                 "*/*\r\n%s%s\r\n",
                 options.upload > 0 ? "POST" : "GET", path, length,
                 options.fresh           ? "Connection: close\r\n"
                 : options.websocket > 0 ? "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                                           "Sec-WebSocket-Version: 13\r\n"
                                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                         : "") < 0)
        die("out of memory");
    return text;
}

static void make_requests(void)
{
    unsigned count = options.paths;
    options.paths = MAX(count, 1u);
    requests = calloc(options.paths, sizeof(*requests));
    for (unsigned i = 0; i < options.paths; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/r%05u/hello", i);
        requests[i] = make_request(count > 0 ? path : options.get);
    }
    upload_bytes = calloc(1, MAX(MAX(options.upload, options.websocket), 1));
    memset(upload_bytes, 'x', MAX(options.upload, options.websocket));
}

static void parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'},
        {"rate", required_argument, NULL, 'r'},
        {"paths", required_argument, NULL, 'p'},
        {"get", required_argument, NULL, 'g'},
        {"upload", required_argument, NULL, 'u'},
        {"websocket", required_argument, NULL, 'w'},
        {"count", required_argument, NULL, 'm'},
        {"new", no_argument, NULL, 'n'},
        {"hold", no_argument, NULL, 'h'},
        {0},
    };
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) >= 0;) {
        switch (o) {
        case 'c':
            options.connections = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            options.seconds = strtod(optarg, NULL);
            break;
        case 'r':
            options.rate = strtod(optarg, NULL);
            break;
        case 'p':
            options.paths = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'g':
            options.get = optarg;
            break;
        case 'u':
            options.upload = strtoul(optarg, NULL, 10);
            break;
        case 'w':
            options.websocket = strtoul(optarg, NULL, 10);
            break;
        case 'm':
            options.count = strtoul(optarg, NULL, 10);
            break;
        case 'n':
            options.fresh = true;
            break;
        case 'h':
            options.hold = true;
            break;
        default:
            exit(64);
        }
    }
    if (optind + 1 != argc || options.connections == 0)
        die("usage: clients ADDRESS [options]: see the top of clients.c");
    options.address = parse_address(argv[optind], 0);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    size_t files = raise_descriptors();
    prctl(PR_SET_TIMERSLACK, 1);
    make_requests();
    clients = calloc(options.connections, sizeof(*clients));
    by_fd = calloc(files, sizeof(*by_fd));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = options.connections; i-- > 0;) {
        clients[i].fd = -1;
        set_free(&clients[i]);
    }
    for (unsigned i = 0; i < options.connections && !options.fresh && !options.hold; i++)
        if (!reconnect(&clients[i]))
            die("cannot connect: %m");
    if (options.hold)
        run_hold();
    else
        run_load();
    print_result();
    while (options.hold && read(STDIN_FILENO, scratch, 1) > 0)
        ;
    return 0;
}
