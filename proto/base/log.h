/* log: what a program says of itself, on stderr, one event a line. Each line is one write(2), so
 * threads and the two programs of the pair never mix theirs. Not for the hot path: a file that may
 * not log says so at its top.
 *
 * A line's grammar: module, then a sentence whose subject comes first: "data plane dp-1
 * disconnected: it closed". */
#pragma once

#include "proto/base/defs.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_JSON, LOG_CONSOLE };

/* Before other threads start. `program` is borrowed for ever. Until then: info, console. */
void log_init(const char *program, enum log_level level, enum log_format format);

/* Any time, any thread. */
void log_set(enum log_level level, enum log_format format);

/* "debug", "info", "warn" or "error" -> level; false if it is none of them. */
MUST_CHECK bool log_level_parse(const char *word, enum log_level *level);

/* Hears every line of level info or above, whatever is written; NULL = nobody does. For programs of
 * one thread. */
typedef void log_listener_fn(void *owner, enum log_level level, const char *module,
                             const char *message);
void log_listen(log_listener_fn *listener, void *owner);

/* In place of the level that log_set() says, until that is taken back with false. Any thread. */
void log_override(bool is_overridden, enum log_level level);

const char *log_level_word(enum log_level level);

/* What an event is about. In JSON it stands beside the sentence, as a member of its own that lines
 * are filtered by: log_fields.def has the closed list of names. Console lines are for reading:
 * there the sentence is all. */
struct log_field {
    const char *name; /* NULL ends a list */
    const char *text; /* borrowed for the call; cut when it is too long */
    uint64_t number;  /* when there is no text */
};

/* about_route("users"), about_generation(7). NULL, "" and 0 are left out. */
#define TEXT_FIELD(name)                                                                           \
    static inline struct log_field about_##name(const char *text)                                  \
    {                                                                                              \
        return (struct log_field){#name, text, 0};                                                 \
    }
#define NUMBER_FIELD(name)                                                                         \
    static inline struct log_field about_##name(uint64_t number)                                   \
    {                                                                                              \
        return (struct log_field){#name, NULL, number};                                            \
    }
#include "proto/base/log_fields.def"

#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {NULL, NULL, 0}})

/* `fields` is borrowed for the call: LOG_FIELDS(about_route(name), ...), or NULL. */
void log_about(enum log_level level, const char *module, const struct log_field *fields,
               const char *fmt, ...) PRINTF_LIKE(4, 5);

#define log_event(level, module, ...) log_about(level, module, NULL, __VA_ARGS__)
#define log_debug(module, ...) log_event(LOG_DEBUG, module, __VA_ARGS__)
#define log_info(module, ...) log_event(LOG_INFO, module, __VA_ARGS__)
#define log_warn(module, ...) log_event(LOG_WARN, module, __VA_ARGS__)
#define log_error(module, ...) log_event(LOG_ERROR, module, __VA_ARGS__)

/* For what leaves nothing to go on with (out of memory, no loop): says so and exits with status 70.
 */
__attribute__((noreturn)) void log_fatal(const char *module, const char *fmt, ...)
    PRINTF_LIKE(2, 3);
