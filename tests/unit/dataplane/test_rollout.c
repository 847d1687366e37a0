#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/rollout.h"
#include "dataplane/state/snapshot_store.h"
#include "messages.h"
#include "wait.h"

static struct ev_loop *loop;
static struct rollout rollout;
static char dir[] = "/tmp/gwp-rollout-XXXXXX";
static char file[64];

static struct {
    unsigned count, accepted;
    uint64_t generation;
    bool dry_run;
    char reason[ERR_MAX_BYTES];
} told;

static void on_result(void *owner, const struct rollout_result *r)
{
    told.count++;
    told.accepted += r->accepted;
    told.generation = r->generation;
    told.dry_run = r->dry_run;
    snprintf(told.reason, sizeof(told.reason), "%s", r->reason);
}

static void start(void)
{
    memset(&told, 0, sizeof(told));
    rollout_init(&rollout, loop, dir, 2, on_result, NULL);
    rollout_start(&rollout);
}

/* One turn of the control thread's loop, without waiting. */
static bool turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
    return true;
}

static void stop(void)
{
    rollout_order(&rollout, WORKER_STOP);
    WAIT_UNTIL(turn() && rollout_has_ended(&rollout));
    rollout_fini(&rollout);
}

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/snapshot", dir);
    loop = ev_loop_new(EVFLAG_AUTO);
    start();
}

static void teardown(void)
{
    stop();
    ev_loop_destroy(loop);
    unlink(file);
    rmdir(dir);
}

TestSuite(rollout, .init = setup, .fini = teardown);

static void take(const struct draft *d)
{
    size_t len = gwp__snapshot__get_packed_size(d->message);
    uint8_t *packed = malloc(len);
    gwp__snapshot__pack(d->message, packed);
    rollout_take(&rollout, d->message, packed, len);
    free(packed);
}

static struct draft generation(uint64_t number)
{
    struct draft d = draft_new(number);
    Gwp__Route *r = draft_route(&d, "all", "", "/");
    draft_target(&d, r, 1, draft_endpoint(&d, "127.0.0.1:9"));
    d.message->content_hash = number;
    return d;
}

/* Takes it and waits until it is in force. */
static void bring(struct draft d)
{
    unsigned before = told.accepted;
    take(&d);
    WAIT_UNTIL(turn() && told.accepted > before);
    cr_assert_eq(rollout.in_force->generation, d.message->generation);
    arena_free(&d.arena);
}

Test(rollout, a_snapshot_is_in_force_when_every_worker_serves_it)
{
    bring(generation(1));
    cr_assert_eq(rollout.worker_count, 2);
    for (unsigned i = 0; i < 2; i++)
        cr_assert(worker_serves(rollout.workers[i], rollout.in_force));
    cr_assert_eq(rollout_snapshots_alive(&rollout), 1);
}

Test(rollout, superseded_snapshots_are_freed)
{
    for (uint64_t number = 1; number <= 30; number++)
        bring(generation(number));
    WAIT_UNTIL(turn() && rollout_snapshots_alive(&rollout) == 1);
    cr_assert_eq(registry_endpoint_slots(rollout.registry), 1);
}

Test(rollout, a_snapshot_under_which_a_request_runs_is_kept)
{
    bring(generation(1));
    struct snapshot *first = rollout.in_force;
    snapshot_hold(first, 1);
    bring(generation(2));
    bring(generation(3));
    WAIT_UNTIL(turn() && rollout_snapshots_alive(&rollout) == 2);
    snapshot_unhold(first, 1);
    ev_async_send(loop, &rollout.poke);
    WAIT_UNTIL(turn() && rollout_snapshots_alive(&rollout) == 1);
}

Test(rollout, the_same_again_is_accepted_without_work)
{
    bring(generation(7));
    struct snapshot *s = rollout.in_force;
    struct draft again = generation(7);
    take(&again);
    cr_assert(told.accepted == 2 && told.generation == 7);
    cr_assert_eq(rollout.in_force, s);
    arena_free(&again.arena);
}

Test(rollout, what_cannot_be_compiled_changes_nothing)
{
    bring(generation(1));
    struct draft bad = generation(2);
    bad.message->routes[0]->path_prefix = (char *)"no";
    take(&bad);
    cr_assert(told.count == 2 && told.accepted == 1 && told.generation == 2);
    cr_assert(strstr(told.reason, "path prefix \"no\""), "%s", told.reason);
    cr_assert_eq(rollout.in_force->generation, 1);
    arena_free(&bad.arena);
}

static void set_listen(struct draft *d, const char *one, const char *two)
{
    Gwp__Server *server = d->message->server;
    server->n_listen = two ? 2 : 1;
    server->listen = arena_array(d->arena, 2, sizeof(char *));
    server->listen[0] = arena_copy(d->arena, view_of(one));
    server->listen[1] = two ? arena_copy(d->arena, view_of(two)) : NULL;
}

static unsigned listener_count(void)
{
    unsigned count = 0;
    list_each (node, &rollout.listeners.all)
        count++;
    return count;
}

