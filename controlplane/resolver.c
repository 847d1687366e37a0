#include "controlplane/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/config/url.h"
#include "controlplane/table.h"
#include "proto/base/list.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

#define MIN_TTL_SECONDS 5
#define MAX_TTL_SECONDS 300
#define HOSTS_FILE_SECONDS 30
#define RETRY_SECONDS 5
#define QUERY_TIMEOUT_MS 1500
#define QUERY_TRIES 3
#define MAX_IN_FLIGHT 32

struct name {
    struct list link; /* of resolver.waiting, or in no list */
    struct resolver *resolver;
    char *host;               /* owned; the key of resolver.names */
    struct strings addresses; /* owned, sorted */
    ev_timer refresh;
    bool wanted, known;
    bool in_flight;  /* c-ares holds a pointer to this: it may not be freed */
    bool warned;     /* about a failure; until it resolves again */
    bool asking_now; /* inside ares_getaddrinfo(): an answer at this moment comes from a file */
};

/* A socket of c-ares. */
struct query_socket {
    struct list link; /* of resolver.sockets */
    struct resolver *resolver;
    ev_io io;
};

struct resolver {
    struct ev_loop *loop;
    const struct resolver_events *events; /* borrowed */
    ares_channel ares;                    /* owned */
    bool closing;
    ev_timer timeout;            /* the next one of c-ares' own */
    ev_timer tell;               /* tells the owner, from the loop and under nobody's feet */
    bool has_changed;            /* since the owner was told */
    struct table names;          /* by host -> struct name, owned */
    struct list waiting;         /* names to be asked for when others are done */
    struct list sockets;         /* owned */
    unsigned in_flight, unknown; /* unknown: wanted and not known */
    ledger_count *ok, *failed, *changes; /* in the ledger */
};

/* ---- names ---- */

static void strings_free(struct strings *s)
{
    for (size_t i = 0; i < s->count; i++)
        free((char *)s->at[i]);
    free(s->at);
    *s = (struct strings){NULL, 0};
}

static bool strings_equal(const struct strings *a, const struct strings *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->at[i], b->at[i]) != 0)
            return false;
    return true;
}

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        log_fatal("resolver", "out of memory");
    return out;
}

static void name_free(struct name *n)
{
    ev_timer_stop(n->resolver->loop, &n->refresh);
    list_remove(&n->link);
    strings_free(&n->addresses);
    free(n->host);
    free(n);
}

