#include "dataplane/io/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/io/beside.h"
#include "proto/base/log.h"

#define BACKLOG 65535 /* the kernel takes less where net.core.somaxconn says so */
#define UNIX_MODE 0660
#define MOST_OFFERED 256

void listener_set_init(struct listener_set *set)
{
    list_init(&set->all);
    list_init(&set->offered);
    set->may_join = set->is_split = false;
}

/* Before the close: until then nobody else takes its path. */
static void remove_file(const struct listener *l, bool kept)
{
    if (l->is_beside && kept)
        beside_forget(&l->addr);
    else if (l->is_beside)
        beside_put_back(&l->addr);
    else if (!kept)
        unlink(l->addr.sa.un.sun_path);
}

static void close_listener(struct listener *l, bool kept)
{
    list_remove(&l->link);
    if (l->addr.sa.any.sa_family == AF_UNIX)
        remove_file(l, kept);
    if (l->fd >= 0)
        close(l->fd);
    free(l);
}

void listener_set_fini(struct listener_set *set, bool kept)
{
    listener_forget_offered(set);
    list_each_safe (node, &set->all)
        close_listener(CONTAINER_OF(node, struct listener, link), kept);
}

void listener_close_fds(struct listener_set *set)
{
    list_each (node, &set->all) {
        struct listener *l = CONTAINER_OF(node, struct listener, link);
        if (l->fd >= 0)
            close(l->fd);
        l->fd = -1;
    }
}

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* ---- TCP ---- */

static int bind_tcp(const struct addr *addr, bool joins)
{
    int fd = open_socket(addr->sa.any.sa_family), on = 1, off = 0;
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        (!joins || beside_join(fd)) &&
        (addr->sa.any.sa_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0) &&
        bind(fd, &addr->sa.any, addr->len) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool is_any6(const struct addr *addr)
{
    return addr->sa.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&addr->sa.in6.sin6_addr);
}

static int bind_tcp_or_v4(const struct addr *addr, bool joins)
{
    int fd = bind_tcp(addr, joins);
    if (fd >= 0 || !is_any6(addr) || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL))
        return fd;
    struct addr v4 = {.len = sizeof(v4.sa.in4)};
    v4.sa.in4.sin_family = AF_INET;
    v4.sa.in4.sin_port = addr->sa.in6.sin6_port;
    return bind_tcp(&v4, joins);
}

/* ---- Unix ---- */

/* Is somebody listening there? A connection is the only way to know. */
static bool is_served(const struct addr *addr)
{
    int fd = open_socket(AF_UNIX);
    if (fd < 0)
        return true;
    bool refused = connect(fd, &addr->sa.any, addr->len) < 0 && errno == ECONNREFUSED;
    close(fd);
    return !refused;
}

static int remove_stale(const struct addr *addr, const char *text, struct err *err)
{
    struct stat st;
    const char *path = addr->sa.un.sun_path;
    if (lstat(path, &st) < 0)
        return 0; /* nothing there; whatever else is wrong, bind will say */
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, "%s: there is a file that is not a socket", text);
    if (is_served(addr))
        return err_set(err, "%s: another process listens there", text);
    if (unlink(path) < 0)
        return err_set_errno(err, "%s: the file that was left there could not be removed", text);
    return 0;
}

