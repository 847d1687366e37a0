#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/history.h"
#include "proto/base/log.h"

static char dir[] = "/tmp/gwp-history-XXXXXX";
static struct history h;

static void make_dir(void)
{
    cr_assert(mkdtemp(dir));
    log_set(LOG_ERROR, LOG_CONSOLE); /* warnings of damage are what is tested */
}

static void remove_dir(void)
{
    char command[128];
    snprintf(command, sizeof(command), "chmod -R u+w %s; rm -rf %s", dir, dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(history, .init = make_dir, .fini = remove_dir);

static void reopen(void)
{
    history_close(&h);
    history_open(&h, dir);
}

static void add(uint64_t number, const char *text)
{
    struct history_entry e = {.number = number,
                              .time_ms = 1000 * number,
                              .origin = ORIGIN_PUSH,
                              .user = "anna",
                              .message = "so \"it\" goes",
                              .source = "g.yaml"};
    struct err err;
    cr_assert_eq(history_add(&h, &e, view_of(text), &err), 0, "%s", err.text);
}

static void path_of(uint64_t number, char out[128])
{
    snprintf(out, 128, "%s/generations/%020llu.yaml", dir, (unsigned long long)number);
}

static char *text_of(uint64_t number)
{
    struct err err;
    const struct history_entry *e = history_find(&h, number);
    return e ? history_read(&h, e, &err) : NULL;
}

Test(history, entries_are_there_again_after_a_restart)
{
    history_open(&h, dir);
    add(3, "routes: []\n");
    add(7, "# two\nroutes: []\n");
    reopen();
    cr_assert_eq(h.count, 2);
    const struct history_entry *e = history_newest(&h);
    cr_expect_eq(e->number, 7);
    cr_expect_eq(e->time_ms, 7000);
    cr_expect_eq(e->origin, ORIGIN_PUSH);
    cr_expect_str_eq(e->user, "anna");
    cr_expect_str_eq(e->message, "so \"it\" goes");
    cr_expect_str_eq(e->source, "g.yaml");
    cr_expect_eq(history_before(&h, 7)->number, 3);
    cr_expect_null(history_before(&h, 3));
    char *text = text_of(7);
    cr_expect_str_eq(text, "# two\nroutes: []\n");
    free(text);
    history_close(&h);
}

Test(history, any_bytes_are_kept_as_they_are)
{
    static char text[5000];
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        text[i] = (char)(i * 7 % 255 + 1);
    history_open(&h, dir);
    add(1, text);
    add(2, "");
    reopen();
    char *one = text_of(1), *two = text_of(2);
    cr_expect_str_eq(one, text);
    cr_expect_str_eq(two, "");
    free(one);
    free(two);
    history_close(&h);
}

Test(history, the_oldest_make_room)
{
    char path[128];
    history_open(&h, dir);
    for (uint64_t i = 1; i <= HISTORY_KEPT + 10; i++)
        add(i, "routes: []\n");
    cr_expect_eq(h.count, HISTORY_KEPT);
    reopen();
    cr_expect_eq(h.count, HISTORY_KEPT);
    cr_expect_eq(h.at[0].number, 11);
    path_of(10, path);
    cr_expect_eq(access(path, F_OK), -1);
    history_close(&h);
}

static char *slurp(const char *path, size_t *len)
{
    static char text[8192];
    FILE *in = fopen(path, "r");
    *len = fread(text, 1, sizeof(text), in);
    fclose(in);
    return text;
}

static void spill(const char *path, const char *text, size_t len)
{
    FILE *out = fopen(path, "w");
    cr_assert_eq(fwrite(text, 1, len, out), len);
    fclose(out);
}

Test(history, a_byte_changed_anywhere_is_noticed_and_the_entry_left_out)
{
    char path[128];
    size_t len;
    history_open(&h, dir);
    add(1, "routes: []\n");
    add(2, "routes: [] # the one that suffers\n");
    path_of(2, path);
    char *text = slurp(path, &len);
    for (size_t i = 0; i < len; i++) {
        text[i] ^= 1;
        spill(path, text, len);
        text[i] ^= 1;
        reopen();
        cr_assert_eq(h.count, 1, "byte %zu", i);
        cr_assert_eq(history_newest(&h)->number, 1);
    }
    history_close(&h);
}

Test(history, whatever_length_a_crash_leaves_is_noticed)
{
    char path[128];
    size_t len;
    history_open(&h, dir);
    add(1, "routes: []\n");
    add(2, "routes: [] # the one that suffers\n");
    path_of(2, path);
    char *text = slurp(path, &len);
    for (size_t i = 0; i < len; i++) {
        spill(path, text, i);
        reopen();
        cr_assert_eq(h.count, 1, "%zu bytes", i);
    }
    spill(path, text, len);
    reopen();
    cr_expect_eq(h.count, 2);
    history_close(&h);
}

Test(history, half_written_files_of_a_crash_are_removed)
{
    char path[128], beside[160];
    history_open(&h, dir);
    add(1, "routes: []\n");
    path_of(2, path);
    snprintf(beside, sizeof(beside), "%s.new", path);
    spill(beside, "# gateway-pro gener", 19);
    reopen();
    cr_expect_eq(h.count, 1);
    cr_expect_eq(access(beside, F_OK), -1);
    history_close(&h);
}

/* Such as what a person copied, or a pipe, which would keep us waiting. */
Test(history, what_is_no_entry_is_left_out_whatever_its_name)
{
    char one[128], path[128];
    size_t len;
    history_open(&h, dir);
    add(1, "routes: []\n");
    path_of(1, one);
    char *text = slurp(one, &len);
    path_of(2, path);
    spill(path, text, len);
    path_of(UINT64_MAX, path);
    spill(path, text, len);
    snprintf(path, sizeof(path), "%s/generations/99999999999999999999.yaml", dir);
    spill(path, text, len);
    path_of(3, path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    path_of(4, path);
    cr_assert_eq(mkdir(path, 0700), 0);
    path_of(5, path);
    cr_assert_eq(symlink("/dev/zero", path), 0);
    path_of(6, path);
    cr_assert_eq(symlink("nowhere", path), 0);
    reopen();
    cr_expect_eq(h.count, 1);
    cr_expect_eq(history_newest(&h)->number, 1);
    history_close(&h);
}

Test(history, what_is_damaged_later_is_told_when_it_is_read)
{
    char path[128];
    struct err err;
    size_t len;
    history_open(&h, dir);
    add(1, "routes: []\n");
    path_of(1, path);
    char *text = slurp(path, &len);
    text[len - 2] = 'x';
    spill(path, text, len);
    cr_expect_null(history_read(&h, history_find(&h, 1), &err));
    cr_expect(strstr(err.text, "is damaged"), "%s", err.text);
    history_close(&h);
}

Test(history, without_a_folder_there_is_none)
{
    struct history_entry e = {.number = 1, .source = "g.yaml"};
    struct err err;
    history_open(&h, "/proc/nowhere");
    cr_expect_eq(history_add(&h, &e, view_of("routes: []\n"), &err), -1);
    cr_expect(strstr(err.text, "/proc/nowhere"), "%s", err.text);
    cr_expect_eq(h.count, 0);
    history_close(&h);
}

Test(history, entries_are_not_for_everybody)
{
    char path[128];
    struct stat st;
    history_open(&h, dir);
    add(1, "admin: {token: secret}\n");
    path_of(1, path);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 07, 0);
    history_close(&h);
}
