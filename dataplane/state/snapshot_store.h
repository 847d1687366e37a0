/* snapshot_store: the last accepted snapshot on disk, so that a data plane that starts without its
 * control plane serves what it served before. One file in the state directory: a head (magic,
 * format, length, XXH3 of the payload), then the packed Snapshot message. Control thread; blocking
 * file I/O. */
#pragma once

#include "proto/base/err.h"

/* Writes to a temporary file, syncs it, renames it. -1 with `err`; what was stored before stays
 * whole. While another process is writing there, nothing is done: it has the same to say. */
MUST_CHECK int snapshot_store_save(const char *state_dir, const uint8_t *packed, size_t len,
                                   struct err *err);

/* The packed message, owned by the caller (free), or NULL: with an empty err->text when nothing is
 * stored, with a reason when what is stored cannot be used. */
uint8_t *snapshot_store_load(const char *state_dir, size_t *len, struct err *err);

/* Seconds of wall clock since it was saved or confirmed; 0 when nothing is stored. */
double snapshot_store_age(const char *state_dir);

/* It is in force still: its age begins anew. */
void snapshot_store_confirm(const char *state_dir);
