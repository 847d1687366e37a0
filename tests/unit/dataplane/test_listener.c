#include <criterion/criterion.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/io/listener.h"

static struct listener_set set;
static struct err err;
static char dir[] = "/tmp/gwp-listener-XXXXXX";
static char path[64], kept_path[80], unix_text[80];

static void setup(void)
{
    listener_set_init(&set);
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    snprintf(kept_path, sizeof(kept_path), "%s.kept", path);
    snprintf(unix_text, sizeof(unix_text), "unix:%s", path);
}

static void teardown(void)
{
    listener_set_fini(&set, false);
    unlink(path);
    rmdir(dir);
}

TestSuite(listener, .init = setup, .fini = teardown);

static struct listener *open_at(struct listener_set *where, const char *text)
{
    struct addr a;
    cr_assert_eq(addr_parse(&a, text, &err), 0, "%s", err.text);
    return listener_open(where, &a, text, &err);
}

static struct addr bound(const struct listener *l)
{
    struct addr a = {.len = sizeof(a.sa)};
    cr_assert_eq(getsockname(l->fd, &a.sa.any, &a.len), 0);
    return a;
}

/* 0 or the error. */
static int connects(const struct addr *a)
{
    int fd = socket(a->sa.any.sa_family, SOCK_STREAM, 0);
    int result = connect(fd, &a->sa.any, a->len) == 0 ? 0 : errno;
    close(fd);
    return result;
}

Test(listener, takes_connections_and_never_blocks)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    cr_assert(l, "%s", err.text);
    cr_assert_str_eq(l->text, "127.0.0.1:0");
    cr_assert(fcntl(l->fd, F_GETFL) & O_NONBLOCK);
    cr_assert(fcntl(l->fd, F_GETFD) & FD_CLOEXEC);
    struct addr a = bound(l);
    cr_assert_eq(connects(&a), 0);
}

/* Small answers must not wait for the client's acknowledgement; set once, for all that is accepted.
 */
Test(listener, what_is_accepted_sends_without_delay)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    cr_assert(l, "%s", err.text);
    struct addr a = bound(l);
    int client = socket(AF_INET, SOCK_STREAM, 0), on = 0;
    socklen_t len = sizeof(on);
    cr_assert_eq(connect(client, &a.sa.any, a.len), 0);
    int accepted = accept(l->fd, NULL, NULL);
    cr_assert_geq(accepted, 0);
    cr_assert_eq(getsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
    cr_assert(on);
    close(accepted);
    close(client);
}

Test(listener, the_same_address_is_the_same_listener)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    cr_assert_eq(open_at(&set, "127.0.0.1:0"), l);
    cr_assert_neq(open_at(&set, "127.0.0.2:0"), l);
}

Test(listener, an_address_without_host_serves_both_families)
{
    struct listener *l = open_at(&set, ":0");
    cr_assert(l, "%s", err.text);
    struct addr a = bound(l);
    in_port_t port = a.sa.any.sa_family == AF_INET6 ? a.sa.in6.sin6_port : a.sa.in4.sin_port;
    struct addr v4 = {.len = sizeof(v4.sa.in4)}, v6 = {.len = sizeof(v6.sa.in6)};
    v4.sa.in4 = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    v6.sa.in6 = (struct sockaddr_in6){
        .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
    cr_assert_eq(connects(&v4), 0);
    if (a.sa.any.sa_family == AF_INET6 && connects(&v6) != EADDRNOTAVAIL)
        cr_assert_eq(connects(&v6), 0);
}

Test(listener, an_address_in_use_is_refused_by_name)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    struct addr a = bound(l);
    char text[ADDR_TEXT_BYTES];
    addr_format(&a, text);
    cr_assert_eq(open_at(&set, text), NULL);
    cr_assert(strstr(err.text, text), "%s", err.text);
    cr_assert(strstr(err.text, "in use"), "%s", err.text);
}

Test(listener, what_no_publication_lists_any_more_is_closed)
{
    struct listener *one = open_at(&set, "127.0.0.1:0"), *two = open_at(&set, "127.0.0.2:0");
    struct addr first = bound(one), second = bound(two);
    one->listed_by = 4;
    two->listed_by = 5;
    listener_close_older(&set, 5);
    cr_assert_eq(connects(&first), ECONNREFUSED);
    cr_assert_eq(connects(&second), 0);
}

