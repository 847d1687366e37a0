/* raw_case: reads the *.case files of tests/golden/http1; the format is in the README.md there. */
#pragma once

#include <ctype.h>
#include <dirent.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/base/str.h"

#define RAW_MAX_BYTES 65536
#define RAW_MAX_EXPECTED 8

enum expected_kind {
    EXPECT_LINE,
    EXPECT_BODY,
    EXPECT_HAS,
    EXPECT_NOT,
    EXPECT_TRAILER,
    EXPECT_NEXT
};

struct raw_case {
    char name[128];
    unsigned method;
    char bytes[RAW_MAX_BYTES];
    size_t len;
    char verdict[32];
    unsigned expected_count;
    struct {
        enum expected_kind kind;
        char text[1024];
        size_t len;
    } expected[RAW_MAX_EXPECTED];
};

typedef void raw_case_fn(const struct raw_case *c, const char *file, bool is_response, void *more);

_Noreturn static inline void raw_fail(const char *file, unsigned line, const char *what)
{
    fprintf(stderr, "%s:%u: %s\n", file, line, what);
    abort();
}

static inline size_t raw_unescape(const char *text, char *out, size_t room, const char *file,
                                  unsigned line);

/* "\{300*ab}": `text` is behind the brace; its end is returned. */
static inline const char *raw_repeat(const char *text, char *out, size_t room, size_t *len,
                                     const char *file, unsigned line)
{
    char *star, piece[256], bytes[256];
    unsigned long count = strtoul(text, &star, 10);
    const char *end = strchr(text, '}');
    if (*star != '*' || !end || (size_t)(end - star) > sizeof(piece))
        raw_fail(file, line, "a repetition is written \\{COUNT*TEXT}");
    memcpy(piece, star + 1, (size_t)(end - star) - 1);
    piece[end - star - 1] = '\0';
    size_t piece_len = raw_unescape(piece, bytes, sizeof(bytes), file, line);
    if (count * piece_len > room)
        raw_fail(file, line, "too many bytes");
    for (*len = 0; count > 0; count--, *len += piece_len)
        memcpy(out + *len, bytes, piece_len);
    return end + 1;
}

static inline size_t raw_unescape(const char *text, char *out, size_t room, const char *file,
                                  unsigned line)
{
    static const char letters[] = "rnt0\\", bytes[] = {'\r', '\n', '\t', '\0', '\\'};
    size_t n = 0;
    while (*text) {
        size_t len = 1;
        if (n >= room)
            raw_fail(file, line, "too many bytes");
        if (*text != '\\') {
            out[n++] = *text++;
            continue;
        }
        const char *letter = text[1] ? strchr(letters, text[1]) : NULL;
        if (text[1] == '{') {
            text = raw_repeat(text + 2, out + n, room - n, &len, file, line);
        } else if (text[1] == 'x' && isxdigit((unsigned char)text[2]) &&
                   isxdigit((unsigned char)text[3])) {
            char digits[3] = {text[2], text[3], '\0'};
            out[n] = (char)strtoul(digits, NULL, 16);
            text += 4;
        } else if (letter) {
            out[n] = bytes[letter - letters];
            text += 2;
        } else {
            raw_fail(file, line, "unknown escape");
        }
        n += len;
    }
    return n;
}

static inline unsigned raw_method(const char *name, const char *file, unsigned line)
{
    for (unsigned m = 0; m <= HTTP_SOURCE; m++)
        if (strcmp(llhttp_method_name((llhttp_method_t)m), name) == 0)
            return m;
    raw_fail(file, line, "unknown method");
}

static inline bool raw_expectation(struct raw_case *c, const char *text, const char *file,
                                   unsigned line)
{
    static const char *const words[] = {"line ", "body ", "has ", "not ", "trailer ", "next "};
    for (unsigned kind = 0; kind < COUNT_OF(words); kind++) {
        size_t len = strlen(words[kind]);
        if (strncmp(text, words[kind], len) != 0)
            continue;
        if (c->expected_count == RAW_MAX_EXPECTED)
            raw_fail(file, line, "too many expectations");
        unsigned i = c->expected_count++;
        c->expected[i].kind = (enum expected_kind)kind;
        c->expected[i].len =
            raw_unescape(text + len, c->expected[i].text, sizeof(c->expected[i].text), file, line);
        return true;
    }
    return false;
}

static inline void raw_word(char *out, size_t size, const char *text, const char *file,
                            unsigned line)
{
    size_t len = strlen(text);
    if (len >= size)
        raw_fail(file, line, "too long");
    memcpy(out, text, len + 1);
}

/* One line into the case; true when it ends it. */
static inline bool raw_line(struct raw_case *c, const char *text, const char *file, unsigned line)
{
    if (text[0] == '\0')
        return c->name[0] != '\0';
    if (text[0] == '#')
        return false;
    if (text[0] == '=' && text[1] == ' ')
        raw_word(c->name, sizeof(c->name), text + 2, file, line);
    else if (strncmp(text, "method ", 7) == 0)
        c->method = raw_method(text + 7, file, line);
    else if (strncmp(text, ">> ", 3) == 0)
        c->len += raw_unescape(text + 3, c->bytes + c->len, RAW_MAX_BYTES - c->len, file, line);
    else if (strncmp(text, "-> ", 3) == 0)
        raw_word(c->verdict, sizeof(c->verdict), text + 3, file, line);
    else if (!raw_expectation(c, text, file, line))
        raw_fail(file, line, "no line of a case");
    return false;
}

static inline unsigned raw_file(const char *path, const char *file, raw_case_fn *fn, void *more)
{
    static struct raw_case c;
    char text[8192];
    bool is_response = strncmp(file, "response-", 9) == 0, more_lines = true;
    unsigned count = 0, line = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        raw_fail(path, 0, "cannot be opened");
    memset(&c, 0, sizeof(c));
    c.method = HTTP_GET;
    while (more_lines) {
        more_lines = fgets(text, sizeof(text), f) != NULL;
        text[more_lines ? strcspn(text, "\n") : 0] = '\0';
        line++;
        if (!raw_line(&c, text, file, line))
            continue;
        if (c.verdict[0] == '\0')
            raw_fail(file, line, "a case without verdict");
        fn(&c, file, is_response, more);
        count++;
        memset(&c, 0, sizeof(c));
        c.method = HTTP_GET;
    }
    fclose(f);
    return count;
}

/* Calls `fn` for every case there is, file by file; returns how many there are. */
static inline unsigned raw_each(raw_case_fn *fn, void *more)
{
    struct dirent **entries;
    unsigned count = 0;
    int files = scandir("tests/golden/http1", &entries, NULL, alphasort);
    if (files < 0)
        raw_fail("tests/golden/http1", 0, "run this from the root of the tree");
    for (int i = 0; i < files; i++) {
        char path[512];
        const char *file = entries[i]->d_name, *dot = strrchr(file, '.');
        snprintf(path, sizeof(path), "tests/golden/http1/%s", file);
        if (dot && strcmp(dot, ".case") == 0)
            count += raw_file(path, file, fn, more);
        free(entries[i]);
    }
    free(entries);
    return count;
}
