/* intake: what shall come into force, from whoever says it: a push, a rollback, a reload, the file
 * that has changed. Reads and checks the text, and hands what is good to the publisher, one at a
 * time: what comes while another candidate is under way waits for its turn, in the order of coming;
 * a push that waits longer than it would for the data planes, or behind too many others, is told
 * "busy". The file needs one turn only, in which it is read. Its state lies in the publisher; on
 * the loop. */
#pragma once

#include <ev.h>

#include "proto/base/list.h"
#include "proto/base/str.h"

#define INTAKE_MAX_BYTES (16u * 1024 * 1024)
#define INTAKE_MAX_WAITING 16 /* pushes */

struct publisher;
struct push;

struct intake {
    struct list waiting; /* of struct turn: pushes that came meanwhile, and the file; owned */
    size_t waiting_count;
    ev_timer patience; /* until one of them has waited too long */
    bool unread;       /* the last that happened: the file could not be read */
};

void intake_init(struct publisher *p);
void intake_fini(struct publisher *p); /* whoever waits is told */

/* Reads the file and brings it into force as `push` says. Its `source` is ignored. */
void intake_reload(struct publisher *p, const struct push *push);

/* The same if the file's content is another than the last time; else nothing. */
void intake_file_changed(struct publisher *p);

/* Brings a text into force. */
void intake_push(struct publisher *p, const struct push *push, struct view text);

/* Brings an entry of the history into force again; 0 = the one before that in force. */
void intake_rollback(struct publisher *p, const struct push *push, uint64_t number);

/* What came up while the candidate was under way: the publisher is idle again. A text that is
 * refused leaves it idle for the next one. */
void intake_next(struct publisher *p);
