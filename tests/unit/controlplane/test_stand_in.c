#include "controlplane/stand_in.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/controlplane/loop.h"

static struct ev_loop *loop;
static struct stand_in si;
static ledger_count answered;
static struct sockaddr_in where;
static int listening;

static void setup(void)
{
    socklen_t len = sizeof(where);
    loop = ev_loop_new(EVFLAG_AUTO);
    stand_in_init(&si, loop, &answered);
    where = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(listening, (struct sockaddr *)&where, len), 0);
    cr_assert_eq(listen(listening, 1024), 0);
    cr_assert_eq(getsockname(listening, (struct sockaddr *)&where, &len), 0);
}

static void teardown(void)
{
    stand_in_fini(&si);
    close(listening);
    ev_loop_destroy(loop);
}

TestSuite(stand_in, .init = setup, .fini = teardown, .timeout = 20);

static int client(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&where, sizeof(where)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What came until the end, which it waits for. */
static const char *answer_of(int fd)
{
    static char text[4096];
    size_t len = 0;
    bool is_over = false;
    memset(text, 0, sizeof(text));
    LOOP_UNTIL(loop, ({
                   ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, MSG_DONTWAIT);
                   len += n > 0 ? (size_t)n : 0;
                   is_over = is_over || n == 0;
                   is_over;
               }));
    return text;
}

Test(stand_in, a_request_is_answered_503_and_the_connection_is_over)
{
    stand_in_start(&si, &listening, 1);
    int fd = client();
    say(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *text = answer_of(fd);
    cr_expect(strstr(text, "HTTP/1.1 503 ") == text, "%s", text);
    cr_expect(strstr(text, "\r\nRetry-After: 1\r\n") && strstr(text, "\r\nConnection: close\r\n"));
    cr_expect(strstr(text, "\r\n\r\n{\"error\":\"no_data_plane\""));
    cr_expect_eq(ledger_read(&answered), 1);
    close(fd);
    LOOP_UNTIL(loop, si.client_count == 0);
}

Test(stand_in, a_head_in_pieces_is_one_and_that_of_a_HEAD_gets_no_body)
{
    static const char request[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    stand_in_start(&si, &listening, 1);
    int fd = client();
    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        cr_expect_eq(ledger_read(&answered), 0, "not before its end");
        cr_assert_eq(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
        ev_run(loop, EVRUN_NOWAIT);
    }
    const char *text = answer_of(fd);
    cr_expect(strstr(text, "HTTP/1.1 503 ") == text, "%s", text);
    cr_expect_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    close(fd);
}

Test(stand_in, who_says_nothing_and_ends_is_told)
{
    stand_in_start(&si, &listening, 1);
    int fd = client();
    shutdown(fd, SHUT_WR);
    cr_expect(strstr(answer_of(fd), " 503 "));
    close(fd);
}

Test(stand_in, a_head_without_end_is_answered_too)
{
    char piece[8192];
    stand_in_start(&si, &listening, 1);
    int fd = client();
    memset(piece, 'a', sizeof(piece));
    for (unsigned i = 0; i < 9; i++) {
        cr_assert_gt(send(fd, piece, sizeof(piece), MSG_NOSIGNAL), 0);
        ev_run(loop, EVRUN_NOWAIT);
    }
    LOOP_UNTIL(loop, ledger_read(&answered) == 1);
    close(fd);
}

Test(stand_in, takes_so_many_and_then_the_next)
{
    int fds[STAND_IN_CLIENTS + 40];
    stand_in_start(&si, &listening, 1);
    for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        fds[i] = client();
    LOOP_UNTIL(loop, si.client_count == STAND_IN_CLIENTS);
    ev_run(loop, EVRUN_NOWAIT);
    cr_expect_eq(si.client_count, STAND_IN_CLIENTS, "the others wait in the backlog");
    for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        say(fds[i], "GET / HTTP/1.1\r\n\r\n");
    for (unsigned i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
        cr_expect(strstr(answer_of(fds[i]), " 503 "));
        close(fds[i]);
    }
    LOOP_UNTIL(loop, si.client_count == 0);
}

Test(stand_in, accepts_nobody_once_it_was_stopped_but_answers_who_was_accepted)
{
    stand_in_start(&si, &listening, 1);
    int first = client();
    LOOP_UNTIL(loop, si.client_count == 1);
    stand_in_stop(&si);
    int second = client();
    say(first, "GET / HTTP/1.1\r\n\r\n");
    say(second, "GET / HTTP/1.1\r\n\r\n");
    cr_expect(strstr(answer_of(first), " 503 "));
    ev_run(loop, EVRUN_NOWAIT);
    cr_expect_eq(ledger_read(&answered), 1);
    int taken = accept(listening, NULL, NULL);
    cr_expect_geq(taken, 0, "it waits for whoever comes");
    close(taken);
    close(first);
    close(second);
}
