#include "dataplane/keeping.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "dataplane/report/report.h"
#include "dataplane/route/limiter.h"
#include "dataplane/state/segment.h"
#include "proto/base/arena.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#define CAPABILITY "keeping"
#define FDS_PER_PART 28 /* of FRAME_MAX_FDS */
#define MOST_FDS 2048   /* in all: each is one of the other process', too */
#define MOST_ESTATES 16
#define FIRST_INHERITED_FD 3

/* What one process has left to be told by others. */
struct estate {
    struct estate *next;
    char owner[64]; /* its instance */
    struct names *names;
    struct stats workers[MAX_WORKERS];
    unsigned worker_count;
    bool is_whole; /* everything so far was understood */
};

/* ---- taking over ---- */

static void estate_free(struct estate *e)
{
    for (unsigned i = 0; i < e->worker_count; i++)
        stats_fini(&e->workers[i]);
    names_free(&e->names);
    free(e);
}

static void forget_estates(struct keeping *k)
{
    for (struct estate *e = k->estates, *next; e; e = next) {
        next = e->next;
        estate_free(e);
    }
    k->estates = NULL;
    k->estate_count = 0;
}

static struct estate *estate_of(struct keeping *k, const char *owner)
{
    struct estate *e = k->estates;
    while (e && strcmp(e->owner, owner) != 0)
        e = e->next;
    if (e || k->estate_count == MOST_ESTATES)
        return e;
    e = calloc(1, sizeof(*e));
    if (!e)
        log_fatal("keeping", "out of memory");
    snprintf(e->owner, sizeof(e->owner), "%s", owner);
    e->is_whole = true;
    e->next = k->estates;
    k->estates = e;
    k->estate_count++;
    return e;
}

static int take_counters(struct keeping *k, const Gwp__Listeners__Segment *s, int fd,
                         struct err *err)
{
    struct estate *e = estate_of(k, s->name);
    if (!e || e->worker_count == MAX_WORKERS) {
        close(fd);
        return err_set(err, "more than can be told");
    }
    if (stats_adopt(&e->workers[e->worker_count], fd, err) < 0) {
        e->is_whole = false; /* half of its sums would be wrong */
        return -1;
    }
    e->worker_count++;
    return 0;
}

static int take_names(struct keeping *k, const Gwp__Listeners__Segment *s, int fd, struct err *err)
{
    struct estate *e = estate_of(k, s->name);
    if (!e || e->names) {
        close(fd);
        return err_set(err, "more than can be told");
    }
    e->names = names_adopt(fd, err);
    return e->names ? 0 : -1;
}

static int take_breakers(struct keeping *k, const Gwp__Listeners__Segment *s, int fd,
                         struct err *err)
{
    return registry_adopt_breakers(k->rollout->registry, fd, clock_ms(), err) ? 0 : -1;
}

static int take_limiter(struct keeping *k, const Gwp__Listeners__Segment *s, int fd,
                        struct err *err)
{
    struct registry *r = k->rollout->registry;
    struct route_state *route = registry_route(r, s->name);
    int result = limiter_adopt(&route->limiters, s->name, fd, err) ? 0 : -1;
    registry_release_route(r, &route);
    return result;
}

/* Once a snapshot is in force, this process has breakers and limiters of its own, which are in use:
 * only what is to be told is taken then. */
static void take_segment(struct keeping *k, const Gwp__Listeners__Segment *s, int fd)
{
    static const struct {
        const char *kind;
        bool at_any_time;
        int (*take)(struct keeping *k, const Gwp__Listeners__Segment *s, int fd, struct err *err);
    } kinds[] = {
        {"breakers", false, take_breakers},
        {"limiter", false, take_limiter},
        {"counters", true, take_counters},
        {"names", true, take_names},
    };
    struct err err;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (strcmp(s->kind, kinds[i].kind) != 0)
            continue;
        if (!kinds[i].at_any_time && k->rollout->worker_count > 0)
            close(fd);
        else if (kinds[i].take(k, s, fd, &err) < 0)
            log_warn("keeping", "%s %s of a data plane before this one is not used: %s", s->kind,
                     s->name, err.text);
        return;
    }
    close(fd); /* of a release that keeps more than this one knows */
}

static bool emit(void *owner, const Gwp__StatsReport *part, struct err *err)
{
    struct keeping *k = owner;
    return uplink_send(k->uplink, MSG_STATS_REPORT, &part->base, err);
}

/* It is told by whoever gets it, and again by the next one if this one dies over it: the same
 * numbers under the same lineage count once. */
