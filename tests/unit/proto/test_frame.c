#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/frame.h"

#define TYPE_SMALL 7
#define TYPE_LARGE 8
#define LARGE_BYTES (1024 * 1024)

static int ends[2]; /* written to, read from */
static struct frame_reader reader;
static struct frame_writer writer;

static uint32_t bound_of(uint16_t type)
{
    return type == TYPE_SMALL ? 64 : type == TYPE_LARGE ? LARGE_BYTES : 0;
}

static void start(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    frame_reader_init(&reader, bound_of);
    frame_writer_init(&writer);
}

static void stop(void)
{
    frame_reader_fini(&reader);
    frame_writer_fini(&writer);
    close(ends[0]);
    close(ends[1]);
}

TestSuite(frame, .init = start, .fini = stop);

static void put(const void *bytes, size_t len)
{
    cr_assert_eq(send(ends[0], bytes, len, 0), (ssize_t)len);
}

static enum frame_status get(struct frame *f, struct err *err)
{
    return frame_read(&reader, ends[1], f, err);
}

static void append(uint16_t type, const char *text, const int *fds, unsigned fd_count)
{
    uint8_t *room = frame_append(&writer, type, (uint32_t)strlen(text), fds, fd_count);
    cr_assert(room);
    memcpy(room, text, strlen(text));
}

static void flush(void)
{
    struct err err;
    cr_assert_eq(frame_write(&writer, ends[0], &err), FRAME_READY);
}

static void expect_broken(const void *bytes, size_t len, const char *words)
{
    struct frame f;
    struct err err;
    put(bytes, len);
    cr_assert_eq(get(&f, &err), FRAME_BROKEN);
    cr_expect(strstr(err.text, words), "%s", err.text);
}

Test(frame, arrives_whole_however_it_is_split)
{
    static const uint8_t bytes[] = {0, 0, 0, 5, 0, TYPE_SMALL, 0, 0, 'h', 'e', 'l', 'l', 'o'};
    struct frame f;
    struct err err;
    for (size_t cut = 1; cut < sizeof(bytes); cut++) {
        put(bytes, cut);
        cr_assert_eq(get(&f, &err), FRAME_AGAIN);
        put(bytes + cut, sizeof(bytes) - cut);
        cr_assert_eq(get(&f, &err), FRAME_READY);
        cr_expect_eq(f.type, TYPE_SMALL);
        cr_expect_eq(f.len, 5);
        cr_expect_arr_eq(f.payload, "hello", 5);
    }
}

Test(frame, arrives_byte_by_byte)
{
    static const uint8_t bytes[] = {0, 0, 0, 2, 0, TYPE_SMALL, 0, 0, 'h', 'i'};
    struct frame f;
    struct err err;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        put(&bytes[i], 1);
        cr_assert_eq(get(&f, &err), i + 1 < sizeof(bytes) ? FRAME_AGAIN : FRAME_READY);
    }
    cr_expect_arr_eq(f.payload, "hi", 2);
}

Test(frame, several_in_one_piece_come_one_by_one)
{
    struct frame f;
    struct err err;
    append(TYPE_SMALL, "one", NULL, 0);
    append(TYPE_SMALL, "", NULL, 0);
    append(TYPE_LARGE, "three", NULL, 0);
    flush();
    cr_expect_eq(writer.queued_bytes, 0);
    cr_expect_not(frame_is_buffered(&reader));
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_expect_arr_eq(f.payload, "one", 3);
    cr_expect(frame_is_buffered(&reader));
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_expect_eq(f.len, 0);
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_expect_eq(f.type, TYPE_LARGE);
    cr_expect_not(frame_is_buffered(&reader));
    cr_expect_eq(get(&f, &err), FRAME_AGAIN);
}

Test(frame, the_largest_one_passes_through_a_small_socket)
{
    struct frame f;
    struct err err;
    uint8_t *room = frame_append(&writer, TYPE_LARGE, LARGE_BYTES, NULL, 0);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        room[i] = (uint8_t)(i * 31);
    enum frame_status sent, got;
    do {
        sent = frame_write(&writer, ends[0], &err);
        got = get(&f, &err);
        cr_assert(sent == FRAME_READY || sent == FRAME_AGAIN);
        cr_assert(got == FRAME_READY || got == FRAME_AGAIN);
    } while (got != FRAME_READY);
    cr_expect_eq(f.len, LARGE_BYTES);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        cr_assert_eq(f.payload[i], (uint8_t)(i * 31));
}

