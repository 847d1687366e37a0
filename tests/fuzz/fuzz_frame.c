/* fuzz_frame: the size of the pieces, then bytes as the other program of the pair might send them.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "proto/frame.h"

#define MAX_INPUT_BYTES 8192 /* fits a socket's buffer, so that nobody waits */

static uint32_t bound_of(uint16_t type)
{
    return type == 0 || type > 20 ? 0 : 1u << type;
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The next frame by the format's definition: its size with the head, 0 when it is not complete, -1
 * when it is none. */
static long frame_at(const uint8_t *p, size_t len)
{
    if (len < FRAME_HEAD_BYTES)
        return 0;
    uint32_t payload = get_u32(p);
    unsigned type = (unsigned)p[4] << 8 | p[5];
    if (bound_of((uint16_t)type) == 0 || payload > bound_of((uint16_t)type) ||
        p[6] > FRAME_MAX_FDS || p[7] != 0)
        return -1;
    if (len < FRAME_HEAD_BYTES + (size_t)payload)
        return 0;
    return p[6] > 0 ? -1 : (long)(FRAME_HEAD_BYTES + payload); /* no descriptor ever comes here */
}

/* Reads frames until the socket is empty; false when the session is over. */
static bool drain(struct frame_reader *r, int fd, const uint8_t *bytes, size_t sent, size_t *at,
                  enum frame_status *last)
{
    struct err err;
    struct frame f;
    while ((*last = frame_read(r, fd, &f, &err)) == FRAME_READY) {
        long size = frame_at(bytes + *at, sent - *at);
        PROMISE(size > 0 && f.len == (size_t)size - FRAME_HEAD_BYTES && f.fd_count == 0);
        PROMISE(memcmp(f.payload, bytes + *at + FRAME_HEAD_BYTES, f.len) == 0);
        *at += (size_t)size;
        PROMISE(r->size <= 2 * sent + 8192); /* memory follows what came, not what was promised */
    }
    return *last == FRAME_AGAIN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > MAX_INPUT_BYTES)
        return 0;
    size_t step = data[0] ? data[0] : MAX_INPUT_BYTES, sent = 0, at = 0;
    const uint8_t *bytes = data + 1;
    struct frame_reader reader;
    enum frame_status last = FRAME_AGAIN;
    int ends[2];
    bool open = true;
    size--;
    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    frame_reader_init(&reader, bound_of);
    while (open && sent < size) {
        ssize_t n = write(ends[0], bytes + sent, MIN(step, size - sent));
        PROMISE(n > 0);
        sent += (size_t)n;
        /* A read may leave bytes behind, so it is asked again until there are none. */
        for (size_t before = SIZE_MAX; open && before != reader.used - reader.taken + at;) {
            before = reader.used - reader.taken + at;
            open = drain(&reader, ends[1], bytes, sent, &at, &last);
        }
    }
    close(ends[0]);
    while (open)
        open = drain(&reader, ends[1], bytes, sent, &at, &last);
    long next = frame_at(bytes + at, sent - at);
    PROMISE(next <= 0);
    PROMISE(last == (next == 0 && at == sent ? FRAME_CLOSED : FRAME_BROKEN));
    close(ends[1]);
    frame_reader_fini(&reader);
    return 0;
}
