#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/health/probe.h"
#include "controlplane/health/status_line.h"
#include "tests/unit/controlplane/loop.h"

/* ---- the status line ---- */

static enum status_line_result read_all(const char *text, int *status)
{
    struct status_line whole = {0}, split = {0};
    struct view all = view_of(text);
    enum status_line_result at_once = status_line_feed(&whole, all);
    enum status_line_result piecewise = STATUS_LINE_MORE;
    for (size_t i = 0; i < all.len; i++)
        piecewise = status_line_feed(&split, (struct view){text + i, 1});
    cr_assert_eq(at_once, piecewise, "%s", text);
    cr_assert_eq(whole.status, split.status);
    *status = whole.status;
    return at_once;
}

Test(status_line, what_http_allows_is_read)
{
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\n", 200},
        {"HTTP/1.0 404 Not Found\r\nX: y\r\n\r\nbody", 404},
        {"HTTP/1.1 503 \r\n", 503},
        {"HTTP/1.1 204\r\n", 204},
        {"HTTP/1.1 200 \xc3\xbc\tber\r\n", 200},
        {"HTTP/1.1 999 Whatever\r\n", 999},
        {"HTTP/1.1 101 Switching Protocols\r\n", 101},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200},
        {"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\nA: b\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 "
         "500 No\r\n",
         500},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int status;
        cr_expect_eq(read_all(cases[i].text, &status), STATUS_LINE_DONE, "%s", cases[i].text);
        cr_expect_eq(status, cases[i].status, "%s", cases[i].text);
    }
}

Test(status_line, what_it_does_not_allow_is_refused)
{
    static const char *const cases[] = {
        "\n",
        "\r\nHTTP/1.1 200 OK\r\n",
        " HTTP/1.1 200 OK\r\n",
        "http/1.1 200 OK\r\n",
        "HTTP/2 200\r\n",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/1.10 200 OK\r\n",
        "HTTP/1.1  200 OK\r\n",
        "HTTP/1.1\t200 OK\r\n",
        "HTTP/1.1 20 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 099 Low\r\n",
        "HTTP/1.1 +20 OK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 200 OK\n",
        "HTTP/1.1 200\n",
        "HTTP/1.1 200 O\x01K\r\n",
        "HTTP/1.1 200 O\x7fK\r\n",
        "HTTP/1.1 200 OK\rX",
        "HTTP/1.1 200OK\r\n",
        "HTTP/1.1 100 C\r\nA: b\nC: d\r\n\r\n",
        "HTTP/1.1 100 C\r\n\rX",
        "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 OK\r\n",
        "\x16\x03\x01\x02",
        "ICY 200 OK\r\n",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 O\x1b[31m\r\n",
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int status;
        cr_expect_eq(read_all(cases[i], &status), STATUS_LINE_BAD, "%s", cases[i]);
    }
    struct status_line zero = {0};
    cr_expect_eq(status_line_feed(&zero, (struct view){"HTTP/1.1 200 \0\r\n", 16}),
                 STATUS_LINE_BAD);
}

Test(status_line, an_incomplete_line_is_no_answer)
{
    static const char *const cases[] = {"",
                                        "H",
                                        "HTTP/1.1 200",
                                        "HTTP/1.1 200 OK\r",
                                        "HTTP/1.1 100 Continue\r\n\r\n",
                                        "HTTP/1.1 100\r\nX: y"};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int status;
        cr_expect_eq(read_all(cases[i], &status), STATUS_LINE_MORE, "%s", cases[i]);
    }
}

/* Any bytes at all: no crash, and never an answer that does not begin like one. */
Test(status_line, random_bytes_are_no_answer)
{
    srand(11);
    for (int round = 0; round < 20000; round++) {
        struct status_line s = {0};
        char bytes[64];
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (char)(rand() >> 7);
        bytes[0] = (char)(bytes[0] == 'H' ? 'h' : bytes[0]);
        cr_assert_eq(status_line_feed(&s, (struct view){bytes, sizeof(bytes)}), STATUS_LINE_BAD);
    }
}

/* ---- probes ---- */

static struct ev_loop *loop;
static struct addr address;
static int listener, accepted;
static struct status_range ok_range = {200, 299};
static struct status_set expected = {&ok_range, 1};
static unsigned told;
static struct probe_outcome outcome;
static char asked[1024];

static void listen_here(int backlog)
{
    struct err err;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(addr_parse(&address, "127.0.0.1:0", &err), 0);
    cr_assert_eq(bind(listener, &address.sa.any, address.len), 0);
    cr_assert_eq(listen(listener, backlog), 0);
    cr_assert_eq(getsockname(listener, &address.sa.any, &address.len), 0);
}

