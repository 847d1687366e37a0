#include "controlplane/fd_keeper.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"

#define FDS_PER_PART 28 /* of FRAME_MAX_FDS */
#define PATIENCE_SECONDS 1.
#define STARTING_SECONDS 3. /* from a Hello to serving: any longer, and it is not coming */
#define HELD_UP_SECONDS 0.02
#define LOOK_AGAIN_SECONDS 0.2
#define EXPIRY_SECONDS 1. /* between two looks */

static void *must(void *memory)
{
    if (!memory)
        log_fatal("fd_keeper", "out of memory");
    return memory;
}

static void forget(struct deposit *d)
{
    list_remove(&d->link);
    deposit_free(d);
}

static struct deposit *deposit_of(struct fd_keeper *k, struct session *s)
{
    list_each (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (d->session == s)
            return d;
    }
    struct deposit *d = deposit_new(s);
    list_push_front(&k->deposits, &d->link);
    return d;
}

/* ---- who serves ---- */

static bool serves(const struct session *s)
{
    return s->serves && !s->leaving;
}

static struct session *find_serving(const struct fd_keeper *k)
{
    sessions_each(s, k->sessions)
    {
        if (serves(s))
            return s;
    }
    return NULL;
}

/* The newest socket of each address. */
static unsigned gather_sockets(const struct fd_keeper *k, const struct kept **out, unsigned room)
{
    unsigned count = 0;
    list_each (node, &k->deposits) {
        const struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        for (size_t i = 0; i < d->count && count < room; i++) {
            const struct kept *item = &d->items[i];
            bool is_new = item->address != NULL;
            for (unsigned n = 0; n < count && is_new; n++)
                is_new = strcmp(out[n]->address, item->address) != 0;
            if (is_new)
                out[count++] = item;
        }
    }
    return count;
}

static void stand_in_for_them(struct fd_keeper *k)
{
    const struct kept *items[STAND_IN_SOCKETS];
    int fds[STAND_IN_SOCKETS];
    unsigned count = gather_sockets(k, items, STAND_IN_SOCKETS);
    for (unsigned i = 0; i < count; i++)
        fds[i] = items[i]->fd;
    if (count == 0)
        return;
    if (!k->has_said)
        log_warn("fd_keeper", "no data plane has served for %.1f s: clients are answered 503",
                 clock_s() - k->absent_since);
    k->has_said = true;
    stand_in_start(&k->stand_in, fds, count);
}

static void be_patient(struct fd_keeper *k, double until)
{
    double seconds = MAX(until - clock_s(), 0.);
    k->patient_until = until;
    ev_timer_stop(k->loop, &k->patience);
    ev_now_update(k->loop); /* a timer counts from the loop's time: after long work that is past */
    ev_timer_set(&k->patience, seconds, 0.);
    ev_timer_start(k->loop, &k->patience);
}

/* This process may have been held up itself, by a busy machine, a slow disk or SIGSTOP. Then the
 * timer is heard before those who have knocked meanwhile: they are given a moment, once. */
static void on_patience(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct fd_keeper *k = timer->data;
    double now = clock_s();
    ev_timer_stop(loop, timer);
    if (k->absent_since == 0)
        return;
    if (k->looks_again || now - k->patient_until < HELD_UP_SECONDS) {
        stand_in_for_them(k);
        return;
    }
    k->looks_again = true;
    be_patient(k, now + LOOK_AGAIN_SECONDS);
}

/* Whatever has changed: the stand-in runs when it should. Its sockets may have changed, too, so it
 * is always stopped first. */
static void reconsider(struct fd_keeper *k)
{
    double now = clock_s();
    stand_in_stop(&k->stand_in);
    ev_timer_stop(k->loop, &k->patience);
    if (find_serving(k)) {
        k->absent_since = 0;
        k->has_said = false;
        return;
    }
    if (k->absent_since == 0)
        k->absent_since = now;
    k->looks_again = false;
    be_patient(k, MAX(MAX(k->absent_since + PATIENCE_SECONDS, k->hope_until), now));
}

/* One name is one place to serve in. Whoever of that name began earlier goes, in whatever order
 * they are heard of. */
