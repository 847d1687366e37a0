#include "proto/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proto/base/json.h"

/* No longer than what a pipe takes in one piece. */
#define LINE_MAX_BYTES 4096
#define HEAD_MAX_BYTES 256
#define FIELD_MAX_BYTES 256 /* as it is escaped */
#define FIELDS_MAX_BYTES 1536

static const char *const level_words[] = {"debug", "info", "warn", "error"};
static const char *the_program = "gwp";
static _Atomic int the_level = LOG_INFO;
static _Atomic int the_override = -1; /* a level that counts more than the_level; -1 = none */
static _Atomic int the_format = LOG_CONSOLE;
static log_listener_fn *the_listener;
static void *the_listeners_owner;

void log_init(const char *program, enum log_level level, enum log_format format)
{
    the_program = program;
    log_set(level, format);
}

void log_set(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&the_level, level, memory_order_relaxed);
    atomic_store_explicit(&the_format, format, memory_order_relaxed);
}

void log_listen(log_listener_fn *listener, void *owner)
{
    the_listener = listener;
    the_listeners_owner = owner;
}

void log_override(bool is_overridden, enum log_level level)
{
    atomic_store_explicit(&the_override, is_overridden ? (int)level : -1, memory_order_relaxed);
}

const char *log_level_word(enum log_level level)
{
    return level_words[level];
}

static bool is_written(enum log_level level)
{
    int override = atomic_load_explicit(&the_override, memory_order_relaxed);
    return (int)level >=
           (override >= 0 ? override : atomic_load_explicit(&the_level, memory_order_relaxed));
}

bool log_level_parse(const char *word, enum log_level *level)
{
    for (size_t i = 0; i < COUNT_OF(level_words); i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static size_t format_time(char *out, size_t cap)
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(out, cap, "%Y-%m-%dT%H:%M:%S", &tm);
    return n + (size_t)snprintf(out + n, cap - n, ".%03ldZ", now.tv_nsec / 1000000);
}

/* One event is one line, and moves no cursor. */
static void hide_controls(char *message)
{
    for (char *c = message; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

/* ,"name":"text" or ,"name":number. What does not fit is left out. */
static size_t put_field(char *out, size_t cap, const struct log_field *f)
{
    char text[FIELD_MAX_BYTES];
    size_t len = f->text ? json_escape(text, sizeof(text), view_of(f->text)) : 0;
    int n = 0;
    if (len > 0)
        n = snprintf(out, cap, ",\"%s\":\"%.*s\"", f->name, (int)len, text);
    else if (f->number > 0)
        n = snprintf(out, cap, ",\"%s\":%llu", f->name, (unsigned long long)f->number);
    return (size_t)n < cap ? (size_t)n : 0;
}

static int put_json(char *line, enum log_level level, const char *when, const char *module,
                    const struct log_field *fields, const char *message)
{
    char escaped[LINE_MAX_BYTES - HEAD_MAX_BYTES], put[FIELDS_MAX_BYTES] = "";
    size_t used = 0;
    for (const struct log_field *f = fields; f && f->name; f++)
        used += put_field(put + used, sizeof(put) - used, f);
    size_t len = json_escape(escaped, sizeof(escaped) - used, view_of(message));
    return snprintf(line, LINE_MAX_BYTES,
                    "{\"level\":\"%s\",\"ts\":\"%s\",\"program\":\"%s\",\"module\":\"%s\","
                    "\"msg\":\"%.*s\"%.*s}\n",
                    level_words[level], when, the_program, module, (int)len, escaped, (int)used,
                    put);
}

static void write_line(enum log_level level, const char *module, const struct log_field *fields,
                       const char *fmt, va_list ap) PRINTF_LIKE(4, 0);

static void write_line(enum log_level level, const char *module, const struct log_field *fields,
                       const char *fmt, va_list ap)
{
    char message[LINE_MAX_BYTES / 2], line[LINE_MAX_BYTES], when[40];
    vsnprintf(message, sizeof(message), fmt, ap);
    if (the_listener && level >= LOG_INFO)
        the_listener(the_listeners_owner, level, module, message);
    if (!is_written(level))
        return;
    format_time(when, sizeof(when));

    int n;
    if (atomic_load_explicit(&the_format, memory_order_relaxed) == LOG_JSON) {
        n = put_json(line, level, when, module, fields, message);
    } else {
        hide_controls(message);
        n = snprintf(line, sizeof(line), "%s %-5s %s %s: %s\n", when, level_words[level],
                     the_program, module, message);
    }
    size_t len = MIN((size_t)n, sizeof(line) - 1);
    line[len - 1] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, len);
    (void)ignored; /* a log that cannot be written cannot be complained about either */
}

void log_about(enum log_level level, const char *module, const struct log_field *fields,
               const char *fmt, ...)
{
    if (!is_written(level) && !(the_listener && level >= LOG_INFO))
        return;
    va_list ap;
    va_start(ap, fmt);
    write_line(level, module, fields, fmt, ap);
    va_end(ap);
}

void log_fatal(const char *module, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    write_line(LOG_ERROR, module, NULL, fmt, ap);
    va_end(ap);
    exit(70);
}
