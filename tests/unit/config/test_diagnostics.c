#include <criterion/criterion.h>
#include <stdlib.h>

#include "controlplane/config/diagnostics.h"

static struct diagnostics d;

static void setup(void)
{
    diagnostics_init(&d);
    d.source = "g.yaml";
}

static void teardown(void)
{
    diagnostics_fini(&d);
}

TestSuite(diagnostics, .init = setup, .fini = teardown);

static void add(uint32_t line, uint32_t column, uint32_t length, const char *message)
{
    diagnostics_add(&d, SEVERITY_ERROR, (struct place){line, column}, length, NULL, "%s", message);
}

static void expect_printed(bool color, const char *wanted)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    diagnostics_print(&d, out, color);
    fclose(out);
    cr_expect_str_eq(text, wanted, "printed\n%s\ninstead of\n%s", text, wanted);
    free(text);
}

Test(diagnostics, the_offending_text_is_underlined)
{
    d.text = view_of("routes:\n    lb_algoritm: x\n");
    diagnostics_add(&d, SEVERITY_ERROR, (struct place){2, 5}, 11, "did you mean \"lb_algorithm\"?",
                    "unknown key \"%s\"", "lb_algoritm");
    expect_printed(false, "g.yaml:2:5: error: unknown key \"lb_algoritm\": did you mean "
                          "\"lb_algorithm\"?\n"
                          "    lb_algoritm: x\n"
                          "    ^~~~~~~~~~~\n");
}

Test(diagnostics, they_read_as_the_file_does)
{
    add(3, 1, 0, "c");
    add(1, 5, 0, "b");
    add(1, 2, 0, "a");
    diagnostics_sort(&d);
    expect_printed(false, "g.yaml:1:2: error: a\ng.yaml:1:5: error: b\ng.yaml:3:1: error: c\n");
}

Test(diagnostics, what_is_said_twice_of_one_place_is_said_once)
{
    add(1, 1, 0, "a");
    add(1, 1, 0, "b");
    add(1, 1, 0, "a");
    diagnostics_sort(&d);
    cr_expect_eq(d.count, 2);
    cr_expect_eq(d.errors, 2);
}

Test(diagnostics, warnings_are_no_errors)
{
    diagnostics_add(&d, SEVERITY_WARNING, (struct place){0, 0}, 0, NULL, "odd");
    cr_expect_eq(d.errors, 0);
    expect_printed(false, "g.yaml: warning: odd\n");
}

Test(diagnostics, a_terminal_gets_colours)
{
    d.text = view_of("abc\n");
    add(1, 2, 2, "x");
    expect_printed(true, "\033[1mg.yaml:1:2: \033[31merror\033[39m: x\033[0m\n"
                         "    abc\n     \033[1;32m^~\033[0m\n");
}

Test(diagnostics, nothing_in_them_acts_on_a_terminal)
{
    d.text = view_of("a\033[2J\xc2\x9b\xffz\n");
    diagnostics_add(&d, SEVERITY_ERROR, (struct place){1, 1}, 1, "\033]0;x\007", "say \xc2\x9b%s",
                    "\033[2J");
    expect_printed(false, "g.yaml:1:1: error: say ???[2J: ?]0;x?\n    a?[2J???z\n    ^\n");
}

Test(diagnostics, a_place_beyond_the_text_is_survived)
{
    d.text = view_of("one\n");
    add(1, 4000000000, 4000000000, "far right");
    add(4000000000, 1, 1, "far down");
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    diagnostics_print(&d, out, false);
    fclose(out);
    cr_expect_lt(len, 1000);
    free(text);
}

Test(diagnostics, all_are_counted_but_not_all_are_kept)
{
    for (uint32_t i = 1; i <= DIAGNOSTICS_MAX + 5; i++)
        add(i, 1, 0, "again");
    cr_expect_eq(d.errors, DIAGNOSTICS_MAX + 5);
    cr_expect_eq(d.count, DIAGNOSTICS_MAX);
    cr_expect_eq(d.dropped, 5);
}
