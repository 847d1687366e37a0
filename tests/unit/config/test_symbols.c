#include <criterion/criterion.h>

#include "controlplane/config/symbols.h"

Test(symbols, the_first_keeps_the_name)
{
    struct arena *a = arena_new(4096);
    struct symbols s = {.arena = a};
    int one, two;
    cr_expect_null(symbols_get(&s, view_of("users")));
    cr_expect_null(symbols_put(&s, view_of("users"), &one));
    cr_expect_eq(symbols_put(&s, view_of("users"), &two), &one);
    cr_expect_eq(symbols_get(&s, view_of("users")), &one);
    cr_expect_null(symbols_get(&s, view_of("user")));
    arena_free(&a);
}

Test(symbols, many_names_are_all_found_again)
{
    struct arena *a = arena_new(4096);
    struct symbols s = {.arena = a};
    static int values[10000];
    for (size_t i = 0; i < COUNT_OF(values); i++)
        cr_assert_null(symbols_put(&s, view_of(arena_printf(a, "name-%zu", i)), &values[i]));
    for (size_t i = 0; i < COUNT_OF(values); i++)
        cr_assert_eq(symbols_get(&s, view_of(arena_printf(a, "name-%zu", i))), &values[i]);
    cr_expect_eq(s.count, COUNT_OF(values));
    arena_free(&a);
}