static void settle(struct keeping *k, const struct estate *e)
{
    const struct stats *workers[MAX_WORKERS];
    struct err err;
    for (unsigned i = 0; i < e->worker_count; i++)
        workers[i] = &e->workers[i];
    if (!e->is_whole || !e->names || e->worker_count == 0) {
        log_about(LOG_WARN, "keeping", LOG_FIELDS(about_instance_id(e->owner)),
                  "what data plane instance %s counted last cannot be told", e->owner);
        return;
    }
    struct settlement s = {.workers = workers,
                           .worker_count = e->worker_count,
                           .names = e->names,
                           .emit = emit,
                           .owner = k};
    switch (report_settle(&s, &err)) {
    case REPORT_SENT:
        log_about(LOG_INFO, "keeping", LOG_FIELDS(about_instance_id(e->owner)),
                  "told what data plane instance %s, which is gone, had counted", e->owner);
        break;
    case REPORT_LATER:
        log_about(LOG_WARN, "keeping", LOG_FIELDS(about_instance_id(e->owner)),
                  "data plane instance %s died while it changed its histograms; what it "
                  "counted last is lost",
                  e->owner);
        break;
    case REPORT_FAILED:
        log_debug("keeping", "%s", err.text);
        break;
    }
}

static void finish_taking(struct keeping *k)
{
    if (!k->estates)
        return;
    for (const struct estate *e = k->estates; e; e = e->next)
        settle(k, e);
    forget_estates(k);
    registry_mend_breakers(k->rollout->registry, clock_ms());
    k->mended(k->owner);
}

int keeping_take(struct keeping *k, const Gwp__Listeners *m, const int *fds, unsigned fd_count,
                 bool *complete, struct err *err)
{
    struct err why;
    if (m->n_sockets + m->n_segments != fd_count) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        return err_set(err, "a list of %zu sockets and %zu segments came with %u descriptors",
                       m->n_sockets, m->n_segments, fd_count);
    }
    for (size_t i = 0; i < m->n_sockets; i++)
        if (listener_is_elsewhere(fds[i])) {
            log_about(LOG_INFO, "keeping", LOG_FIELDS(about_address(m->sockets[i]->address)),
                      "the kept socket of %s is of another network: it is opened anew",
                      m->sockets[i]->address);
            close(fds[i]);
        } else if (listener_offer(&k->rollout->listeners, m->sockets[i]->address, fds[i], &why) < 0)
            log_about(LOG_WARN, "keeping",
                      LOG_FIELDS(about_address(m->sockets[i]->address), about_cause(why.text)),
                      "a kept socket is not used: %s", why.text);
    for (size_t i = 0; i < m->n_segments; i++)
        take_segment(k, m->segments[i], fds[m->n_sockets + i]);
    *complete = !m->more;
    if (*complete)
        finish_taking(k);
    return 0;
}

/* ---- what a service manager has opened ---- */

static void offer_inherited(struct keeping *k, int fd)
{
    struct addr addr = {.len = sizeof(addr.sa)};
    char text[ADDR_TEXT_BYTES];
    struct err err;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (getsockname(fd, &addr.sa.any, &addr.len) < 0 ||
        (addr.sa.any.sa_family != AF_INET && addr.sa.any.sa_family != AF_INET6 &&
         addr.sa.any.sa_family != AF_UNIX)) {
        log_warn("keeping", "descriptor %d of LISTEN_FDS is no socket that can be served", fd);
        return;
    }
    addr_format(&addr, text);
    if (listener_offer(&k->rollout->listeners, text, fd, &err) < 0)
        log_about(LOG_WARN, "keeping", LOG_FIELDS(about_address(text), about_cause(err.text)),
                  "descriptor %d of LISTEN_FDS is not used: %s", fd, err.text);
    else
        log_about(LOG_INFO, "keeping", LOG_FIELDS(about_address(text)),
                  "%s was opened by the service manager", text);
}

void keeping_take_inherited(struct keeping *k)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid())
        return;
    long fds = MIN(strtol(count, NULL, 10), FDS_PER_PART);
    for (long i = 0; i < fds; i++)
        offer_inherited(k, FIRST_INHERITED_FD + (int)i);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

/* ---- telling ---- */

/* The list in the making. */
struct list_of_ours {
    struct keeping *k;
    struct arena *arena;
    size_t count;
    Gwp__Listeners__Socket *sockets[MOST_FDS]; /* NULL at the place of a segment */
    Gwp__Listeners__Segment *segments[MOST_FDS];
    int fds[MOST_FDS];
    uint64_t hash;
    bool is_cut;
};

static bool has_room(struct list_of_ours *l)
{
    l->is_cut = l->is_cut || l->count == MOST_FDS;
    return l->count < MOST_FDS;
}

static void mix(struct list_of_ours *l, const void *bytes, size_t len)
{
    l->hash = XXH3_64bits_withSeed(bytes, len, l->hash);
}

static void add_socket(struct list_of_ours *l, const struct listener *from)
{
    struct stat st = {0};
    if (!has_room(l))
        return;
    Gwp__Listeners__Socket *s = arena_alloc(l->arena, sizeof(*s));
    gwp__listeners__socket__init(s);
    s->address = (char *)from->text;
    fstat(from->fd, &st);
    mix(l, from->text, strlen(from->text));
    mix(l, &st.st_ino, sizeof(st.st_ino));
    l->sockets[l->count] = s;
    l->fds[l->count++] = from->fd;
}

