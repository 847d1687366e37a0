#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/uplink.h"
#include "proto/base/version.h"
#include "wait.h"

/* The control plane's side is played here, on the same thread. */
static struct ev_loop *loop;
static struct uplink uplink;
static char dir[] = "/tmp/gwp-uplink-XXXXXX";
static char path[64];
static int server = -1;
static struct channel *peer;
static struct err err;

static struct {
    unsigned hellos, welcomes, heartbeats, results, messages;
    uint64_t generation;
    char name[32];
} seen;

static int on_peer(void *owner, const struct message *m, struct err *why)
{
    switch (m->type) {
    case MSG_HELLO: {
        const Gwp__Hello *hello = (const Gwp__Hello *)(const void *)m->body;
        seen.hellos++;
        seen.generation = hello->generation;
        snprintf(seen.name, sizeof(seen.name), "%s", hello->name);
        return 0;
    }
    case MSG_HEARTBEAT:
        seen.heartbeats++;
        return 0;
    case MSG_SNAPSHOT_RESULT:
        seen.results++;
        return 0;
    default:
        return err_set(why, "unexpected");
    }
}

static void greet(void *owner, Gwp__Hello *hello)
{
    hello->generation = 5;
}

static void opened(void *owner, const Gwp__Welcome *welcome)
{
    seen.welcomes++;
}

static int message(void *owner, const struct message *m, struct err *why)
{
    seen.messages++;
    return m->type == MSG_DRAIN ? err_set(why, "no drain here") : 0;
}

static const struct uplink_events events = {.greet = greet, .opened = opened, .message = message};

static void listen_there(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, path, strlen(path) + 1);
    server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(server, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(server, 4), 0);
}

static void stop_listening(void)
{
    close(server);
    unlink(path);
    server = -1;
}

/* One turn of both sides. */
static bool turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
    if (!peer && server >= 0) {
        int fd = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            peer = channel_new(CHANNEL_CONTROLPLANE, fd, on_peer, NULL);
    }
    if (peer && (!channel_write(peer, &err) || !channel_read(peer, &err)))
        channel_free(&peer);
    return true;
}

static void welcome_it(uint32_t protocol, uint32_t heartbeat_ms)
{
    Gwp__Welcome welcome = GWP__WELCOME__INIT;
    unsigned hellos = seen.hellos;
    WAIT_UNTIL(turn() && seen.hellos > hellos);
    welcome.protocol = protocol;
    welcome.heartbeat_interval_ms = heartbeat_ms;
    cr_assert(channel_send(peer, MSG_WELCOME, &welcome.base, NULL, 0, &err));
    channel_opened(peer);
}

static void setup(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    loop = ev_loop_new(EVFLAG_AUTO);
    uplink_start(&uplink, loop, path, "dp-1", &events);
}

static void teardown(void)
{
    uplink_stop(&uplink);
    channel_free(&peer);
    ev_loop_destroy(loop);
    if (server >= 0)
        stop_listening();
    rmdir(dir);
}

TestSuite(uplink, .init = setup, .fini = teardown);

Test(uplink, greets_and_is_open_when_welcomed)
{
    listen_there();
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    cr_assert(seen.welcomes == 1 && seen.generation == 5);
    cr_assert_str_eq(seen.name, "dp-1");
}

Test(uplink, waits_for_a_control_plane_that_comes_later)
{
    for (int i = 0; i < 10; i++)
        turn();
    cr_assert_not(uplink_is_open(&uplink));
    listen_there();
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
}

Test(uplink, connects_again_when_it_was_lost)
{
    listen_there();
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    channel_free(&peer);
    ev_run(loop, EVRUN_NOWAIT);
    cr_assert_not(uplink_is_open(&uplink));
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    cr_assert(seen.hellos == 2 && seen.welcomes == 2);
}

Test(uplink, tries_at_growing_intervals)
{
    double first = uplink.pause_s, second;
    WAIT_UNTIL(turn() && uplink.pause_s > first);
    second = uplink.pause_s;
    WAIT_UNTIL(turn() && uplink.pause_s > second);
    cr_assert_float_eq(second, first * 2, 1e-9);
    cr_assert_float_eq(uplink.pause_s, second * 2, 1e-9);
    uplink.pause_s = 0.45;
    WAIT_UNTIL(turn() && uplink.pause_s > 0.45);
    cr_assert_float_eq(uplink.pause_s, 0.5, 1e-9, "no more than half a second");
}

Test(uplink, sends_heartbeats_as_often_as_it_is_asked_to)
{
    listen_there();
    welcome_it(1, 5);
    WAIT_UNTIL(turn() && seen.heartbeats >= 3);
}

Test(uplink, a_protocol_that_is_not_spoken_here_is_refused)
{
    listen_there();
    welcome_it(GWP_PROTOCOL_MAX + 1, 0);
    WAIT_UNTIL(turn() && !peer);
    cr_assert_eq(seen.welcomes, 0);
    cr_assert_not(uplink_is_open(&uplink));
}

Test(uplink, what_it_does_not_understand_ends_the_session_and_no_more)
{
    listen_there();
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    Gwp__Drain drain = GWP__DRAIN__INIT;
    cr_assert(channel_send(peer, MSG_DRAIN, &drain.base, NULL, 0, &err));
    WAIT_UNTIL(turn() && !uplink_is_open(&uplink));
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    cr_assert_eq(seen.messages, 1);
}

Test(uplink, nothing_is_sent_to_nobody)
{
    Gwp__SnapshotResult result = GWP__SNAPSHOT_RESULT__INIT;
    cr_assert_not(uplink_send(&uplink, MSG_SNAPSHOT_RESULT, &result.base, &err));
    cr_assert_str_eq(err.text, "the control plane is away");
}

Test(uplink, what_is_queued_at_the_end_is_sent)
{
    listen_there();
    welcome_it(1, 0);
    WAIT_UNTIL(turn() && uplink_is_open(&uplink));
    Gwp__SnapshotResult result = GWP__SNAPSHOT_RESULT__INIT;
    for (int i = 0; i < 100; i++)
        cr_assert(uplink_send(&uplink, MSG_SNAPSHOT_RESULT, &result.base, &err));
    uplink_stop(&uplink);
    WAIT_UNTIL(turn() && !peer);
    cr_assert_eq(seen.results, 100);
}
