/* defs: the few macros that every file may use. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* What two threads write lies on different cache lines. */
#define CACHE_LINE_BYTES 64

/* Of something that will be read a little later, and that no near cache holds where there are
 * thousands of its kind: the line it begins in, or the one at that offset. */
#define PREFETCH(ptr) __builtin_prefetch(ptr)
#define PREFETCH_AT(ptr, bytes) __builtin_prefetch((const char *)(ptr) + (bytes))
