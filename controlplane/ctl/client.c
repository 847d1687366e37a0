#include "controlplane/ctl/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <llhttp.h>

#include "proto/base/version.h"

enum io { IO_DONE, IO_END, IO_TIMEOUT, IO_FAILED };

/* One call while it runs. */
struct call {
    const struct client *client; /* borrowed */
    const struct client_request *request;
    int fd;
    int64_t deadline_ms; /* monotonic */
    struct client_response response;
    size_t room; /* of response.body, its terminator aside */
    bool is_complete, is_too_large;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- the address ---- */

static int parse_tcp(struct client *c, struct err *err)
{
    const char *host = c->admin + strlen("http://");
    const char *end = host[0] == '[' ? strchr(host, ']') : strchr(host, ':');
    const char *port = end && host[0] == '[' ? end + 1 : end;
    if (!port || port[0] != ':' || end == host)
        return err_set(err, "\"%s\" lacks a port: write http://HOST:PORT", c->admin);
    if (host[0] == '[')
        host++;
    size_t digits = strspn(port + 1, "0123456789");
    bool ends_well = port[1 + digits] == '\0' || strcmp(port + 1 + digits, "/") == 0;
    if (digits == 0 || digits > 5 || !ends_well || (size_t)(end - host) >= sizeof(c->host))
        return err_set(err, "\"%s\" is no address: write http://HOST:PORT", c->admin);
    snprintf(c->host, sizeof(c->host), "%.*s", (int)(end - host), host);
    snprintf(c->port, sizeof(c->port), "%.*s", (int)digits, port + 1);
    return 0;
}

int client_init(struct client *c, const char *admin, const char *token, struct err *err)
{
    *c = (struct client){.admin = admin, .token = token && *token ? token : NULL};
    /* A line break would end the field and begin another. */
    if (c->token && c->token[strcspn(c->token, "\r\n")] != '\0')
        return err_set(err, "the token has a line break in it");
    if (strncmp(admin, "unix:", 5) == 0) {
        c->path = admin + 5;
        if (c->path[0] == '\0')
            return err_set(err, "\"%s\" lacks a path: write unix:/run/gwp/admin.sock", admin);
        if (strlen(c->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
            return err_set(err, "\"%s\" is longer than the path of a Unix socket may be", admin);
        return 0;
    }
    if (strncmp(admin, "http://", 7) == 0)
        return parse_tcp(c, err);
    return err_set(
        err, "\"%s\" is no address of a control plane: write unix:PATH or http://HOST:PORT", admin);
}

bool client_encode(char *out, size_t cap, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    size_t n = 0;
    for (; *text; text++) {
        if (n + 4 > cap)
            return false;
        if (strchr(plain, *text))
            out[n++] = *text;
        else
            n += (size_t)snprintf(out + n, cap - n, "%%%02X", (unsigned char)*text);
    }
    if (n >= cap)
        return false;
    out[n] = '\0';
    return true;
}

/* ---- bytes, each call no longer than what is left of the deadline ---- */

/* On Linux SO_SNDTIMEO bounds connect() as well, for both families. */
static bool arm(const struct call *call, int option)
{
    int64_t left = call->deadline_ms - now_ms();
    if (left <= 0)
        return false;
    struct timeval tv = {.tv_sec = left / 1000, .tv_usec = (left % 1000) * 1000};
    return setsockopt(call->fd, SOL_SOCKET, option, &tv, sizeof(tv)) == 0;
}

static bool ran_out(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINPROGRESS;
}

static enum io send_all(const struct call *call, struct view data)
{
    while (data.len > 0) {
        if (!arm(call, SO_SNDTIMEO))
            return IO_TIMEOUT;
        ssize_t n = send(call->fd, data.at, data.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ran_out(errno) ? IO_TIMEOUT : IO_FAILED;
        data.at += n;
        data.len -= (size_t)n;
    }
    return IO_DONE;
}

static enum io receive(const struct call *call, char *out, size_t cap, size_t *len)
{
    for (;;) {
        if (!arm(call, SO_RCVTIMEO))
            return IO_TIMEOUT;
        ssize_t n = recv(call->fd, out, cap, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ran_out(errno) ? IO_TIMEOUT : IO_FAILED;
        *len = (size_t)n;
        return n == 0 ? IO_END : IO_DONE;
    }
}

/* ---- connecting ---- */

static int connect_to(struct call *call, int family, const struct sockaddr *sa, socklen_t len)
{
    call->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (call->fd >= 0 && arm(call, SO_SNDTIMEO) && connect(call->fd, sa, len) == 0)
        return 0;
    int error = errno;
    if (call->fd >= 0)
        close(call->fd);
    call->fd = -1;
    errno = error;
    return -1;
}

static int explain_unix(const struct client *c, struct err *err)
{
    if (errno == EACCES || errno == EPERM)
        return err_set(err,
                       "you may not open %s: become a member of the group that owns the socket",
                       c->admin);
    if (errno == ENOENT || errno == ECONNREFUSED)
        return err_set(err,
                       "the control plane is not listening on %s: is gwp-controlplane running, and "
                       "may you open that socket?",
                       c->admin);
    if (ran_out(errno))
        return err_set(err, "the control plane takes no connection on %s: does it hang?", c->admin);
    return err_set_errno(err, "no connection to the control plane on %s", c->admin);
}

static int connect_unix(struct call *call, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", call->client->path);
    if (connect_to(call, AF_UNIX, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return explain_unix(call->client, err);
    return 0;
}

static int connect_tcp(struct call *call, struct err *err)
{
    const struct client *c = call->client;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC}, *found = NULL;
    int r = getaddrinfo(c->host, c->port, &hints, &found);
    if (r != 0)
        return err_set(err, "the host of %s cannot be found: %s", c->admin, gai_strerror(r));
    for (struct addrinfo *a = found; a && call->fd < 0; a = a->ai_next)
        if (connect_to(call, a->ai_family, a->ai_addr, a->ai_addrlen) < 0)
            continue;
    int error = errno;
    freeaddrinfo(found);
    errno = error;
    if (call->fd >= 0)
        return 0;
    if (errno == ECONNREFUSED)
        return err_set(err,
                       "the control plane is not listening on %s: is gwp-controlplane running, and "
                       "is that its admin.addr?",
                       c->admin);
    if (ran_out(errno) || errno == ETIMEDOUT)
        return err_set(err, "nobody answers on %s: is that the control plane's admin.addr?",
                       c->admin);
    return err_set_errno(err, "no connection to the control plane on %s", c->admin);
}

/* ---- the request ---- */

static int explain_timeout(const struct call *call, struct err *err)
{
    return err_set(err, "the control plane on %s did not answer within %u seconds",
                   call->client->admin, (call->request->timeout_ms + 999) / 1000);
}

static int send_request(const struct call *call, struct err *err)
{
    const struct client *c = call->client;
    const struct client_request *rq = call->request;
    char *head = NULL;
    /* A Unix socket has no name: RFC 9112 3.2 wants a Host field all the same. */
    int len =
        asprintf(&head,
                 "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gwpctl/%s\r\n"
                 "Accept: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n"
                 "%s%s%s%s%s%s\r\n",
                 rq->method, rq->target, c->path ? "localhost" : c->host, GWP_VERSION, rq->body.len,
                 c->token ? "Authorization: Bearer " : "", c->token ? c->token : "",
                 c->token ? "\r\n" : "", rq->content_type ? "Content-Type: " : "",
                 rq->content_type ? rq->content_type : "", rq->content_type ? "\r\n" : "");
    if (len < 0)
        return err_set(err, "out of memory");
    enum io r = send_all(call, (struct view){head, (size_t)len});
    free(head);
    if (r == IO_DONE)
        r = send_all(call, rq->body);
    /* Whoever closes before all was sent has often said why: the answer is read in any case. */
    return r == IO_TIMEOUT ? explain_timeout(call, err) : 0;
}

/* ---- the response ---- */

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
    struct call *call = parser->data;
    struct client_response *rs = &call->response;
    if (len > CLIENT_MAX_BYTES - rs->len) {
        call->is_too_large = true;
        return HPE_USER;
    }
    if (rs->len + len > call->room) {
        size_t room = MAX(rs->len + len, call->room * 2);
        char *grown = realloc(rs->body, room + 1);
        if (!grown)
            return HPE_USER;
        rs->body = grown;
        call->room = room;
    }
    memcpy(rs->body + rs->len, at, len);
    rs->len += len;
    rs->body[rs->len] = '\0';
    return 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct call *call = parser->data;
    call->response.status = llhttp_get_status_code(parser);
    if (call->response.status / 100 == 1)
        return 0; /* an interim response; the one that counts comes behind it */
    call->is_complete = true;
    return HPE_PAUSED;
}

/* The only method whose response has no body is not used here, so all framing is llhttp's. */
static int read_response(struct call *call, struct err *err)
{
    char piece[16384];
    size_t received = 0;
    enum io r = IO_DONE;
    llhttp_t parser;
    llhttp_settings_t settings;
    llhttp_settings_init(&settings);
    settings.on_body = on_body;
    settings.on_message_complete = on_message_complete;
    llhttp_init(&parser, HTTP_RESPONSE, &settings);
    parser.data = call;

    while (!call->is_complete && r == IO_DONE) {
        size_t len = 0;
        r = receive(call, piece, sizeof(piece), &len);
        llhttp_errno_t e = r == IO_DONE  ? llhttp_execute(&parser, piece, len)
                           : r == IO_END ? llhttp_finish(&parser)
                                         : HPE_OK;
        received += len;
        if (call->is_too_large || received > 2 * (size_t)CLIENT_MAX_BYTES)
            return err_set(err, "the answer on %s is larger than %u MiB", call->client->admin,
                           CLIENT_MAX_BYTES >> 20);
        if (e != HPE_OK && !call->is_complete && r == IO_DONE)
            return err_set(err,
                           "what answers on %s is not a control plane: it does not speak HTTP (%s)",
                           call->client->admin, llhttp_get_error_reason(&parser));
    }
    if (call->is_complete)
        return 0;
    if (r == IO_TIMEOUT)
        return explain_timeout(call, err);
    return err_set(err,
                   "the control plane on %s ended the connection before its answer was complete: "
                   "its log says why",
                   call->client->admin);
}

int client_call(const struct client *c, const struct client_request *request,
                struct client_response *response, struct err *err)
{
    struct call call = {.client = c, .request = request, .fd = -1};
    *response = (struct client_response){0};
    call.deadline_ms = now_ms() + request->timeout_ms;
    call.response.body = calloc(1, 1);
    if (!call.response.body)
        return err_set(err, "out of memory");
    int r = c->path ? connect_unix(&call, err) : connect_tcp(&call, err);
    if (r == 0)
        r = send_request(&call, err);
    if (r == 0)
        r = read_response(&call, err);
    if (call.fd >= 0)
        close(call.fd);
    *response = call.response;
    if (r < 0)
        client_response_fini(response);
    return r;
}

void client_response_fini(struct client_response *response)
{
    free(response->body);
    *response = (struct client_response){0};
}