static void retire_older(const struct fd_keeper *k, struct session *s)
{
    struct err why;
    sessions_each(other, k->sessions)
    {
        if (other == s || !serves(other) || !serves(s) || strcmp(other->name, s->name) != 0)
            continue;
        struct session *older = other->started_ms < s->started_ms ? other : s;
        struct session *newer = older == s ? other : s;
        err_set(&why, "process %llu, version %s, has taken over", (unsigned long long)newer->pid,
                newer->version);
        log_about(LOG_INFO, "fd_keeper",
                  LOG_FIELDS(about_dataplane(s->name), about_process(newer->pid)),
                  "data plane %s: process %llu serves, process %llu is told to leave", s->name,
                  (unsigned long long)newer->pid, (unsigned long long)older->pid);
        session_send_drain(older, true, why.text);
    }
}

/* ---- handing out ---- */

/* A list in the making; what is borrowed stays in its deposits. */
struct handing {
    struct session *to;
    const struct kept **items;
    size_t count;
    bool snapshot_follows;
};

static void send_part(const struct handing *h, size_t first, size_t count)
{
    Gwp__Listeners__Socket sockets[FDS_PER_PART], *socket_at[FDS_PER_PART];
    Gwp__Listeners__Segment segments[FDS_PER_PART], *segment_at[FDS_PER_PART];
    Gwp__Listeners m = GWP__LISTENERS__INIT;
    int fds[FDS_PER_PART];
    for (size_t i = 0; i < count; i++) {
        const struct kept *item = h->items[first + i];
        fds[i] = item->fd;
        if (item->address) {
            Gwp__Listeners__Socket *s = socket_at[m.n_sockets] = &sockets[m.n_sockets];
            gwp__listeners__socket__init(s);
            s->address = item->address;
            m.n_sockets++;
            continue;
        }
        Gwp__Listeners__Segment *s = segment_at[m.n_segments] = &segments[m.n_segments];
        gwp__listeners__segment__init(s);
        s->kind = item->kind;
        s->name = item->name;
        s->layout = item->layout;
        s->size_bytes = item->size_bytes;
        s->lineage = item->lineage;
        m.n_segments++;
    }
    m.sockets = socket_at;
    m.segments = segment_at;
    m.more = first + count < h->count;
    m.snapshot_follows = h->snapshot_follows;
    session_send(h->to, MSG_LISTENERS, &m.base, fds, (unsigned)count);
}

/* An empty list is told as well: somebody waits for it. */
static void send_all(const struct handing *h)
{
    size_t first = 0;
    do {
        size_t count = MIN(h->count - first, FDS_PER_PART);
        send_part(h, first, count);
        first += count;
    } while (first < h->count);
}

static bool is_listed(const struct handing *h, const struct kept *item)
{
    for (size_t i = 0; i < h->count; i++)
        if (kept_is_same(h->items[i], item))
            return true;
    return false;
}

static size_t count_items(const struct fd_keeper *k)
{
    size_t count = 0;
    list_each (node, &k->deposits)
        count += CONTAINER_OF(node, struct deposit, link)->count;
    return count;
}

/* Sockets first, as each part's descriptors must come; then the rest, each once. */
static void gather_all(const struct fd_keeper *k, struct handing *h)
{
    h->count = gather_sockets(k, h->items, STAND_IN_SOCKETS);
    list_each (node, &k->deposits) {
        const struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        for (size_t i = 0; i < d->count; i++) {
            const struct kept *item = &d->items[i];
            bool is_wanted = item->kind && (!kept_is_for_telling(item) || !d->session);
            if (is_wanted && !is_listed(h, item))
                h->items[h->count++] = item;
        }
    }
}

static void hand_out(const struct fd_keeper *k, struct session *to, bool snapshot_follows)
{
    struct handing h = {.to = to, .snapshot_follows = snapshot_follows};
    to->given = k->lists;
    h.items = must(calloc(count_items(k) + 1, sizeof(*h.items)));
    gather_all(k, &h);
    if (h.count > 0)
        log_about(LOG_INFO, "fd_keeper", LOG_FIELDS(about_dataplane(to->name)),
                  "data plane %s is given %zu sockets and segments that were kept", to->name,
                  h.count);
    send_all(&h);
    free(h.items);
}