static void add_segment(struct list_of_ours *l, const char *kind, const char *name,
                        const struct segment *from)
{
    if (!has_room(l))
        return;
    Gwp__Listeners__Segment *s = arena_alloc(l->arena, sizeof(*s));
    gwp__listeners__segment__init(s);
    s->kind = (char *)kind;
    s->name = (char *)name;
    s->layout = from->head->layout;
    s->size_bytes = from->bytes;
    s->lineage = segment_lineage(from);
    mix(l, kind, strlen(kind));
    mix(l, &s->lineage, sizeof(s->lineage));
    l->segments[l->count] = s;
    l->fds[l->count++] = from->fd;
}

static void add_limiters(void *owner, struct route_state *route)
{
    struct list_of_ours *l = owner;
    list_each (node, &route->limiters)
        add_segment(l, "limiter", route->name, limiter_segment(limiter_of_link(node)));
}

/* The most important first: there may be more limiters than can be kept. */
static void gather(struct list_of_ours *l)
{
    const struct rollout *ro = l->k->rollout;
    const char *instance = l->k->uplink->instance_id;
    list_each (node, &ro->listeners.all)
        add_socket(l, CONTAINER_OF(node, struct listener, link));
    add_segment(l, "breakers", "", registry_breakers(ro->registry));
    add_segment(l, "names", instance, registry_names(ro->registry));
    for (unsigned i = 0; i < ro->worker_count; i++)
        add_segment(l, "counters", instance, stats_segment(&ro->workers[i]->stats));
    registry_each_route(ro->registry, add_limiters, l);
}

static bool send_part(struct list_of_ours *l, size_t first, size_t count, struct err *err)
{
    Gwp__Listeners__Socket *sockets[FDS_PER_PART];
    Gwp__Listeners__Segment *segments[FDS_PER_PART];
    Gwp__Listeners m = GWP__LISTENERS__INIT;
    for (size_t i = first; i < first + count; i++) {
        if (l->sockets[i])
            sockets[m.n_sockets++] = l->sockets[i];
        else
            segments[m.n_segments++] = l->segments[i];
    }
    m.sockets = sockets;
    m.segments = segments;
    m.more = first + count < l->count;
    return uplink_send_fds(l->k->uplink, MSG_LISTENERS, &m.base, l->fds + first, (unsigned)count,
                           err);
}

/* Sockets come before all segments, so a part's descriptors are in the order of its lists. */
static void send_all(struct list_of_ours *l)
{
    struct err err;
    for (size_t first = 0; first < l->count; first += FDS_PER_PART) {
        if (!send_part(l, first, MIN(l->count - first, FDS_PER_PART), &err)) {
            log_debug("keeping", "what is to be kept was not told: %s", err.text);
            return;
        }
    }
    l->k->told = l->hash;
}

void keeping_tell(struct keeping *k)
{
    if (!k->is_wanted || k->is_leaving || !k->rollout->in_force || !uplink_is_open(k->uplink))
        return;
    struct list_of_ours *l = calloc(1, sizeof(*l));
    if (!l)
        log_fatal("keeping", "out of memory");
    l->k = k;
    l->arena = arena_new(16 * 1024);
    gather(l);
    if (l->hash != k->told)
        send_all(l);
    if (l->is_cut)
        log_warn("keeping",
                 "only %d sockets and segments are kept; the limits of further routes "
                 "begin anew with another data plane",
                 MOST_FDS);
    arena_free(&l->arena);
    free(l);
}

void keeping_leave(struct keeping *k)
{
    struct err err;
    Gwp__Listeners m = GWP__LISTENERS__INIT;
    m.leaving = true;
    k->is_leaving = true;
    if (k->is_wanted && uplink_is_open(k->uplink) &&
        !uplink_send(k->uplink, MSG_LISTENERS, &m.base, &err))
        log_debug("keeping", "that this data plane leaves was not told: %s", err.text);
}

static void forget_unused_limiters(void *owner, struct route_state *route)
{
    limiter_forget_unused(&route->limiters);
}

void keeping_settle_down(struct keeping *k)
{
    listener_forget_offered(&k->rollout->listeners);
    registry_each_route(k->rollout->registry, forget_unused_limiters, k);
}

/* ---- life ---- */

void keeping_init(struct keeping *k, struct rollout *rollout, struct uplink *uplink,
                  void (*mended)(void *owner), void *owner)
{
    memset(k, 0, sizeof(*k));
    k->rollout = rollout;
    k->uplink = uplink;
    k->mended = mended;
    k->owner = owner;
}

void keeping_fini(struct keeping *k)
{
    forget_estates(k);
}

void keeping_opened(struct keeping *k, const Gwp__Welcome *welcome)
{
    k->is_wanted = false;
    for (size_t i = 0; i < welcome->n_capabilities; i++)
        k->is_wanted = k->is_wanted || strcmp(welcome->capabilities[i], CAPABILITY) == 0;
    k->rollout->are_kept = k->is_wanted;
    k->rollout->listeners.may_join = false;
    k->told = 0;
    forget_estates(k);
    if (k->is_leaving)
        keeping_leave(k);
    else
        keeping_tell(k);
}

void keeping_lost(struct keeping *k)
{
    k->rollout->are_kept = false;
    forget_estates(k);
}
