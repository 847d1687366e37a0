/* The admin client against a server that plays back bytes. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/ctl/client.h"

/* Answers one connection with `pieces`, one write each, then closes it. */
struct player {
    const char *const *pieces; /* NULL ends them */
    bool stays_silent;         /* takes the connection and says nothing */
    char folder[32], path[64], admin[80], heard[4096];
    int listener;
    pthread_t thread;
};

static void *play(void *arg)
{
    struct player *p = arg;
    int fd = accept(p->listener, NULL, NULL);
    ssize_t n = recv(fd, p->heard, sizeof(p->heard) - 1, 0);
    p->heard[n > 0 ? n : 0] = '\0';
    for (size_t i = 0; p->pieces && p->pieces[i]; i++)
        if (send(fd, p->pieces[i], strlen(p->pieces[i]), MSG_NOSIGNAL) < 0)
            break;
    if (p->stays_silent)
        (void)recv(fd, p->heard, 1, 0); /* until the client has had enough */
    close(fd);
    return NULL;
}

static void player_start(struct player *p)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(p->folder, sizeof(p->folder), "/tmp/gwp-ctl-XXXXXX");
    cr_assert_not_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof(p->path), "%s/s", p->folder);
    snprintf(p->admin, sizeof(p->admin), "unix:%s", p->path);
    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", p->path);
    p->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(p->listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
    cr_assert_eq(listen(p->listener, 1), 0);
    cr_assert_eq(pthread_create(&p->thread, NULL, play, p), 0);
}

static void player_stop(struct player *p)
{
    pthread_join(p->thread, NULL);
    close(p->listener);
    unlink(p->path);
    rmdir(p->folder);
}

/* One GET from a player; returns what client_call() did. */
static int get(struct player *p, struct client_response *response, struct err *err)
{
    struct client c;
    const struct client_request request = {.method = "GET", .target = "/x", .timeout_ms = 5000};
    player_start(p);
    cr_assert_eq(client_init(&c, p->admin, "secret", err), 0);
    int r = client_call(&c, &request, response, err);
    player_stop(p);
    return r;
}

static void expect_body(const char *const *pieces, int status, const char *body)
{
    struct err err = {{0}};
    struct client_response response;
    struct player p = {.pieces = pieces};
    cr_assert_eq(get(&p, &response, &err), 0, "%s", err.text);
    cr_expect_eq(response.status, status);
    cr_expect_str_eq(response.body, body);
    cr_expect_eq(response.len, strlen(body));
    client_response_fini(&response);
}

static void expect_failure(const char *const *pieces, const char *words)
{
    struct err err = {{0}};
    struct client_response response;
    struct player p = {.pieces = pieces};
    cr_assert_eq(get(&p, &response, &err), -1);
    cr_expect_not_null(strstr(err.text, words), "%s", err.text);
    cr_expect_null(response.body);
}

#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(client, takes_both_kinds_of_address)
{
    struct client c;
    struct err err;
    cr_assert_eq(client_init(&c, "unix:/run/gwp/admin.sock", NULL, &err), 0);
    cr_expect_str_eq(c.path, "/run/gwp/admin.sock");
    cr_assert_eq(client_init(&c, "http://localhost:9090", NULL, &err), 0);
    cr_expect_null(c.path);
    cr_expect_str_eq(c.host, "localhost");
    cr_expect_str_eq(c.port, "9090");
    cr_assert_eq(client_init(&c, "http://[::1]:9090/", NULL, &err), 0);
    cr_expect_str_eq(c.host, "::1");
}

Test(client, refuses_what_is_no_address)
{
    static const char *const bad[] = {
        "",
        "localhost:9090",
        "unix:",
        "http://",
        "http://x",
        "http://:80",
        "http://x:",
        "http://x:port",
        "http://x:123456",
        "http://x:80/api",
        "http://[::1",
        "http://[::1]",
        "https://x:9090",
        "http://[::1]9090",
    };
    struct client c;
    struct err err;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_expect_eq(client_init(&c, bad[i], NULL, &err), -1, "%s", bad[i]);
}

