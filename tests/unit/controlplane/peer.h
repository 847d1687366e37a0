/* peer: a data plane for tests, on the test's own loop. It greets, and answers snapshots as it is
 * told. */
#pragma once

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/channel.h"
#include "tests/unit/controlplane/loop.h"

enum peer_manner { PEER_ACCEPTS, PEER_REFUSES, PEER_IS_SILENT };

struct peer {
    struct ev_loop *loop;
    struct channel *channel; /* owned; NULL = gone */
    ev_io io;
    enum peer_manner manner;
    bool welcome, refused;
    uint64_t serves; /* what it says so of in its Hello */
    unsigned snapshots;
    Gwp__Snapshot *last; /* owned */
    unsigned states;
    Gwp__EndpointState *state; /* owned: the last one */
    struct err end;
};

static inline void peer_send(struct peer *p, enum msg_type type, const ProtobufCMessage *body)
{
    struct err err;
    cr_assert(channel_send(p->channel, type, body, NULL, 0, &err), "%s", err.text);
    cr_assert(channel_write(p->channel, &err), "%s", err.text);
}

static inline void peer_answer(struct peer *p, uint64_t generation, bool accepted, bool dry_run)
{
    Gwp__SnapshotResult r = GWP__SNAPSHOT_RESULT__INIT;
    r.generation = generation;
    r.accepted = accepted;
    r.dry_run = dry_run;
    r.reason = (char *)(accepted ? "" : "out of ports");
    peer_send(p, MSG_SNAPSHOT_RESULT, &r.base);
}

static inline int peer_on_message(void *owner, const struct message *m, struct err *err)
{
    struct peer *p = owner;
    if (m->type == MSG_WELCOME) {
        p->welcome = true;
        channel_opened(p->channel);
    } else if (m->type == MSG_REFUSAL) {
        p->refused = true;
        return err_set(err, "%s", ((Gwp__Refusal *)(void *)m->body)->reason);
    } else if (m->type == MSG_SNAPSHOT) {
        if (p->last)
            gwp__snapshot__free_unpacked(p->last, NULL);
        p->last = gwp__snapshot__unpack(NULL, m->len, m->payload);
        p->snapshots++;
        if (p->manner != PEER_IS_SILENT)
            peer_answer(p, p->last->generation, p->manner == PEER_ACCEPTS, p->last->dry_run);
    } else if (m->type == MSG_ENDPOINT_STATE) {
        if (p->state)
            gwp__endpoint_state__free_unpacked(p->state, NULL);
        p->state = gwp__endpoint_state__unpack(NULL, m->len, m->payload);
        p->states++;
    }
    return 0;
}

static inline void peer_leave(struct peer *p)
{
    if (!p->channel)
        return;
    ev_io_stop(p->loop, &p->io);
    channel_free(&p->channel);
}

static inline void peer_on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    struct peer *p = w->data;
    if (!channel_read(p->channel, &p->end))
        peer_leave(p);
}

static inline void peer_connect(struct peer *p, struct ev_loop *loop, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memset(p, 0, sizeof(*p));
    p->loop = loop;
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    p->channel = channel_new(CHANNEL_DATAPLANE, fd, peer_on_message, p);
    ev_io_init(&p->io, peer_on_io, fd, EV_READ);
    p->io.data = p;
    ev_io_start(loop, &p->io);
}

static inline void peer_greet(struct peer *p, const char *name, uint32_t protocol)
{
    Gwp__Hello hello = GWP__HELLO__INIT;
    char instance[64];
    snprintf(instance, sizeof(instance), "instance-of-%s", name);
    hello.protocol_min = hello.protocol_max = protocol;
    hello.name = (char *)name;
    hello.instance_id = instance;
    hello.version = (char *)"0.1.0";
    hello.generation = p->serves;
    peer_send(p, MSG_HELLO, &hello.base);
}

static inline void peer_join(struct peer *p, struct ev_loop *loop, const char *path,
                             const char *name)
{
    peer_connect(p, loop, path);
    peer_greet(p, name, 1);
    LOOP_UNTIL(loop, p->welcome);
}

static inline void peer_fini(struct peer *p)
{
    peer_leave(p);
    if (p->state)
        gwp__endpoint_state__free_unpacked(p->state, NULL);
    if (p->last)
        gwp__snapshot__free_unpacked(p->last, NULL);
}
