#include "proto/channel.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/arena.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

/* A peer that does not read is given up at this point; one snapshot of the largest size always
 * fits. */
#define QUEUE_MAX_BYTES (FRAME_MAX_BYTES + 16u * 1024 * 1024)
#define FRAMES_PER_READ 64
#define UNPACKED_FACTOR 4 /* of a message's size: a first guess */

enum sender { FROM_DP, FROM_CP, FROM_BOTH };
enum phase { PHASE_HELLO, PHASE_OPEN, PHASE_ANY };

static const struct kind {
    uint16_t type;
    const char *word;
    enum sender sender;
    enum phase phase;
    uint32_t max_bytes;
    const ProtobufCMessageDescriptor *descriptor;
} kinds[] = {
#define MESSAGE(NAME, number, lower, Type, sender, phase, max)                                     \
    {(number), #Type, sender, phase, max, &gwp__##lower##__descriptor},
#include "proto/messages.def"
#undef MESSAGE
};

struct channel {
    enum channel_role role;
    enum channel_phase phase;
    int fd; /* owned */
    struct frame_reader in;
    struct frame_writer out;
    channel_handler_fn *handler;
    void *owner; /* borrowed */
};

static const struct kind *kind_of(uint16_t type)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (kinds[i].type == type)
            return &kinds[i];
    return NULL;
}

static uint32_t bound_of(uint16_t type)
{
    const struct kind *k = kind_of(type);
    return k ? k->max_bytes : 0;
}

struct channel *channel_new(enum channel_role role, int fd, channel_handler_fn *handler,
                            void *owner)
{
    struct channel *ch = calloc(1, sizeof(*ch));
    if (!ch)
        log_fatal("channel", "out of memory");
    ch->role = role;
    ch->phase = CHANNEL_GREETING;
    ch->fd = fd;
    ch->handler = handler;
    ch->owner = owner;
    frame_reader_init(&ch->in, bound_of);
    frame_writer_init(&ch->out);
    return ch;
}

void channel_free(struct channel **chp)
{
    struct channel *ch = *chp;
    *chp = NULL;
    if (!ch)
        return;
    frame_reader_fini(&ch->in);
    frame_writer_fini(&ch->out);
    close(ch->fd);
    free(ch);
}

int channel_fd(const struct channel *ch)
{
    return ch->fd;
}

enum channel_phase channel_phase(const struct channel *ch)
{
    return ch->phase;
}

void channel_opened(struct channel *ch)
{
    ch->phase = CHANNEL_OPEN;
}

uint32_t channel_negotiate(uint32_t min_a, uint32_t max_a, uint32_t min_b, uint32_t max_b,
                           struct err *err)
{
    uint32_t low = MAX(min_a, min_b), high = MIN(max_a, max_b);
    if (low <= high && high > 0)
        return high;
    err_set(err,
            "no common protocol version: one side speaks %u to %u, the other %u to %u; use "
            "releases of the pair that "
            "are closer to each other",
            min_a, max_a, min_b, max_b);
    return 0;
}

/* ---- receiving ---- */

static int check_allowed(const struct channel *ch, const struct kind *k, struct err *err)
{
    bool from_dp = ch->role == CHANNEL_CONTROLPLANE; /* who is the sender, seen from here */
    if ((k->sender == FROM_DP && !from_dp) || (k->sender == FROM_CP && from_dp))
        return err_set(err, "a %s is not for that side to send", k->word);
    if (k->phase == PHASE_HELLO && ch->phase != CHANNEL_GREETING)
        return err_set(err, "a %s after the greeting", k->word);
    if (k->phase == PHASE_OPEN && ch->phase != CHANNEL_OPEN)
        return err_set(err, "a %s before the greeting was over", k->word);
    return 0;
}

/* A message is one arena: ten thousand routes would be half a million pieces to be given back one
 * by one. */
static void *allocate(void *arena, size_t bytes)
{
    pace_yield();
    return arena_alloc(arena, bytes);
}

static void deallocate(void *arena, void *piece)
{
}

static int handle(struct channel *ch, const struct frame *f, struct err *err)
{
    const struct kind *k = kind_of(f->type);
    int result = check_allowed(ch, k, err);
    ProtobufCMessage *body = NULL;
    struct arena *arena = result == 0 ? arena_new((size_t)f->len * UNPACKED_FACTOR + 1024) : NULL;
    ProtobufCAllocator allocator = {allocate, deallocate, arena};
    if (result == 0 &&
        !(body = protobuf_c_message_unpack(k->descriptor, &allocator, f->len, f->payload)))
        result = err_set(err, "a malformed %s of %u bytes", k->word, f->len);
    if (result < 0) {
        arena_free(&arena);
        for (unsigned i = 0; i < f->fd_count; i++)
            close(f->fds[i]);
        return -1;
    }
    struct message m = {.type = (enum msg_type)f->type,
                        .body = body,
                        .payload = f->payload,
                        .len = f->len,
                        .fds = f->fds,
                        .fd_count = f->fd_count};
    result = ch->handler(ch->owner, &m, err);
    arena_free(&arena);
    return result;
}

