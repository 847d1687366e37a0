#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>

#include "tests/fuzz/yaml_events.h"

static struct view read_text(const char *path)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s cannot be opened; tests run from the root of the repository", path);
    size_t n = fread(text, 1, sizeof(text), f);
    fclose(f);
    return (struct view){text, n};
}

static unsigned compare_folder(const char *folder)
{
    char path[600];
    unsigned same = 0;
    DIR *d = opendir(folder);
    cr_assert(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len < 5 || strcmp(e->d_name + len - 5, ".yaml") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        enum yaml_events_result r = yaml_events_compare(read_text(path));
        cr_expect_neq(r, YAML_EVENTS_DIFFER, "%s", path);
        same += r == YAML_EVENTS_SAME;
    }
    closedir(d);
    return same;
}

Test(scan, files_are_read_as_libyaml_reads_them)
{
    cr_expect_geq(compare_folder("tests/golden/config"), 30, "most are in its part of YAML");
    cr_expect_geq(compare_folder("configs"), 1);
}

static void expect(const char *text, enum yaml_events_result result)
{
    cr_expect_eq(yaml_events_compare(view_of(text)), result, "%s", text);
}

Test(scan, its_part_of_yaml)
{
    static const char *const texts[] = {
        "a: b\n",
        "a:\n",
        "a:",
        "a: b",
        "# c\n\na: b # d\n# e\n",
        "a: # c\n  b: c\nd:\n- e\n- f: g\n  h:\n  - i\n",
        "a:\n  - b: 1\n    c: 2\n  -   d: 3\n      e:\n",
        "a: \"x: y\"\nb: 'x # y'\nc: x#y z  # t\n",
        "a: [b, 'c', \"d\", [e], {f: g}]\nb: {}\nc: []\nd: {e: [f], g: http://h:1/x}\n",
        "a: http://h:1\nb: ${C:-d}\nc: /e%20f\n",
        "  a: b\n  c: d\n",
        "a:\n  b:\n    c:\n  d:\ne:\n",
        "- a\n- b: c\n-  d\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        expect(texts[i], YAML_EVENTS_SAME);
}

Test(scan, it_gives_up_on_the_rest)
{
    static const char *const texts[] = {
        "",
        "# c\n",
        "a\n",
        "a: &b c\n",
        "a: *b\n",
        "<<: {a: b}\n",
        "a: |\n b\n",
        "a: b\n  c\n",
        "? a\n: b\n",
        "a: b: c\n",
        "\"a\": b\n",
        "a:\tb\n",
        "a: 'b''c'\n",
        "a: \"b\\n\"\n",
        "---\na: b\n",
        "a: b\n...\n",
        "a: !t b\n",
        "- - a\n",
        "a: [b,\n c]\n",
        "a: [b c]\n",
        "a: {b}\n",
        "a: [b, ]\n",
        "a:\n b: c\n  d: e\n",
        "a: ü\n",
        "a: b\r\n",
        "a: [b: c]\n",
        "a: {b: }\n",
        "a:b\n",
        "a: \"b\"c\n",
        "a: - b\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        expect(texts[i], YAML_EVENTS_GAVE_UP);
}

/* ---- random texts, mostly well-formed ---- */

static char *put_value(char *at, unsigned depth);

static unsigned any(unsigned below)
{
    return (unsigned)random() % below;
}

static char *put_flow(char *at, unsigned depth)
{
    static const char *const items[] = {"a",  "1",  "x.y", "'q r'", "\"s\"", "http://h:80/b",
                                        "/p", "[]", "{}",  "50-60"};
    bool is_map = any(2);
    at = stpcpy(at, is_map ? "{" : "[");
    for (unsigned i = 0, n = any(4); i < n; i++) {
        at = stpcpy(at, i ? (any(3) ? ", " : " ,") : any(4) ? "" : " ");
        if (is_map)
            at += sprintf(at, "k%u: ", i);
        at = depth < 3 && any(5) == 0 ? put_flow(at, depth + 1)
                                      : stpcpy(at, items[any(COUNT_OF(items))]);
    }
    return stpcpy(at, is_map ? "}" : "]");
}

static char *put_value(char *at, unsigned depth)
{
    static const char *const values[] = {"a",       "some words", "12",
                                         "1.5",     "true",       "\"quoted: # x\"",
                                         "'it'",    "/a/b",       "http://h:1/x#y",
                                         "${V:-d}", "x, y [z]",   "~",
                                         "null",    "a: b",       "- x",
                                         "*.x",     ":80"};
    return any(5) == 0 ? put_flow(at, depth) : stpcpy(at, values[any(COUNT_OF(values))]);
}

static char *put_indent(char *at, unsigned indent)
{
    return at + sprintf(at, "%*s", (int)indent, "");
}

static char *put_block(char *at, unsigned indent, unsigned depth)
{
    bool is_list = any(3) == 0;
    for (unsigned i = 0, n = 1 + any(4); i < n; i++) {
        if (any(8) == 0)
            at = stpcpy(at, any(2) ? "\n" : "   # a comment\n");
        at = put_indent(at, any(60) ? indent : indent + any(3));
        if (is_list)
            at = stpcpy(at, any(6) ? "- " : "-   ");
        if (!is_list || any(2))
            at += sprintf(at, "key%u:%s", i, any(40) ? " " : "");
        if (depth < 5 && any(3) == 0 && !is_list) {
            at = stpcpy(at, any(4) ? "\n" : " # c\n");
            at = put_block(at, indent + any(3) * 2, depth + 1);
            continue;
        }
        if (any(8))
            at = put_value(at, depth);
        at = stpcpy(at, any(6) ? "\n" : any(2) ? "  \n" : " # t\n");
    }
    return at;
}

Test(scan, random_texts_are_read_as_libyaml_reads_them)
{
    static char text[1 << 20];
    unsigned same = 0;
    srandom(17);
    for (unsigned n = 0; n < 30000; n++) {
        char *end = put_block(text, 0, 0);
        enum yaml_events_result r = yaml_events_compare((struct view){text, (size_t)(end - text)});
        cr_assert_neq(r, YAML_EVENTS_DIFFER, "text %u:\n%.*s", n, (int)(end - text), text);
        same += r == YAML_EVENTS_SAME;
    }
    printf("%u of 30000 random texts were in its part of YAML\n", same);
    cr_expect_geq(same, 3000);
}
