#include "tests/unit/controlplane/kept.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/un.h>

#include "proto/base/clock.h"

static struct rig at;
static struct err err;

static void setup(void)
{
    rig_init(&at);
}

static void teardown(void)
{
    rig_fini(&at);
}

TestSuite(fd_keeper, .init = setup, .fini = teardown, .timeout = 20);

/* ---- what data planes leave ---- */

static int listening(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
    cr_assert_eq(listen(fd, 16), 0);
    return fd;
}

/* A list of sockets and segments in the making. */
struct list_of {
    Gwp__Listeners m;
    Gwp__Listeners__Socket socket[8], *sockets[8];
    Gwp__Listeners__Segment segment[8], *segments[8];
    int fds[16];
};

static void list_begin(struct list_of *l)
{
    memset(l, 0, sizeof(*l));
    gwp__listeners__init(&l->m);
    l->m.sockets = l->sockets;
    l->m.segments = l->segments;
}

static void add_socket(struct list_of *l, const char *address, int fd)
{
    Gwp__Listeners__Socket *s = l->sockets[l->m.n_sockets] = &l->socket[l->m.n_sockets];
    gwp__listeners__socket__init(s);
    s->address = (char *)address;
    l->fds[l->m.n_sockets++] = fd;
}

/* Behind all sockets. */
static void add_segment(struct list_of *l, const char *kind, const char *name, uint64_t lineage)
{
    Gwp__Listeners__Segment *s = l->segments[l->m.n_segments] = &l->segment[l->m.n_segments];
    gwp__listeners__segment__init(s);
    s->kind = (char *)kind;
    s->name = (char *)name;
    s->lineage = lineage;
    int fd = memfd_create("segment", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    l->fds[l->m.n_sockets + l->m.n_segments++] = fd;
}

static int leave(struct plane *p, struct list_of *l)
{
    return fd_keeper_take(&at.keeper, &p->session, &l->m, l->fds,
                          (unsigned)(l->m.n_sockets + l->m.n_segments), &err);
}

/* A socket, a limiter, its counters and their names. */
static void leave_all(struct plane *p, uint64_t lineage)
{
    struct list_of l;
    list_begin(&l);
    add_socket(&l, "127.0.0.1:1", listening());
    add_segment(&l, "limiter", "all", 1);
    add_segment(&l, "counters", p->instance, lineage);
    add_segment(&l, "names", p->instance, lineage);
    cr_assert_eq(leave(p, &l), 0, "%s", err.text);
}

static void expect_given(struct plane *p, unsigned sockets, unsigned segments)
{
    plane_read(p);
    cr_expect_eq(p->sockets, sockets, "%u sockets", p->sockets);
    cr_expect_eq(p->segments, segments, "%u segments", p->segments);
}

Test(fd_keeper, the_next_is_given_everything)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    leave_all(a, 7);
    expect_given(a, 0, 0);
    cr_expect_eq(a->lists, 1, "an empty list is told, too");
    plane_go(&at, a);
    struct plane *b = plane_open(&at, 1, "a", 2);
    expect_given(b, 1, 3);
    leave_all(b, 8);
    fd_keeper_settled(&at.keeper, 7);
    struct fd_keeper_view v = fd_keeper_look(&at.keeper);
    cr_expect_eq(v.sockets, 1);
    cr_expect_eq(v.segments, 3, "only what the one that lives has left");
}

Test(fd_keeper, who_lives_tells_its_own_counters)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    leave_all(a, 7);
    expect_given(plane_open(&at, 1, "b", 2), 1, 1);
}

Test(fd_keeper, one_that_serves_tells_what_the_dead_have_counted)
{
    struct plane *a = plane_open(&at, 0, "a", 1), *b = plane_open(&at, 1, "b", 2);
    leave_all(a, 7);
    leave_all(b, 8);
    plane_read(b);
    unsigned before = b->segments;
    plane_go(&at, a);
    plane_read(b);
    cr_expect_eq(b->segments - before, 2, "counters and names");
    cr_expect_eq(b->sockets, 0);
}

/* Its Hello is read before the end of the one before: after a pause of ours, in any order. */
Test(fd_keeper, one_that_is_about_to_serve_tells_what_the_dead_have_counted)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    leave_all(a, 7);
    struct plane *b = plane_open(&at, 1, "a", 2);
    expect_given(b, 1, 1);
    plane_go(&at, a);
    expect_given(b, 1, 3);
}

