#include <stdlib.h>

#include "controlplane/publisher.h"
#include "controlplane/start.h"
#include "tests/unit/controlplane/peer.h"

/* A control plane without its HTTP side. */
static char dir[] = "/tmp/gwp-publisher-XXXXXX";
static char file[64], socket_path[64];
static struct ev_loop *loop;
static struct ledger ledger;
static const struct resolver_setup names = {.ledger = &ledger};
static struct sessions sessions;
static struct publisher publisher;
static struct peer one, two;

static struct {
    unsigned times;
    enum push_verdict verdict;
    bool unchanged;
    uint64_t generation, previous, in_force;
    size_t answers;
    char message[512], first_change[128];
} told;

static void on_told(void *owner, const struct push_outcome *o)
{
    told.times++;
    told.verdict = o->verdict;
    told.unchanged = o->unchanged;
    told.generation = o->generation;
    told.previous = o->previous;
    told.in_force = o->in_force;
    told.answers = o->answer_count;
    snprintf(told.message, sizeof(told.message), "%s", o->message);
    snprintf(told.first_change, sizeof(told.first_change), "%s",
             o->changes.count ? o->changes.at[0].sentence : "");
}

static void on_opened(void *owner, struct session *s)
{
    publisher_opened(&publisher, s);
}

static void on_result(void *owner, struct session *s, const Gwp__SnapshotResult *r)
{
    publisher_result(&publisher, s, r);
}

static void on_report(void *owner, struct session *s, const Gwp__StatsReport *r)
{
}

static void on_gone(void *owner, struct session *s)
{
    publisher_gone(&publisher, s);
}

static void on_in_force(void *owner, const struct config *cfg)
{
}

static void on_committed(void *owner, const struct generation *g)
{
}

static const struct session_events events = {on_opened, on_result, on_report, on_gone, NULL};

static const char *yaml(const char *route)
{
    static char text[256];
    snprintf(text, sizeof(text),
             "routes: [{name: %s, path_prefix: /, backends: [{url: 'http://127.0.0.1:1'}]}]\n",
             route);
    return text;
}

static void write_config(const char *text)
{
    FILE *out = fopen(file, "w");
    cr_assert(out);
    fputs(text, out);
    fclose(out);
}

static void start(void)
{
    struct err err;
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/gateway.yaml", dir);
    snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
    loop = ev_loop_new(0);
    ledger_init(&ledger, NULL);
    cr_assert_eq(sessions_init(&sessions, loop, socket_path, &events, &err), 0, "%s", err.text);
    cr_assert_eq(publisher_init(&publisher, loop, file, dir, &names, &sessions, &err), 0, "%s",
                 err.text);
    publisher.in_force = on_in_force;
    publisher.committed = on_committed;
    write_config(yaml("first"));
    intake_file_changed(&publisher);
}

static void stop(void)
{
    char command[128];
    publisher_fini(&publisher);
    sessions_fini(&sessions);
    ledger_fini(&ledger);
    peer_fini(&one);
    peer_fini(&two);
    ev_loop_destroy(loop);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(publisher, .init = start, .fini = stop);

static uint64_t in_force(void)
{
    return publisher.generations.in_force ? publisher.generations.in_force->number : 0;
}

static void push_with(const char *text, double wait, bool dry_run)
{
    struct push p = {.origin = ORIGIN_PUSH,
                     .source = "pushed.yaml",
                     .wait_seconds = wait,
                     .dry_run = dry_run,
                     .done = on_told};
    told.times = 0;
    intake_push(&publisher, &p, view_of(text));
}

static void push(const char *text)
{
    push_with(text, 5, false);
}

Test(publisher, without_data_planes_a_good_text_is_in_force_at_once)
{
    cr_expect_eq(in_force(), 1);
    push(yaml("second"));
    cr_expect_eq(told.times, 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    cr_expect_eq(told.generation, 2);
    cr_expect_eq(told.previous, 1);
    cr_expect_str_eq(told.first_change, "route second added");
}

Test(publisher, who_connects_gets_what_is_in_force)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    cr_expect_eq(one.last->generation, 1);
    cr_expect_str_eq(one.last->routes[0]->name, "first");
}

Test(publisher, a_push_is_in_force_when_every_data_plane_has_accepted)
{
    peer_join(&one, loop, socket_path, "dp-1");
    peer_join(&two, loop, socket_path, "dp-2");
    push(yaml("second"));
    cr_expect_eq(told.times, 0);
    cr_expect_eq(in_force(), 1);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    cr_expect_eq(told.answers, 2);
    cr_expect_eq(in_force(), 2);
    cr_expect_str_eq(two.last->routes[0]->name, "second");
}

Test(publisher, a_refusal_brings_everybody_back)
{
    peer_join(&one, loop, socket_path, "dp-1");
    peer_join(&two, loop, socket_path, "dp-2");
    LOOP_UNTIL(loop, one.snapshots == 1 && two.snapshots == 1);
    two.manner = PEER_REFUSES;
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    two.manner = PEER_ACCEPTS;
    cr_expect_eq(told.verdict, PUSH_REFUSED);
    cr_expect_eq(told.generation, 2);
    cr_expect_str_eq(told.message, "data plane dp-2 did not take it: out of ports");
    LOOP_UNTIL(loop, one.last->generation == 3);
    cr_expect_str_eq(one.last->routes[0]->name, "first");
    cr_expect_eq(in_force(), 3);
    cr_expect_eq(told.in_force, 3);
    cr_expect_not(publisher.last_reload.ok);
    sessions_each(s, &sessions) LOOP_UNTIL(loop, s->generation == 3);
}

Test(publisher, when_all_refuse_nothing_is_sent_again)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_REFUSES;
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_REFUSED);
    cr_expect_eq(in_force(), 1);
    cr_expect_eq(one.snapshots, 2);
}

