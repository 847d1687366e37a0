/* fuzz_channel: whose end it is, then what the other program of the pair does: frames with
 * descriptors, true and false ones, pieces of frames, and nothing.
 *
 *   first byte    0 the data plane's end, 1 the control plane's
 *   each step     what (low bits), then for a frame: its type, how many descriptors it has, how
 * many it says, how many bytes; for a piece: how many bytes */
#include "descriptors.h"
#include "proto/channel.h"

#define MAX_INPUT_BYTES 8192

enum { STEP_FRAME, STEP_PIECE, STEP_READ, STEP_KINDS };

struct end {
    struct channel *channel;
    enum channel_role role;
    unsigned handled;
};

/* What may come from whom is said by messages.def; here by the numbers. */
static bool is_for(enum channel_role role, enum msg_type type)
{
    switch (type) {
    case MSG_REFUSAL:
    case MSG_HEARTBEAT:
    case MSG_LISTENERS:
        return true;
    case MSG_HELLO:
    case MSG_SNAPSHOT_RESULT:
    case MSG_EXPLANATION:
    case MSG_STATS_REPORT:
    case MSG_LIMITS_REPORT:
    case MSG_REPLACE_RESULT:
        return role == CHANNEL_CONTROLPLANE;
    default:
        return role == CHANNEL_DATAPLANE;
    }
}

static int on_message(void *owner, const struct message *m, struct err *err)
{
    struct end *e = owner;
    bool is_greeting = m->type == MSG_HELLO || m->type == MSG_WELCOME;
    PROMISE(is_for(e->role, m->type));
    PROMISE(is_greeting == (channel_phase(e->channel) == CHANNEL_GREETING) ||
            m->type == MSG_REFUSAL);
    PROMISE(m->fd_count <= FRAME_MAX_FDS);
    for (unsigned i = 0; i < m->fd_count; i++) {
        PROMISE(fcntl(m->fds[i], F_GETFD) & FD_CLOEXEC);
        close(m->fds[i]);
    }
    PROMISE(protobuf_c_message_check(m->body));
    e->handled++;
    if (is_greeting)
        channel_opened(e->channel);
    return m->type == MSG_REFUSAL ? err_set(err, "it refused") : 0;
}

static bool send_frame(struct fuzz_input *in, int fd)
{
    int fds[FRAME_MAX_FDS];
    char frame[FRAME_HEAD_BYTES + 256] = {0};
    unsigned type = fuzz_byte(in), count = fuzz_byte(in) % (FRAME_MAX_FDS + 1);
    unsigned said = fuzz_byte(in);
    struct view payload = fuzz_some(in);
    for (unsigned i = 0; i < count; i++)
        fds[i] = descriptor_of(i);
    frame[3] = (char)payload.len;
    frame[5] = (char)type;
    frame[6] = (char)(said == 0 ? count : said);
    memcpy(frame + FRAME_HEAD_BYTES, payload.at, payload.len);
    return send_with(fd, frame, FRAME_HEAD_BYTES + payload.len, fds, count);
}

static bool send_piece(struct fuzz_input *in, int fd)
{
    struct view piece = fuzz_some(in);
    return piece.len == 0 || send_with(fd, piece.at, piece.len, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > MAX_INPUT_BYTES)
        return 0;
    struct fuzz_input in = {(const char *)data, size};
    struct err err;
    int ends[2], before = next_descriptor();
    bool open = true;
    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    struct end e = {.role = fuzz_byte(&in) & 1 ? CHANNEL_CONTROLPLANE : CHANNEL_DATAPLANE};
    e.channel = channel_new(e.role, ends[0], on_message, &e);
    while (in.len > 0 && open) {
        unsigned step = fuzz_byte(&in) % STEP_KINDS;
        open = step == STEP_FRAME   ? send_frame(&in, ends[1])
               : step == STEP_PIECE ? send_piece(&in, ends[1])
                                    : channel_read(e.channel, &err);
        PROMISE(open || step != STEP_READ || err.text[0]);
    }
    while (open && in.len == 0) {
        unsigned handled = e.handled;
        open = channel_read(e.channel, &err) && e.handled > handled;
    }
    channel_free(&e.channel);
    close(ends[1]);
    PROMISE(next_descriptor() == before);
    return 0;
}
