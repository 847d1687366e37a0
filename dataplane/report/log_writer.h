/* log_writer: the thread that writes access logs. Each worker has a ring of its own (one producer,
 * this one consumer). The sink (stdout, stderr, off, or a path) may change at any time; a path is
 * reopened on log_writer_reopen(). */
#pragma once

#include "proto/base/err.h"

struct log_writer;
struct log_ring;

struct log_writer *log_writer_start(unsigned workers); /* starts the thread; sink is "off" */
void log_writer_stop(struct log_writer **w); /* drains what is there, bounded to a second, joins */

struct log_ring *log_writer_ring(struct log_writer *w, unsigned worker); /* owned by the writer */

/* Control thread. -1 with `err` when a path cannot be opened: the old sink stays. */
MUST_CHECK int log_writer_set_sink(struct log_writer *w, const char *sink, struct err *err);
void log_writer_reopen(struct log_writer *w);

/* True when lines would go nowhere: workers need not format them. Any thread. */
bool log_ring_is_off(const struct log_ring *r);

/* Producer: room for a line of at most `bytes` or NULL when the ring is full; then the length
 * really written (0 = none). */
char *log_ring_reserve(struct log_ring *r, size_t bytes);
void log_ring_commit(struct log_ring *r, size_t bytes);
