/* fuzz_fd_keeper: what data planes leave with the control plane, take over, and do with one
 * another: a fd_keeper with some sessions, and a succession.
 *
 *   each step   what, which session, and for a list: its descriptors, and a Listeners message of so
 *               many bytes */
#include <ev.h>

#include "controlplane/fd_keeper.h"
#include "controlplane/succession.h"
#include "descriptors.h"
#include "proto/base/log.h"

#define MAX_INPUT_BYTES 8192
#define SESSIONS 4

enum { OPEN, LIST, GO, ANSWER, SETTLE, CONFIGURE, TURN, BEGIN, STARTED, WAIT, STEPS };

struct rig {
    struct ev_loop *loop;
    struct sessions sessions;
    struct fd_keeper keeper;
    struct succession succession;
    struct session all[SESSIONS];
    struct channel *far[SESSIONS];
    ledger_count answered;
    unsigned asked, outcomes;
};

static void on_replaced(void *owner, const struct succession_outcome *o)
{
    struct rig *r = owner;
    r->outcomes++;
    PROMISE(o->message && (o->verdict == SUCCESSION_DONE || o->message[0]));
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
}

static int ignore(void *owner, const struct message *m, struct err *err)
{
    return 0;
}

/* What a data plane is given. */
static int on_far(void *owner, const struct message *m, struct err *err)
{
    for (unsigned i = 0; i < m->fd_count; i++)
        close(m->fds[i]);
    if (m->type != MSG_LISTENERS) {
        PROMISE(m->fd_count == 0);
        return 0;
    }
    const Gwp__Listeners *list = (const Gwp__Listeners *)(const void *)m->body;
    PROMISE(list->n_sockets + list->n_segments == m->fd_count);
    return 0;
}

static void rig_init(struct rig *r)
{
    memset(r, 0, sizeof(*r));
    r->loop = ev_loop_new(EVFLAG_AUTO);
    r->sessions.loop = r->loop;
    list_init(&r->sessions.all);
    fd_keeper_init(&r->keeper, r->loop, &r->sessions, 600, &r->answered);
    succession_init(&r->succession, r->loop, &r->sessions);
}

static void come(struct rig *r, unsigned i, unsigned how)
{
    static char names[][2] = {"a", "b"};
    static char instances[][4] = {"i-0", "i-1", "i-2", "i-3"};
    struct session *s = &r->all[i];
    int ends[2];
    if (r->far[i])
        return;
    memset(s, 0, sizeof(*s));
    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    r->far[i] = channel_new(CHANNEL_DATAPLANE, ends[1], on_far, r);
    s->channel = channel_new(CHANNEL_CONTROLPLANE, ends[0], ignore, s);
    channel_opened(r->far[i]);
    channel_opened(s->channel);
    s->sessions = &r->sessions;
    ev_io_init(&s->io, on_io, ends[0], 0);
    s->is_open = true;
    s->keeps = (how & 7) != 0;
    s->name = names[how >> 3 & 1];
    s->instance_id = instances[how >> 4 & 3];
    s->version = (char *)"0";
    s->started_ms = how;
    list_push_back(&r->sessions.all, &s->link);
    fd_keeper_opened(&r->keeper, s, how & 1);
}

static void go(struct rig *r, unsigned i)
{
    struct session *s = &r->all[i];
    if (!r->far[i])
        return;
    fd_keeper_gone(&r->keeper, s);
    succession_gone(&r->succession, s);
    list_remove(&s->link);
    ev_io_stop(r->loop, &s->io);
    channel_free(&s->channel);
    channel_free(&r->far[i]);
}

static void rig_fini(struct rig *r)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        go(r, i);
    succession_fini(&r->succession);
    fd_keeper_fini(&r->keeper);
    ev_loop_destroy(r->loop);
    PROMISE(r->outcomes == r->asked);
}

static void take(struct rig *r, struct fuzz_input *in, struct session *s)
{
    int fds[FRAME_MAX_FDS];
    struct err err;
    unsigned count = fuzz_byte(in) % 8;
    for (unsigned i = 0; i < count; i++)
        PROMISE((fds[i] = dup(descriptor_of(fuzz_byte(in)))) >= 0);
    struct view packed = fuzz_some(in);
    Gwp__Listeners *m = gwp__listeners__unpack(NULL, packed.len, (const uint8_t *)packed.at);
    if (m && fd_keeper_take(&r->keeper, s, m, fds, count, &err) == 0)
        succession_served(&r->succession, s);
    else if (m)
        PROMISE(err.text[0]);
    for (unsigned i = 0; !m && i < count; i++)
        close(fds[i]);
    if (m)
        gwp__listeners__free_unpacked(m, NULL);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    struct err err;
    unsigned what = fuzz_byte(in) % STEPS, who = fuzz_byte(in) % SESSIONS;
    struct session *s = r->far[who] ? &r->all[who] : NULL;
    Gwp__ReplaceResult started = GWP__REPLACE_RESULT__INIT;
    const struct strings none = {0};
    if (what == OPEN)
        come(r, who, fuzz_byte(in));
    else if (what == LIST && s)
        take(r, in, s);
    else if (what == GO)
        go(r, who);
    else if (what == ANSWER && s) {
        s->refused = fuzz_byte(in) & 1;
        fd_keeper_answered(&r->keeper, s);
    } else if (what == SETTLE)
        fd_keeper_settled(&r->keeper, fuzz_byte(in));
    else if (what == CONFIGURE)
        fd_keeper_configured(&r->keeper, &none);
    else if (what == TURN)
        ev_run(r->loop, EVRUN_NOWAIT);
    else if (what == BEGIN) {
        r->asked++;
        succession_begin(&r->succession, who & 1 ? "*" : "a", "", 60, on_replaced, r);
    } else if (what == STARTED && s) {
        started.pid = fuzz_byte(in);
        started.reason = (char *)"no";
        succession_started(&r->succession, s, &started);
    } else if (what == WAIT) {
        r->keeper.keep_seconds = fuzz_byte(in) & 1 ? 0 : 600;
        ev_invoke(r->loop, &r->keeper.expiry, EV_TIMER);
        ev_invoke(r->loop, &r->keeper.patience, EV_TIMER);
    }
    for (unsigned i = 0; i < SESSIONS; i++)
        PROMISE(!r->far[i] || channel_read(r->far[i], &err));
}

/* Nobody stands in where somebody serves. */
static void check(const struct rig *r)
{
    bool serves = false;
    for (unsigned i = 0; i < SESSIONS; i++)
        serves = serves || (r->far[i] && r->all[i].serves && !r->all[i].leaving);
    PROMISE(!serves || !fd_keeper_look(&r->keeper).stands_in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_INPUT_BYTES)
        return 0;
    log_set((enum log_level)(LOG_ERROR + 1), LOG_CONSOLE); /* what is wrong is expected */
    struct fuzz_input in = {(const char *)data, size};
    int before = next_descriptor();
    struct rig r;
    rig_init(&r);
    while (in.len > 0) {
        step(&r, &in);
        check(&r);
    }
    rig_fini(&r);
    PROMISE(next_descriptor() == before);
    return 0;
}