Test(client, token_cannot_add_fields)
{
    struct client c;
    struct err err;
    cr_expect_eq(client_init(&c, "unix:/x", "a\r\nHost: evil", &err), -1);
    cr_expect_eq(client_init(&c, "unix:/x", "", &err), 0);
    cr_expect_null(c.token);
}

Test(client, encodes_what_may_not_stand_in_a_query)
{
    char out[64], tight[5];
    cr_assert(client_encode(out, sizeof(out), "a b&c=/\xc3\xbc~.yaml"));
    cr_expect_str_eq(out, "a%20b%26c%3D%2F%C3%BC~.yaml");
    cr_expect(client_encode(tight, sizeof(tight), "ab"));
    cr_expect_not(client_encode(tight, sizeof(tight), "a&&"));
    cr_expect(client_encode(tight, sizeof(tight), ""));
    cr_expect_str_eq(tight, "");
}

Test(client, sends_one_request_with_its_token)
{
    struct err err;
    struct client_response response;
    struct player p = {.pieces = PIECES("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")};
    cr_assert_eq(get(&p, &response, &err), 0);
    client_response_fini(&response);
    cr_expect_eq(strncmp(p.heard, "GET /x HTTP/1.1\r\nHost: localhost\r\n", 34), 0, "%s", p.heard);
    cr_expect_not_null(strstr(p.heard, "\r\nAuthorization: Bearer secret\r\n"));
    cr_expect_not_null(strstr(p.heard, "\r\nConnection: close\r\n"));
}

Test(client, reads_a_body_with_its_length)
{
    expect_body(PIECES("HTTP/1.1 422 No\r\nContent-Length: 5\r\n\r\n", "he", "llo"), 422, "hello");
}

Test(client, reads_a_body_in_chunks)
{
    expect_body(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r",
                       "\n3\r\nllo", "\r\n0\r\n\r\n"),
                200, "hello");
}

Test(client, reads_a_body_that_ends_with_the_connection)
{
    expect_body(PIECES("HTTP/1.0 200 OK\r\n\r\nhello"), 200, "hello");
}

Test(client, passes_over_interim_responses)
{
    expect_body(
        PIECES("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        200, "ok");
}

Test(client, half_an_answer_is_none)
{
    expect_failure(PIECES("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"), "before its answer");
    expect_failure(PIECES("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
                   "before its answer");
    expect_failure(PIECES("HTTP/1.1 20"), "before its answer");
    expect_failure(PIECES(""), "before its answer");
}

Test(client, another_protocol_is_told_as_such)
{
    expect_failure(PIECES("SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP");
}

Test(client, announced_length_is_not_believed)
{
    expect_failure(PIECES("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx"),
                   "before its answer");
}

Test(client, silence_ends_with_the_deadline, .timeout = 10)
{
    struct client c;
    struct err err;
    struct client_response response;
    struct player p = {.stays_silent = true};
    const struct client_request request = {.method = "GET", .target = "/x", .timeout_ms = 200};
    player_start(&p);
    cr_assert_eq(client_init(&c, p.admin, NULL, &err), 0);
    cr_expect_eq(client_call(&c, &request, &response, &err), -1);
    cr_expect_not_null(strstr(err.text, "did not answer within"), "%s", err.text);
    player_stop(&p);
}

Test(client, absent_socket_is_told_with_advice)
{
    struct client c;
    struct err err;
    struct client_response response;
    const struct client_request request = {.method = "GET", .target = "/x", .timeout_ms = 200};
    cr_assert_eq(client_init(&c, "unix:/nowhere/admin.sock", NULL, &err), 0);
    cr_expect_eq(client_call(&c, &request, &response, &err), -1);
    cr_expect_str_eq(err.text, "the control plane is not listening on unix:/nowhere/admin.sock: is "
                               "gwp-controlplane running, and may you open that socket?");
}
