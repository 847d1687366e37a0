#include "controlplane/admin/admin.h"

#include <errno.h>
#include <microhttpd.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/admin/api.h"
#include "controlplane/admin/documents.h"
#include "controlplane/admin/stream.h"
#include "controlplane/files.h"
#include "proto/base/addr.h"
#include "proto/base/log.h"

#define MAX_CONNECTIONS 128
#define TIMEOUT_SECONDS 30
#define CONNECTION_BYTES (32 * 1024)
#define BODY_MAX_BYTES INTAKE_MAX_BYTES
#define SKIP_MAX_BYTES                                                                             \
    (64u * 1024 * 1024) /* read away so that a client gets to see why it was refused */
#define LINGER_SECONDS 3.
#define SPEAK_SECONDS 1.
#define LAST_TURNS 4 /* a stream takes one to wake up and others to say its end */
#define ANSWERING_MAX_BYTES ((size_t)256 * 1024 * 1024) /* of answers that nobody takes */

static void *must(void *memory)
{
    if (!memory)
        log_fatal("admin", "out of memory");
    return memory;
}

/* ---- the daemon on the loop ---- */

static void run(struct front *f)
{
    MHD_UNSIGNED_LONG_LONG ms;
    MHD_run(f->daemon);
    ev_timer_stop(f->admin->loop, &f->turn);
    if (MHD_get_timeout(f->daemon, &ms) != MHD_YES)
        return;
    ev_timer_set(&f->turn, (double)ms / 1000, 0.);
    ev_timer_start(f->admin->loop, &f->turn);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    run(w->data);
}

static void on_turn(struct ev_loop *loop, ev_timer *w, int revents)
{
    run(w->data);
}

/* Not from within libmicrohttpd's own turn. */
static void poke(struct front *f)
{
    if (!f)
        return;
    ev_timer_stop(f->admin->loop, &f->turn);
    ev_timer_set(&f->turn, 0., 0.);
    ev_timer_start(f->admin->loop, &f->turn);
}

void admin_poke(struct admin *a)
{
    poke(a->tcp);
    poke(a->unix_side);
    list_each (node, &a->leaving)
        poke(CONTAINER_OF(node, struct front, link));
}

/* libmicrohttpd closes the listening socket as well, unless it has been told to take no more
 * connections. It may not be stopped while connections sleep. */
static void front_free(struct front **fp)
{
    struct front *f = *fp;
    *fp = NULL;
    if (!f)
        return;
    streams_end(f->admin, f);
    for (int i = 0; i < LAST_TURNS; i++)
        MHD_run(f->daemon);
    ev_io_stop(f->admin->loop, &f->io);
    ev_timer_stop(f->admin->loop, &f->turn);
    ev_timer_stop(f->admin->loop, &f->linger);
    list_remove(&f->link);
    MHD_stop_daemon(f->daemon);
    free(f);
}

/* ---- a request ---- */

const char *request_argument(const struct request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->connection, MHD_GET_ARGUMENT_KIND, name);
}

void request_user(const struct request *rq, char *out, size_t cap)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    char room[1024], text[ADDR_TEXT_BYTES] = "";
    struct passwd entry, *found = NULL;
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct addr addr = {.len = sizeof(addr.sa)};
    snprintf(out, cap, "unknown");
    if (!fd)
        return;
    if (!rq->may_write) {
        if (getpeername(fd->connect_fd, &addr.sa.any, &addr.len) == 0)
            addr_format(&addr, text);
        snprintf(out, cap, "token from %s", text);
    } else if (getsockopt(fd->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0) {
        if (getpwuid_r(peer.uid, &entry, room, sizeof(room), &found) == 0 && found)
            snprintf(out, cap, "%s", found->pw_name);
        else
            snprintf(out, cap, "uid %u", (unsigned)peer.uid);
    }
}

const char *request_header(const struct request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->connection, MHD_HEADER_KIND, name);
}

void request_add_header(struct request *rq, const char *name, const char *value)
{
    MHD_add_response_header(rq->response, name, value);
}