/* It serves nothing yet, and its addresses were taken. */
Test(publisher, who_accepts_after_all_what_was_given_up_is_brought_back)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_REFUSES;
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    one.manner = PEER_ACCEPTS;
    peer_answer(&one, 2, true, false);
    LOOP_UNTIL(loop, one.last->generation == 3);
    cr_expect_str_eq(one.last->routes[0]->name, "first");
    cr_expect_eq(in_force(), 3);
    sessions_each(s, &sessions) LOOP_UNTIL(loop, s->generation == 3);
    cr_expect_eq(one.snapshots, 3);
}

Test(publisher, a_data_plane_that_does_not_answer_is_a_timeout)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push_with(yaml("second"), 0.05, false);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_TIMEOUT);
    LOOP_UNTIL(loop, one.last->generation == 3);
    cr_expect_str_eq(one.last->routes[0]->name, "first");
}

Test(publisher, who_dies_of_a_snapshot_has_not_accepted_it)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push(yaml("second"));
    peer_leave(&one);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_REFUSED);
    cr_expect_eq(publisher.generations.in_force->config->routes[0].name[0], 'f');
}

Test(publisher, what_comes_meanwhile_takes_turns_in_the_order_of_coming)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push_with(yaml("second"), 0, false);
    cr_expect_eq(told.times, 1, "who does not wait is told at once");
    push(yaml("third"));
    cr_expect_eq(told.times, 0);
    write_config(yaml("fourth"));
    intake_file_changed(&publisher);
    intake_file_changed(&publisher);
    LOOP_UNTIL(loop, one.snapshots == 2);
    one.manner = PEER_ACCEPTS;
    peer_answer(&one, 2, true, false);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    cr_expect_eq(told.generation, 3, "the push came before the file");
    LOOP_UNTIL(loop, in_force() == 4);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "fourth");
    cr_expect_eq(one.snapshots, 4, "the file took one turn");
}

Test(publisher, a_broken_text_in_the_row_holds_nobody_up)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push_with(yaml("second"), 0, false);
    push("routes: [{nme: x}]");
    LOOP_UNTIL(loop, one.snapshots == 2);
    write_config(yaml("fourth"));
    intake_file_changed(&publisher);
    one.manner = PEER_ACCEPTS;
    peer_answer(&one, 2, true, false);
    LOOP_UNTIL(loop, in_force() == 3);
    cr_expect_eq(told.verdict, PUSH_INVALID);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "fourth");
}

Test(publisher, patience_and_room_for_those_who_wait_are_bounded)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push_with(yaml("second"), 5, false);
    push_with(yaml("third"), 0.05, false);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_BUSY);
    for (unsigned i = 0; i < INTAKE_MAX_WAITING; i++) {
        push(yaml("more"));
        cr_assert_eq(told.times, 0);
    }
    push(yaml("too_many"));
    cr_expect_eq(told.times, 1);
    cr_expect_eq(told.verdict, PUSH_BUSY);
    publisher_fini(&publisher);
    publisher = (struct publisher){0};
    cr_expect_eq(told.times, 1 + 1 + INTAKE_MAX_WAITING, "a stop is told to them all");
}

