/* http1_write: writes a message head into a buffer of known size. Pure; on the hot path. Overflow
 * is noted, not written: the caller checks once at the end. */
#pragma once

#include "proto/base/str.h"

struct head_writer {
    char *start, *at, *end;
    bool overflow;
};

static inline struct head_writer head_writer(char *to, size_t bytes)
{
    return (struct head_writer){to, to, to + bytes, false};
}

static inline void write_bytes(struct head_writer *w, const char *from, size_t len)
{
    if (UNLIKELY((size_t)(w->end - w->at) < len)) {
        w->overflow = true;
        return;
    }
    memcpy(w->at, from, len);
    w->at += len;
}

static inline void write_view(struct head_writer *w, struct view v)
{
    if (v.len > 0)
        write_bytes(w, v.at, v.len);
}

#define write_literal(w, text) write_bytes((w), "" text, sizeof(text) - 1)

static inline void write_field(struct head_writer *w, struct view name, struct view value)
{
    write_view(w, name);
    write_literal(w, ": ");
    write_view(w, value);
    write_literal(w, "\r\n");
}

void write_number(struct head_writer *w, uint64_t n);

/* "HTTP/1.1 404 Not Found\r\n"; an empty `phrase` stands for the usual one. */
void write_status_line(struct head_writer *w, unsigned status, struct view phrase);

/* The usual phrase (RFC 9110 15), "" for a status that has none. */
struct view status_phrase(unsigned status);
