#include <criterion/criterion.h>

#include "controlplane/config/suggest.h"

static unsigned distance(const char *a, const char *b)
{
    return suggest_distance(view_of(a), view_of(b));
}

static struct view nearest(const char *wanted, const char *const *words, size_t count)
{
    struct suggest s = {.wanted = view_of(wanted)};
    for (size_t i = 0; i < count; i++)
        suggest_consider(&s, view_of(words[i]));
    return suggest_best(&s);
}

Test(suggest, distance_counts_edits)
{
    cr_expect_eq(distance("", ""), 0);
    cr_expect_eq(distance("addr", "addr"), 0);
    cr_expect_eq(distance("adr", "addr"), 1);
    cr_expect_eq(distance("addrr", "addr"), 1);
    cr_expect_eq(distance("asdr", "addr"), 1);
    cr_expect_eq(distance("", "addr"), 4);
    cr_expect_eq(distance("kitten", "sitting"), 3);
}

Test(suggest, swapped_neighbours_are_one_edit_and_case_is_none)
{
    cr_expect_eq(distance("wieght", "weight"), 1);
    cr_expect_eq(distance("Weight", "weight"), 0);
}

Test(suggest, a_very_long_word_is_far_from_everything)
{
    cr_expect_eq(distance("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "x"),
                 SUGGEST_FAR);
}

Test(suggest, only_a_near_word_is_suggested)
{
    static const char *const words[] = {"round_robin", "least_conn", "weighted"};
    cr_expect(view_equal(nearest("leastconn", words, 3), view_of("least_conn")));
    cr_expect(view_equal(nearest("roundrobin", words, 3), view_of("round_robin")));
    cr_expect_eq(nearest("random", words, 3).len, 0);
    cr_expect_eq(nearest("", words, 3).len, 0);
    cr_expect_eq(nearest("x", words, 0).len, 0);
}

Test(suggest, a_unit_that_is_left_out_is_no_distance)
{
    static const char *const words[] = {"timeout_seconds", "max_body_bytes", "panic_percent",
                                        "name"};
    cr_expect(view_equal(nearest("timeout", words, 4), view_of("timeout_seconds")));
    cr_expect(view_equal(nearest("timeuot", words, 4), view_of("timeout_seconds")));
    cr_expect(view_equal(nearest("max_body", words, 4), view_of("max_body_bytes")));
    cr_expect(view_equal(nearest("panic", words, 4), view_of("panic_percent")));
    cr_expect_eq(nearest("port", words, 4).len, 0);
    cr_expect_eq(nearest("_seconds", words, 4).len, 0);
}
