/* Every case of tests/golden/http1, whole and in pieces: one verdict however it is split. */
#include <criterion/criterion.h>

#include "raw_case.h"
#include "reading.h"

/* Longer cases are cut at every n-th byte only, so that the whole stays within seconds. */
#define CUT_EVERYWHERE_BYTES 1200

static const char *const framings[] = {"pass", "pass length", "pass chunked", "pass close"};

static const char *verdict_of(const struct reading *r, bool is_response)
{
    static char number[16];
    if (r->reason == R_SERVED)
        return framings[r->head.framing];
    if (is_response && r->reason != R_CLIENT_TIMEOUT)
        return "bad";
    snprintf(number, sizeof(number), "%u", reason_status(r->reason));
    return number;
}

static bool has_field(const struct buffer *b, const struct field *fields, unsigned count,
                      struct view wanted)
{
    for (unsigned i = 0; i < count; i++) {
        struct view name = field_name(b, &fields[i]), value = field_value(b, &fields[i]);
        if (wanted.len == name.len + 2 + value.len && memcmp(wanted.at, name.at, name.len) == 0 &&
            memcmp(wanted.at + name.len, ": ", 2) == 0 &&
            memcmp(wanted.at + name.len + 2, value.at, value.len) == 0)
            return true;
    }
    return false;
}

static bool line_is(const struct reading *r, struct view wanted)
{
    char line[4096];
    int len =
        snprintf(line, sizeof(line), "%.*s %.*s%.*s", VIEW_ARG(head_method(&r->head, r->buffer)),
                 VIEW_ARG(r->target.path), VIEW_ARG(r->target.query));
    return wanted.len == (size_t)len && memcmp(line, wanted.at, wanted.len) == 0;
}

/* What a backend sees of fields is forward's business; here only what passes the parser. */
static bool is_met(const struct reading *r, const struct raw_case *c, unsigned i)
{
    struct view text = {c->expected[i].text, c->expected[i].len};
    const struct trailers *t = http1_trailers(&r->parser);
    switch (c->expected[i].kind) {
    case EXPECT_LINE:
        return line_is(r, text);
    case EXPECT_BODY:
        return view_equal(text, (struct view){r->body, r->body_len});
    case EXPECT_TRAILER:
        return has_field(r->buffer, t->fields, t->count, text);
    case EXPECT_NEXT:
        return view_equal(text, (struct view){c->bytes + r->taken, c->len - r->taken});
    default:
        return true;
    }
}

static void run(const struct raw_case *c, const char *file, bool is_response, size_t cut,
                size_t step)
{
    struct reading *r = malloc(sizeof(*r));
    reading_init(r, c->len);
    reading_run(r, c->bytes, c->len, cut, step, is_response, c->method);
    const char *verdict = verdict_of(r, is_response);
    cr_expect_str_eq(verdict, c->verdict, "%s: \"%s\" cut at %zu, then every %zu: %s (%s)", file,
                     c->name, cut, step, verdict, r->detail ? r->detail : "");
    for (unsigned i = 0; r->reason == R_SERVED && i < c->expected_count; i++)
        cr_expect(is_met(r, c, i), "%s: \"%s\" cut at %zu, then every %zu: not so: %s", file,
                  c->name, cut, step, c->expected[i].text);
    reading_fini(r);
    free(r);
}

static void run_split(const struct raw_case *c, const char *file, bool is_response, void *more)
{
    static const size_t steps[] = {1, 2, 3, 5, 7, 11, 16, 31, 64, 257, 1000};
    size_t stride = c->len > CUT_EVERYWHERE_BYTES ? c->len / 301 : 1;
    run(c, file, is_response, 0, c->len);
    for (size_t i = 0; i < COUNT_OF(steps) && steps[i] < c->len; i++)
        run(c, file, is_response, 0, steps[i]);
    for (size_t cut = 1; cut < c->len; cut += stride)
        run(c, file, is_response, cut, c->len);
}

Test(raw, every_case_has_one_outcome_however_it_is_split, .timeout = 120)
{
    unsigned count = raw_each(run_split, NULL);
    cr_assert_gt(count, 400, "only %u cases were found", count);
}
