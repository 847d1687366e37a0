#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/http/relay.h"

static struct buffer_stock stock;
static struct relay relay;
static struct transport to;
static struct buffer *source;
static int far_end;
static char received[400000];
static size_t received_len;

static void on_ready(struct transport *t, int events)
{
}

static void start(bool chunked, const char *body)
{
    int pair[2], small = 4096;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    transport_init(&to, pair[0], on_ready);
    far_end = pair[1];
    buffer_stock_init(&stock);
    relay_reset(&relay, &stock);
    relay.chunked = chunked;
    source = buffer_take(&stock, (uint32_t)strlen(body));
    memcpy(source->data, body, strlen(body));
    received_len = 0;
}

static void stop(void)
{
    close(to.io.fd);
    close(far_end);
    relay_reset(&relay, &stock);
    buffer_give(&stock, &source);
    buffer_stock_fini(&stock);
}

static void receive(void)
{
    ssize_t n;
    while ((n = read(far_end, received + received_len, sizeof(received) - received_len)) > 0)
        received_len += (size_t)n;
}

static void expect(const char *text)
{
    receive();
    cr_assert(received_len == strlen(text) && memcmp(received, text, received_len) == 0, "%.*s",
              (int)received_len, received);
    stop();
}

Test(relay, head_and_body_go_as_they_are_with_a_length)
{
    start(false, "hello");
    relay_put_head(&relay, "head;", 5);
    relay_put_piece(&relay, 0, 5, true);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_OK);
    cr_assert(relay_is_empty(&relay));
    expect("head;hello");
}

Test(relay, pieces_become_chunks)
{
    start(true, "hello world, hello world");
    relay_put_head(&relay, "head;", 5);
    relay_put_piece(&relay, 0, 24, false);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_OK);
    relay_put_piece(&relay, 6, 5, true);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_OK);
    expect("head;18\r\nhello world, hello world\r\n5\r\nworld\r\n0\r\n\r\n");
}

Test(relay, an_empty_piece_is_no_chunk_unless_it_is_the_last)
{
    start(true, "");
    relay_put_piece(&relay, 0, 0, false);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_OK);
    relay_put_piece(&relay, 0, 0, true);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_OK);
    expect("0\r\n\r\n");
}

Test(relay, what_the_socket_refuses_is_sent_later_and_the_head_is_kept)
{
    static char head[100000], body[200000];
    memset(head, 'h', sizeof(head));
    memset(body, 'b', sizeof(body) - 1);
    start(true, body);
    relay_put_head(&relay, head, sizeof(head));
    relay_put_piece(&relay, 0, sizeof(body) - 1, true);
    enum io_status status = relay_flush(&relay, &to, source, &stock);
    cr_assert_eq(status, IO_AGAIN);
    memset(head, 'x', sizeof(head)); /* the scratch is used by somebody else meanwhile */
    while (status == IO_AGAIN) {
        receive();
        status = relay_flush(&relay, &to, source, &stock);
    }
    receive();
    cr_assert_eq(status, IO_OK);
    cr_assert_eq(received_len, sizeof(head) + 7 + sizeof(body) - 1 + 7);
    for (size_t i = 0; i < sizeof(head); i++)
        cr_assert_eq(received[i], 'h');
    cr_assert_eq(memcmp(received + sizeof(head), "30d3f\r\nbbb", 10), 0);
    stop();
}

Test(relay, a_gone_peer_is_an_error)
{
    start(false, "hello");
    close(far_end);
    far_end = open("/dev/null", O_RDONLY | O_CLOEXEC);
    relay_put_piece(&relay, 0, 5, true);
    cr_assert_eq(relay_flush(&relay, &to, source, &stock), IO_ERROR);
    stop();
}
