#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/http/trace.h"

static bool is_state(const char *text)
{
    unsigned members = 0;
    return trace_is_state(view_of(text), &members);
}

#define GOOD "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"

Test(trace, a_parent_is_what_the_recommendation_says)
{
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        {"00-" GOOD "-01", true},
        {"00-" GOOD "-00", true},
        {"00-" GOOD "-ff", true},
        {"01-" GOOD "-01", true},
        {"cc-" GOOD "-01-what-comes-later", true},
        {"cc-" GOOD "-01.what-comes-later", false},
        {"00-" GOOD "-01-more", false},
        {"00-" GOOD "-01-", false},
        {"ff-" GOOD "-01", false},
        {"0-" GOOD "-01", false},
        {"00-" GOOD "-1", false},
        {"00-" GOOD "-0g", false},
        {"00_" GOOD "_01", false},
        {" 00-" GOOD "-01", false},
        {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
        {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
        {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
        {"", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(trace_is_parent(view_of(cases[i].text)), cases[i].valid, "%s", cases[i].text);
}

Test(trace, a_state_is_a_list_of_vendors)
{
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        {"rojo=00f067aa0ba902b7", true},
        {"rojo=1,congo=t61rcWkgMzE", true},
        {"rojo=1 \t,\t congo=2", true},
        {"", true},
        {",", true},
        {"tenant@vendor=x", true},
        {"1a-_*/=with spaces within", true},
        {"rojo", false},
        {"rojo=", false},
        {"=1", false},
        {"Rojo=1", false},
        {"@rojo=1", false},
        {"a@b@c=1", false},
        {"a@=1", false},
        {"a=b=c", false},
        {"a=\x01", false},
        {"a=\xc3\xa4", false},
        {"a b=1", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(is_state(cases[i].text), cases[i].valid, "%s", cases[i].text);
    char many[400] = "";
    for (int i = 0; i < 32; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "%sk%d=1", i ? "," : "", i);
    cr_expect(is_state(many));
    strcat(many, ",k33=1");
    cr_expect_not(is_state(many));
}

Test(trace, several_fields_are_one_list)
{
    unsigned members = 0;
    for (int i = 0; i < 32; i++)
        cr_expect(trace_is_state(view_of("a=1"), &members));
    cr_expect_not(trace_is_state(view_of("a=1"), &members));
}

Test(trace, keys_have_bounds)
{
    static const struct {
        int tenant, system; /* 0: there is no "@" */
        bool valid;
    } cases[] = {
        {256, 0, true}, {257, 0, false}, {241, 14, true}, {242, 14, false}, {1, 15, false}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char key[300], letters[300];
        memset(letters, 'k', sizeof(letters));
        snprintf(key, sizeof(key), "%.*s%s%.*s=1", cases[i].tenant, letters,
                 cases[i].system ? "@" : "", cases[i].system, letters);
        cr_expect_eq(is_state(key), cases[i].valid, "%s", key);
    }
}

Test(trace, what_is_made_is_valid_and_new)
{
    char one[TRACE_PARENT_BYTES + 1] = "", two[TRACE_PARENT_BYTES + 1] = "";
    trace_make((const uint64_t[]){0, 0, 0}, one);
    cr_expect_str_eq(one, "00-00000000000000010000000000000000-0000000000000001-01");
    trace_make((const uint64_t[]){UINT64_MAX, 1, 0x123456789abcdef0}, two);
    cr_expect(trace_is_parent(view_of(one)) && trace_is_parent(view_of(two)));
    cr_expect_str_neq(one, two);
}
