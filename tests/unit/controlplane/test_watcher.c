#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/config/watcher.h"
#include "tests/unit/controlplane/loop.h"

static char dir[] = "/tmp/gwp-watcher-XXXXXX";
static char file[64];
static struct ev_loop *loop;
static struct watcher watcher;
static unsigned told;

static void on_changed(void *owner)
{
    told++;
}

static const char *in_dir(const char *name)
{
    static char path[2][128];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void start(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/gateway.yaml", dir);
    loop = ev_loop_new(0);
}

static void stop(void)
{
    char command[128];
    watcher_fini(&watcher);
    ev_loop_destroy(loop);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(watcher, .init = start, .fini = stop);

Test(watcher, tells_of_a_write_in_place)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    write_file(file, "b");
    LOOP_UNTIL(loop, told == 1);
}

Test(watcher, tells_of_a_file_renamed_over_it)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    write_file(in_dir("new"), "b");
    cr_assert_eq(rename(in_dir("new"), file), 0);
    LOOP_UNTIL(loop, told == 1);
}

Test(watcher, tells_of_a_file_that_was_away)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    unlink(file);
    ev_run(loop, EVRUN_NOWAIT);
    cr_expect_eq(told, 0);
    write_file(file, "b");
    LOOP_UNTIL(loop, told == 1);
}

Test(watcher, tells_of_a_symlink_swapped_on_the_way)
{
    cr_assert_eq(mkdir(in_dir("one"), 0755), 0);
    cr_assert_eq(mkdir(in_dir("two"), 0755), 0);
    write_file(in_dir("one/gateway.yaml"), "a");
    write_file(in_dir("two/gateway.yaml"), "b");
    cr_assert_eq(symlink("one", in_dir("..data")), 0);
    cr_assert_eq(symlink("..data/gateway.yaml", file), 0);
    watcher_init(&watcher, loop, file, on_changed, NULL);
    cr_assert_eq(symlink("two", in_dir("..data_tmp")), 0);
    cr_assert_eq(rename(in_dir("..data_tmp"), in_dir("..data")), 0);
    LOOP_UNTIL(loop, told == 1);
}

/* Long before the slow look. */
Test(watcher, what_a_symlink_leads_to_is_watched_where_it_is)
{
    cr_assert_eq(mkdir(in_dir("etc"), 0755), 0);
    cr_assert_eq(mkdir(in_dir("store"), 0755), 0);
    write_file(in_dir("store/one"), "a");
    write_file(in_dir("store/two"), "other");
    cr_assert_eq(symlink("../store/one", in_dir("etc/gateway.yaml")), 0);
    watcher_init(&watcher, loop, in_dir("etc/gateway.yaml"), on_changed, NULL);
    ev_timer_stop(loop, &watcher.poll);
    write_file(in_dir("store/one"), "longer");
    LOOP_UNTIL(loop, told == 1);
    cr_assert_eq(rename(in_dir("store/two"), in_dir("store/one")), 0);
    LOOP_UNTIL(loop, told == 2);
    cr_assert_eq(mkdir(in_dir("next"), 0755), 0);
    write_file(in_dir("next/three"), "more");
    cr_assert_eq(symlink("../next/three", in_dir("etc/new")), 0);
    cr_assert_eq(rename(in_dir("etc/new"), in_dir("etc/gateway.yaml")), 0);
    LOOP_UNTIL(loop, told == 3);
    write_file(in_dir("next/three"), "much more");
    LOOP_UNTIL(loop, told == 4);
    cr_expect(watcher.directory_watch >= 0 && watcher.target_watch >= 0);
}

Test(watcher, many_writes_are_told_once)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    for (int i = 0; i < 20; i++)
        write_file(file, "some more");
    LOOP_UNTIL(loop, told > 0);
    LOOP_UNTIL(loop, !ev_is_active(&watcher.settle));
    cr_expect_eq(told, 1);
}

Test(watcher, other_files_are_none_of_its_business)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    write_file(in_dir("gateway.log"), "line");
    write_file(in_dir("last"), "line");
    while (ev_run(loop, EVRUN_NOWAIT), ev_pending_count(loop) > 0)
        ;
    cr_expect_not(ev_is_active(&watcher.settle));
    cr_expect_eq(told, 0);
}

Test(watcher, a_directory_that_is_replaced_is_found_again)
{
    char inner[96];
    cr_assert_eq(mkdir(in_dir("etc"), 0755), 0);
    snprintf(inner, sizeof(inner), "%s/etc/gateway.yaml", dir);
    write_file(inner, "a");
    watcher_init(&watcher, loop, inner, on_changed, NULL);
    cr_assert_eq(rename(in_dir("etc"), in_dir("old")), 0);
    cr_assert_eq(mkdir(in_dir("etc"), 0755), 0);
    write_file(inner, "other");
    LOOP_UNTIL(loop, told == 1);
}

Test(watcher, who_never_stops_writing_is_read_all_the_same)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    double end = ev_time() + 5;
    for (unsigned i = 0; told == 0; i++) {
        cr_assert_lt(ev_time(), end);
        write_file(file, i % 2 ? "b" : "cc");
        ev_run(loop, EVRUN_NOWAIT);
    }
}

/* Its first half may be a valid configuration. */
Test(watcher, who_fills_the_file_for_long_is_waited_for)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    int fd = open(file, O_WRONLY | O_TRUNC);
    double end = ev_time() + 2.5 * WATCHER_POLL_SECONDS;
    while (ev_time() < end) {
        cr_assert_eq(write(fd, "line", 4), 4);
        ev_run(loop, EVRUN_NOWAIT);
        usleep(50000);
    }
    cr_expect_eq(told, 0);
    close(fd);
    LOOP_UNTIL(loop, told == 1);
}

/* What inotify does not tell, as of other hosts on a network file system. */
Test(watcher, a_time_that_changes_by_itself_is_seen_by_the_slow_look)
{
    write_file(file, "a");
    watcher_init(&watcher, loop, file, on_changed, NULL);
    ev_io_stop(loop, &watcher.events);
    const struct timespec times[2] = {{1, 0}, {1, 0}};
    cr_assert_eq(utimensat(AT_FDCWD, file, times, 0), 0);
    LOOP_UNTIL(loop, told == 1);
}
