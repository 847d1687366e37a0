#include <criterion/criterion.h>

#include "controlplane/config/written.h"

static struct arena *arena;

static void setup(void)
{
    arena = arena_new(4096);
}

static void teardown(void)
{
    arena_free(&arena);
}

TestSuite(written, .init = setup, .fini = teardown);

Test(written, only_brackets_of_variables_are_masked_and_come_back)
{
    static const char text[] = "a: {b: [${A}, ${B:-[::1],{x}, c], d: $${E} ${F\n, ${G}}\n${";
    struct view m = written_mask(arena, view_of(text));
    cr_assert(m.at != text);
    cr_expect_eq(memmem(m.at, m.len, "${A}", 4), NULL);
    cr_expect_neq(memmem(m.at, m.len, "${F\n", 4), NULL, "without its brace it is none");
    cr_expect_neq(memmem(m.at, m.len, "a: {b: [", 8), NULL);
    char *back = arena_copy(arena, m);
    size_t len = written_unmask(back, m.len);
    cr_expect_eq(len, strlen(text));
    cr_expect_str_eq(back, text);
    struct place end = written_place((struct place){1, 1}, m.at, m.at + m.len);
    struct place same = written_place((struct place){1, 1}, text, text + len);
    cr_expect(end.line == same.line && end.column == same.column, "masks are as wide");
}

Test(written, without_variables_the_text_is_as_it_was)
{
    static const char text[] = "a: {b: [c]}, $ {x} \xef\xb7\x90";
    cr_expect_eq(written_mask(arena, view_of(text)).at, text);
}

Test(written, characters_are_found_among_bytes)
{
    static const char text[] = "\xc3\xa9 ab\r\n\xe6\x97\xa5 cd";
    struct written w = {view_of(text), 0, 0};
    cr_expect(view_equal(written_between(&w, 2, 4), view_of("ab")));
    struct view second = written_between(&w, 8, 10);
    cr_expect(view_equal(second, view_of("cd")));
    cr_expect_eq(written_between(&w, 10, 99).len, 0);
    struct place p = written_place((struct place){1, 1}, text, second.at);
    cr_expect(p.line == 2 && p.column == 3);
}