/* The last words: sent at once if the socket takes them, since nobody will wait for it afterwards.
 */
static void refuse(struct channel *ch, const struct err *why)
{
    Gwp__Refusal refusal = GWP__REFUSAL__INIT;
    struct err ignored;
    refusal.reason = (char *)why->text;
    refusal.code = (char *)"malformed";
    if (channel_send(ch, MSG_REFUSAL, &refusal.base, NULL, 0, &ignored))
        frame_write(&ch->out, ch->fd, &ignored);
}

bool channel_read(struct channel *ch, struct err *err)
{
    /* What has been received is handled to its end: the socket does not tell of it a second time.
     */
    for (int i = 0; i < FRAMES_PER_READ || frame_is_buffered(&ch->in); i++) {
        struct frame f;
        switch (frame_read(&ch->in, ch->fd, &f, err)) {
        case FRAME_READY:
            pace_look();
            if (handle(ch, &f, err) == 0)
                break;
            if (f.type != MSG_REFUSAL)
                refuse(ch, err);
            return false;
        case FRAME_AGAIN:
            return true;
        case FRAME_CLOSED:
            err_set(err, "it closed the connection");
            return false;
        case FRAME_BROKEN:
            refuse(ch, err);
            return false;
        }
    }
    return true;
}

/* ---- sending ---- */

static uint8_t *append(struct channel *ch, enum msg_type type, size_t len, const int *fds,
                       unsigned fd_count, struct err *err)
{
    const struct kind *k = kind_of((uint16_t)type);
    if (len > k->max_bytes) {
        err_set(err, "a %s of %zu bytes is more than the %u that a frame may hold", k->word, len,
                k->max_bytes);
        return NULL;
    }
    if (ch->out.queued_bytes + len > QUEUE_MAX_BYTES) {
        err_set(err, "it does not read: %zu bytes are waiting for it", ch->out.queued_bytes);
        return NULL;
    }
    uint8_t *room = frame_append(&ch->out, (uint16_t)type, (uint32_t)len, fds, fd_count);
    if (!room)
        err_set_errno(err, "descriptors could not be duplicated");
    return room;
}

bool channel_send(struct channel *ch, enum msg_type type, const ProtobufCMessage *body,
                  const int *fds, unsigned fd_count, struct err *err)
{
    uint8_t *room = append(ch, type, protobuf_c_message_get_packed_size(body), fds, fd_count, err);
    if (!room)
        return false;
    protobuf_c_message_pack(body, room);
    return true;
}

bool channel_send_packed(struct channel *ch, enum msg_type type, const uint8_t *payload,
                         uint32_t len, struct err *err)
{
    uint8_t *room = append(ch, type, len, NULL, 0, err);
    if (!room)
        return false;
    memcpy(room, payload, len);
    return true;
}

bool channel_write(struct channel *ch, struct err *err)
{
    switch (frame_write(&ch->out, ch->fd, err)) {
    case FRAME_CLOSED:
        err_set(err, "it closed the connection");
        return false;
    case FRAME_BROKEN:
        return false;
    default:
        return true;
    }
}

bool channel_wants_write(const struct channel *ch)
{
    return ch->out.first != NULL;
}

/* ---- who is it ---- */

static bool is_member(gid_t group, uid_t user, gid_t primary)
{
    if (group == primary)
        return true;
    const struct passwd *pw = getpwuid(user);
    gid_t groups[64];
    int count = COUNT_OF(groups);
    if (!pw || getgrouplist(pw->pw_name, primary, groups, &count) < 0)
        return false;
    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return true;
    return false;
}

int channel_check_peer(int fd, struct err *err)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return err_set_errno(err, "the peer's credentials could not be read");
    if (peer.uid == 0 || peer.uid == geteuid() || is_member(getegid(), peer.uid, peer.gid))
        return 0;
    return err_set(err,
                   "process %d runs as user %u, group %u, which is neither root, nor user %u, nor "
                   "in group %u; run both "
                   "programs as the same user or group",
                   (int)peer.pid, peer.uid, peer.gid, geteuid(), getegid());
}
