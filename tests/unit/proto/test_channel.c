#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/channel.h"

/* What arrived at one side. */
struct side {
    struct channel *channel;
    unsigned messages;
    enum msg_type last;
    bool fails;
    struct err end;
};

static struct side dp, cp;

static int on_message(void *owner, const struct message *m, struct err *err)
{
    struct side *s = owner;
    s->messages++;
    s->last = m->type;
    for (unsigned i = 0; i < m->fd_count; i++)
        close(m->fds[i]);
    if (m->type == MSG_WELCOME)
        channel_opened(s->channel);
    if (m->type == MSG_REFUSAL)
        return err_set(err, "refused: %s", ((Gwp__Refusal *)(void *)m->body)->reason);
    return s->fails ? err_set(err, "it said nonsense") : 0;
}

static void start(void)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    dp.channel = channel_new(CHANNEL_DATAPLANE, ends[0], on_message, &dp);
    cp.channel = channel_new(CHANNEL_CONTROLPLANE, ends[1], on_message, &cp);
}

static void stop(void)
{
    channel_free(&dp.channel);
    channel_free(&cp.channel);
}

TestSuite(channel, .init = start, .fini = stop);

static void say(struct side *from, enum msg_type type, const ProtobufCMessage *body)
{
    struct err err;
    cr_assert(channel_send(from->channel, type, body, NULL, 0, &err), "%s", err.text);
    cr_assert(channel_write(from->channel, &err), "%s", err.text);
}

static bool hear(struct side *to)
{
    return channel_read(to->channel, &to->end);
}

static void greet(void)
{
    Gwp__Hello hello = GWP__HELLO__INIT;
    Gwp__Welcome welcome = GWP__WELCOME__INIT;
    say(&dp, MSG_HELLO, &hello.base);
    cr_assert(hear(&cp));
    cr_assert_eq(cp.last, MSG_HELLO);
    say(&cp, MSG_WELCOME, &welcome.base);
    channel_opened(cp.channel);
    cr_assert(hear(&dp));
    cr_assert_eq(channel_phase(dp.channel), CHANNEL_OPEN);
}

Test(channel, the_highest_common_version_is_spoken)
{
    struct err err;
    cr_expect_eq(channel_negotiate(1, 1, 1, 1, &err), 1);
    cr_expect_eq(channel_negotiate(1, 4, 2, 3, &err), 3);
    cr_expect_eq(channel_negotiate(2, 5, 1, 2, &err), 2);
    cr_expect_eq(channel_negotiate(1, 1, 2, 3, &err), 0);
    cr_expect(strstr(err.text, "1 to 1") && strstr(err.text, "2 to 3"), "%s", err.text);
    cr_expect_eq(channel_negotiate(0, 0, 0, 0, &err), 0);
}

Test(channel, both_sides_talk_after_the_greeting)
{
    Gwp__Heartbeat beat = GWP__HEARTBEAT__INIT;
    Gwp__Snapshot snapshot = GWP__SNAPSHOT__INIT;
    greet();
    say(&dp, MSG_HEARTBEAT, &beat.base);
    cr_assert(hear(&cp));
    cr_expect_eq(cp.last, MSG_HEARTBEAT);
    say(&cp, MSG_SNAPSHOT, &snapshot.base);
    cr_assert(hear(&dp));
    cr_expect_eq(dp.last, MSG_SNAPSHOT);
}

/* Whatever `body` is, the control plane ends the session with these words, and says them. */
static void expect_ended(const char *words)
{
    unsigned before = cp.messages;
    cr_assert_not(hear(&cp));
    cr_expect(strstr(cp.end.text, words), "%s", cp.end.text);
    cr_expect_eq(cp.messages, before);
    cr_assert_not(hear(&dp));
    cr_expect_eq(dp.last, MSG_REFUSAL);
    cr_expect(strstr(dp.end.text, words), "%s", dp.end.text);
}