static void strings_add(struct strings *s, const char *text)
{
    s->at = realloc(s->at, (s->count + 1) * sizeof(*s->at));
    if (!s->at)
        log_fatal("resolver", "out of memory");
    s->at[s->count++] = copy(text);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void strings_sort(struct strings *s)
{
    size_t kept = 0;
    if (s->count > 1)
        qsort(s->at, s->count, sizeof(*s->at), by_text);
    for (size_t i = 0; i < s->count; i++) {
        if (kept > 0 && strcmp(s->at[kept - 1], s->at[i]) == 0)
            free((char *)s->at[i]);
        else
            s->at[kept++] = s->at[i];
    }
    s->count = kept;
}

/* ---- answers ---- */

double resolver_refresh_after(int ttl, bool from_hosts_file)
{
    if (from_hosts_file)
        return HOSTS_FILE_SECONDS;
    return MIN(MAX(ttl, MIN_TTL_SECONDS), MAX_TTL_SECONDS);
}

static void again_after(struct name *n, double seconds)
{
    ev_timer_stop(n->resolver->loop, &n->refresh);
    ev_timer_set(&n->refresh, seconds, 0.);
    ev_timer_start(n->resolver->loop, &n->refresh);
}

static void set_known(struct name *n)
{
    struct resolver *r = n->resolver;
    if (n->known)
        return;
    n->known = true;
    if (--r->unknown == 0)
        ev_timer_start(r->loop, &r->tell);
}

static void log_change(const struct name *n)
{
    char list[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < n->addresses.count && used < sizeof(list) - 1; i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i ? " " : "",
                                 n->addresses.at[i]);
    log_about(LOG_INFO, "resolver", LOG_FIELDS(about_name(n->host)),
              "name %s has %zu address%s: %s", n->host, n->addresses.count,
              n->addresses.count == 1 ? "" : "es", list);
}

/* Takes the list over. */
static void take_answer(struct name *n, struct strings *fresh)
{
    struct resolver *r = n->resolver;
    strings_sort(fresh);
    n->warned = false;
    if (strings_equal(&n->addresses, fresh)) {
        strings_free(fresh);
    } else {
        strings_free(&n->addresses);
        n->addresses = *fresh;
        ledger_add(r->changes, n->known);
        log_change(n);
        r->has_changed = true;
        ev_timer_start(r->loop, &r->tell);
    }
    set_known(n);
}

static void take_failure(struct name *n, int status)
{
    if (!n->warned)
        log_about(LOG_WARN, "resolver",
                  LOG_FIELDS(about_name(n->host), about_cause(ares_strerror(status))),
                  "name %s could not be looked up: %s; %s, trying again every %d s", n->host,
                  ares_strerror(status),
                  n->addresses.count > 0 ? "its last addresses stay in use"
                                         : "its backends get no traffic",
                  RETRY_SECONDS);
    n->warned = true;
    set_known(n);
    again_after(n, RETRY_SECONDS);
}

static void collect(const struct ares_addrinfo *answer, struct strings *out, int *ttl)
{
    *ttl = MAX_TTL_SECONDS;
    for (const struct ares_addrinfo_node *a = answer->nodes; a; a = a->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *ip =
            a->ai_family == AF_INET
                ? (const void *)&((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr
                : (const void *)&((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr;
        if (inet_ntop(a->ai_family, ip, text, sizeof(text)))
            strings_add(out, text);
        *ttl = MIN(*ttl, a->ai_ttl);
    }
    for (const struct ares_addrinfo_cname *c = answer->cnames; c; c = c->next)
        *ttl = MIN(*ttl, c->ttl);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
    struct name *n = arg;
    struct resolver *r = n->resolver;
    struct strings fresh = {NULL, 0};
    int ttl = 0;
    n->in_flight = false;
    r->in_flight--;
    if (answer && status == ARES_SUCCESS)
        collect(answer, &fresh, &ttl);
    if (answer)
        ares_freeaddrinfo(answer);
    if (r->closing || !n->wanted) {
        strings_free(&fresh);
        if (!n->wanted) /* it left the table while c-ares was busy with it */
            name_free(n);
        return;
    }
    ledger_add(fresh.count > 0 ? r->ok : r->failed, 1);
    if (fresh.count > 0) {
        again_after(n, resolver_refresh_after(ttl, n->asking_now));
        take_answer(n, &fresh);
    } else {
        take_failure(n, status == ARES_SUCCESS ? ARES_ENODATA : status);
    }
}

/* ---- asking ---- */

static void rearm_timeout(struct resolver *r)
{
    struct timeval tv;
    ev_timer_stop(r->loop, &r->timeout);
    if (!ares_timeout(r->ares, NULL, &tv))
        return;
    ev_timer_set(&r->timeout, (double)tv.tv_sec + (double)tv.tv_usec / 1e6, 0.);
    ev_timer_start(r->loop, &r->timeout);
}

static void ask(struct resolver *r, struct name *n)
{
    static const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_flags = ARES_AI_NOSORT, .ai_socktype = SOCK_STREAM};
    n->in_flight = n->asking_now = true;
    r->in_flight++;
    ares_getaddrinfo(r->ares, n->host, NULL, &hints, on_answer, n);
    n->asking_now = false;
    rearm_timeout(r);
}

static void ask_waiting(struct resolver *r)
{
    while (r->in_flight < MAX_IN_FLIGHT && !list_is_empty(&r->waiting)) {
        struct name *n = CONTAINER_OF(r->waiting.next, struct name, link);
        list_remove(&n->link);
        ask(r, n);
    }
}

static void on_refresh(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct name *n = w->data;
    list_remove(&n->link);
    list_push_back(&n->resolver->waiting, &n->link);
    ask_waiting(n->resolver);
}

static void on_tell(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct resolver *r = w->data;
    bool changed = r->has_changed;
    r->has_changed = false;
    if (r->unknown == 0)
        r->events->settled(r->events->owner);
    if (changed)
        r->events->changed(r->events->owner);
}

/* ---- c-ares on the loop ---- */

static void on_timeout(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct resolver *r = w->data;
    ares_process_fd(r->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    rearm_timeout(r);
    ask_waiting(r);
}

static void on_socket(struct ev_loop *loop, ev_io *w, int revents)
{
    struct resolver *r = ((struct query_socket *)w->data)->resolver;
    int fd = w->fd; /* the watcher may be gone after the next call */
    ares_process_fd(r->ares, revents & EV_READ ? fd : ARES_SOCKET_BAD,
                    revents & EV_WRITE ? fd : ARES_SOCKET_BAD);
    rearm_timeout(r);
    ask_waiting(r);
}

static struct query_socket *socket_of(struct resolver *r, int fd)
{
    list_each (node, &r->sockets) {
        struct query_socket *s = CONTAINER_OF(node, struct query_socket, link);
        if (s->io.fd == fd)
            return s;
    }
    struct query_socket *s = calloc(1, sizeof(*s));
    if (!s)
        log_fatal("resolver", "out of memory");
    s->resolver = r;
    ev_io_init(&s->io, on_socket, fd, 0);
    s->io.data = s;
    list_push_back(&r->sockets, &s->link);
    return s;
}

static void on_socket_state(void *owner, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = owner;
    struct query_socket *s = socket_of(r, fd);
    ev_io_stop(r->loop, &s->io);
    if (!readable && !writable) {
        list_remove(&s->link);
        free(s);
        return;
    }
    ev_io_set(&s->io, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
    ev_io_start(r->loop, &s->io);
}

struct resolver *resolver_new(struct ev_loop *loop, const struct resolver_setup *setup,
                              const struct resolver_events *events, struct err *err)
{
    struct resolver *r = calloc(1, sizeof(*r));
    if (!r)
        log_fatal("resolver", "out of memory");
    r->loop = loop;
    r->events = events;
    r->ok = ledger_find(setup->ledger, RESOLVER_COUNT_OK);
    r->failed = ledger_find(setup->ledger, RESOLVER_COUNT_FAILED);
    r->changes = ledger_find(setup->ledger, RESOLVER_COUNT_CHANGES);
    list_init(&r->waiting);
    list_init(&r->sockets);
    table_init(&r->names);
    ev_timer_init(&r->timeout, on_timeout, 0., 0.);
    r->timeout.data = r;
    ev_timer_init(&r->tell, on_tell, 0., 0.);
    r->tell.data = r;
    struct ares_options options = {.timeout = QUERY_TIMEOUT_MS,
                                   .tries = QUERY_TRIES,
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = r};
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    if (status == ARES_SUCCESS)
        status = ares_init_options(&r->ares, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status == ARES_SUCCESS && setup->servers) {
        status = ares_set_servers_ports_csv(r->ares, setup->servers);
        if (status != ARES_SUCCESS)
            ares_destroy(r->ares);
    }
    if (status == ARES_SUCCESS)
        return r;
    err_set(err, "names cannot be looked up%s%s: %s", setup->servers ? " at " : "",
            setup->servers ? setup->servers : "", ares_strerror(status));
    free(r);
    return NULL;
}

void resolver_free(struct resolver **rp)
{
    struct resolver *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    r->closing = true;
    ares_destroy(r->ares); /* answers every open question with ARES_EDESTRUCTION */
    ares_library_cleanup();
    ev_timer_stop(r->loop, &r->timeout);
    ev_timer_stop(r->loop, &r->tell);
    table_each(slot, &r->names) name_free(slot->item);
    table_fini(&r->names);
    free(r);
}

/* ---- what is wanted ---- */

/* A literal address in the one way in which it is written everywhere. */
static bool parse_literal(const char *host, char out[INET6_ADDRSTRLEN])
{
    unsigned char ip[sizeof(struct in6_addr)];
    int family = strchr(host, ':') ? AF_INET6 : AF_INET;
    return inet_pton(family, host, ip) == 1 && inet_ntop(family, ip, out, INET6_ADDRSTRLEN);
}

static struct name *name_new(struct resolver *r, const char *host)
{
    struct name *n = calloc(1, sizeof(*n));
    if (!n)
        log_fatal("resolver", "out of memory");
    list_init(&n->link);
    n->resolver = r;
    n->host = copy(host);
    ev_timer_init(&n->refresh, on_refresh, 0., 0.);
    n->refresh.data = n;
    table_add(&r->names, view_of(n->host), n);
    char literal[INET6_ADDRSTRLEN];
    if (parse_literal(host, literal)) {
        strings_add(&n->addresses, literal);
        n->known = true;
    } else {
        again_after(n, 0.);
    }
    return n;
}

static void want_host(struct resolver *r, const char *host)
{
    struct name *n = table_get(&r->names, view_of(host));
    if (!n)
        n = name_new(r, host);
    n->wanted = true;
}

static void want(struct resolver *r, const struct config *c)
{
    struct arena *arena = arena_new(4096);
    for (size_t i = 0; c && i < c->route_count; i++) {
        const struct route_config *route = &c->routes[i];
        struct redis_url redis;
        struct err unused;
        pace_yield();
        for (size_t k = 0; k < route->backend_count; k++)
            want_host(r, route->backends[k].host);
        if (route->rate_limit && *route->rate_limit->redis_url &&
            url_parse_redis(&redis, arena, route->rate_limit->redis_url, &unused) == 0 &&
            redis.host)
            want_host(r, redis.host);
    }
    arena_free(&arena);
}

static void drop_unwanted(struct resolver *r)
{
    struct list unwanted;
    list_init(&unwanted);
    table_each(slot, &r->names)
    {
        struct name *n = slot->item;
        if (n->wanted)
            continue;
        list_remove(&n->link);
        list_push_back(&unwanted, &n->link);
    }
    list_each_safe (node, &unwanted) {
        struct name *n = CONTAINER_OF(node, struct name, link);
        table_remove(&r->names, view_of(n->host));
        list_remove(&n->link);
        ev_timer_stop(r->loop, &n->refresh);
        if (!n->in_flight) /* else on_answer() frees it */
            name_free(n);
    }
}

void resolver_want(struct resolver *r, const struct config *one, const struct config *other)
{
    table_each(slot, &r->names)((struct name *)slot->item)->wanted = false;
    want(r, one);
    want(r, other);
    drop_unwanted(r);
    r->unknown = 0;
    table_each(slot, &r->names) r->unknown += !((struct name *)slot->item)->known;
}

bool resolver_is_settled(const struct resolver *r)
{
    return r->unknown == 0;
}

const struct strings *resolver_lookup(void *owner, const char *host)
{
    const struct resolver *r = owner;
    const struct name *n = table_get(&r->names, view_of(host));
    return n ? &n->addresses : NULL;
}
