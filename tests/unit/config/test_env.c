#include <criterion/criterion.h>
#include <stdlib.h>

#include "controlplane/config/env.h"

static struct arena *arena;
static struct env_fault fault;

static void setup(void)
{
    arena = arena_new(4096);
    setenv("T_NAME", "value", 1);
    setenv("T_EMPTY", "", 1);
    setenv("T_NESTED", "${T_NAME}", 1);
    unsetenv("T_UNSET");
}

static void teardown(void)
{
    arena_free(&arena);
}

TestSuite(env, .init = setup, .fini = teardown);

static const char *expand(const char *text)
{
    return env_expand(arena, view_of(text), false, &fault).at;
}

Test(env, variables_are_put_in)
{
    cr_expect_str_eq(expand("${T_NAME}"), "value");
    cr_expect_str_eq(expand("a-${T_NAME}-b-${T_NAME}"), "a-value-b-value");
    cr_expect_str_eq(expand("x${T_EMPTY}y"), "xy");
}

Test(env, a_default_stands_in_for_unset_and_empty)
{
    cr_expect_str_eq(expand("${T_UNSET:-10}"), "10");
    cr_expect_str_eq(expand("${T_EMPTY:-10}"), "10");
    cr_expect_str_eq(expand("${T_NAME:-10}"), "value");
    cr_expect_str_eq(expand("${T_UNSET:-}"), "");
    cr_expect_str_eq(expand("${T_UNSET:-redis://h:1/0}"), "redis://h:1/0");
}

Test(env, two_dollars_are_one)
{
    cr_expect_str_eq(expand("$$"), "$");
    cr_expect_str_eq(expand("$${T_NAME}"), "${T_NAME}");
    cr_expect_str_eq(expand("$$$$"), "$$");
    cr_expect_str_eq(expand("$$${T_NAME}"), "$value");
}

Test(env, what_comes_out_is_not_looked_at_again)
{
    cr_expect_str_eq(expand("${T_NESTED}"), "${T_NAME}");
}

Test(env, an_unset_variable_is_an_error_that_names_it)
{
    cr_expect_null(expand("${T_UNSET}"));
    cr_expect_str_eq(fault.why.text, "environment variable T_UNSET is not set");
    cr_expect_str_eq(fault.advice.text, "set it, or write ${T_UNSET:-default}");
}

Test(env, what_is_no_variable_is_an_error)
{
    static const char *const texts[] = {"${}",         "${",        "a${T_NAME",   "${1}",
                                        "${T_NAME-x}", "${T NAME}", "${T_NAME:x}", "${A:-${B}}"};
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        cr_expect_null(expand(texts[i]), "%s", texts[i]);
}

Test(env, a_dollar_without_braces_stays_and_is_worth_a_word)
{
    cr_expect_str_eq(expand("a$T_NAME"), "a$T_NAME");
    cr_expect_str_eq(fault.advice.text, "write ${T_NAME} for the variable, or $$ for a dollar");
    cr_expect_str_eq(expand("5$"), "5$");
    cr_expect_str_eq(fault.advice.text, "");
}

Test(env, the_piece_that_is_wrong_is_told_so_that_others_behind_it_are_found)
{
    static const char text[] = "a ${T_NAME} ${T_UNSET} $T_NAME ${1}";
    cr_expect_null(expand(text));
    cr_expect_str_eq(fault.why.text, "environment variable T_UNSET is not set");
    cr_expect(view_equal(fault.piece, view_of("${T_UNSET}")));
    cr_expect_null(expand(fault.piece.at + fault.piece.len));
    cr_expect(view_equal(fault.piece, view_of("${1}")));
    cr_expect_str_eq(fault.advice.text, "write ${NAME} or ${NAME:-default}, or $$ for a dollar");
    cr_expect_null(expand("$T_NAME ${T_UNSET}"));
    cr_expect_str_eq(fault.advice.text, "set it, or write ${T_UNSET:-default}");
}
