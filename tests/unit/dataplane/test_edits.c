#include <criterion/criterion.h>

#include "dataplane/http/edits.h"

static struct arena *arena;
static struct edits edits;
static struct err err;

static int compile(const char *name, const char *value)
{
    static Gwp__HeaderField field = GWP__HEADER_FIELD__INIT;
    static Gwp__HeaderField *fields[] = {&field};
    Gwp__HeaderEdits in = GWP__HEADER_EDITS__INIT;
    field.name = (char *)name;
    field.value = (char *)value;
    in.set = fields;
    in.n_set = 1;
    if (!arena)
        arena = arena_new(1024);
    return edits_compile(&edits, &in, arena, &err);
}

static void expect(const char *value, const char *written)
{
    char out[256];
    struct head_writer w = head_writer(out, sizeof(out));
    struct edit_values values = {{[EDIT_CLIENT_IP] = view_of("10.0.0.1"),
                                  [EDIT_REQUEST_ID] = view_of("abc"),
                                  [EDIT_HOST] = view_of("example.com"),
                                  [EDIT_ROUTE] = view_of("users")}};
    cr_assert_eq(compile("X-Test", value), 0, "%s", err.text);
    edits_write(&edits, &values, &w);
    cr_assert(view_equal((struct view){out, (size_t)(w.at - out)}, view_of(written)), "%.*s",
              (int)(w.at - out), out);
    arena_free(&arena);
}

Test(edits, variables_are_filled_in_and_other_text_stays)
{
    expect("plain", "X-Test: plain\r\n");
    expect("", "X-Test: \r\n");
    expect("${client_ip}", "X-Test: 10.0.0.1\r\n");
    expect("a${host}b${route}${request_id}", "X-Test: aexample.combusersabc\r\n");
    expect("${other} $client_ip ${client_ip", "X-Test: ${other} $client_ip ${client_ip\r\n");
}

Test(edits, what_is_set_replaces_what_came)
{
    cr_assert_eq(compile("X-Test", "a"), 0);
    cr_assert(edits_drop(&edits, view_of("x-test")));
    cr_assert_not(edits_drop(&edits, view_of("x-tes")));
    arena_free(&arena);
}

Test(edits, framing_and_injection_are_refused)
{
    const char *const names[] = {"Content-Length",
                                 "transfer-encoding",
                                 "Connection",
                                 "Host",
                                 "Upgrade",
                                 "TE",
                                 "a b",
                                 "",
                                 "a:"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        cr_assert_eq(compile(names[i], "x"), -1, "%s", names[i]);
    cr_assert_eq(compile("X-Test", "a\r\nEvil: b"), -1);
    cr_assert_eq(compile("X-Test", "a\x7f"), -1);
    arena_free(&arena);
}
