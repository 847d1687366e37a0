#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/state/snapshot_store.h"

static char dir[64], file[96];

static void setup(void)
{
    strcpy(dir, "/tmp/gwp-store-XXXXXX");
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/snapshot", dir);
}

static void teardown(void)
{
    unlink(file);
    rmdir(dir);
}

TestSuite(snapshot_store, .init = setup, .fini = teardown);

static void save(const char *text)
{
    struct err err;
    cr_assert_eq(snapshot_store_save(dir, (const uint8_t *)text, strlen(text), &err), 0, "%s",
                 err.text);
}

static void refused_with(const char *words)
{
    struct err err;
    size_t len;
    cr_assert_eq(snapshot_store_load(dir, &len, &err), NULL);
    cr_assert(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
}

Test(snapshot_store, the_last_one_saved_is_loaded)
{
    struct err err;
    size_t len;
    save("first");
    save("second one");
    uint8_t *packed = snapshot_store_load(dir, &len, &err);
    cr_assert(packed, "%s", err.text);
    cr_assert(len == 10 && memcmp(packed, "second one", len) == 0);
    free(packed);
}

Test(snapshot_store, an_empty_directory_is_no_failure)
{
    struct err err;
    size_t len;
    cr_assert_eq(snapshot_store_load(dir, &len, &err), NULL);
    cr_assert_str_empty(err.text);
    cr_assert_eq(snapshot_store_load("/nowhere/at/all", &len, &err), NULL);
    cr_assert_str_empty(err.text);
}

Test(snapshot_store, any_truncation_is_refused)
{
    save("a snapshot");
    struct stat st;
    cr_assert_eq(stat(file, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size--) {
        struct err err;
        size_t len;
        cr_assert_eq(truncate(file, size), 0);
        cr_assert_eq(snapshot_store_load(dir, &len, &err), NULL, "at %d bytes", (int)size);
        cr_assert_str_not_empty(err.text);
    }
}

Test(snapshot_store, any_changed_byte_is_refused)
{
    save("a snapshot");
    struct stat st;
    cr_assert_eq(stat(file, &st), 0);
    int fd = open(file, O_RDWR);
    for (off_t at = 0; at < st.st_size; at++) {
        struct err err;
        size_t len;
        char byte;
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x20;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        cr_assert_eq(snapshot_store_load(dir, &len, &err), NULL, "byte %d", (int)at);
        byte ^= 0x20;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

Test(snapshot_store, damage_and_foreign_files_are_told_apart)
{
    save("a snapshot");
    int fd = open(file, O_RDWR);
    cr_assert_eq(pwrite(fd, "A", 1, 32), 1);
    refused_with("checksum");
    cr_assert_eq(pwrite(fd, "\x09", 1, 8), 1);
    refused_with("has format 9");
    cr_assert_eq(pwrite(fd, "elf", 3, 0), 3);
    refused_with("not a stored snapshot");
    close(fd);
}

Test(snapshot_store, what_cannot_be_written_is_said_and_leaves_the_old_one)
{
    struct err err;
    cr_assert_eq(snapshot_store_save("/dev/null/x", (const uint8_t *)"x", 1, &err), -1);
    cr_assert(strstr(err.text, "/dev/null/x"), "%s", err.text);

    save("good");
    char blocked[96];
    snprintf(blocked, sizeof(blocked), "%s/snapshot.new", dir);
    cr_assert_eq(mkdir(blocked, 0700), 0);
    cr_assert_eq(snapshot_store_save(dir, (const uint8_t *)"bad", 3, &err), -1);
    rmdir(blocked);
    size_t len;
    uint8_t *packed = snapshot_store_load(dir, &len, &err);
    cr_assert(packed && len == 4);
    free(packed);
}