Test(publisher, who_expects_another_generation_is_turned_away)
{
    struct push p = {.origin = ORIGIN_PUSH,
                     .source = "pushed.yaml",
                     .has_expected = true,
                     .wait_seconds = 5,
                     .done = on_told,
                     .expected = 1};
    intake_push(&publisher, &p, view_of(yaml("second")));
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    told.times = 0;
    intake_push(&publisher, &p, view_of(yaml("third")));
    cr_expect_eq(told.times, 1);
    cr_expect_eq(told.verdict, PUSH_CONFLICT);
    cr_expect(strstr(told.message, "generation 2 is in force, not 1"), "%s", told.message);
    cr_expect_eq(in_force(), 2);
}

Test(publisher, addresses_and_rollbacks_of_others_do_not_make_a_generation_unexpected)
{
    struct push p = {.origin = ORIGIN_PUSH,
                     .source = "pushed.yaml",
                     .has_expected = true,
                     .wait_seconds = 5,
                     .done = on_told,
                     .expected = 1};
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push_with(yaml("second"), 0.05, false);
    LOOP_UNTIL(loop, told.times == 1 && told.verdict == PUSH_TIMEOUT);
    one.manner = PEER_ACCEPTS;
    cr_expect_eq(in_force(), 3, "the first again, under another number");
    cr_expect_eq(publisher.generations.in_force->entry, 1);
    told.times = 0;
    intake_push(&publisher, &p, view_of(yaml("third")));
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
}

/* ---- history ---- */

static void rollback(uint64_t number)
{
    struct push p = {.user = "anna", .message = "no", .wait_seconds = 5, .done = on_told};
    told.times = 0;
    intake_rollback(&publisher, &p, number);
}

Test(publisher, what_was_in_force_is_kept_and_can_be_gone_back_to)
{
    push(yaml("second"));
    push(yaml("third"));
    rollback(0);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    cr_expect_eq(in_force(), 4);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "second");
    rollback(1);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "first");
    const struct history_entry *e = history_newest(&publisher.history);
    cr_expect_eq(publisher.history.count, 5);
    cr_expect_eq(e->number, 5);
    cr_expect_eq(e->origin, ORIGIN_ROLLBACK);
    cr_expect_eq(e->again, 1);
    cr_expect_str_eq(e->user, "anna");
    cr_expect_str_eq(e->message, "no");
    rollback(77);
    cr_expect_eq(told.verdict, PUSH_UNKNOWN);
    cr_expect(strstr(told.message, "no generation 77"));
}

Test(publisher, a_start_that_is_refused_goes_on_with_what_was_before)
{
    struct start s;
    struct err err;
    publisher_fini(&publisher);
    write_config(yaml("second"));
    cr_assert_eq(publisher_init(&publisher, loop, file, dir, &names, &sessions, &err), 0);
    publisher.in_force = on_in_force;
    publisher.committed = on_committed;
    peer_join(&one, loop, socket_path, "dp-1");
    one.manner = PEER_IS_SILENT;
    cr_assert_eq(start_choose(&s, file, &publisher.generations, &publisher.history, stderr), 0);
    publisher_begin(&publisher, &s);
    LOOP_UNTIL(loop, one.snapshots == 1);
    cr_expect_str_eq(one.last->routes[0]->name, "second");
    one.manner = PEER_ACCEPTS;
    peer_answer(&one, one.last->generation, false, false);
    LOOP_UNTIL(loop, in_force() > 0);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "first");
    cr_expect_eq(publisher.generations.in_force->entry, 1);
    cr_expect_eq(publisher.history.count, 1);
    cr_expect_not(publisher.last_reload.ok);
    start_free(&s);
}

Test(publisher, what_was_refused_or_tried_is_not_kept)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_REFUSES;
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    one.manner = PEER_ACCEPTS;
    push_with(yaml("third"), 5, true);
    LOOP_UNTIL(loop, told.times == 1);
    push("nonsense");
    cr_expect_eq(publisher.history.count, 1);
}

Test(publisher, numbers_are_above_what_data_planes_have_served)
{
    peer_connect(&one, loop, socket_path);
    one.serves = 41;
    peer_greet(&one, "dp-1", 1);
    LOOP_UNTIL(loop, one.snapshots == 1);
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.generation, 42);
}

Test(publisher, a_dry_run_changes_nothing)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    push_with(yaml("second"), 5, true);
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
    cr_expect_eq(told.answers, 1);
    cr_expect(one.last->dry_run);
    cr_expect_eq(in_force(), 1);
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.generation, 2, "the dry run has used no number up");
}

