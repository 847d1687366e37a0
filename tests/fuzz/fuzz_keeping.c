/* fuzz_keeping: what a data plane takes over from those before it: lists of the control plane's,
 * and the memory that other processes have left. Two data planes share what the first one has
 * taken.
 *
 *   each step   a list: its descriptors, then a Listeners message of so many bytes. The memory of a
 *               segment is real, with some bytes of it changed */
#include <ev.h>

#include "dataplane/keeping.h"
#include "dataplane/route/limiter.h"
#include "dataplane/state/names.h"
#include "descriptors.h"
#include "proto/base/log.h"

#define MAX_INPUT_BYTES 8192
#define MAX_PATCHES 16
#define CHANGED_BYTES 16384 /* of a segment: what is there behind them is zero, too */

enum memory { PLAIN, BREAKERS, NAMES, COUNTERS, LISTENING, MEMORIES };

struct rig {
    struct ev_loop *loop;
    struct rollout rollout;
    struct uplink uplink; /* which is not connected */
    struct keeping keeping;
};

static void on_result(void *owner, const struct rollout_result *r)
{
}

static void on_mended(void *owner)
{
}

static void rig_init(struct rig *r)
{
    memset(r, 0, sizeof(*r));
    r->loop = ev_loop_new(EVFLAG_AUTO);
    rollout_init(&r->rollout, r->loop, NULL, 1, on_result, r);
    keeping_init(&r->keeping, &r->rollout, &r->uplink, on_mended, r);
}

static void rig_fini(struct rig *r)
{
    keeping_settle_down(&r->keeping);
    keeping_fini(&r->keeping);
    rollout_fini(&r->rollout);
    ev_loop_destroy(r->loop);
}

/* Another one of the same content, but for what the input changes. */
static int changed_copy(const struct segment *from, struct fuzz_input *in)
{
    struct segment copy;
    struct err err;
    PROMISE(segment_create(&copy, "fuzz", from->head->layout, from->bytes, &err) == 0);
    memcpy(copy.head, from->head, MIN(from->bytes, (size_t)CHANGED_BYTES));
    unsigned patches = fuzz_byte(in) % MAX_PATCHES;
    for (unsigned i = 0; i < patches; i++) {
        size_t at = (size_t)fuzz_byte(in) << 8;
        at |= fuzz_byte(in);
        ((unsigned char *)copy.head)[at % copy.bytes] = (unsigned char)fuzz_byte(in);
    }
    int fd = dup(copy.fd);
    segment_close(&copy);
    return fd;
}

static int left_by_another(struct rig *r, struct fuzz_input *in)
{
    struct stats counters;
    struct names *names;
    int fd;
    switch ((enum memory)(fuzz_byte(in) % MEMORIES)) {
    case BREAKERS:
        return changed_copy(registry_breakers(r->rollout.registry), in);
    case NAMES:
        names = names_new();
        fd = changed_copy(names_segment(names), in);
        names_free(&names);
        return fd;
    case COUNTERS:
        stats_init(&counters, 0, 1);
        fd = changed_copy(stats_segment(&counters), in);
        stats_fini(&counters);
        return fd;
    case LISTENING:
        return dup(descriptor_of(FD_LISTENING));
    default:
        return dup(descriptor_of(fuzz_byte(in)));
    }
}

static void take(struct rig *r, struct fuzz_input *in)
{
    int fds[FRAME_MAX_FDS];
    struct err err;
    bool complete = false;
    unsigned count = fuzz_byte(in) % 8;
    for (unsigned i = 0; i < count; i++)
        PROMISE((fds[i] = left_by_another(r, in)) >= 0);
    struct view packed = fuzz_some(in);
    Gwp__Listeners *m = gwp__listeners__unpack(NULL, packed.len, (const uint8_t *)packed.at);
    if (!m) {
        for (unsigned i = 0; i < count; i++)
            close(fds[i]);
        return;
    }
    if (keeping_take(&r->keeping, m, fds, count, &complete, &err) == 0)
        PROMISE(complete == !m->more);
    else
        PROMISE(m->n_sockets + m->n_segments != count && err.text[0]);
    gwp__listeners__free_unpacked(m, NULL);
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
    while (in.len > 0)
        take(&r, &in);
    rig_fini(&r);
    PROMISE(next_descriptor() == before);
    return 0;
}