/* One that serves tells what this one has counted. */
static void hand_estate(const struct deposit *d, struct session *to)
{
    struct handing h = {.to = to};
    h.items = must(calloc(d->count + 1, sizeof(*h.items)));
    for (size_t i = 0; i < d->count; i++)
        if (kept_is_for_telling(&d->items[i]))
            h.items[h.count++] = &d->items[i];
    if (h.count > 0)
        send_all(&h);
    free(h.items);
}

/* ---- taking ---- */

/* Whoever serves has taken what others have left to go on with. */
static void forget_taken(const struct fd_keeper *k)
{
    list_each (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (!d->session)
            deposit_drop_for_going_on(d);
    }
}

/* Of what was left: the empty go, and the oldest when they are too many. */
static void sweep(const struct fd_keeper *k)
{
    size_t left = 0;
    list_each_safe (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (!d->session && (d->count == 0 || ++left > FD_KEEPER_MAX_LEFT))
            forget(d);
    }
}

/* A data plane may have come before the one that it is to replace had left anything, because both
 * have just started, or this process has: it could not open its addresses, and waits for them. */
static void hand_if_waiting(const struct fd_keeper *k, struct session *s)
{
    if (s->keeps && s->refused && !s->serves && !s->leaving && s->given != k->lists)
        hand_out(k, s, true);
}

static void take_whole(struct fd_keeper *k, struct deposit *d)
{
    struct session *s = d->session;
    k->lists++;
    deposit_complete(d);
    list_remove(&d->link);
    list_push_front(&k->deposits, &d->link); /* the newest first */
    s->serves = true;
    reconsider(k);
    forget_taken(k);
    sweep(k);
    retire_older(k, s);
    sessions_each(other, k->sessions) hand_if_waiting(k, other);
}

int fd_keeper_take(struct fd_keeper *k, struct session *s, const Gwp__Listeners *m, const int *fds,
                   unsigned fd_count, struct err *err)
{
    if (m->leaving) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        s->leaving = true;
        reconsider(k);
        return 0;
    }
    struct deposit *d = deposit_of(k, s);
    if (deposit_take(d, m, fds, fd_count, err) < 0)
        return -1;
    if (!m->more)
        take_whole(k, d);
    return 0;
}

void fd_keeper_answered(struct fd_keeper *k, struct session *s)
{
    hand_if_waiting(k, s);
    if (k->absent_since == 0)
        return;
    if (s->refused)
        k->hope_until = 0;
    reconsider(k);
}

/* ---- coming and going ---- */

/* It has lost a session, not its life: it tells by itself what it counts. */
static void leave_telling_to_it(const struct fd_keeper *k, const struct session *s)
{
    list_each (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (!d->session && strcmp(d->instance_id, s->instance_id) == 0)
            deposit_drop_for_telling(d);
    }
}

static const struct session *find_again(const struct fd_keeper *k, const struct session *gone)
{
    sessions_each(s, k->sessions)
    {
        if (s != gone && strcmp(s->instance_id, gone->instance_id) == 0)
            return s;
    }
    return NULL;
}

void fd_keeper_opened(struct fd_keeper *k, struct session *s, bool snapshot_follows)
{
    stand_in_stop(&k->stand_in);
    leave_telling_to_it(k, s);
    if (s->keeps) {
        hand_out(k, s, snapshot_follows);
    } else {
        log_about(LOG_INFO, "fd_keeper",
                  LOG_FIELDS(about_dataplane(s->name), about_version(s->version)),
                  "data plane %s, version %s, takes over no sockets: those that were "
                  "left are let go for it to open",
                  s->name, s->version);
        list_each (node, &k->deposits) {
            struct deposit *d = CONTAINER_OF(node, struct deposit, link);
            if (!d->session)
                deposit_drop_sockets(d);
        }
    }
    k->hope_until = clock_s() + STARTING_SECONDS;
    reconsider(k);
}