Test(listener, a_unix_socket_is_for_user_and_group_and_goes_with_the_listener)
{
    struct stat st;
    struct listener *l = open_at(&set, unix_text);
    cr_assert(l, "%s", err.text);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0660);
    cr_assert_eq(connects(&l->addr), 0);
    listener_set_fini(&set, false);
    cr_assert_eq(stat(path, &st), -1);
}

Test(listener, a_stale_unix_socket_is_replaced_a_served_one_is_not)
{
    struct addr a;
    cr_assert_eq(addr_parse(&a, unix_text, &err), 0);
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(stale, &a.sa.any, a.len), 0);
    close(stale);
    cr_assert(open_at(&set, unix_text), "%s", err.text);

    struct listener_set other;
    listener_set_init(&other);
    cr_assert_eq(open_at(&other, unix_text), NULL);
    cr_assert(strstr(err.text, "another process listens there"), "%s", err.text);
}

Test(listener, a_file_that_is_no_socket_is_left_alone)
{
    close(open(path, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(open_at(&set, unix_text), NULL);
    cr_assert(strstr(err.text, "not a socket"), "%s", err.text);
}

/* ---- those of other processes ---- */

Test(listener, an_offered_socket_is_taken_by_who_asks_for_its_address)
{
    struct listener_set other;
    listener_set_init(&other);
    struct listener *l = open_at(&other, unix_text);
    int fd = dup(l->fd);
    cr_assert_eq(listener_offer(&set, unix_text, fd, &err), 0, "%s", err.text);
    listener_set_fini(&other, true);
    cr_assert_eq(access(path, F_OK), 0, "the file stays with the one that has it now");
    struct listener *mine = open_at(&set, unix_text);
    cr_assert(mine && mine->fd == fd);
    listener_close_older(&set, 1);
    cr_assert_eq(open_at(&set, unix_text)->fd, fd, "what came to nothing may be tried again");
    listener_forget_offered(&set);
    cr_assert_neq(fcntl(fd, F_GETFD), -1);
}

Test(listener, what_is_no_such_socket_is_refused)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(listener_offer(&set, unix_text, ends[0], &err), -1);
    cr_assert_eq(listener_offer(&set, unix_text, open("/dev/null", O_RDONLY), &err), -1);
    cr_assert_eq(listener_offer(&set, unix_text, socket(AF_UNIX, SOCK_STREAM, 0), &err), -1);
    cr_assert_eq(listener_offer(&set, "127.0.0.1:1", dup(l->fd), &err), -1);
    cr_assert(strstr(err.text, "listens elsewhere"), "%s", err.text);
    cr_assert_eq(listener_offer(&set, "nonsense", dup(l->fd), &err), -1);
    cr_assert(list_is_empty(&set.offered));
}

/* ---- beside one that hangs ---- */

static unsigned accept_all(const struct listener *l)
{
    unsigned count = 0;
    for (int fd; (fd = accept(l->fd, NULL, NULL)) >= 0; count++)
        close(fd);
    return count;
}

static void connect_some(const struct addr *a, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(connects(a), 0);
}

Test(listener, a_second_one_gets_what_comes_and_gives_it_back)
{
    struct listener_set hanging;
    char text[ADDR_TEXT_BYTES];
    listener_set_init(&hanging);
    struct listener *first = open_at(&hanging, "127.0.0.1:0");
    struct addr a = bound(first);
    addr_format(&a, text);
    connect_some(&a, 3); /* they wait there */
    set.may_join = true;
    struct listener *second = open_at(&set, text);
    cr_assert(second, "%s", err.text);
    connect_some(&a, 2);
    cr_assert_eq(accept_all(first), 5, "the second one has none until it is listed");
    connect_some(&a, 3);
    listener_list(second, 1);
    connect_some(&a, 20);
    cr_assert_eq(accept_all(second), 20);
    cr_assert_not(set.is_split);

    set.may_join = false;
    cr_assert_eq(listener_offer(&set, text, dup(first->fd), &err), 0);
    cr_assert(set.is_split);
    struct listener *again = open_at(&set, text);
    cr_assert_neq(again, second);
    listener_list(again, 2);
    connect_some(&a, 20);
    cr_assert_eq(accept_all(second), 0);
    cr_assert_eq(accept_all(again), 23, "and those who have waited");
    listener_close_older(&set, 2);
    cr_assert_eq(open_at(&set, text), again);
    connect_some(&a, 20);
    cr_assert_eq(accept_all(again), 20);
    listener_set_fini(&hanging, true);
}

Test(listener, what_is_in_use_is_not_on_offer)
{
    struct listener *l = open_at(&set, "127.0.0.1:0");
    struct addr a = bound(l);
    addr_format(&a, l->text);
    l->addr = a;
    cr_assert_eq(listener_offer(&set, l->text, dup(l->fd), &err), 0, "%s", err.text);
    cr_assert(list_is_empty(&set.offered));
}

/* Its file is put aside, and comes back with it. */
Test(listener, a_unix_socket_whose_process_is_dead_is_opened_beside_it)
{
    struct addr a;
    cr_assert_eq(addr_parse(&a, unix_text, &err), 0);
    int kept = socket(AF_UNIX, SOCK_STREAM, 0);
    pid_t dead = fork();
    if (dead == 0)
        _exit(bind(kept, &a.sa.any, a.len) < 0 || listen(kept, 10) < 0);
    cr_assert_eq(waitpid(dead, NULL, 0), dead);
    connect_some(&a, 2);
    cr_assert_eq(open_at(&set, unix_text), NULL);
    set.may_join = true;
    struct listener *second = open_at(&set, unix_text);
    cr_assert(second, "%s", err.text);
    connect_some(&a, 5);
    cr_assert_eq(accept_all(second), 5);
    cr_assert_eq(listener_offer(&set, unix_text, kept, &err), 0, "%s", err.text);
    struct listener *again = open_at(&set, unix_text);
    listener_list(again, 1);
    listener_close_older(&set, 1);
    connect_some(&a, 5);
    cr_assert_geq(accept_all(again), 7,
                  "those who have waited, and who have looked whether it is served");
}

/* The one before has put the first one's file aside, and died of kill -9. */
Test(listener, a_unix_socket_that_was_put_aside_is_not_forgotten_with_who_did_that)
{
    struct addr a;
    cr_assert_eq(addr_parse(&a, unix_text, &err), 0);
    int kept = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(kept, &a.sa.any, a.len), 0);
    cr_assert_eq(listen(kept, 10), 0);
    connect_some(&a, 2);
    cr_assert_eq(rename(path, kept_path), 0);
    struct listener *second = open_at(&set, unix_text);
    cr_assert(second, "%s", err.text);
    listener_list(second, 1);
    listener_close_older(&set, 1);
    cr_assert_eq(access(kept_path, F_OK), 0);
    cr_assert_eq(listener_offer(&set, unix_text, kept, &err), 0, "%s", err.text);
    cr_assert(set.is_split);
    struct listener *again = open_at(&set, unix_text);
    cr_assert_neq(again, second);
    listener_list(again, 2);
    listener_close_older(&set, 2);
    cr_assert_eq(access(kept_path, F_OK), -1);
    connect_some(&a, 5);
    cr_assert_geq(accept_all(again), 7, "those who have waited, and who have looked");
}

