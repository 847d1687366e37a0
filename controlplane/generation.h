/* generation: numbered generations of the configuration. Owned by the publisher; one thread, no
 * loop.
 *
 *   candidate --every data plane that was asked accepts--> in force
 *   candidate --one refuses or goes away--> dropped; the one in force stays
 *
 * A number belongs to one snapshot for ever: it grows by one with each that is sent, over restarts
 * too, so that a SnapshotResult can only mean one of them. That is why a rollback sends the
 * previous configuration again under a new number instead of the old one: who was still compiling
 * the refused one then has its answer told apart from the answer to what replaced it. A number that
 * was refused is never in force later. A control plane that starts with the very snapshot that was
 * in force last, and was the last to be sent, goes on with its number.
 *
 * The last number is kept in the state directory, and with it the hash of the file as it was read
 * last, by which a start knows whether the file has changed since. That outlives the process; it is
 * not synced, because that would be waited for before each snapshot is sent. After a crash of the
 * machine the history and what data planes say in their Hello bring the number up again. Where it
 * cannot be written, numbers continue from the clock's seconds, which are ahead of any count. */
#pragma once

#include "controlplane/config/compare.h"

enum origin { ORIGIN_FILE, ORIGIN_PUSH, ORIGIN_RELOAD, ORIGIN_DNS, ORIGIN_ROLLBACK };

struct shared_config; /* a struct config that several generations share; counted */

struct generation {
    uint64_t number;
    uint64_t entry; /* the number as which its configuration first came into force; 0 = not yet */
    enum origin origin;
    uint64_t created_ms;          /* wall clock */
    uint64_t in_force_ms;         /* 0 = it is not in force */
    const struct config *config;  /* borrowed from shared */
    struct shared_config *shared; /* one count owned */
    uint8_t *packed;              /* owned: the Snapshot as it goes out */
    size_t len;
    size_t backends, endpoints;
    uint64_t targets_hash, body_hash; /* see builder.h */
    struct changes changes;           /* against the one before; in the arena of config */
};

enum answer_state { ANSWER_PENDING, ANSWER_ACCEPTED, ANSWER_REFUSED };

/* What one data plane says to the candidate. */
struct answer {
    char *instance_id, *name; /* owned */
    enum answer_state state;
    char *reason; /* owned; "" unless refused */
    uint64_t compile_us, swap_us;
};

enum verdict { VERDICT_PENDING, VERDICT_ACCEPTED, VERDICT_REFUSED };

struct generations {
    char *path; /* owned: where the last number is kept */
    uint64_t last;
    uint64_t file_hash;           /* of the file's content when it was read last; 0 = never */
    uint64_t held, held_hash;     /* number and body of what was in force last; 0 = nothing yet */
    bool warned;                  /* that it cannot be kept; until it can */
    struct generation *in_force;  /* owned; NULL = none yet */
    struct generation *candidate; /* owned; NULL = none */
    struct answer *answers;       /* owned: to the candidate, or to what was the last one */
    size_t answer_count;
};

const char *origin_word(enum origin origin);  /* "file", "push", "reload", "dns", "rollback" */
enum origin origin_of_word(const char *word); /* ORIGIN_FILE when it is none of them */

/* A generation without number and snapshot. Takes `config` over. */
struct generation *generation_new(struct config *config, enum origin origin);

uint64_t generation_number(const struct generation *g); /* 0 when there is none */

/* One more with the same configuration. */
struct generation *generation_again(const struct generation *other, enum origin origin);
void generation_free(struct generation **g); /* nulls *g; NULL is allowed */

/* Reads the last number from `state_dir`, which is made when it is missing. */
void generations_init(struct generations *gs, const char *state_dir);
void generations_fini(struct generations *gs);

/* A new number, kept on disk before it is returned. */
uint64_t generations_next_number(struct generations *gs);

/* Somebody knows a generation of that number: ours are higher from now on. */
void generations_heard(struct generations *gs, uint64_t number);

/* On disk, or with a warning not. */
void generations_keep(struct generations *gs);

/* That is in force: kept, so that the next control plane, if it builds the same, begins with it. */
void generations_hold(struct generations *gs, const struct generation *g);

/* The file was read, and has that content. */
void generations_saw_file(struct generations *gs, uint64_t hash);

/* Takes `g` over as candidate, of which there may be none yet; forgets the answers to the one
 * before. */
void generations_propose(struct generations *gs, struct generation *g);

/* That data plane was sent the candidate, and owes an answer. */
void generations_expect(struct generations *gs, const char *instance_id, const char *name);

/* Its answer. false when none was owed. */
bool generations_answer(struct generations *gs, const char *instance_id, bool accepted,
                        const char *reason, uint64_t compile_us, uint64_t swap_us);

enum verdict generations_verdict(const struct generations *gs);

/* Did anybody take the candidate, or may still take it? Then a rollback has to be sent. */
bool generations_is_out(const struct generations *gs);

void generations_commit(struct generations *gs, uint64_t now_ms); /* the candidate is in force */
void generations_drop(struct generations *gs);                    /* it never will be */
