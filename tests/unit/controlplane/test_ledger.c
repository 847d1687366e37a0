#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "controlplane/ledger.h"

static char dir[] = "/tmp/gwp-ledger-XXXXXX";
static char path[64], aside[80];
static struct ledger ledger;

static void start(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/counters", dir);
    snprintf(aside, sizeof(aside), "%s.damaged", path);
    ledger_init(&ledger, dir);
}

static void stop(void)
{
    char command[128];
    ledger_fini(&ledger);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(ledger, .init = start, .fini = stop);

static void restart(void)
{
    ledger_fini(&ledger);
    ledger_init(&ledger, dir);
}

static uint64_t value(const char *name)
{
    return ledger_read(ledger_find(&ledger, name));
}

Test(ledger, counts_go_on_over_restarts)
{
    cr_assert_eq(value("checks/ok"), 0);
    ledger_add(ledger_find(&ledger, "checks/ok"), 5);
    ledger_add(ledger_find(&ledger, "checks"), UINT64_C(1) << 60);
    cr_assert_eq(ledger_find(&ledger, "checks/ok"), ledger_find(&ledger, "checks/ok"));
    restart();
    cr_assert_eq(value("lookups"), 0, "a new name among old ones");
    cr_assert_eq(value("checks/ok"), 5);
    cr_assert_eq(value("checks"), UINT64_C(1) << 60);
}

Test(ledger, kill_9_takes_no_count_back)
{
    int told[2];
    uint64_t seen = 0, next;
    cr_assert_eq(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct ledger own;
        ledger_init(&own, dir);
        ledger_count *c = ledger_find(&own, "n");
        for (;;) {
            ledger_add(c, 1);
            next = ledger_read(c);
            if (write(told[1], &next, sizeof(next)) != sizeof(next))
                _exit(1);
        }
    }
    close(told[1]);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(read(told[0], &seen, sizeof(seen)), sizeof(seen));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    while (read(told[0], &next, sizeof(next)) == sizeof(next))
        seen = next; /* what it had told before its end */
    close(told[0]);
    restart();
    cr_assert_geq(value("n"), seen);
    cr_assert_leq(value("n"), seen + 1);
}

static struct tally *row_of(const char *name)
{
    return CONTAINER_OF((uint64_t *)ledger_find(&ledger, name), struct tally, values);
}

Test(ledger, a_half_made_entry_is_made_anew)
{
    ledger_add(ledger_find(&ledger, "abc"), 7);
    row_of("abc")->bytes = 0; /* that is written last */
    restart();
    cr_assert_eq(value("a"), 0);
    cr_assert_eq(value("abc"), 0);
    restart();
    ledger_add(ledger_find(&ledger, "abc"), 1);
    cr_assert_eq(value("abc"), 1);
    cr_assert_eq(value("a"), 0);
}

Test(ledger, of_two_that_count_in_one_file_none_loses_anything)
{
    struct ledger other;
    ledger_add(ledger_find(&ledger, "both"), 1);
    ledger_init(&other, dir);
    ledger_add(ledger_find(&other, "theirs"), 10);
    ledger_add(ledger_find(&ledger, "ours"), 100);
    ledger_add(ledger_find(&other, "both"), 1);
    ledger_fini(&other);
    restart();
    cr_assert_eq(value("both"), 2);
    cr_assert_eq(value("theirs"), 10);
    cr_assert_eq(value("ours"), 100);
}

Test(ledger, a_file_that_is_none_is_put_aside)
{
    static const char *const texts[] = {"rubbish", "gwp-tlly and something else that is no row"};
    struct err err;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        unlink(aside);
        cr_assert_eq(files_write(path, view_of(texts[i]), &err), 0, "%s", err.text);
        restart();
        cr_assert_geq(ledger.tallies.fd, 0);
        cr_assert_eq(access(aside, F_OK), 0);
        ledger_add(ledger_find(&ledger, "x"), 3);
        restart();
        cr_assert_eq(value("x"), 3);
    }
}

Test(ledger, a_row_that_goes_beyond_its_end_makes_a_file_no_ledger)
{
    row_of("x")->key_len = 60000;
    restart();
    cr_assert_eq(access(aside, F_OK), 0);
    cr_assert_eq(value("x"), 0);
}

Test(ledger, where_no_file_can_be_had_it_counts_in_memory)
{
    struct ledger other;
    ledger_init(&other, "/dev/null/directory");
    ledger_add(ledger_find(&other, "x"), 3);
    cr_assert_eq(ledger_read(ledger_find(&other, "x")), 3);
    ledger_fini(&other);
    ledger_init(&other, NULL);
    cr_assert_eq(ledger_read(ledger_find(&other, "x")), 0);
    ledger_fini(&other);
}

Test(ledger, what_there_is_no_room_for_harms_nobody)
{
    const struct rlimit full = {256 * 1024, 256 * 1024};
    char name[16];
    int fit = 0;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    for (ledger_count *c; fit < 20000; fit++) {
        snprintf(name, sizeof(name), "n%d", fit);
        c = ledger_find(&ledger, name);
        ledger_add(c, (uint64_t)fit);
        if (c == &ledger.overflow)
            break;
    }
    cr_assert(fit > 1000 && fit < 20000);
    ledger_add(ledger_find(&ledger, "another"), 1000);
    for (int i = 0; i < fit; i += 97) {
        snprintf(name, sizeof(name), "n%d", i);
        cr_assert_eq(value(name), (uint64_t)i);
    }
}
