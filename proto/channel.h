/* channel: a session between the two programs, over frames. It knows which message may come from
 * whom and when (messages.def), negotiates the protocol version, and turns frames into messages and
 * back. It knows no loop: its owner watches the descriptor and calls channel_read() and
 * channel_write(). One thread.
 *
 *   GREETING --hello/welcome--> OPEN --refusal, error, end--> (the owner closes)
 *
 * Any violation ends the session with a reason and touches nothing else. */
#pragma once

#include "proto/frame.h"
#include "proto/gateway.pb-c.h"

enum channel_role { CHANNEL_DATAPLANE, CHANNEL_CONTROLPLANE };
enum channel_phase { CHANNEL_GREETING, CHANNEL_OPEN };

enum msg_type {
#define MESSAGE(NAME, number, lower, Type, sender, phase, max) MSG_##NAME = (number),
#include "proto/messages.def"
#undef MESSAGE
};

struct message {
    enum msg_type type;
    ProtobufCMessage *body; /* owned by the channel until the handler returns; cast by type */
    const uint8_t *payload; /* the same as bytes, borrowed */
    uint32_t len;
    const int *fds; /* the handler takes them over: closes or keeps each */
    unsigned fd_count;
};

struct channel;

/* -1 with `err` ends the session; the words go to the peer as a Refusal. Must not free the channel.
 */
typedef int channel_handler_fn(void *owner, const struct message *m, struct err *err);

/* Takes over `fd`, which must be a connected, non-blocking Unix stream socket. */
struct channel *channel_new(enum channel_role role, int fd, channel_handler_fn *handler,
                            void *owner);
void channel_free(struct channel **ch); /* closes the descriptor; what is queued is lost */

int channel_fd(const struct channel *ch);
enum channel_phase channel_phase(const struct channel *ch);

/* After the greeting: "protocol 1". The control plane's side calls it when it has sent Welcome, the
 * data plane's when it has taken one. */
void channel_opened(struct channel *ch);

/* Both ends' version ranges -> the highest common one, or 0 with `err` naming both ranges. Pure. */
uint32_t channel_negotiate(uint32_t min_a, uint32_t max_a, uint32_t min_b, uint32_t max_b,
                           struct err *err);

/* Reads and handles what there is, a bounded number of frames a call. false: the session is over,
 * `err` says why
 * ("it closed the connection" when there was nothing wrong); a Refusal has been sent where the peer
 * was at fault. */
MUST_CHECK bool channel_read(struct channel *ch, struct err *err);

/* Queues a message; descriptors are duplicated. false when the queue is full or out of bounds: the
 * session should end. */
MUST_CHECK bool channel_send(struct channel *ch, enum msg_type type, const ProtobufCMessage *body,
                             const int *fds, unsigned fd_count, struct err *err);

/* The same for bytes that are a packed message already (one snapshot packed once for many
 * sessions). */
MUST_CHECK bool channel_send_packed(struct channel *ch, enum msg_type type, const uint8_t *payload,
                                    uint32_t len, struct err *err);

/* Sends what the socket takes. false: the session is over. */
MUST_CHECK bool channel_write(struct channel *ch, struct err *err);
bool channel_wants_write(const struct channel *ch);

/* May this process talk to the peer? Same user, root, or a member of our group (SO_PEERCRED); `err`
 * names the peer. */
MUST_CHECK int channel_check_peer(int fd, struct err *err);