Test(publisher, a_broken_text_changes_nothing_and_is_remembered)
{
    push("routes: [{nme: x}]");
    cr_expect_eq(told.verdict, PUSH_INVALID);
    cr_expect_eq(in_force(), 1);
    cr_expect_not(publisher.last_reload.ok);
    push(yaml("first"));
    cr_expect(told.unchanged);
    cr_expect_eq(told.generation, 1);
    cr_expect(publisher.last_reload.ok);
}

/* A file that went unreadable for a while, as when a folder stands in its place. */
Test(publisher, what_was_said_of_the_file_holds_again_once_it_can_be_read)
{
    intake_file_changed(&publisher);
    for (int broken = 0; broken < 2; broken++) {
        struct last_reload before = publisher.last_reload;
        cr_expect_eq(before.ok, !broken);
        for (int twice = 0; twice < 2; twice++) {
            cr_assert(unlink(file) == 0 || rmdir(file) == 0);
            cr_assert_eq(mkdir(file, 0755), 0);
            intake_file_changed(&publisher);
            cr_expect(!publisher.last_reload.ok &&
                      strstr(publisher.last_reload.message, "is not a file"));
        }
        cr_assert_eq(rmdir(file), 0);
        write_config(broken ? "routes: 7\n" : yaml("first"));
        intake_file_changed(&publisher);
        cr_expect_eq(publisher.last_reload.ok, before.ok);
        cr_expect_str_eq(publisher.last_reload.message, before.message);
        write_config("routes: 7\n");
        intake_file_changed(&publisher);
    }
    cr_expect_eq(in_force(), 1);
}

Test(publisher, a_push_lasts_until_the_file_changes_or_a_reload_is_asked_for)
{
    push(yaml("pushed"));
    intake_file_changed(&publisher); /* touched, with the same content */
    cr_expect_eq(in_force(), 2);
    intake_reload(&publisher, &(struct push){.origin = ORIGIN_RELOAD, .done = on_told});
    cr_expect_eq(in_force(), 3);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "first");
    push(yaml("pushed"));
    write_config(yaml("fresh"));
    intake_file_changed(&publisher);
    cr_expect_eq(in_force(), 5);
    cr_expect_str_eq(publisher.generations.in_force->config->routes[0].name, "fresh");
}

Test(publisher, a_stop_is_told_to_who_waits)
{
    peer_join(&one, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, one.snapshots == 1);
    one.manner = PEER_IS_SILENT;
    push(yaml("second"));
    cr_expect_eq(told.times, 0);
    publisher_fini(&publisher);
    publisher = (struct publisher){0};
    cr_expect_eq(told.times, 1);
    cr_expect_eq(told.verdict, PUSH_FAILED);
}

/* ---- sessions ---- */

Test(publisher, a_data_plane_of_another_protocol_is_told_why)
{
    peer_connect(&one, loop, socket_path);
    peer_greet(&one, "dp-1", 99);
    LOOP_UNTIL(loop, !one.channel);
    cr_expect(one.refused);
    cr_expect(strstr(one.end.text, "99 to 99"));
    cr_expect_eq(sessions.open_count, 0);
}

Test(publisher, a_message_out_of_order_ends_only_that_session)
{
    peer_join(&one, loop, socket_path, "dp-1");
    peer_connect(&two, loop, socket_path);
    peer_answer(&two, 1, true, false);
    LOOP_UNTIL(loop, !two.channel);
    cr_expect(two.refused);
    cr_expect_eq(sessions.open_count, 1);
    push(yaml("second"));
    LOOP_UNTIL(loop, told.times == 1);
    cr_expect_eq(told.verdict, PUSH_ACCEPTED);
}

Test(publisher, the_same_instance_again_replaces_its_old_session)
{
    peer_join(&one, loop, socket_path, "dp-1");
    peer_join(&two, loop, socket_path, "dp-1");
    LOOP_UNTIL(loop, !one.channel);
    LOOP_UNTIL(loop, sessions.open_count == 1);
    cr_expect(two.channel);
}

Test(publisher, a_second_control_plane_on_the_socket_is_refused)
{
    struct sessions second;
    struct err err;
    cr_expect_eq(sessions_init(&second, loop, socket_path, &events, &err), -1);
    cr_expect(strstr(err.text, "another process already listens"));
    peer_join(&one, loop, socket_path, "dp-1");
}

Test(publisher, a_stale_socket_file_is_replaced)
{
    struct sessions second;
    struct err err;
    char path[80];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(path, sizeof(path), "%s/stale.sock", dir);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    close(fd);
    cr_assert_eq(sessions_init(&second, loop, path, &events, &err), 0, "%s", err.text);
    sessions_fini(&second);
    cr_expect_eq(access(path, F_OK), -1);
}