static int bind_unix(const struct addr *addr, const char *text, struct err *err)
{
    if (remove_stale(addr, text, err) < 0)
        return -1;
    int fd = open_socket(AF_UNIX);
    /* Nobody gets in between the two calls: before listen() every connection is refused. */
    if (fd >= 0 && bind(fd, &addr->sa.any, addr->len) == 0 &&
        chmod(addr->sa.un.sun_path, UNIX_MODE) == 0)
        return fd;
    err_set_errno(err, "%s could not be listened on", text);
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- both ---- */

static int open_fd(const struct addr *addr, const char *text, bool joins, struct err *err)
{
    int fd;
    if (addr->sa.any.sa_family == AF_UNIX) {
        fd = bind_unix(addr, text, err);
    } else {
        fd = bind_tcp_or_v4(addr, joins);
        if (fd < 0)
            err_set_errno(err, "%s could not be listened on", text);
    }
    bool waits = joins && addr->sa.any.sa_family != AF_UNIX; /* see listener_list() */
    if (fd >= 0 && !waits && listen(fd, BACKLOG) < 0) {
        err_set_errno(err, "%s could not be listened on", text);
        close(fd);
        return -1;
    }
    return fd;
}

static int open_beside(const struct addr *addr, const char *text, struct err *err)
{
    if (addr->sa.any.sa_family == AF_UNIX && !beside_put_aside(addr))
        return -1;
    int fd = open_fd(addr, text, true, err);
    if (fd < 0)
        return -1;
    log_about(LOG_WARN, "listener", LOG_FIELDS(about_address(text)),
              "%s is held by a process that does not answer: it is opened beside it", text);
    return fd;
}

/* ---- those of other processes ---- */

static struct listener *listener_new(const struct addr *addr, const char *text, int fd)
{
    int on = 1;
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        log_fatal("listener", "out of memory");
    if (addr->sa.any.sa_family != AF_UNIX) {
        /* What is accepted inherits it: one system call less for each client. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        beside_permit(fd);
    }
    l->fd = fd;
    l->addr = *addr;
    snprintf(l->text, sizeof(l->text), "%s", text);
    return l;
}

static int int_option(int fd, int option)
{
    int value = 0;
    socklen_t len = sizeof(value);
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

/* An address without host may be bound for IPv4 only, see bind_tcp_or_v4(). */
static bool is_bound_to(int fd, const struct addr *addr)
{
    struct addr bound = {.len = sizeof(bound.sa)};
    if (getsockname(fd, &bound.sa.any, &bound.len) < 0)
        return false;
    if (addr->sa.any.sa_family == AF_UNIX)
        return bound.sa.any.sa_family == AF_UNIX &&
               strncmp(bound.sa.un.sun_path, addr->sa.un.sun_path, sizeof(bound.sa.un.sun_path)) ==
                   0;
    if (is_any6(addr) && bound.sa.any.sa_family == AF_INET)
        return bound.sa.in4.sin_addr.s_addr == INADDR_ANY &&
               bound.sa.in4.sin_port == addr->sa.in6.sin6_port;
    return addr_equal(&bound, addr);
}

static struct listener *find(const struct list *list, const struct addr *addr)
{
    list_each (node, list) {
        struct listener *l = CONTAINER_OF(node, struct listener, link);
        if (addr_equal(&l->addr, addr))
            return l;
    }
    return NULL;
}

static bool is_in(const struct list *list, const struct addr *addr, int fd)
{
    struct stat ours, theirs;
    const struct listener *l = find(list, addr);
    return l && l->fd >= 0 && fstat(l->fd, &ours) == 0 && fstat(fd, &theirs) == 0 &&
           ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

static size_t count(const struct list *list)
{
    size_t n = 0;
    list_each (node, list)
        n++;
    return n;
}

int listener_offer(struct listener_set *set, const char *text, int fd, struct err *err)
{
    struct addr addr;
    int flags = fcntl(fd, F_GETFL);
    if (count(&set->offered) >= MOST_OFFERED) {
        err_set(err, "more than %d sockets are offered", MOST_OFFERED);
        goto refuse;
    }
    if (addr_parse(&addr, text, err) < 0)
        goto refuse;
    if (int_option(fd, SO_ACCEPTCONN) != 1 || int_option(fd, SO_TYPE) != SOCK_STREAM) {
        err_set(err, "what was offered for %s is no listening socket", text);
        goto refuse;
    }
    if (!is_bound_to(fd, &addr)) {
        err_set(err, "what was offered for %s listens elsewhere", text);
        goto refuse;
    }
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        err_set_errno(err, "what was offered for %s cannot be used", text);
        goto refuse;
    }
    if (is_in(&set->all, &addr, fd) || is_in(&set->offered, &addr, fd)) {
        close(fd);
        return 0;
    }
    const struct listener *beside = find(&set->all, &addr);
    set->is_split = set->is_split || (beside && beside->is_beside);
    struct listener *l = listener_new(&addr, text, fd);
    l->was_offered = true;
    list_push_back(&set->offered, &l->link);
    return 0;
refuse:
    close(fd);
    return -1;
}

static uint64_t namespace_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0 ? 0 : cookie;
}

bool listener_is_elsewhere(int fd)
{
    int own = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (own < 0)
        return false;
    bool is_elsewhere =
        int_option(fd, SO_DOMAIN) != AF_UNIX && namespace_of(fd) != namespace_of(own);
    close(own);
    return is_elsewhere;
}

void listener_forget_offered(struct listener_set *set)
{
    list_each_safe (node, &set->offered)
        close_listener(CONTAINER_OF(node, struct listener, link), true);
    set->is_split = false;
}

static struct listener *open_new(struct listener_set *set, const struct addr *addr,
                                 const char *text, struct err *err)
{
    struct err ignored;
    bool is_beside = false;
    int fd = open_fd(addr, text, false, err);
    if (fd < 0 && set->may_join) {
        fd = open_beside(addr, text, &ignored);
        is_beside = fd >= 0;
    }
    if (fd < 0)
        return NULL;
    struct listener *l = listener_new(addr, text, fd);
    l->is_beside = is_beside || beside_is_aside(addr);
    return l;
}

struct listener *listener_open(struct listener_set *set, const struct addr *addr, const char *text,
                               struct err *err)
{
    struct listener *open = find(&set->all, addr), *l = find(&set->offered, addr);
    if (open && !(open->is_beside && l))
        return open;
    if (l) {
        l->takes_back = open != NULL;
        list_remove(&l->link);
        snprintf(l->text, sizeof(l->text), "%s", text);
    } else {
        l = open_new(set, addr, text, err);
    }
    if (l)
        list_push_back(&set->all, &l->link);
    return l;
}

/* Not before: other addresses may be refused, and who had come here meanwhile would be lost. */
static void begin_beside(const struct listener *l)
{
    if (listen(l->fd, BACKLOG) < 0)
        log_error("listener", "%s could not be listened on beside who holds it: %s", l->text,
                  strerror(errno));
    beside_steer(l->fd, BESIDE_SECOND);
}

void listener_list(struct listener *l, uint64_t publication)
{
    if (l->is_beside && l->listed_by == 0 && l->addr.sa.any.sa_family != AF_UNIX)
        begin_beside(l);
    l->listed_by = publication;
    if (l->takes_back)
        beside_steer(l->fd, BESIDE_FIRST);
    l->takes_back = false;
}

void listener_close_older(struct listener_set *set, uint64_t publication)
{
    list_each_safe (node, &set->all) {
        struct listener *l = CONTAINER_OF(node, struct listener, link);
        if (l->listed_by >= publication) {
            l->is_beside =
                l->is_beside && (l->addr.sa.any.sa_family != AF_UNIX || beside_is_aside(&l->addr));
            continue;
        }
        if (l->was_offered && l->listed_by == 0) {
            list_remove(&l->link);
            list_push_back(&set->offered, &l->link);
        } else {
            close_listener(l, false);
        }
    }
}
