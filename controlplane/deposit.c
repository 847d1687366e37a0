#include "controlplane/deposit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/log.h"

#define UNIX_PREFIX "unix:"

static void *must(void *memory)
{
    if (!memory)
        log_fatal("deposit", "out of memory");
    return memory;
}

/* ---- life ---- */

static void kept_fini(struct kept *i)
{
    close(i->fd);
    free(i->address);
    free(i->kind);
    free(i->name);
}

static void free_items(struct kept **items, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        kept_fini(&(*items)[i]);
    free(*items);
    *items = NULL;
    *count = 0;
}

struct deposit *deposit_new(struct session *s)
{
    struct deposit *d = must(calloc(1, sizeof(*d)));
    d->session = s;
    d->instance_id = must(strdup(s->instance_id));
    d->name = must(strdup(s->name));
    return d;
}

void deposit_free(struct deposit *d)
{
    free_items(&d->items, &d->count);
    free_items(&d->coming, &d->coming_count);
    free(d->instance_id);
    free(d->name);
    free(d);
}

/* ---- taking ---- */

/* Its file will be removed one day: it must be its own. */
static bool is_at_its_path(int fd, const char *address)
{
    struct sockaddr_un bound = {0};
    socklen_t len = sizeof(bound);
    size_t prefix = strlen(UNIX_PREFIX);
    return strncmp(address, UNIX_PREFIX, prefix) != 0 ||
           (getsockname(fd, (struct sockaddr *)&bound, &len) == 0 && bound.sun_family == AF_UNIX &&
            strncmp(bound.sun_path, address + prefix, sizeof(bound.sun_path)) == 0);
}

static int check_socket(int fd, const char *address, struct err *err)
{
    int listens = 0, type = 0, flags = fcntl(fd, F_GETFL);
    socklen_t len = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
        return err_set(err, "what it left as %.100s is no listening socket", address);
    if (strlen(address) > DEPOSIT_NAME_BYTES || !is_at_its_path(fd, address))
        return err_set(err, "the socket that it left as %.100s listens elsewhere", address);
    /* The stand-in accepts from it, and must never wait. */
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_set_errno(err, "the socket of %.100s cannot be used", address);
    return 0;
}

static int check_list(const struct deposit *d, const Gwp__Listeners *m, const int *fds,
                      unsigned fd_count, struct err *err)
{
    if (m->n_sockets + m->n_segments != fd_count)
        return err_set(err, "a list of %zu sockets and %zu segments came with %u descriptors",
                       m->n_sockets, m->n_segments, fd_count);
    if (d->coming_count + fd_count > DEPOSIT_MAX_FDS)
        return err_set(err, "it leaves more than %d sockets and segments", DEPOSIT_MAX_FDS);
    for (size_t i = 0; i < m->n_sockets; i++)
        if (check_socket(fds[i], m->sockets[i]->address, err) < 0)
            return -1;
    for (size_t i = 0; i < m->n_segments; i++)
        if (strlen(m->segments[i]->kind) > DEPOSIT_NAME_BYTES ||
            strlen(m->segments[i]->name) > DEPOSIT_NAME_BYTES)
            return err_set(err, "the name of a segment is longer than %d bytes",
                           DEPOSIT_NAME_BYTES);
    return 0;
}

static struct kept *add_kept(struct deposit *d, int fd)
{
    struct stat st = {0};
    struct kept *item = &d->coming[d->coming_count++];
    memset(item, 0, sizeof(*item));
    fstat(fd, &st);
    item->fd = fd;
    item->device = st.st_dev;
    item->inode = st.st_ino;
    return item;
}

int deposit_take(struct deposit *d, const Gwp__Listeners *m, const int *fds, unsigned fd_count,
                 struct err *err)
{
    if (check_list(d, m, fds, fd_count, err) < 0) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        return -1;
    }
    d->coming = must(realloc(d->coming, (d->coming_count + fd_count + 1) * sizeof(*d->coming)));
    for (size_t i = 0; i < m->n_sockets; i++)
        add_kept(d, fds[i])->address = must(strdup(m->sockets[i]->address));
    for (size_t i = 0; i < m->n_segments; i++) {
        const Gwp__Listeners__Segment *s = m->segments[i];
        struct kept *item = add_kept(d, fds[m->n_sockets + i]);
        item->kind = must(strdup(s->kind));
        item->name = must(strdup(s->name));
        item->layout = s->layout;
        item->size_bytes = s->size_bytes;
        item->lineage = s->lineage;
    }
    return 0;
}

void deposit_complete(struct deposit *d)
{
    free_items(&d->items, &d->count);
    d->items = d->coming;
    d->count = d->coming_count;
    d->coming = NULL;
    d->coming_count = 0;
}

void deposit_leave(struct deposit *d, double now)
{
    d->session = NULL;
    d->left_at = now;
    free_items(&d->coming, &d->coming_count);
}

/* ---- letting go ---- */

bool kept_is_for_telling(const struct kept *i)
{
    return i->kind && (strcmp(i->kind, "counters") == 0 || strcmp(i->kind, "names") == 0);
}

/* A socket and a segment may have the same number: they are of different devices. */
bool kept_is_same(const struct kept *a, const struct kept *b)
{
    return a->inode == b->inode && a->device == b->device;
}

/* Takes those out of it that the caller has no use for. */
static void drop(struct deposit *d, bool (*is_useless)(const struct kept *i, const void *by),
                 const void *by)
{
    size_t stay = 0;
    for (size_t i = 0; i < d->count; i++) {
        if (is_useless(&d->items[i], by))
            kept_fini(&d->items[i]);
        else
            d->items[stay++] = d->items[i];
    }
    d->count = stay;
}

static bool is_for_telling(const struct kept *i, const void *unused)
{
    return kept_is_for_telling(i);
}

static bool is_for_going_on(const struct kept *i, const void *unused)
{
    return !kept_is_for_telling(i);
}

static bool is_socket(const struct kept *i, const void *unused)
{
    return i->address != NULL;
}

static void remove_file(const struct kept *i)
{
    if (strncmp(i->address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        unlink(i->address + strlen(UNIX_PREFIX));
}

static bool is_unconfigured(const struct kept *i, const void *by)
{
    const struct strings *addresses = by;
    if (!i->address)
        return false;
    for (size_t n = 0; n < addresses->count; n++)
        if (strcmp(i->address, addresses->at[n]) == 0)
            return false;
    log_about(LOG_INFO, "deposit", LOG_FIELDS(about_address(i->address)),
              "%s is not configured any more: its kept socket is closed", i->address);
    remove_file(i);
    return true;
}

void deposit_drop_for_telling(struct deposit *d)
{
    drop(d, is_for_telling, NULL);
}

void deposit_drop_for_going_on(struct deposit *d)
{
    drop(d, is_for_going_on, NULL);
}

void deposit_drop_sockets(struct deposit *d)
{
    drop(d, is_socket, NULL);
}

void deposit_drop_unconfigured(struct deposit *d, const struct strings *addresses)
{
    drop(d, is_unconfigured, addresses);
}

void deposit_remove_files(const struct deposit *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->items[i].address)
            remove_file(&d->items[i]);
}
