#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/report/log_writer.h"
#include "wait.h"

static char dir[] = "/tmp/gwp-log-XXXXXX";
static char path[64], moved[64];
static struct log_writer *writer;
static struct err err;

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/access.log", dir);
    snprintf(moved, sizeof(moved), "%s/access.log.1", dir);
    writer = log_writer_start(2);
}

static void teardown(void)
{
    log_writer_stop(&writer);
    unlink(path);
    unlink(moved);
    rmdir(dir);
}

TestSuite(log_writer, .init = setup, .fini = teardown);

static void set_sink(const char *sink)
{
    cr_assert_eq(log_writer_set_sink(writer, sink, &err), 0, "%s", err.text);
}

static bool put(unsigned worker, const char *line)
{
    size_t len = strlen(line);
    struct log_ring *r = log_writer_ring(writer, worker);
    char *room = log_ring_reserve(r, len);
    if (!room)
        return false;
    memcpy(room, line, len);
    log_ring_commit(r, len);
    return true;
}

static off_t size_of(const char *file)
{
    struct stat st;
    return stat(file, &st) == 0 ? st.st_size : -1;
}

static bool contains(const char *file, const char *words)
{
    char text[4096];
    int fd = open(file, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));
    if (fd >= 0)
        close(fd);
    return n > 0 && memmem(text, (size_t)n, words, strlen(words));
}

Test(log_writer, lines_of_all_workers_arrive)
{
    cr_assert(log_ring_is_off(log_writer_ring(writer, 0)));
    set_sink(path);
    cr_assert_not(log_ring_is_off(log_writer_ring(writer, 0)));
    put(0, "one\n");
    put(1, "two\n");
    WAIT_UNTIL(contains(path, "one\n") && contains(path, "two\n"));
    put(0, "three, after a silence\n");
    WAIT_UNTIL(contains(path, "three, after a silence\n"));
}

Test(log_writer, what_is_there_at_the_end_is_written)
{
    set_sink(path);
    put(0, "last words\n");
    log_writer_stop(&writer);
    cr_assert(contains(path, "last words\n"));
}

Test(log_writer, a_reservation_without_a_line_leaves_no_trace)
{
    set_sink(path);
    struct log_ring *r = log_writer_ring(writer, 0);
    cr_assert(log_ring_reserve(r, 100));
    log_ring_commit(r, 0);
    put(0, "line\n");
    WAIT_UNTIL(size_of(path) == 5);
}

struct flood {
    unsigned worker, lines, put;
};

static void *flood(void *arg)
{
    struct flood *f = arg;
    char line[700];
    for (unsigned i = 0; i < f->lines; i++) {
        size_t pad = i * 37 % 600;
        int n = snprintf(line, sizeof(line), "%u %u %zu ", f->worker, i, pad);
        memset(line + n, 'a' + (int)(i % 26), pad);
        memcpy(line + n + pad, "\n", 2);
        if (put(f->worker, line))
            f->put++;
        else
            sched_yield();
    }
    return NULL;
}

/* Every line must be whole and each worker's in order. */
static unsigned check_lines(FILE *f)
{
    char line[1024];
    unsigned count = 0, worker, number, next[2] = {0, 0};
    size_t pad;
    int start;
    while (fgets(line, sizeof(line), f)) {
        cr_assert_eq(sscanf(line, "%u %u %zu%n", &worker, &number, &pad, &start), 3, "%s", line);
        cr_assert_lt(worker, 2);
        cr_assert_geq(number, next[worker]);
        cr_assert_eq(strlen(line), (size_t)start + 1 + pad + 1, "%s", line);
        next[worker] = number + 1;
        count++;
    }
    return count;
}