/* What a browser shall not do with any of it. */
static void add_common_headers(struct request *rq)
{
    request_add_header(rq, "X-Content-Type-Options", "nosniff");
    request_add_header(rq, "X-Frame-Options", "DENY");
    request_add_header(rq, "Referrer-Policy", "no-referrer");
    request_add_header(rq, "Cache-Control", "no-store");
}

static void reply(struct request *rq, unsigned status, const char *type,
                  struct MHD_Response *response)
{
    rq->status = status;
    rq->response = must(response);
    if (type)
        request_add_header(rq, "Content-Type", type);
    add_common_headers(rq);
    if (rq->is_asleep) {
        rq->is_asleep = false;
        MHD_resume_connection(rq->connection);
        poke(rq->front);
    }
}

void request_reply(struct request *rq, unsigned status, const char *type, char *body, size_t len)
{
    rq->answer_len = len;
    rq->admin->answering += len;
    reply(rq, status, type, MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE));
}

void request_reply_stream(struct request *rq, unsigned status, const char *type,
                          struct MHD_Response *response)
{
    rq->is_stream = true;
    reply(rq, status, type, response);
}

void request_reply_empty(struct request *rq, unsigned status)
{
    reply(rq, status, NULL, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

void request_reply_json(struct request *rq, unsigned status, json_t *document)
{
    /* There is none where a string of it is no UTF-8: whoever asked caused that, and must not end
     * the process by it. */
    if (!document) {
        request_fail(rq, MHD_HTTP_INTERNAL_SERVER_ERROR, "failed",
                     "the answer would hold bytes that are no UTF-8");
        return;
    }
    char *text = must(json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(15)));
    size_t len = strlen(text);
    json_decref(document);
    text = must(realloc(text, len + 2));
    memcpy(text + len, "\n", 2);
    request_reply(rq, status, "application/json", text, len + 1);
}

void request_fail(struct request *rq, unsigned status, const char *code, const char *fmt, ...)
{
    char message[ERR_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    /* It may quote what a client sent, or half a character of it. */
    request_reply_json(
        rq, status,
        must(json_pack("{s:s, s:o}", "error", code, "message", document_text(message))));
}

/* ---- who may ---- */

/* Takes as long for a wrong token as for the right one. */
static bool same_secret(const char *a, const char *b)
{
    size_t len = strlen(b);
    unsigned different = strlen(a) != len;
    for (size_t i = 0; i < len; i++)
        different |= (unsigned char)((different ? b[i] : a[i]) ^ b[i]);
    return !different;
}

static bool brings_token(const struct request *rq)
{
    const char *value = request_header(rq, "Authorization");
    return rq->admin->token[0] && value && strncasecmp(value, "Bearer ", 7) == 0 &&
           same_secret(value + 7, rq->admin->token);
}

static void refuse_write(struct request *rq)
{
    if (rq->admin->token[0]) {
        request_fail(rq, MHD_HTTP_UNAUTHORIZED, "unauthorized",
                     "changes on this address need the token: Authorization: Bearer ...");
        request_add_header(rq, "WWW-Authenticate", "Bearer");
    } else {
        request_fail(rq, MHD_HTTP_FORBIDDEN, "read_only",
                     "this address only reads: use the socket %s, or set admin.token",
                     rq->admin->socket_path);
    }
}

/* ---- bodies ---- */

static uint64_t announced_length(const struct request *rq)
{
    const char *value = request_header(rq, "Content-Length");
    return value ? strtoull(value, NULL, 10) : 0;
}

static void fail_too_large(struct request *rq)
{
    request_fail(rq, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", "a body has at most %u bytes",
                 BODY_MAX_BYTES);
}

/* false: it is too much even to be read away. */
static bool take_body(struct request *rq, const char *data, size_t len)
{
    if (rq->skipped > 0 || len > BODY_MAX_BYTES - rq->body_len || !rq->endpoint) {
        rq->skipped += len;
        return rq->skipped <= SKIP_MAX_BYTES;
    }
    if (rq->body_len + len + 1 > rq->body_room) {
        rq->body_room = (rq->body_len + len + 1) * 2;
        rq->body = must(realloc(rq->body, rq->body_room));
    }
    memcpy(rq->body + rq->body_len, data, len);
    rq->body_len += len;
    rq->body[rq->body_len] = '\0';
    return true;
}

/* ---- libmicrohttpd's callbacks ---- */

static void fail_unknown(struct request *rq, const char *method, const char *path,
                         const char *allowed)
{
    if (allowed[0]) {
        request_fail(rq, MHD_HTTP_METHOD_NOT_ALLOWED, "method_not_allowed",
                     "%.16s is not for this path: %s", method, allowed);
        request_add_header(rq, "Allow", allowed);
    } else {
        request_fail(rq, MHD_HTTP_NOT_FOUND, "not_found", "there is nothing at %.200s", path);
    }
}

/* The head is there: what can be said against the request is said before its body is kept. */
static void begin(struct request *rq, const char *method, const char *path)
{
    char allowed[64];
    const struct endpoint *e = api_find(method, path, allowed, rq->argument);
    if (!e && allowed[0] && strcmp(method, "OPTIONS") == 0) {
        request_reply_empty(rq, MHD_HTTP_NO_CONTENT);
        request_add_header(rq, "Allow", allowed);
    } else if (!e)
        fail_unknown(rq, method, path, allowed);
    else if (rq->admin->answering > ANSWERING_MAX_BYTES)
        request_fail(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "busy",
                     "too many answers are waiting to be taken");
    else if (e->access == WRITE && !rq->may_write && !brings_token(rq))
        refuse_write(rq);
    else if (announced_length(rq) > SKIP_MAX_BYTES)
        fail_too_large(rq);
    else
        rq->endpoint = e;
}

static enum MHD_Result answer(struct request *rq)
{
    guard_allow(rq->visit, rq->is_stream ? GUARD_FOR_EVER : GUARD_ANSWER_SECONDS);
    enum MHD_Result result = MHD_queue_response(rq->connection, rq->status, rq->response);
    MHD_destroy_response(rq->response);
    rq->response = NULL;
    return result;
}

static struct visit *visit_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void on_connection(void *owner, struct MHD_Connection *c, void **slot,
                          enum MHD_ConnectionNotificationCode code)
{
    struct front *f = owner;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *slot = guard_open(&f->admin->guard, c);
    } else if (*slot) {
        guard_close(*slot);
        *slot = NULL;
    }
}

static enum MHD_Result on_request(void *owner, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **slot)
{
    struct front *f = owner;
    struct request *rq = *slot;
    if (!rq) {
        *slot = rq = must(calloc(1, sizeof(*rq)));
        rq->admin = f->admin;
        rq->front = f;
        rq->connection = c;
        rq->visit = visit_of(c);
        guard_allow(rq->visit, GUARD_BODY_SECONDS);
        rq->may_write = f->is_private;
        rq->is_head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
        begin(rq, method, path);
        /* A small body of a refused request is read first, so that the answer is not lost in a
         * reset. */
        return rq->response && announced_length(rq) > SKIP_MAX_BYTES ? answer(rq) : MHD_YES;
    }
    if (*len > 0) {
        enum MHD_Result result = take_body(rq, data, *len) ? MHD_YES : MHD_NO;
        *len = 0;
        return result;
    }
    if (!rq->response && rq->skipped > 0)
        fail_too_large(rq);
    if (!rq->response)
        rq->endpoint->handle(rq);
    if (rq->response)
        return answer(rq);
    rq->is_asleep = true;
    guard_allow(rq->visit, GUARD_FOR_EVER);
    MHD_suspend_connection(c);
    return MHD_YES;
}

static void on_completed(void *owner, struct MHD_Connection *c, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    struct request *rq = *slot;
    *slot = NULL;
    if (!rq)
        return;
    if (rq->response)
        MHD_destroy_response(rq->response);
    guard_allow(rq->visit, GUARD_IDLE_SECONDS);
    rq->admin->answering -= rq->answer_len;
    free(rq->body);
    free(rq);
}

static void on_library_log(void *owner, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

/* What holds a zero byte stays as it came, since it would end there: it is found nowhere. */
static size_t on_unescape(void *owner, struct MHD_Connection *c, char *text)
{
    return strstr(text, "%00") ? strlen(text) : MHD_http_unescape(text);
}

static void on_library_log(void *owner, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof(line), fmt, ap);
    line[strcspn(line, "\n")] = '\0';
    log_debug("admin", "%s", line);
}

/* ---- fronts ---- */

static void on_linger_over(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct front *f = w->data;
    front_free(&f);
}

static void front_watch(struct front *f)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    ev_io_init(&f->io, on_readable, info->epoll_fd, EV_READ);
    ev_timer_init(&f->turn, on_turn, 0., 0.);
    ev_timer_init(&f->linger, on_linger_over, LINGER_SECONDS, 0.);
    f->io.data = f->turn.data = f->linger.data = f;
    ev_io_start(f->admin->loop, &f->io);
}