Test(fd_keeper, the_older_one_of_a_name_is_sent_home)
{
    struct plane *older = plane_open(&at, 0, "a", 1), *newer = plane_open(&at, 1, "a", 2),
                 *other = plane_open(&at, 2, "b", 3);
    leave_all(newer, 8);
    leave_all(other, 9);
    cr_expect_not(older->session.leaving, "it serves nothing yet");
    leave_all(older, 7);
    plane_read(older);
    plane_read(newer);
    plane_read(other);
    cr_expect(older->is_drained && !newer->is_drained && !other->is_drained);
}

/* It came before the one that has them, which had to connect to us anew as well. */
Test(fd_keeper, one_that_could_not_open_its_addresses_is_given_them_when_they_are_left)
{
    struct plane *newer = plane_open(&at, 0, "a", 2), *older = plane_open(&at, 1, "a", 1),
                 *fresh = plane_open(&at, 2, "a", 3);
    newer->session.refused = true;
    leave_all(older, 7);
    expect_given(newer, 1, 1);
    cr_expect_eq(newer->lists, 2);
    expect_given(fresh, 0, 0);
    leave_all(newer, 8);
    plane_read(older);
    cr_expect(older->is_drained);
}

/* Both have just started: its refusal is read behind the other one's list. */
Test(fd_keeper, one_that_could_not_open_its_addresses_is_given_what_was_left_meanwhile)
{
    struct plane *a = plane_open(&at, 0, "a", 1), *b = plane_open(&at, 1, "a", 2);
    leave_all(a, 7);
    expect_given(b, 0, 0);
    b->session.refused = true;
    fd_keeper_answered(&at.keeper, &b->session);
    expect_given(b, 1, 1);
    fd_keeper_answered(&at.keeper, &b->session);
    expect_given(b, 1, 1);
}

Test(fd_keeper, a_list_that_is_not_whole_is_worth_nothing)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    struct list_of l;
    list_begin(&l);
    add_socket(&l, "127.0.0.1:1", listening());
    l.m.more = true;
    cr_assert_eq(leave(a, &l), 0);
    cr_expect_not(a->session.serves);
    plane_go(&at, a);
    cr_expect_eq(fd_keeper_look(&at.keeper).sockets, 0);
    expect_given(plane_open(&at, 1, "a", 2), 0, 0);
}

Test(fd_keeper, what_too_many_have_left_is_let_go)
{
    for (unsigned i = 0; i < 3 * FD_KEEPER_MAX_LEFT; i++) {
        struct plane *p = plane_open(&at, 0, "a", i + 1);
        leave_all(p, i + 1);
        plane_go(&at, p);
    }
    cr_expect_eq(fd_keeper_look(&at.keeper).sockets, 1, "each has taken over from the one before");
    cr_expect_leq(fd_keeper_look(&at.keeper).segments, 1 + 2 * FD_KEEPER_MAX_LEFT);
}

Test(fd_keeper, lists_that_break_the_rules_are_refused)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    struct list_of l;
    char name[DEPOSIT_NAME_BYTES + 2];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';

    list_begin(&l);
    add_socket(&l, "127.0.0.1:1", dup(STDERR_FILENO));
    cr_expect_eq(leave(a, &l), -1);
    cr_expect(strstr(err.text, "no listening socket"), "%s", err.text);

    list_begin(&l);
    add_segment(&l, "limiter", name, 1);
    cr_expect_eq(leave(a, &l), -1);
    cr_expect(strstr(err.text, "longer"), "%s", err.text);

    list_begin(&l);
    add_socket(&l, name, listening());
    cr_expect_eq(leave(a, &l), -1);

    list_begin(&l);
    add_segment(&l, "limiter", "all", 1);
    l.m.n_segments = 0;
    cr_expect_eq(fd_keeper_take(&at.keeper, &a->session, &l.m, l.fds, 1, &err), -1);
    cr_expect_eq(fcntl(l.fds[0], F_GETFD), -1, "it is closed all the same");
    cr_expect_eq(fd_keeper_look(&at.keeper).segments, 0);
}