Test(log_writer, many_laps_of_the_ring_keep_lines_whole_and_in_order)
{
    struct flood floods[2] = {{.worker = 0, .lines = 60000}, {.worker = 1, .lines = 60000}};
    pthread_t threads[2];
    set_sink(path);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, flood, &floods[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    log_writer_stop(&writer);
    FILE *f = fopen(path, "r");
    cr_assert_eq(check_lines(f), floods[0].put + floods[1].put);
    cr_assert_gt(floods[0].put, 1000);
    fclose(f);
}

Test(log_writer, a_stalled_sink_fills_the_ring_and_blocks_nobody)
{
    int ends[2];
    char line[1001], text[32];
    memset(line, 'x', 999);
    memcpy(line + 999, "\n", 2);
    cr_assert_eq(pipe(ends), 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d", ends[1]);
    set_sink(text);
    unsigned put_lines = 0, dropped = 0;
    for (unsigned i = 0; i < 2000; i++)
        put(0, line) ? put_lines++ : dropped++;
    cr_assert(dropped > 0 && put_lines >= 1000, "%u, %u", put_lines, dropped);

    /* Once it is read again, what was kept comes, and there is room again. */
    static char sink[65536];
    size_t got = 0;
    while (got < (size_t)put_lines * 1000) {
        ssize_t n = read(ends[0], sink, sizeof(sink));
        cr_assert_gt(n, 0);
        got += (size_t)n;
    }
    WAIT_UNTIL(put(0, "more\n"));
    close(ends[0]);
    close(ends[1]);
}

Test(log_writer, a_stalled_sink_does_not_keep_the_program_from_ending)
{
    int ends[2];
    char text[32], line[1001];
    memset(line, 'x', 999);
    memcpy(line + 999, "\n", 2);
    cr_assert_eq(pipe(ends), 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d", ends[1]);
    set_sink(text);
    for (unsigned i = 0; i < 500; i++)
        put(0, line);
    time_t start = time(NULL);
    log_writer_stop(&writer);
    cr_assert_leq(time(NULL) - start, 5);
    close(ends[0]);
    close(ends[1]);
}

Test(log_writer, a_stalled_sink_can_be_replaced)
{
    int ends[2];
    char text[32], line[1001];
    memset(line, 'x', 999);
    memcpy(line + 999, "\n", 2);
    cr_assert_eq(pipe(ends), 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d", ends[1]);
    set_sink(text);
    for (unsigned i = 0; i < 200; i++)
        put(0, line);
    set_sink(path);
    put(0, "to the file\n");
    WAIT_UNTIL(size_of(path) >= 12);
    close(ends[0]);
    close(ends[1]);
}

Test(log_writer, a_sink_that_goes_away_is_waited_for)
{
    int ends[2];
    char text[32];
    cr_assert_eq(pipe(ends), 0);
    snprintf(text, sizeof(text), "/proc/self/fd/%d", ends[1]);
    set_sink(text);
    close(ends[0]);
    close(ends[1]);
    put(0, "kept\n");
    set_sink(path);
    WAIT_UNTIL(contains(path, "kept\n"));
}

Test(log_writer, a_sink_that_cannot_be_opened_leaves_the_old_one)
{
    set_sink(path);
    cr_assert_eq(log_writer_set_sink(writer, "/nowhere/access.log", &err), -1);
    cr_assert(strstr(err.text, "/nowhere/access.log"), "%s", err.text);
    put(0, "still here\n");
    WAIT_UNTIL(contains(path, "still here\n"));
}

Test(log_writer, off_means_off)
{
    set_sink(path);
    put(0, "on\n");
    WAIT_UNTIL(contains(path, "on\n"));
    put(0, "just before\n");
    set_sink("off");
    cr_assert(log_ring_is_off(log_writer_ring(writer, 1)));
    put(0, "late\n");
    log_writer_stop(&writer);
    cr_assert(contains(path, "just before\n"),
              "what was logged before goes where it was meant to go");
}

Test(log_writer, reopening_follows_the_name)
{
    set_sink(path);
    put(0, "before\n");
    WAIT_UNTIL(contains(path, "before\n"));
    cr_assert_eq(rename(path, moved), 0);
    log_writer_reopen(writer);
    WAIT_UNTIL(size_of(path) == 0);
    put(0, "after\n");
    WAIT_UNTIL(contains(path, "after\n"));
    cr_assert(contains(moved, "before\n") && !contains(moved, "after\n"));
}

Test(log_writer, a_file_that_was_rotated_away_is_noticed)
{
    set_sink(path);
    put(0, "before\n");
    WAIT_UNTIL(contains(path, "before\n"));
    cr_assert_eq(rename(path, moved), 0);
    WAIT_UNTIL(put(0, "x\n") && size_of(path) >= 0);
}
