#include "controlplane/admin/guard.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "proto/base/log.h"

#define TICK_SECONDS 1.

/* The socket is libmicrohttpd's to close: it notices. */
static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct guard *g = w->data;
    list_each (node, &g->visits) {
        struct visit *v = CONTAINER_OF(node, struct visit, link);
        if (v->deadline == 0 || v->deadline > ev_now(loop))
            continue;
        v->deadline = 0;
        shutdown(v->fd, SHUT_RDWR);
        log_debug("admin", "a client took too long and was cut off");
    }
}

void guard_init(struct guard *g, struct ev_loop *loop)
{
    g->loop = loop;
    list_init(&g->visits);
    ev_timer_init(&g->tick, on_tick, TICK_SECONDS, TICK_SECONDS);
    g->tick.data = g;
}

void guard_fini(struct guard *g)
{
    ev_timer_stop(g->loop, &g->tick);
    list_each_safe (node, &g->visits)
        guard_close(CONTAINER_OF(node, struct visit, link));
}

struct visit *guard_open(struct guard *g, struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct visit *v = calloc(1, sizeof(*v));
    if (!v)
        log_fatal("admin", "out of memory");
    v->guard = g;
    v->fd = info ? info->connect_fd : -1;
    list_push_back(&g->visits, &v->link);
    guard_allow(v, GUARD_HEAD_SECONDS);
    if (!ev_is_active(&g->tick))
        ev_timer_again(g->loop, &g->tick);
    return v;
}

void guard_close(struct visit *v)
{
    struct guard *g = v->guard;
    list_remove(&v->link);
    free(v);
    if (list_is_empty(&g->visits))
        ev_timer_stop(g->loop, &g->tick);
}

void guard_allow(struct visit *v, double seconds)
{
    if (v)
        v->deadline = seconds > 0 ? ev_now(v->guard->loop) + seconds : 0;
}