/* Who serves, or else who is about to: it was given everything before this one was gone, so nobody
 * else would ever be asked. */
static struct session *find_heir(const struct fd_keeper *k, const struct session *gone)
{
    struct session *starting = NULL;
    sessions_each(s, k->sessions)
    {
        if (s != gone && s->keeps && serves(s))
            return s;
        if (s != gone && s->keeps && !s->leaving)
            starting = s;
    }
    return starting;
}

void fd_keeper_gone(struct fd_keeper *k, struct session *s)
{
    struct deposit *d = NULL;
    list_each (node, &k->deposits) {
        struct deposit *one = CONTAINER_OF(node, struct deposit, link);
        if (one->session == s)
            d = one;
    }
    if (d)
        deposit_leave(d, clock_s());
    stand_in_stop(&k->stand_in);
    s->serves = false;
    const struct session *again = find_again(k, s);
    if (again)
        leave_telling_to_it(k, again);
    struct session *heir = find_heir(k, s);
    if (d && heir)
        hand_estate(d, heir);
    if (d && find_serving(k))
        forget_taken(k);
    k->hope_until = 0;
    sweep(k);
    reconsider(k);
}

void fd_keeper_settled(struct fd_keeper *k, uint64_t lineage)
{
    list_each (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        bool is_told = false;
        for (size_t i = 0; !d->session && i < d->count; i++)
            is_told =
                is_told || (kept_is_for_telling(&d->items[i]) && d->items[i].lineage == lineage);
        if (is_told)
            deposit_drop_for_telling(d);
    }
    sweep(k);
}

/* ---- letting go ---- */

void fd_keeper_configured(struct fd_keeper *k, const struct strings *addresses)
{
    stand_in_stop(&k->stand_in);
    list_each (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (!d->session)
            deposit_drop_unconfigured(d, addresses);
    }
    reconsider(k);
}

static void on_expiry(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct fd_keeper *k = timer->data;
    list_each_safe (node, &k->deposits) {
        struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        if (d->session || clock_s() - d->left_at < k->keep_seconds)
            continue;
        log_about(LOG_WARN, "fd_keeper", LOG_FIELDS(about_dataplane(d->name)),
                  "no data plane came within %.0f s for what %s left: it is let go",
                  k->keep_seconds, d->name);
        deposit_remove_files(d);
        stand_in_stop(&k->stand_in); /* before what it accepts from is closed */
        forget(d);
        reconsider(k);
    }
}

/* ---- life ---- */

void fd_keeper_init(struct fd_keeper *k, struct ev_loop *loop, struct sessions *sessions,
                    double keep_seconds, ledger_count *answered)
{
    memset(k, 0, sizeof(*k));
    k->loop = loop;
    k->sessions = sessions;
    k->keep_seconds = keep_seconds;
    k->absent_since = clock_s();
    list_init(&k->deposits);
    stand_in_init(&k->stand_in, loop, answered);
    ev_timer_init(&k->patience, on_patience, 0., 0.);
    ev_timer_init(&k->expiry, on_expiry, EXPIRY_SECONDS, EXPIRY_SECONDS);
    k->patience.data = k->expiry.data = k;
    ev_timer_start(loop, &k->expiry);
}

void fd_keeper_fini(struct fd_keeper *k)
{
    if (!k->loop)
        return;
    ev_timer_stop(k->loop, &k->patience);
    ev_timer_stop(k->loop, &k->expiry);
    stand_in_fini(&k->stand_in);
    list_each_safe (node, &k->deposits)
        forget(CONTAINER_OF(node, struct deposit, link));
    k->loop = NULL;
}

struct fd_keeper_view fd_keeper_look(const struct fd_keeper *k)
{
    struct fd_keeper_view v = {.stands_in = k->stand_in.socket_count > 0,
                               .answered = ledger_read(k->stand_in.answered)};
    list_each (node, &k->deposits) {
        const struct deposit *d = CONTAINER_OF(node, struct deposit, link);
        for (size_t i = 0; i < d->count; i++) {
            v.sockets += d->items[i].address != NULL;
            v.segments += d->items[i].address == NULL;
        }
    }
    return v;
}