/* Takes the listening `fd` over. */
static struct front *front_new(struct admin *a, int fd, bool is_private, struct err *err)
{
    struct front *f = must(calloc(1, sizeof(*f)));
    f->admin = a;
    f->is_private = is_private;
    list_init(&f->link);
    f->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, f,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)TIMEOUT_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, f, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (f->daemon) {
        front_watch(f);
        return f;
    }
    err_set(err, "the HTTP server of the admin API cannot start");
    free(f);
    return NULL;
}

/* IPv6 wildcard sockets take IPv4 as well; where the kernel has no IPv6, IPv4 is all there is. */
static int listen_tcp(struct addr *a, const char *text, struct err *err)
{
    int yes = 1, no = 0;
    int fd = socket(a->sa.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && text[0] == ':') {
        in_port_t port = a->sa.in6.sin6_port;
        memset(a, 0, sizeof(*a));
        a->sa.in4.sin_family = AF_INET;
        a->sa.in4.sin_port = port;
        a->len = sizeof(a->sa.in4);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    }
    if (fd < 0)
        return err_set_errno(err, "no socket for admin.addr %s", text);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (a->sa.any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
    if (bind(fd, &a->sa.any, a->len) == 0 && listen(fd, 128) == 0) {
        a->len = sizeof(a->sa);
        if (getsockname(fd, &a->sa.any, &a->len) == 0)
            return fd;
    }
    err_set_errno(err, "admin.addr %s cannot be listened on", text);
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* -1 with `err`; errno tells EADDRINUSE. "" opens nothing. */
static int open_tcp(struct admin *a, const char *text, struct err *err)
{
    struct addr addr;
    char shown[ADDR_TEXT_BYTES];
    if (text[0] == '\0')
        return 0;
    errno = 0;
    if (addr_parse(&addr, text, err) < 0)
        return -1;
    if (addr.sa.any.sa_family == AF_UNIX)
        return err_set(err, "admin.addr %s: the Unix socket is admin.socket", text);
    int fd = listen_tcp(&addr, text, err);
    if (fd < 0)
        return -1;
    a->tcp = front_new(a, fd, false, err);
    if (!a->tcp)
        return -1;
    addr_format(&addr, shown);
    log_about(LOG_INFO, "admin", LOG_FIELDS(about_address(shown)), "the admin API listens on %s",
              shown);
    return 0;
}

/* Takes no more connections; those that are there may finish. */
static void leave(struct admin *a)
{
    struct front *f = a->tcp;
    a->tcp = NULL;
    if (!f)
        return;
    close(MHD_quiesce_daemon(f->daemon));
    streams_end(a, f);
    poke(f);
    list_push_back(&a->leaving, &f->link);
    ev_timer_start(a->loop, &f->linger);
}

static bool same_port(const char *a, const char *b)
{
    const char *x = strrchr(a, ':'), *y = strrchr(b, ':');
    return x && y && strcmp(x, y) == 0;
}

/* New beside old; where the two cannot be open at once (one port, another host) the old one makes
 * room, and comes back if that did not help. */
static void on_rebind(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct admin *a = w->data;
    struct front *old = a->tcp;
    struct err err, ignored;
    a->tcp = NULL;
    int result = open_tcp(a, a->wanted, &err);
    struct front *fresh = a->tcp;
    bool is_taken = result < 0 && errno == EADDRINUSE && old && same_port(a->wanted, a->address);
    a->tcp = old;
    if (result == 0 || is_taken)
        leave(a);
    if (result == 0)
        a->tcp = fresh;
    if (is_taken && (result = open_tcp(a, a->wanted, &err)) < 0 &&
        open_tcp(a, a->address, &ignored) < 0)
        log_about(LOG_ERROR, "admin",
                  LOG_FIELDS(about_address(a->address), about_cause(ignored.text)),
                  "the old address is gone, too: %s", ignored.text);
    if (result < 0) {
        log_about(LOG_ERROR, "admin", LOG_FIELDS(about_address(a->address), about_cause(err.text)),
                  "the admin API stays on %s: %s", a->address[0] ? a->address : "no address",
                  err.text);
        return;
    }
    free(a->address);
    a->address = must(strdup(a->wanted));
}

/* ---- life ---- */

void admin_apply(struct admin *a, const struct admin_config *cfg)
{
    free(a->token);
    free(a->wanted);
    a->ready_routes = cfg->ready_routes;
    a->token = must(strdup(cfg->token));
    a->wanted = must(strdup(cfg->addr));
    if (strcmp(a->wanted, a->address) != 0)
        ev_timer_start(a->loop, &a->rebind);
}

static void on_news(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct admin *a = w->data;
    streams_wake(a);
    if (a->stream_count == 0)
        ev_timer_stop(loop, &a->speak);
}

/* From the middle of anything that logs: the streams hear of it in the loop's next turn. */
static void on_event(void *owner)
{
    struct admin *a = owner;
    if (a->stream_count > 0)
        ev_timer_start(a->loop, &a->news);
}

static int open_private(struct admin *a, struct err *err)
{
    int fd = files_listen_unix(a->socket_path, err);
    if (fd < 0)
        return -1;
    a->unix_side = front_new(a, fd, true, err);
    if (!a->unix_side)
        unlink(a->socket_path);
    return a->unix_side ? 0 : -1;
}

int admin_init(struct admin *a, struct ev_loop *loop, const char *socket_path,
               const struct admin_config *cfg, const struct admin_context *context, struct err *err)
{
    memset(a, 0, sizeof(*a));
    a->loop = loop;
    a->context = *context;
    list_init(&a->leaving);
    list_init(&a->streams);
    guard_init(&a->guard, loop);
    a->ready_routes = cfg->ready_routes;
    ev_timer_init(&a->news, on_news, 0., 0.);
    ev_timer_init(&a->speak, on_news, SPEAK_SECONDS, SPEAK_SECONDS);
    a->news.data = a->speak.data = a;
    context->events->added = on_event;
    context->events->owner = a;
    ev_timer_init(&a->rebind, on_rebind, 0., 0.);
    a->rebind.data = a;
    a->socket_path = must(strdup(socket_path));
    a->token = must(strdup(cfg->token));
    a->wanted = must(strdup(cfg->addr));
    a->address = must(strdup(cfg->addr));
    if (open_private(a, err) == 0 && open_tcp(a, cfg->addr, err) == 0)
        return 0;
    admin_fini(a);
    return -1;
}

void admin_fini(struct admin *a)
{
    if (!a->socket_path)
        return;
    ev_timer_stop(a->loop, &a->rebind);
    ev_timer_stop(a->loop, &a->news);
    ev_timer_stop(a->loop, &a->speak);
    a->context.events->added = NULL;
    /* Whoever was told something in the last moment hears it, if the socket takes it at once. */
    if (a->tcp)
        run(a->tcp);
    if (a->unix_side)
        run(a->unix_side);
    front_free(&a->tcp);
    list_each_safe (node, &a->leaving) {
        struct front *f = CONTAINER_OF(node, struct front, link);
        front_free(&f);
    }
    if (a->unix_side)
        unlink(a->socket_path);
    front_free(&a->unix_side);
    guard_fini(&a->guard);
    free(a->socket_path);
    free(a->token);
    free(a->wanted);
    free(a->address);
    memset(a, 0, sizeof(*a));
}