Test(rollout, listeners_follow_the_snapshot)
{
    bring(generation(1));
    struct draft two = generation(2), three = generation(3);
    set_listen(&two, "127.0.0.1:0", "127.0.0.2:0");
    bring(two);
    cr_assert_eq(listener_count(), 2);
    set_listen(&three, "127.0.0.2:0", NULL);
    bring(three);
    cr_assert_eq(listener_count(), 1);
}

/* Some address that another process, or so it seems, listens on. */
static int occupy(char text[32])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, len), 0);
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    snprintf(text, 32, "127.0.0.1:%u", ntohs(a.sin_port));
    return fd;
}

Test(rollout, an_address_that_is_taken_refuses_the_snapshot_and_closes_what_was_opened)
{
    char taken[32];
    int fd = occupy(taken);
    bring(generation(1));
    struct draft two = generation(2);
    set_listen(&two, "127.0.0.2:0", taken);
    take(&two);
    cr_assert(told.generation == 2 && told.accepted == 1);
    cr_assert(strstr(told.reason, taken), "%s", told.reason);
    cr_assert_eq(listener_count(), 1);
    cr_assert_eq(rollout.in_force->generation, 1);
    arena_free(&two.arena);
    close(fd);
}

Test(rollout, the_first_snapshot_waits_for_its_address)
{
    char taken[32];
    int fd = occupy(taken);
    struct draft one = generation(1);
    set_listen(&one, taken, NULL);
    take(&one);
    cr_assert(told.count == 1 && told.accepted == 0);
    close(fd);
    WAIT_UNTIL(turn() && told.accepted == 1);
    cr_assert_eq(told.count, 2);
    arena_free(&one.arena);
}

Test(rollout, an_access_log_that_cannot_be_opened_refuses_the_snapshot)
{
    bring(generation(1));
    struct draft two = generation(2);
    two.message->logging->access_log = (char *)"/nowhere/access.log";
    take(&two);
    cr_assert(strstr(told.reason, "/nowhere/access.log"), "%s", told.reason);
    cr_assert_eq(rollout.in_force->generation, 1);
    arena_free(&two.arena);
}

Test(rollout, of_those_that_come_meanwhile_the_newest_follows)
{
    struct draft d[] = {generation(1), generation(2), generation(3)};
    for (int i = 0; i < 3; i++)
        take(&d[i]); /* without a turn between: the first is still being published */
    cr_assert(told.count == 1 && told.generation == 2 && told.accepted == 0);
    cr_assert_str_eq(told.reason, "superseded by generation 3");
    WAIT_UNTIL(turn() && told.accepted == 2);
    cr_assert_eq(rollout.in_force->generation, 3);
    for (int i = 0; i < 3; i++)
        arena_free(&d[i].arena);
}

static unsigned recounts;

static void on_recount(void *owner)
{
    cr_assert_eq(rollout.in_force->generation, 2, "before anything changes");
    recounts++;
}

Test(rollout, other_buckets_are_announced_before_the_workers_count_in_them)
{
    double buckets[] = {0.1, 1};
    struct draft three = generation(3);
    rollout.recount = on_recount;
    bring(generation(1));
    bring(generation(2));
    cr_assert_eq(recounts, 0);
    three.message->n_duration_buckets_seconds = 2;
    three.message->duration_buckets_seconds = buckets;
    bring(three);
    cr_assert_eq(recounts, 1);
}

Test(rollout, a_dry_run_is_answered_and_thrown_away)
{
    bring(generation(1));
    struct draft two = generation(2);
    two.message->dry_run = true;
    take(&two);
    cr_assert(told.accepted == 2 && told.dry_run && told.generation == 2);
    two.message->routes[0]->name = (char *)"";
    take(&two);
    cr_assert(told.count == 3 && told.accepted == 2 && told.dry_run);
    cr_assert_eq(rollout.in_force->generation, 1);
    arena_free(&two.arena);
}

Test(rollout, the_last_accepted_one_is_served_after_a_cold_start)
{
    bring(generation(41));
    bring(generation(42));
    stop();
    start();
    WAIT_UNTIL(turn() && told.accepted == 1);
    cr_assert_eq(rollout.in_force->generation, 42);
    struct draft same = generation(42);
    take(&same);
    cr_assert_eq(told.accepted, 2, "the control plane's is the same: nothing is done");
    arena_free(&same.arena);
}

Test(rollout, a_damaged_state_is_said_and_not_used)
{
    bring(generation(1));
    stop();
    cr_assert_eq(truncate(file, 40), 0);
    start();
    turn();
    cr_assert(told.count == 0 && rollout.in_force == NULL);
    bring(generation(1));
}

Test(rollout, once_it_is_closed_snapshots_are_refused)
{
    bring(generation(1));
    rollout_close(&rollout);
    struct draft two = generation(2);
    take(&two);
    cr_assert_str_eq(told.reason, "this data plane is shutting down");
    arena_free(&two.arena);
}

Test(rollout, drained_workers_end)
{
    bring(generation(1));
    rollout_order(&rollout, WORKER_QUIET);
    turn();
    cr_assert_not(rollout_has_ended(&rollout));
    rollout_order(&rollout, WORKER_DRAIN);
    WAIT_UNTIL(turn() && rollout_has_ended(&rollout));
}