/* Whoever kept it has died, too. */
Test(listener, a_unix_socket_that_was_put_aside_goes_when_nobody_has_it)
{
    struct addr a;
    cr_assert_eq(addr_parse(&a, unix_text, &err), 0);
    int kept = socket(AF_UNIX, SOCK_STREAM, 0);
    pid_t dead = fork();
    if (dead == 0)
        _exit(bind(kept, &a.sa.any, a.len) < 0 || listen(kept, 10) < 0);
    cr_assert_eq(waitpid(dead, NULL, 0), dead);
    set.may_join = true;
    struct listener *second = open_at(&set, unix_text);
    cr_assert(second, "%s", err.text);
    listener_list(second, 1);
    listener_close_older(&set, 1);
    cr_assert_eq(access(kept_path, F_OK), 0);
    close(kept);
    listener_list(second, 2);
    listener_close_older(&set, 2);
    cr_assert_eq(access(kept_path, F_OK), -1);
    connect_some(&a, 1);
    cr_assert_eq(accept_all(second), 1);
}

Test(listener, a_unix_socket_whose_process_lives_is_left_alone)
{
    struct listener_set other;
    listener_set_init(&other);
    struct listener *l = open_at(&other, unix_text);
    set.may_join = true;
    cr_assert_eq(open_at(&set, unix_text), NULL);
    cr_assert_eq(connects(&l->addr), 0);
    listener_set_fini(&other, false);
}
