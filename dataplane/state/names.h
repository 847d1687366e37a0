/* names: what the slots of the counters stand for: route names and target ids, in a segment beside
 * theirs (report/stats.h), so that whoever finds the counters of a process that has died can tell
 * what was counted. Control thread only.
 *
 * A slot has one name for ever. Those that find no room are counted by nobody else. */
#pragma once

#include "dataplane/state/segment.h"

struct names;

struct names *names_new(void); /* ends the program if there is no memory */
void names_free(struct names **n);

void names_put_route(struct names *n, uint32_t slot, const char *name);
void names_put_target(struct names *n, uint32_t slot, uint64_t id);
const struct segment *names_segment(const struct names *n);

/* Those of another process, to be read. NULL with `err`; takes `fd` over in either case. */
struct names *names_adopt(int fd, struct err *err);
uint32_t names_route_slots(const struct names *n);
uint32_t names_target_slots(const struct names *n);
const char *names_route(const struct names *n, uint32_t slot); /* NULL when it has none */
uint64_t names_target(const struct names *n, uint32_t slot);   /* 0 when it has none */
