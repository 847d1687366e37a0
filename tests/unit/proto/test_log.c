#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/log.h"

/* A pipe of packets stands in for stderr: what one read gives is what one write gave. */
static int lines, stderr_before;

static void setup(void)
{
    int ends[2];
    fflush(stderr);
    cr_assert_eq(pipe2(ends, O_DIRECT | O_NONBLOCK), 0);
    lines = ends[0];
    stderr_before = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    log_init("gwp-test", LOG_INFO, LOG_JSON);
}

static void teardown(void)
{
    log_listen(NULL, NULL);
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
    close(lines);
}

TestSuite(log, .init = setup, .fini = teardown);

/* The one line that was written, in one piece and without its end. */
static const char *line(void)
{
    static char text[65536];
    char more[64];
    ssize_t n = read(lines, text, sizeof(text) - 1);
    cr_assert_gt(n, 0, "there is a line");
    cr_assert_leq(n, 4096, "a pipe takes it whole: %zd bytes", n);
    cr_assert_eq(text[n - 1], '\n');
    cr_assert_eq(read(lines, more, sizeof(more)), -1, "it was one write");
    text[n - 1] = '\0';
    for (const char *c = text; *c; c++)
        cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f, "no control character in it");
    return text;
}

static json_t *document(void)
{
    json_error_t problem;
    const char *text = line();
    json_t *d = json_loads(text, JSON_REJECT_DUPLICATES, &problem);
    cr_assert_not_null(d, "%s in %s", problem.text, text);
    return d;
}

static const char *text_of(const json_t *d, const char *name)
{
    return json_string_value(json_object_get(d, name));
}

Test(log, fields_stand_behind_the_sentence_as_texts_and_numbers)
{
    log_about(LOG_WARN, "breaker",
              LOG_FIELDS(about_route("users"), about_from("closed"), about_to("open"),
                         about_generation(UINT64_MAX)),
              "%s %s -> %s", "users", "closed", "open");
    const char *text = line();
    cr_expect_not_null(strstr(text, "\"program\":\"gwp-test\",\"module\":\"breaker\","
                                    "\"msg\":\"users closed -> open\",\"route\":\"users\","
                                    "\"from\":\"closed\",\"to\":\"open\","
                                    "\"generation\":18446744073709551615}"),
                       "%s", text);
}

Test(log, what_there_is_nothing_to_say_about_is_left_out)
{
    log_about(LOG_INFO, "publisher",
              LOG_FIELDS(about_previous(0), about_user(""), about_route(NULL), about_line(7)), "m");
    json_t *d = document();
    cr_expect_eq(json_object_size(d), 6);
    cr_expect_eq(json_integer_value(json_object_get(d, "line")), 7);
    json_decref(d);
    log_info("publisher", "m");
    d = document();
    cr_expect_eq(json_object_size(d), 5);
    json_decref(d);
}

Test(log, hostile_values_are_escaped_like_the_sentence)
{
    static const char *const values[] = {
        "\"}\n{\"level\":\"error\"",
        "\\",
        "\\\"",
        "\x1b[2J\r",
        "\xff\xfe",
        "\xc2\x9b",
        "caf\xc3\xa9",
    };
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        log_about(LOG_INFO, "m", LOG_FIELDS(about_cause(values[i]), about_user("after")), "%s",
                  values[i]);
        json_t *d = document();
        cr_expect_str_eq(text_of(d, "cause"), text_of(d, "msg"));
        cr_expect_str_eq(text_of(d, "user"), "after");
        json_decref(d);
    }
    for (int byte = 1; byte < 256; byte++) {
        const char value[] = {(char)byte, '\0'};
        log_about(LOG_INFO, "m", LOG_FIELDS(about_cause(value)), "%s", value);
        json_t *d = document();
        cr_expect_str_eq(text_of(d, "cause"), text_of(d, "msg"), "byte %d", byte);
        json_decref(d);
    }
}

Test(log, long_values_are_cut_between_characters)
{
    static const struct {
        const char *piece;
        size_t count; /* of pieces that are left: 256 bytes as they are escaped */
    } rows[] = {{"x", 256}, {"\"", 128}, {"\x01", 42}, {"\xc3\xa9", 128}, {"\xe2\x82\xac", 85}};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char value[3 * 1000 + 1] = "", expected[512] = "";
        size_t len = strlen(rows[i].piece);
        for (size_t k = 0; k < 1000; k++)
            memcpy(value + k * len, rows[i].piece, len + 1);
        memcpy(expected, value, rows[i].count * len);
        log_about(LOG_INFO, "m", LOG_FIELDS(about_route(value), about_user("after")), "m");
        json_t *d = document();
        cr_expect_str_eq(text_of(d, "route"), expected);
        cr_expect_str_eq(text_of(d, "user"), "after");
        json_decref(d);
    }
}

/* All fields that there are, and a sentence, none of which the line has room for. */
Test(log, longest_line_is_one_write_and_whole)
{
    static const char *const pieces[] = {"x", "\"", "\x01", "\xff"};
    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        char much[5000];
        memset(much, pieces[i][0], sizeof(much) - 1);
        much[sizeof(much) - 1] = '\0';
        const struct log_field all[] = {
#define TEXT_FIELD(name) about_##name(much),
#define NUMBER_FIELD(name) about_##name(INT64_MAX),
#include "proto/base/log_fields.def"
            {NULL, NULL, 0}};
        log_about(LOG_INFO, "some_long_module_name", all, "%s", much);
        json_t *d = document();
        cr_expect_gt(json_object_size(d), 5 + 5);
        cr_expect_geq(json_string_length(json_object_get(d, "msg")), 350, "room for it is left");
        json_decref(d);
    }
}

Test(log, console_lines_are_the_sentence)
{
    log_set(LOG_INFO, LOG_CONSOLE);
    log_about(LOG_INFO, "publisher", LOG_FIELDS(about_user("u"), about_generation(2)), "in force");
    const char *text = line();
    cr_expect_not_null(strstr(text, "Z info  gwp-test publisher: in force"), "%s", text);
    cr_expect_null(strstr(text, "generation"));
}

static char heard[64];

static void listen(void *owner, enum log_level level, const char *module, const char *message)
{
    snprintf(heard, sizeof(heard), "%s %s: %s", log_level_word(level), module, message);
}

Test(log, who_listens_hears_the_sentence_whatever_is_written)
{
    log_listen(listen, NULL);
    log_set(LOG_ERROR, LOG_JSON);
    log_about(LOG_WARN, "health", LOG_FIELDS(about_endpoint("e")), "%s down", "e");
    cr_expect_str_eq(heard, "warn health: e down");
    char text[8];
    cr_expect_eq(read(lines, text, sizeof(text)), -1, "nothing is written");
}
