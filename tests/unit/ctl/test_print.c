/* Tables, units and text that must not reach a terminal raw. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/print.h"

/* What a piece of code wrote to `out`; the caller frees it. */
#define WRITTEN(code)                                                                              \
    ({                                                                                             \
        char *text_ = NULL;                                                                        \
        size_t len_ = 0;                                                                           \
        FILE *out = open_memstream(&text_, &len_);                                                 \
        code;                                                                                      \
        fclose(out);                                                                               \
        text_;                                                                                     \
    })

static void expect_written(char *got, const char *expected)
{
    cr_expect_str_eq(got, expected);
    free(got);
}

static struct print_table *small_table(void)
{
    static const char *const titles[] = {"NAME", "STATE"};
    struct print_table *t = print_table_new(titles, 2);
    print_table_cell(t, TINT_NONE, "z\xc3\xbcrich");
    print_table_cell(t, TINT_GOOD, "up");
    print_table_cell(t, TINT_NONE, "a");
    print_table_cell(t, TINT_BAD, "");
    return t;
}

Test(print, columns_are_as_wide_as_they_need)
{
    struct print_table *t = small_table();
    expect_written(WRITTEN(print_table_write(t, out, false)), "NAME    STATE\n"
                                                              "z\xc3\xbcrich  up\n"
                                                              "a       -\n");
    print_table_free(&t);
    cr_expect_null(t);
}

Test(print, colours_do_not_move_columns)
{
    struct print_table *t = small_table();
    expect_written(WRITTEN(print_table_write(t, out, true)),
                   "\033[1mNAME\033[0m    \033[1mSTATE\033[0m\n"
                   "z\xc3\xbcrich  \033[32mup\033[0m\n"
                   "a       \033[1;31m-\033[0m\n");
    print_table_free(&t);
}

Test(print, table_may_have_many_rows)
{
    static const char *const titles[] = {"N"};
    struct print_table *t = print_table_new(titles, 1);
    for (int i = 0; i < 10000; i++)
        print_table_cell(t, TINT_NONE, "x");
    char *got = WRITTEN(print_table_write(t, out, false));
    cr_expect_eq(strlen(got), 2 * 10001);
    free(got);
    print_table_free(&t);
}

Test(print, control_characters_are_shown_not_obeyed)
{
    expect_written(WRITTEN(print_text(out, "a\033[31mb\x7f\xc2\x9b"
                                           "2J\r\n\tz\xc3\xbc")),
                   "a?[31mb??2J?\n\tz\xc3\xbc");
}

Test(print, line_break_does_not_tear_a_table)
{
    static const char *const titles[] = {"N"};
    struct print_table *t = print_table_new(titles, 1);
    print_table_cell(t, TINT_NONE, "two\nlines");
    expect_written(WRITTEN(print_table_write(t, out, false)), "N\ntwo?lines\n");
    print_table_free(&t);
}

Test(print, colours_are_not_for_files_nor_for_no_color)
{
    FILE *file = tmpfile();
    unsetenv("NO_COLOR");
    cr_expect_not(print_wants_color(file));
    fclose(file);
}

Test(print, units_suit_the_size)
{
    char out[PRINT_VALUE_BYTES];
    static const struct {
        void (*print)(char *, double);
        double value;
        const char *text;
    } cases[] = {
        {print_bytes, 0, "0 B"},
        {print_bytes, 1023, "1023 B"},
        {print_bytes, 1536, "1.5 KiB"},
        {print_bytes, 150.0 * 1024 * 1024, "150 MiB"},
        {print_seconds, 0.9, "0 s"},
        {print_seconds, 59, "59 s"},
        {print_seconds, 60, "1 min"},
        {print_seconds, 200, "3 min 20 s"},
        {print_seconds, 3600, "1 h"},
        {print_seconds, 90000, "1 d 1 h"},
        {print_microseconds, 12, "12 us"},
        {print_microseconds, 1250, "1.25 ms"},
        {print_microseconds, 2000000, "2 s"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cases[i].print(out, cases[i].value);
        cr_expect_str_eq(out, cases[i].text);
    }
}

Test(print, value_has_a_text_whatever_its_type)
{
    char room[PRINT_VALUE_BYTES];
    static const struct {
        const char *key, *text;
    } cases[] = {{"s", "text"}, {"i", "42"}, {"r", "0.25"}, {"t", "yes"},
                 {"f", "no"},   {"n", ""},   {"a", "2"},    {"missing", ""}};
    json_t *o = json_loads("{\"s\":\"text\",\"i\":42,\"r\":0.25,\"t\":true,\"f\":false,"
                           "\"n\":null,\"a\":[1,2]}",
                           0, NULL);
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_str_eq(print_value(o, cases[i].key, room), cases[i].text);
    cr_expect_str_eq(print_value(NULL, "s", room), "");
    json_decref(o);
}

Test(print, numbers_in_documents_stay_as_written)
{
    json_t *o = json_loads("{\"b\":0.1,\"a\":[1]}", 0, NULL);
    expect_written(WRITTEN(print_json(out, o)), "{\n  \"b\": 0.1,\n  \"a\": [\n    1\n  ]\n}\n");
    json_decref(o);
}
