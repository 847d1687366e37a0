#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "controlplane/overrides.h"

static char dir[] = "/tmp/gwp-overrides-XXXXXX";
static char path[64], aside[80];
static struct overrides overrides;
static struct err err;

static void start(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/overrides.json", dir);
    snprintf(aside, sizeof(aside), "%s.broken", path);
    overrides_init(&overrides, dir);
}

static void stop(void)
{
    char command[128];
    overrides_fini(&overrides);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(overrides, .init = start, .fini = stop);

static void set(const char *address, const char *route, bool draining, uint32_t weight)
{
    cr_assert_eq(overrides_set(&overrides, address, route, draining, weight, &err), 0);
}

static void restart(void)
{
    overrides_fini(&overrides);
    overrides_init(&overrides, dir);
}

static void write_file(const char *text)
{
    cr_assert_eq(files_write(path, view_of(text), &err), 0, "%s", err.text);
}

Test(overrides, what_is_kept_comes_back)
{
    set("10.0.0.1:80", "", true, 0);
    set("10.0.0.1:80", "users \"x\"", false, 7);
    set("[::1]:80", "", true, 1000);
    double since = overrides_find(&overrides, "10.0.0.1:80", "")->since;
    cr_assert_eq(overrides_save(&overrides, &err), 0, "%s", err.text);
    restart();
    cr_expect_eq(overrides.by.count, 3);
    const struct override *one = overrides_find(&overrides, "10.0.0.1:80", "");
    cr_assert(one);
    cr_expect(one->draining && one->weight == 0);
    cr_assert_float_eq(one->since, since, 0.001);
    cr_expect_eq(overrides_find(&overrides, "10.0.0.1:80", "users \"x\"")->weight, 7);
    cr_expect_eq(overrides_find(&overrides, "[::1]:80", "")->weight, 1000);
    cr_expect_null(overrides_find(&overrides, "10.0.0.1:80", "other"));
}

Test(overrides, what_is_undone_is_forgotten)
{
    set("10.0.0.1:80", "", true, 7);
    set("10.0.0.1:80", "", false, 7);
    cr_expect_not(overrides_find(&overrides, "10.0.0.1:80", "")->draining);
    set("10.0.0.1:80", "", false, 0);
    set("10.0.0.1:80", "", false, 0);
    cr_expect_null(overrides_find(&overrides, "10.0.0.1:80", ""));
    cr_assert_eq(overrides_save(&overrides, &err), 0);
    restart();
    cr_expect_eq(overrides.by.count, 0);
}

Test(overrides, a_file_that_is_none_is_put_aside)
{
    static const char *const broken[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"version\":2,\"overrides\":[]}",
        "{\"version\":1}",
        "{\"version\":1,\"overrides\":[1]}",
        "{\"version\":1,\"overrides\":[{\"address\":\"10.0.0.1:80\"}]}",
        "{\"version\":1,\"overrides\":[{\"address\":\"x\",\"route\":\"\",\"draining\":true,"
        "\"weight\":0,\"since\":1}]}",
        "{\"version\":1,\"overrides\":[{\"address\":\"10.0.0.1:80\",\"route\":\"\",\"draining\":"
        "true,\"weight\":1001,\"since\":1}]}",
        "{\"version\":1,\"overrides\":[{\"address\":\"10.0.0.1:80\",\"route\":\"\",\"draining\":"
        "true,\"weight\":-1,\"since\":1}]}",
        "{\"version\":1,\"overrides\":[{\"address\":\"10.0.0.1:80\",\"route\":\"\",\"draining\":"
        "true,\"weight\":1,\"since\":1},{\"address\":\"10.0.0.1:80\",\"route\":\"\",\"draining\":"
        "true,\"weight\":2,\"since\":1}]}",
        "{\"version\":1,\"overrides\":[]} and more",
        "\x00\xff\xfe",
    };
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        write_file(broken[i]);
        restart();
        cr_expect_eq(overrides.by.count, 0, "%s", broken[i]);
        cr_expect_eq(access(path, F_OK), -1, "%s", broken[i]);
        cr_expect_eq(access(aside, F_OK), 0, "%s", broken[i]);
    }
    set("10.0.0.1:80", "", true, 0);
    cr_expect_eq(overrides_save(&overrides, &err), 0);
    restart();
    cr_expect_eq(overrides.by.count, 1);
}

Test(overrides, what_cannot_be_kept_is_told)
{
    set("10.0.0.1:80", "", true, 0);
    cr_assert_eq(rmdir(dir), 0);
    cr_expect_eq(overrides_save(&overrides, &err), -1);
    cr_expect(strstr(err.text, "overrides.json"), "%s", err.text);
}

Test(overrides, there_is_an_end_to_them)
{
    for (int i = 0; i < OVERRIDES_MAX; i++) {
        char address[32];
        snprintf(address, sizeof(address), "10.0.%d.%d:80", i / 250, i % 250);
        set(address, "", true, 0);
    }
    cr_expect_eq(overrides_set(&overrides, "10.9.9.9:80", "", true, 0, &err), -1);
    cr_expect_eq(overrides_set(&overrides, "10.0.0.1:80", "", true, 5, &err), 0);
    cr_expect_eq(overrides_save(&overrides, &err), 0);
    restart();
    cr_expect_eq(overrides.by.count, OVERRIDES_MAX);
    size_t count;
    const struct override **all = overrides_sorted(&overrides, &count);
    for (size_t i = 1; i < count; i++)
        cr_assert_lt(strcmp(all[i - 1]->address, all[i]->address), 0);
    free(all);
}
