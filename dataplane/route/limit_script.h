/* limit_script: what is sent to Redis, and which keys it has there. Pure functions.
 *
 * Each decision is one script, so nothing comes between reading a key and writing it; times are
 * Redis' own, so gateways need not agree on one. Keys expire by themselves once they say nothing.
 *
 *   gwp:<route>:b:<kind>:<digest>         a bucket: spent tokens and when, two doubles
 *   gwp:<route>:w<ms>:<kind>:<digest>     a window: a hash of cells, as in limit_window.c, exact
 *   gwp:gateways                          who is alive, by the time of the last greeting
 *   gwp:since                             when that list began: at a flush or a restart, say
 *   gwp:secret                            what digests are made with, the same for all gateways
 *
 * where <route> is a hash of its name, <kind> i, u or k (ip, user, api_key), <digest> 128 bits of
 * the key under the secret: no address and no credential is stored. Redis 5 or newer. */
#pragma once

#include "dataplane/route/limiter.h"

#define SCRIPT_SHA_BYTES 40
#define SCRIPT_SECRET_BYTES 32 /* hexadecimal digits */
#define SCRIPT_PREFIX_BYTES 64 /* of a key, before the digest */
#define SCRIPT_COMMAND_BYTES 4096

/* Redis forgets a gateway that has not greeted for so long. */
#define SCRIPT_GATEWAY_MS 5000
/* All that were there when the list of them began have greeted within so long: the longest pause
 * before a connection is tried again, and more. */
#define SCRIPT_SETTLED_MS 10000
#define SCRIPT_GREETING_MS 1000

enum script { SCRIPT_BUCKET, SCRIPT_WINDOW, SCRIPTS };

/* The beginning of all keys that count as the policy says. Returns its length. */
size_t script_prefix(char out[SCRIPT_PREFIX_BYTES], const char *route,
                     const struct limit_policy *p);

/* A command being written, in Redis' protocol. */
struct command {
    char *at; /* borrowed */
    size_t len, room;
};

static inline struct command command_in(char *room, size_t bytes)
{
    return (struct command){room, 0, bytes};
}

void command_begin(struct command *c, unsigned parts);
void command_part(struct command *c, struct view part);

/* SCRIPT LOAD. */
void script_write_load(struct command *c, enum script which);

/* Decides: by the script's SHA1, or by its text when `sha` is NULL. */
void script_write_decision(struct command *c, const char *sha, const struct limit_policy *p,
                           struct digest128 key);

/* Removes one key of those with that prefix. */
void script_write_forget(struct command *c, struct view prefix, struct digest128 key);

/* Removes some of a route's keys; answered by the cursor to go on with, "0" at the end, and how
 * many they were. */
void script_write_sweep(struct command *c, const char *route, const char *cursor);

/* Registers this gateway; answered by how many are alive, the secret (ours if there was none), when
 * the list of them began and how long ago that is, in ms. */
void script_write_greeting(struct command *c, const char *gateway,
                           const char secret[SCRIPT_SECRET_BYTES]);

/* And the opposite. */
void script_write_farewell(struct command *c, const char *gateway);
