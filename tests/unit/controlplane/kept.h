/* kept: for tests of what is kept. A fd_keeper with sessions on socket pairs, whose other ends are
 * data planes that say what the test wants and remember what they were given. */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/fd_keeper.h"
#include "proto/base/addr.h"
#include "tests/unit/controlplane/loop.h"

#define PLANES 4

/* One data plane, seen from both ends. */
struct plane {
    struct session session;
    struct channel *far; /* its end; NULL = gone */
    char name[16], instance[24];
    unsigned lists, sockets, segments; /* that it was given */
    unsigned snapshots;
    bool is_drained;
};

struct rig {
    struct ev_loop *loop;
    struct sessions sessions;
    ledger_count answered;
    struct fd_keeper keeper;
    struct plane planes[PLANES];
};

static inline int plane_on_message(void *owner, const struct message *m, struct err *err)
{
    struct plane *p = owner;
    for (unsigned i = 0; i < m->fd_count; i++)
        close(m->fds[i]);
    if (m->type == MSG_LISTENERS) {
        const Gwp__Listeners *l = (const Gwp__Listeners *)(const void *)m->body;
        cr_assert_eq(l->n_sockets + l->n_segments, m->fd_count);
        p->lists += !l->more;
        p->sockets += (unsigned)l->n_sockets;
        p->segments += (unsigned)l->n_segments;
    }
    p->snapshots += m->type == MSG_SNAPSHOT;
    p->is_drained = p->is_drained || m->type == MSG_DRAIN;
    return 0;
}

static inline int plane_ignore(void *owner, const struct message *m, struct err *err)
{
    return 0;
}

static inline void plane_stay(struct ev_loop *loop, ev_io *io, int events)
{
}

static inline void rig_init(struct rig *at)
{
    memset(at, 0, sizeof(*at));
    at->loop = ev_loop_new(EVFLAG_AUTO);
    at->sessions.loop = at->loop;
    list_init(&at->sessions.all);
    fd_keeper_init(&at->keeper, at->loop, &at->sessions, 600, &at->answered);
}

/* It says Hello; `started_ms` tells who began later. */
static inline struct plane *plane_open(struct rig *at, unsigned index, const char *name,
                                       uint64_t started_ms)
{
    struct plane *p = &at->planes[index];
    struct session *s = &p->session;
    int ends[2];
    memset(p, 0, sizeof(*p));
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    snprintf(p->name, sizeof(p->name), "%s", name);
    snprintf(p->instance, sizeof(p->instance), "instance-%u-%llu", index,
             (unsigned long long)started_ms);
    p->far = channel_new(CHANNEL_DATAPLANE, ends[1], plane_on_message, p);
    channel_opened(p->far);
    s->sessions = &at->sessions;
    s->channel = channel_new(CHANNEL_CONTROLPLANE, ends[0], plane_ignore, s);
    channel_opened(s->channel);
    ev_io_init(&s->io, plane_stay, ends[0], 0);
    s->is_open = s->keeps = true;
    s->name = p->name;
    s->instance_id = p->instance;
    s->version = (char *)"0.1.0";
    s->started_ms = started_ms;
    list_push_back(&at->sessions.all, &s->link);
    fd_keeper_opened(&at->keeper, s, true);
    return p;
}

static inline void plane_read(struct plane *p)
{
    struct err err;
    if (p->far)
        cr_assert(channel_read(p->far, &err), "%s", err.text);
}

static inline void plane_go(struct rig *at, struct plane *p)
{
    if (!p->far)
        return;
    fd_keeper_gone(&at->keeper, &p->session);
    list_remove(&p->session.link);
    ev_io_stop(at->loop, &p->session.io);
    channel_free(&p->session.channel);
    channel_free(&p->far);
}

static inline void rig_fini(struct rig *at)
{
    for (unsigned i = 0; i < PLANES; i++)
        plane_go(at, &at->planes[i]);
    fd_keeper_fini(&at->keeper);
    ev_loop_destroy(at->loop);
}
