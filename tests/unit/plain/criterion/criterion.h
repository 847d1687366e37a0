/* criterion, as much of it as our tests use, for builds under the thread sanitizer: the library
 * maps memory at addresses that the sanitizer keeps for itself, and dies before the first test.
 * Here each test is a forked process, one after another; --filter takes a part of "suite/name",
 * other options are ignored. Found first by the include path of that variant only (Makefile). */
#pragma once

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLAIN_TIMEOUT_S 120

struct plain_suite {
    const char *name;
    void (*init)(void), (*fini)(void);
    double timeout;
    struct plain_suite *next;
};

struct plain_test {
    const char *suite, *name;
    void (*run)(void), (*init)(void), (*fini)(void);
    double timeout;
    struct plain_test *next;
};

static struct plain_suite *plain_suites;
static struct plain_test *plain_tests, **plain_last = &plain_tests;
static bool plain_failed;

static inline void plain_add(struct plain_test *t)
{
    *plain_last = t;
    plain_last = &t->next;
}

#define TestSuite(S, ...)                                                                          \
    static struct plain_suite S##_suite_ = {.name = #S, __VA_ARGS__};                              \
    __attribute__((constructor)) static void S##_add_suite_(void)                                  \
    {                                                                                              \
        S##_suite_.next = plain_suites;                                                            \
        plain_suites = &S##_suite_;                                                                \
    }                                                                                              \
    struct plain_suite

#define Test(S, N, ...)                                                                            \
    static void S##_##N##_run_(void);                                                              \
    static struct plain_test S##_##N##_test_ = {                                                   \
        .suite = #S, .name = #N, .run = S##_##N##_run_, __VA_ARGS__};                              \
    __attribute__((constructor)) static void S##_##N##_add_(void)                                  \
    {                                                                                              \
        plain_add(&S##_##N##_test_);                                                               \
    }                                                                                              \
    static void S##_##N##_run_(void)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static inline void plain_say(const char *file, int line, const char *what, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: %s: ", file, line, what);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}
#pragma GCC diagnostic pop

#define PLAIN_CHECK(otherwise, condition, what, ...)                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            plain_say(__FILE__, __LINE__, what, "" __VA_ARGS__);                                   \
            otherwise;                                                                             \
        }                                                                                          \
    } while (0)
#define PLAIN_ASSERT(...) PLAIN_CHECK(_exit(1), __VA_ARGS__)
#define PLAIN_EXPECT(...) PLAIN_CHECK(plain_failed = true, __VA_ARGS__)

#define cr_assert(c, ...) PLAIN_ASSERT(c, #c, __VA_ARGS__)
#define cr_assert_not(c, ...) PLAIN_ASSERT(!(c), "!(" #c ")", __VA_ARGS__)
#define cr_assert_fail(...) PLAIN_ASSERT(false, "failed", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) PLAIN_ASSERT((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) PLAIN_ASSERT((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) PLAIN_ASSERT((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) PLAIN_ASSERT((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) PLAIN_ASSERT((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) PLAIN_ASSERT((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...) PLAIN_ASSERT((a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...) PLAIN_ASSERT((a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) PLAIN_ASSERT(!strcmp(a, b), #a " equals " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) PLAIN_ASSERT(strcmp(a, b), #a " differs from " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...) PLAIN_ASSERT(*(a) == 0, #a " is empty", __VA_ARGS__)
#define cr_assert_str_not_empty(a, ...) PLAIN_ASSERT(*(a) != 0, #a " is not empty", __VA_ARGS__)
#define cr_assert_float_eq(a, b, e, ...)                                                           \
    PLAIN_ASSERT(fabs((a) - (b)) <= (e), #a " is about " #b, __VA_ARGS__)

#define cr_expect(c, ...) PLAIN_EXPECT(c, #c, __VA_ARGS__)
#define cr_expect_not(c, ...) PLAIN_EXPECT(!(c), "!(" #c ")", __VA_ARGS__)
#define cr_expect_eq(a, b, ...) PLAIN_EXPECT((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) PLAIN_EXPECT((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) PLAIN_EXPECT((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) PLAIN_EXPECT((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) PLAIN_EXPECT((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) PLAIN_EXPECT((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_null(a, ...) PLAIN_EXPECT((a) == NULL, #a " is NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...) PLAIN_EXPECT((a) != NULL, #a " is not NULL", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) PLAIN_EXPECT(!strcmp(a, b), #a " equals " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) PLAIN_EXPECT(strcmp(a, b), #a " differs from " #b, __VA_ARGS__)
#define cr_expect_fail(...) PLAIN_EXPECT(false, "failed", __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) PLAIN_EXPECT(!memcmp(a, b, n), #a " equals " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) PLAIN_ASSERT(!memcmp(a, b, n), #a " equals " #b, __VA_ARGS__)
#define cr_log_info(...) plain_say(__FILE__, __LINE__, "info", "" __VA_ARGS__)

static inline const struct plain_suite *plain_suite_of(const struct plain_test *t)
{
    for (const struct plain_suite *s = plain_suites; s; s = s->next)
        if (strcmp(s->name, t->suite) == 0)
            return s;
    return NULL;
}

/* In a process of its own. exit() and not _exit(), so that the sanitizer has its last word. */
static inline void plain_run(const struct plain_test *t)
{
    const struct plain_suite *s = plain_suite_of(t);
    void (*init)(void) = t->init ? t->init : s ? s->init : NULL;
    void (*fini)(void) = t->fini ? t->fini : s ? s->fini : NULL;
    alarm(PLAIN_TIMEOUT_S);
    if (init)
        init();
    t->run();
    if (fini)
        fini();
    exit(plain_failed);
}

static inline bool plain_passes(const struct plain_test *t)
{
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        plain_run(t);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv)
{
    unsigned tested = 0, failing = 0;
    const char *filter = "";
    char name[256];
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--filter") == 0)
            filter = argv[i + 1];
    for (const struct plain_test *t = plain_tests; t; t = t->next) {
        snprintf(name, sizeof(name), "%s/%s", t->suite, t->name);
        if (!strstr(name, filter))
            continue;
        tested++;
        if (!plain_passes(t)) {
            failing++;
            fprintf(stderr, "[FAIL] %s\n", name);
        }
    }
    fprintf(stderr, "Tested: %u | Failing: %u\n", tested, failing);
    return failing > 0;
}
