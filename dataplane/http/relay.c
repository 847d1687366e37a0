#include "dataplane/http/relay.h"

#include <string.h>

void relay_reset(struct relay *r, struct buffer_stock *stock)
{
    buffer_give(stock, &r->rest);
    buffer_give(stock, &r->tail);
    memset(r, 0, sizeof(*r));
}

void relay_put_head(struct relay *r, const char *head, size_t len)
{
    r->head = head;
    r->head_len = (uint32_t)len;
    r->head_sent = 0;
}

static uint8_t format_size(char *out, uint32_t n)
{
    static const char digits[] = "0123456789abcdef";
    char text[8];
    int i = 8;
    do {
        text[--i] = digits[n & 15];
        n >>= 4;
    } while (n > 0);
    memcpy(out, text + i, (size_t)(8 - i));
    out[8 - i] = '\r';
    out[9 - i] = '\n';
    return (uint8_t)(10 - i);
}

void relay_put_piece(struct relay *r, uint32_t at, uint32_t len, bool last)
{
    r->piece_at = at;
    r->piece_len = len;
    r->prefix_len = r->prefix_sent = r->suffix_len = r->suffix_sent = 0;
    if (!r->chunked)
        return;
    if (len > 0) {
        r->prefix_len = format_size(r->prefix, len);
        memcpy(r->suffix, "\r\n", 2);
        r->suffix_len = 2;
    }
    if (last) {
        memcpy(r->suffix + r->suffix_len, "0\r\n\r\n", 5);
        r->suffix_len += 5;
    }
}

void relay_put_trailers(struct relay *r, const char *lines, size_t len, struct buffer_stock *stock)
{
    if (!r->chunked || len == 0)
        return;
    r->suffix_len -= 2; /* the CRLF that ends an empty trailer section */
    r->tail = buffer_take(stock, (uint32_t)len + 2);
    memcpy(r->tail->data, lines, len);
    memcpy(r->tail->data + len, "\r\n", 2);
    r->tail->used = (uint32_t)len + 2;
    r->tail_sent = 0;
}

static int gather(const struct relay *r, const struct buffer *source, struct iovec iov[5])
{
    int n = 0;
    if (r->head_sent < r->head_len)
        iov[n++] = (struct iovec){(char *)r->head + r->head_sent, r->head_len - r->head_sent};
    if (r->prefix_sent < r->prefix_len)
        iov[n++] = (struct iovec){(char *)r->prefix + r->prefix_sent,
                                  (size_t)(r->prefix_len - r->prefix_sent)};
    if (r->piece_len > 0)
        iov[n++] = (struct iovec){(char *)source->data + r->piece_at, r->piece_len};
    if (r->suffix_sent < r->suffix_len)
        iov[n++] = (struct iovec){(char *)r->suffix + r->suffix_sent,
                                  (size_t)(r->suffix_len - r->suffix_sent)};
    if (r->tail)
        iov[n++] = (struct iovec){r->tail->data + r->tail_sent, r->tail->used - r->tail_sent};
    return n;
}

static size_t step(size_t *sent, size_t left)
{
    size_t n = MIN(*sent, left);
    *sent -= n;
    return n;
}

static void account(struct relay *r, size_t sent)
{
    r->sent_bytes += sent;
    r->head_sent += (uint32_t)step(&sent, r->head_len - r->head_sent);
    if (sent == 0)
        return;
    r->prefix_sent += (uint8_t)step(&sent, (size_t)(r->prefix_len - r->prefix_sent));
    uint32_t piece = (uint32_t)step(&sent, r->piece_len);
    r->piece_at += piece;
    r->piece_len -= piece;
    r->suffix_sent += (uint8_t)step(&sent, (size_t)(r->suffix_len - r->suffix_sent));
    r->tail_sent += (uint32_t)sent;
}

/* The head was written into the worker's scratch, which the next exchange will use: what is left of
 * it moves. */
static void keep_head(struct relay *r, struct buffer_stock *stock)
{
    uint32_t left = r->head_len - r->head_sent;
    if (left == 0 || r->rest)
        return;
    r->rest = buffer_take(stock, left);
    memcpy(r->rest->data, r->head + r->head_sent, left);
    r->head = r->rest->data;
    r->head_len = left;
    r->head_sent = 0;
}

enum io_status relay_flush(struct relay *r, struct transport *to, const struct buffer *source,
                           struct buffer_stock *stock)
{
    struct iovec iov[5];
    int count;
    while ((count = gather(r, source, iov)) > 0) {
        size_t sent;
        enum io_status status = transport_write(to, iov, count, r->ends, &sent);
        account(r, sent);
        if (r->tail && r->tail_sent == r->tail->used)
            buffer_give(stock, &r->tail);
        if (status != IO_OK) {
            keep_head(r, stock);
            return status;
        }
    }
    buffer_give(stock, &r->rest);
    return IO_OK;
}