Test(frame, more_than_the_bound_is_refused_before_memory_is_taken)
{
    expect_broken((uint8_t[]){0, 0, 0, 65, 0, TYPE_SMALL, 0, 0}, 8, "more than the 64 allowed");
    cr_expect_leq(reader.size, 8192);
}

Test(frame, a_head_that_promises_much_costs_little)
{
    struct frame f;
    struct err err;
    put((uint8_t[]){0, 15, 0, 0, 0, TYPE_LARGE, 0, 0}, 8);
    cr_assert_eq(get(&f, &err), FRAME_AGAIN);
    cr_assert_eq(get(&f, &err), FRAME_AGAIN);
    cr_expect_leq(reader.size, 8192);
}

Test(frame, an_unknown_type_is_refused)
{
    expect_broken((uint8_t[]){0, 0, 0, 0, 0x12, 0x34, 0, 0}, 8, "unknown type 4660");
}

Test(frame, a_malformed_head_is_refused)
{
    expect_broken((uint8_t[]){0, 0, 0, 0, 0, TYPE_SMALL, 0, 1}, 8, "malformed");
}

Test(frame, too_many_descriptors_are_refused)
{
    expect_broken((uint8_t[]){0, 0, 0, 0, 0, TYPE_SMALL, FRAME_MAX_FDS + 1, 0}, 8, "malformed");
}

Test(frame, descriptors_that_were_promised_must_be_there)
{
    expect_broken((uint8_t[]){0, 0, 0, 0, 0, TYPE_SMALL, 1, 0}, 8,
                  "announced 1 descriptors and brought 0");
}

Test(frame, an_end_between_frames_is_no_fault)
{
    struct frame f;
    struct err err;
    append(TYPE_SMALL, "bye", NULL, 0);
    flush();
    shutdown(ends[0], SHUT_WR);
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_expect_eq(get(&f, &err), FRAME_CLOSED);
}

Test(frame, an_end_in_the_middle_is_a_fault)
{
    struct frame f;
    struct err err;
    put((uint8_t[]){0, 0, 0, 5, 0, TYPE_SMALL, 0, 0, 'h'}, 9);
    shutdown(ends[0], SHUT_WR);
    cr_assert_eq(get(&f, &err), FRAME_AGAIN);
    cr_assert_eq(get(&f, &err), FRAME_BROKEN);
    cr_expect(strstr(err.text, "in the middle of a frame"));
}

static char first_byte_of(int fd)
{
    char byte = 0;
    cr_assert_eq(pread(fd, &byte, 1, 0), 1);
    return byte;
}

static int file_with(char byte)
{
    char path[] = "/tmp/gwp-frame-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    cr_assert_eq(write(fd, &byte, 1), 1);
    return fd;
}

Test(frame, descriptors_arrive_with_their_own_frame)
{
    struct frame f;
    struct err err;
    int a = file_with('a'), b = file_with('b'), c = file_with('c');
    append(TYPE_SMALL, "none", NULL, 0);
    append(TYPE_SMALL, "two", (int[]){a, b}, 2);
    append(TYPE_SMALL, "one", (int[]){c}, 1);
    close(a);
    close(b);
    close(c);
    flush();
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_expect_eq(f.fd_count, 0);
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_assert_eq(f.fd_count, 2);
    cr_expect_eq(first_byte_of(f.fds[0]), 'a');
    cr_expect_eq(first_byte_of(f.fds[1]), 'b');
    cr_expect(fcntl(f.fds[0], F_GETFD) & FD_CLOEXEC);
    close(f.fds[0]);
    close(f.fds[1]);
    cr_assert_eq(get(&f, &err), FRAME_READY);
    cr_assert_eq(f.fd_count, 1);
    cr_expect_eq(first_byte_of(f.fds[0]), 'c');
    close(f.fds[0]);
}

Test(frame, a_descriptor_that_is_none_is_not_queued)
{
    cr_expect_null(frame_append(&writer, TYPE_SMALL, 0, (int[]){-1}, 1));
    cr_expect_null(writer.first);
}

Test(frame, a_peer_that_is_gone_is_told)
{
    struct err err;
    append(TYPE_SMALL, "hello", NULL, 0);
    close(ends[1]);
    cr_expect_eq(frame_write(&writer, ends[0], &err), FRAME_CLOSED);
    ends[1] = dup(ends[0]);
}
