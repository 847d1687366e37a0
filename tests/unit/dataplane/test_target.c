#include <criterion/criterion.h>
#include <llhttp.h>

#include "dataplane/http/target.h"

static struct request_target parsed;
static const char *detail;
static char scratch[4096];

static enum reason parse(const char *raw)
{
    detail = NULL;
    return target_parse(view_of(raw), HTTP_GET, scratch, &parsed, &detail);
}

static void expect(const char *raw, const char *path, const char *query)
{
    cr_assert_eq(parse(raw), R_SERVED, "%s: %s", raw, detail ? detail : "");
    cr_assert(view_equal(parsed.path, view_of(path)), "%s -> %.*s", raw, VIEW_ARG(parsed.path));
    cr_assert(view_equal(parsed.query, view_of(query)), "%s -> %.*s", raw, VIEW_ARG(parsed.query));
}

Test(target, splits_path_and_query)
{
    expect("/", "/", "");
    expect("/a/b?c=d&e", "/a/b", "?c=d&e");
    expect("/a?", "/a", "?");
    expect("/a?b?c", "/a", "?b?c");
}

Test(target, decodes_only_what_may_always_be_decoded)
{
    expect("/%61pi/%7euser", "/api/~user", "");
    expect("/a%2fb%3f", "/a%2Fb%3F", "");
    expect("/a%20b?x=%61", "/a%20b", "?x=%61");
}

Test(target, refuses_to_climb)
{
    const char *const climbing[] = {
        "/..",       "/.",       "/a/../b",     "/a/./b",      "/a/%2e%2e/b", "/a/.%2E",
        "/a/..;x/b", "/a/%2e;x", "/a%2f..%2fb", "/a%5c..%5cb", "/a%2F%2e%2e", "/../../etc/passwd"};
    for (size_t i = 0; i < COUNT_OF(climbing); i++)
        cr_assert_eq(parse(climbing[i]), R_BAD_REQUEST, "%s", climbing[i]);
}

Test(target, dots_that_do_not_climb_are_names)
{
    expect("/...", "/...", "");
    expect("/.well-known/x", "/.well-known/x", "");
    expect("/a..b/c.", "/a..b/c.", "");
    expect("/..a", "/..a", "");
    expect("/a?../b", "/a", "?../b");
}

Test(target, refuses_bytes_that_no_uri_has)
{
    const char *const bad[] = {"/a b", "/a#b", "/a\\b", "/a\x7f", "/\xc3\xa4", "/%",
                               "/%1",  "/%zz", "/%00",  "/a\"b",  "/<>",       ""};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(parse(bad[i]), R_BAD_REQUEST, "%s", bad[i]);
}

Test(target, absolute_form_brings_its_authority)
{
    expect("http://example.com:8080/a?b", "/a", "?b");
    cr_assert(view_equal(parsed.authority, view_of("example.com:8080")));
    expect("HTTP://example.com", "/", "");
    expect("http://example.com?q", "/", "?q");
    cr_assert_eq(parse("http://"), R_BAD_REQUEST);
    cr_assert_eq(parse("http://user@example.com/"), R_BAD_REQUEST);
    cr_assert_eq(parse("https://example.com/"), R_BAD_REQUEST);
    cr_assert_eq(parse("example.com:80"), R_BAD_REQUEST);
}

Test(target, asterisk_is_for_options)
{
    cr_assert_eq(parse("*"), R_BAD_REQUEST);
    cr_assert_eq(target_parse(view_of("*"), HTTP_OPTIONS, scratch, &parsed, &detail), R_SERVED);
}
