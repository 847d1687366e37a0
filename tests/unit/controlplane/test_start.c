#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/start.h"
#include "proto/base/log.h"

static char dir[] = "/tmp/gwp-start-XXXXXX";
static char file[64];
static struct history h;
static struct generations gs;
static struct start s;
static FILE *out;
static char *printed;
static size_t printed_len;

static void begin(void)
{
    cr_assert(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/gateway.yaml", dir);
    log_set(LOG_ERROR, LOG_CONSOLE);
    history_open(&h, dir);
    generations_init(&gs, dir);
    out = open_memstream(&printed, &printed_len);
}

static void end(void)
{
    char command[128];
    start_free(&s);
    history_close(&h);
    generations_fini(&gs);
    fclose(out);
    free(printed);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(start, .init = begin, .fini = end);

static const char *yaml(const char *route)
{
    static char text[256];
    snprintf(text, sizeof(text),
             "routes: [{name: %s, path_prefix: /, backends: [{url: 'http://127.0.0.1:1'}]}]\n",
             route);
    return text;
}

static void write_file(const char *text)
{
    FILE *f = fopen(file, "w");
    fputs(text, f);
    fclose(f);
}

static void keep(uint64_t number, enum origin origin, const char *text)
{
    struct err err;
    cr_assert_eq(
        history_add(&h,
                    &(struct history_entry){.number = number, .origin = origin, .source = "p.yaml"},
                    view_of(text), &err),
        0, "%s", err.text);
}

static void expect(const char *route, enum origin origin, uint64_t entry)
{
    start_free(&s);
    cr_assert_eq(start_choose(&s, file, &gs, &h, out), 0, "%s", s.refused.text);
    cr_expect_str_eq(s.config->routes[0].name, route);
    cr_expect_eq(s.origin, origin);
    cr_expect_eq(s.entry, entry);
}

Test(start, the_first_time_the_file_counts)
{
    write_file(yaml("file"));
    expect("file", ORIGIN_FILE, 0);
    cr_expect_neq(gs.file_hash, 0);
}

Test(start, a_push_outlives_a_restart_until_the_file_has_another_content)
{
    write_file(yaml("file"));
    expect("file", ORIGIN_FILE, 0);
    keep(1, ORIGIN_FILE, yaml("file"));
    expect("file", ORIGIN_FILE, 1);
    keep(2, ORIGIN_PUSH, yaml("pushed"));
    expect("pushed", ORIGIN_PUSH, 2);
    write_file(yaml("file")); /* another time, the same content */
    expect("pushed", ORIGIN_PUSH, 2);
    write_file(yaml("changed"));
    expect("changed", ORIGIN_FILE, 0);
    keep(3, ORIGIN_FILE, yaml("changed"));
    keep(4, ORIGIN_ROLLBACK, yaml("back"));
    expect("back", ORIGIN_ROLLBACK, 4);
}

Test(start, what_was_seen_of_the_file_is_kept)
{
    write_file(yaml("file"));
    expect("file", ORIGIN_FILE, 0);
    keep(1, ORIGIN_PUSH, yaml("pushed"));
    generations_fini(&gs);
    generations_init(&gs, dir);
    expect("pushed", ORIGIN_PUSH, 1);
}

Test(start, a_broken_file_leaves_the_newest_that_is_whole)
{
    char path[128];
    write_file(yaml("file"));
    expect("file", ORIGIN_FILE, 0);
    keep(1, ORIGIN_FILE, yaml("good"));
    keep(2, ORIGIN_FILE, yaml("torn"));
    snprintf(path, sizeof(path), "%s/generations/%020d.yaml", dir, 2);
    cr_assert_eq(truncate(path, 200), 0);
    write_file("routes: [{nme: x}]\n");
    expect("good", ORIGIN_FILE, 1);
    fflush(out);
    cr_expect(strstr(printed, "gateway.yaml:1:11: error: unknown key \"nme\""), "%s", printed);
    cr_expect_str_eq(s.refused.text, "gateway.yaml has 3 errors");
    expect("good", ORIGIN_FILE, 1); /* and again */
}

Test(start, a_file_that_is_gone_leaves_the_newest)
{
    keep(1, ORIGIN_FILE, yaml("good"));
    expect("good", ORIGIN_FILE, 1);
    cr_expect(strstr(s.refused.text, "cannot be read"));
}

Test(start, there_may_be_nothing_to_begin_with)
{
    write_file("routes: [{nme: x}]\n");
    cr_expect_eq(start_choose(&s, file, &gs, &h, out), -1);
    cr_expect_null(s.config);
}
