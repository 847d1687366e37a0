/* files: the few things that the control plane does to files and sockets by path. Every failure is
 * a sentence that names the path. One thread. */
#pragma once

#include <sys/types.h>

#include "proto/base/err.h"
#include "proto/base/str.h"

/* Makes the directories above `path` (mode 0755) that are missing. */
MUST_CHECK int files_make_parent(const char *path, struct err *err);

/* All or nothing: written beside, synced, renamed over `path`; once it returns 0 the text is on the
 * disk, and its name too. */
MUST_CHECK int files_write(const char *path, struct view text, struct err *err);

/* The same for a text in several parts. */
MUST_CHECK int files_write_parts(const char *path, const struct view *parts, size_t count,
                                 struct err *err);

/* All or nothing without waiting for the disk: it outlives the process, not the machine. */
MUST_CHECK int files_write_soon(const char *path, struct view text, struct err *err);

/* The whole of a file of at most `max_bytes`; terminated, owned by the caller. NULL with `err`. */
MUST_CHECK char *files_read(const char *path, size_t max_bytes, size_t *len, struct err *err);

/* A listening Unix socket (mode 0660, non-blocking) at `path`, whose directory is made when it is
 * missing. A socket file that nobody listens on any more is replaced; one that somebody does is
 * left alone, and -1 returned with `err`. Who closes it unlinks it. */
MUST_CHECK int files_listen_unix(const char *path, struct err *err);