static void start(void)
{
    loop = ev_loop_new(0);
    accepted = -1;
    listen_here(16);
}

static void stop(void)
{
    if (listener >= 0)
        close(listener);
    if (accepted >= 0)
        close(accepted);
    ev_loop_destroy(loop);
}

TestSuite(probe, .init = start, .fini = stop);

static void on_told(void *owner, const struct probe_outcome *o)
{
    told++;
    outcome = *o;
}

static struct probe *probe(const char *path, uint32_t timeout_ms)
{
    const struct probe_request request = {&address, path, "shop.example", timeout_ms, &expected};
    return probe_start(loop, &request, on_told, NULL);
}

/* Takes the request and answers; `then_close` ends the connection. */
static void answer(const char *text, size_t len, bool then_close)
{
    LOOP_UNTIL(loop,
               accepted >= 0 || (accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    ssize_t n = -1;
    LOOP_UNTIL(loop, n > 0 || (n = recv(accepted, asked, sizeof(asked) - 1, 0)) > 0);
    asked[n] = '\0';
    while (len > 0) {
        ssize_t sent = send(accepted, text, len, MSG_NOSIGNAL);
        if (sent > 0) {
            text += sent;
            len -= (size_t)sent;
        } else if (told > 0) {
            break;
        } else {
            ev_run(loop, EVRUN_NOWAIT);
        }
    }
    if (then_close) {
        close(accepted);
        accepted = -1;
    }
}

static void expect(enum probe_result result)
{
    LOOP_UNTIL(loop, told > 0);
    cr_expect_eq(told, 1);
    cr_expect_eq(outcome.result, result, "%s", outcome.reason);
}

Test(probe, a_connection_is_enough_without_a_path)
{
    probe("", 5000);
    expect(PROBE_OK);
    cr_expect_lt(outcome.seconds, 5);
}

Test(probe, nobody_there_is_refused)
{
    close(listener);
    listener = -1;
    probe("", 5000);
    cr_expect_eq(told, 0, "never from within the call");
    expect(PROBE_REFUSED);
}

Test(probe, an_expected_status_is_good)
{
    static const char text[] = "HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n";
    probe("/up?x=1", 5000);
    answer(text, strlen(text), true);
    expect(PROBE_OK);
    cr_expect_eq(outcome.status, 204);
    cr_expect_str_eq(asked, "GET /up?x=1 HTTP/1.1\r\nHost: shop.example\r\n"
                            "User-Agent: gateway-pro-health/0.1.0\r\nAccept: */*\r\n"
                            "Connection: close\r\n\r\n");
}

Test(probe, another_status_is_not)
{
    static const char text[] = "HTTP/1.1 302 Found\r\n\r\n";
    probe("/", 5000);
    answer(text, strlen(text), false);
    expect(PROBE_STATUS);
    cr_expect_str_eq(outcome.reason, "status 302 is not expected");
}

Test(probe, silence_is_a_timeout)
{
    static const char text[] = "HTTP/1.1 20";
    probe("/", 300);
    answer(text, strlen(text), false);
    expect(PROBE_TIMEOUT);
    cr_expect(outcome.seconds >= 0.29, "%f", outcome.seconds);
}

Test(probe, an_early_end_is_no_answer)
{
    probe("/", 5000);
    answer("HTTP/1.1 200 OK", 15, true);
    expect(PROBE_CLOSED);
}

Test(probe, an_endless_answer_is_left)
{
    static char text[1 << 20];
    int len = snprintf(text, sizeof(text), "HTTP/1.1 100 Continue\r\nX: ");
    memset(text + len, 'y', sizeof(text) - (size_t)len);
    probe("/", 5000);
    answer(text, sizeof(text), false);
    expect(PROBE_BAD_RESPONSE);
}

Test(probe, one_that_is_cancelled_tells_nothing)
{
    struct probe *p = probe("/", 50);
    ev_run(loop, EVRUN_NOWAIT);
    probe_cancel(&p);
    cr_expect_null(p);
    ev_run(loop, EVRUN_NOWAIT);
    usleep(60000);
    ev_run(loop, EVRUN_NOWAIT);
    cr_expect_eq(told, 0);
}

Test(probe, each_result_has_its_word)
{
    for (int i = 0; i < PROBE_RESULT_COUNT; i++)
        for (int k = 0; k < i; k++)
            cr_expect_str_neq(probe_word((enum probe_result)i), probe_word((enum probe_result)k));
    cr_expect(probe_is_expected(&expected, 299));
    cr_expect_not(probe_is_expected(&expected, 300));
    cr_expect_not(probe_is_expected(&(struct status_set){NULL, 0}, 200));
}
