/* history: the configurations that came into force, on disk: what gwpctl history, show, diff and
 * rollback know, and what a control plane may start with. Owned by the publisher; one thread, no
 * loop.
 *
 * One file each, STATE/generations/NUMBER.yaml:
 *
 *     # gateway-pro generation, checksum 0123456789abcdef     of the next line
 *     # {"number": 12, "origin": "push", "hash": ..., ...}    hash is of what follows
 *     the configuration, byte for byte
 *
 * It is written beside, synced, renamed, and the folder synced, so that whatever happens meanwhile
 * leaves each entry whole or absent. A damaged one is told and skipped. The last HISTORY_KEPT are
 * kept. An entry's number is that of the generation as which it first came into force. */
#pragma once

#include "controlplane/generation.h"
#include "proto/base/err.h"

#define HISTORY_KEPT 50
#define HISTORY_USER_BYTES 128
#define HISTORY_MESSAGE_BYTES 1024
#define HISTORY_SOURCE_BYTES 256

struct history_entry {
    uint64_t number;
    uint64_t time_ms; /* wall clock */
    enum origin origin;
    uint64_t again;                      /* of a rollback: the number it went back to, else 0 */
    char user[HISTORY_USER_BYTES];       /* "" = nobody: the file has changed */
    char message[HISTORY_MESSAGE_BYTES]; /* what the user said; may be "" */
    char source[HISTORY_SOURCE_BYTES];   /* names the text: "gateway.yaml" */
    uint64_t hash;                       /* XXH3 of the text */
    size_t bytes;                        /* of the text */
};

struct history {
    char *folder;             /* owned */
    struct history_entry *at; /* owned; by number, the oldest first */
    size_t count, room;
    bool warned; /* that it cannot be kept */
};

/* Reads what is there. A folder that cannot be read is an empty history, with a warning. */
void history_open(struct history *h, const char *state_dir);
void history_close(struct history *h);

/* One more; its number is higher than all before. What cannot be kept is not in the list: -1 with
 * `err`; that is logged once, and when it is over. */
MUST_CHECK int history_add(struct history *h, const struct history_entry *entry, struct view text,
                           struct err *err);

/* NULL when there is no such number. Borrowed until the next history_add(). */
const struct history_entry *history_find(const struct history *h, uint64_t number);
const struct history_entry *history_newest(const struct history *h);

/* The one before `number`, for a rollback; NULL when there is none. */
const struct history_entry *history_before(const struct history *h, uint64_t number);

/* Its text, terminated, owned by the caller; NULL with `err` when it cannot be read or is damaged.
 */
MUST_CHECK char *history_read(const struct history *h, const struct history_entry *entry,
                              struct err *err);
