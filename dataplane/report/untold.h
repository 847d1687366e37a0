/* untold: what a process has counted and could not tell at its end, since the control plane was
 * away. It is kept in the state directory, a file for each lineage, and told by whoever serves from
 * that directory next: the same numbers under the same lineage count once, however often they are
 * told. Control thread; blocking file I/O. */
#pragma once

#include "dataplane/report/report.h"

/* All of it; `s->emit` and `s->owner` are not used. -1 with `err`: it is lost. */
MUST_CHECK int untold_keep(const char *state_dir, const struct settlement *s, struct err *err);

/* Gives every part of every file to `emit`; a file goes when that has taken all of it. */
void untold_tell(const char *state_dir, report_emit_fn *emit, void *owner);