Test(channel, nothing_but_a_greeting_comes_first)
{
    Gwp__StatsReport report = GWP__STATS_REPORT__INIT;
    say(&dp, MSG_STATS_REPORT, &report.base);
    expect_ended("a StatsReport before the greeting was over");
}

Test(channel, a_greeting_comes_once)
{
    Gwp__Hello hello = GWP__HELLO__INIT;
    greet();
    say(&dp, MSG_HELLO, &hello.base);
    expect_ended("a Hello after the greeting");
}

Test(channel, orders_come_from_the_control_plane_only)
{
    Gwp__Drain drain = GWP__DRAIN__INIT;
    greet();
    say(&dp, MSG_DRAIN, &drain.base);
    expect_ended("a Drain is not for that side to send");
}

Test(channel, a_malformed_message_ends_the_session)
{
    struct err err;
    greet();
    cr_assert(
        channel_send_packed(dp.channel, MSG_STATS_REPORT, (const uint8_t *)"\xff\xff", 2, &err));
    cr_assert(channel_write(dp.channel, &err));
    expect_ended("a malformed StatsReport of 2 bytes");
}

Test(channel, a_handler_that_fails_ends_the_session)
{
    Gwp__Heartbeat beat = GWP__HEARTBEAT__INIT;
    greet();
    cp.fails = true;
    say(&dp, MSG_HEARTBEAT, &beat.base);
    cr_assert_not(hear(&cp));
    cr_expect_str_eq(cp.end.text, "it said nonsense");
}

Test(channel, unknown_fields_are_ignored)
{
    struct err err;
    /* Field 2000 of a later version, a varint. */
    cr_assert(channel_send_packed(dp.channel, MSG_HELLO, (const uint8_t *)"\x80\x7d\x05", 3, &err));
    cr_assert(channel_write(dp.channel, &err));
    cr_expect(hear(&cp));
    cr_expect_eq(cp.last, MSG_HELLO);
}

Test(channel, a_message_over_its_bound_is_not_sent)
{
    struct err err;
    static uint8_t much[2048];
    greet();
    cr_expect_not(channel_send_packed(dp.channel, MSG_HEARTBEAT, much, sizeof(much), &err));
    cr_expect(strstr(err.text, "more than the 1024"), "%s", err.text);
    cr_expect_not(channel_wants_write(dp.channel));
}

Test(channel, a_peer_that_does_not_read_is_given_up)
{
    struct err err;
    size_t size = 32u * 1024 * 1024;
    uint8_t *much = calloc(1, size);
    greet();
    cr_expect(channel_send_packed(cp.channel, MSG_SNAPSHOT, much, (uint32_t)size, &err));
    cr_expect(channel_send_packed(cp.channel, MSG_SNAPSHOT, much, (uint32_t)size, &err));
    cr_expect_not(channel_send_packed(cp.channel, MSG_SNAPSHOT, much, (uint32_t)size, &err));
    cr_expect(strstr(err.text, "it does not read"), "%s", err.text);
    free(much);
}

Test(channel, all_that_was_received_is_handled_though_the_socket_is_empty)
{
    Gwp__Heartbeat beat = GWP__HEARTBEAT__INIT;
    struct err err;
    greet();
    cp.messages = 0;
    for (int i = 0; i < 300; i++)
        cr_assert(channel_send(dp.channel, MSG_HEARTBEAT, &beat.base, NULL, 0, &err));
    cr_assert(channel_write(dp.channel, &err));
    while (cp.messages < 300) {
        char byte;
        cr_assert(hear(&cp));
        if (recv(channel_fd(cp.channel), &byte, 1, MSG_PEEK) < 0)
            break;
    }
    cr_expect_eq(cp.messages, 300);
}

Test(channel, the_end_is_no_fault)
{
    greet();
    channel_free(&dp.channel);
    cr_expect_not(hear(&cp));
    cr_expect_str_eq(cp.end.text, "it closed the connection");
}

Test(channel, ourselves_are_let_in)
{
    struct err err;
    cr_expect_eq(channel_check_peer(channel_fd(cp.channel), &err), 0, "%s", err.text);
}