/* Whoever may connect could have any file of ours removed. */
Test(fd_keeper, a_unix_socket_must_be_at_the_path_that_it_is_said_to_be_at)
{
    char dir[] = "/tmp/gwp-keeper-XXXXXX", path[64], text[80];
    const struct strings none = {0};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct list_of l;
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    snprintf(text, sizeof(text), "unix:%s", path);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    cr_assert_eq(listen(fd, 1), 0);
    struct plane *p = plane_open(&at, 0, "a", 1);
    list_begin(&l);
    add_socket(&l, "unix:/etc/hostname", dup(fd));
    cr_expect_eq(leave(p, &l), -1);
    cr_expect(strstr(err.text, "listens elsewhere"), "%s", err.text);
    list_begin(&l);
    add_socket(&l, text, fd);
    cr_assert_eq(leave(p, &l), 0, "%s", err.text);
    plane_go(&at, p);
    fd_keeper_configured(&at.keeper, &none);
    cr_expect_eq(access(path, F_OK), -1, "its own file goes with it");
    rmdir(dir);
}

/* It would open the addresses itself, and fail, and be told of as an error. */
Test(fd_keeper, who_cannot_be_given_its_sockets_is_told_nothing_more)
{
    struct plane *a = plane_open(&at, 0, "a", 1), *b = plane_open(&at, 1, "b", 2);
    struct rlimit limit, none;
    leave_all(a, 7);
    leave_all(b, 8);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    fd_keeper_opened(&at.keeper, &b->session, true);
    session_send_snapshot(&b->session, 1, false, (const uint8_t *)"", 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    plane_read(b);
    cr_expect_eq(b->snapshots, 0);
    cr_expect(strstr(b->session.doomed.text, "descriptors"), "%s", b->session.doomed.text);
}

/* ---- when the stand-in begins ---- */

static bool stands_in(void)
{
    return fd_keeper_look(&at.keeper).stands_in;
}

static void turn(void)
{
    ev_run(at.loop, EVRUN_NOWAIT);
}

/* As if the last one that served had gone some seconds ago. */
static struct plane *absent_for(double seconds)
{
    struct plane *a = plane_open(&at, 0, "a", 1);
    leave_all(a, 7);
    plane_go(&at, a);
    cr_assert(at.keeper.absent_since > 0);
    at.keeper.absent_since -= seconds;
    return a;
}

Test(fd_keeper, the_stand_in_begins_after_a_second_and_ends_with_the_next_hello)
{
    absent_for(0);
    turn();
    cr_expect_not(stands_in());
    LOOP_UNTIL(at.loop, stands_in());
    cr_expect_gt(clock_s() - at.keeper.absent_since, 0.9995); /* in whole milliseconds */
    plane_open(&at, 1, "a", 2);
    cr_expect_not(stands_in());
}

Test(fd_keeper, one_that_has_said_hello_is_waited_for_unless_it_refuses)
{
    absent_for(5);
    struct plane *b = plane_open(&at, 1, "a", 2);
    fd_keeper_answered(&at.keeper, &b->session);
    turn();
    cr_expect_not(stands_in());
    cr_expect_gt(at.keeper.patient_until, clock_s() + 2);
    b->session.refused = true;
    fd_keeper_answered(&at.keeper, &b->session);
    turn();
    turn();
    cr_expect(stands_in());
    b->session.refused = false;
    leave_all(b, 8);
    cr_expect_not(stands_in(), "it serves after all");
}

Test(fd_keeper, one_that_goes_again_is_not_waited_for)
{
    absent_for(5);
    struct plane *b = plane_open(&at, 1, "a", 2);
    plane_go(&at, b);
    turn();
    turn();
    cr_expect(stands_in());
}

/* A process that was stopped hears its timers before those who have knocked meanwhile. */
Test(fd_keeper, a_timer_that_is_heard_late_is_waited_for_once_more)
{
    absent_for(5);
    at.keeper.patient_until = clock_s() - 3;
    ev_invoke(at.loop, &at.keeper.patience, EV_TIMER);
    cr_expect_not(stands_in());
    LOOP_UNTIL(at.loop, stands_in());
}

Test(fd_keeper, nobody_stands_in_beside_one_that_serves)
{
    struct plane *a = plane_open(&at, 0, "a", 1), *b = plane_open(&at, 1, "b", 2);
    leave_all(a, 7);
    leave_all(b, 8);
    plane_go(&at, a);
    cr_expect_eq(at.keeper.absent_since, 0);
    struct list_of l;
    list_begin(&l);
    l.m.leaving = true;
    cr_assert_eq(leave(b, &l), 0);
    cr_expect_gt(at.keeper.absent_since, 0, "it accepts no more, though it is there");
}
