/* Sliding window: time is cut into cells of 1/110 of the window, and a request passes while fewer
 * than the quota have passed in the present cell and the 110 before it. Together these always reach
 * back a whole window and more, so no window holds more than the quota. What passed in a cell is
 * forgotten at most one cell late, so whoever always has a request waiting gets 110/111 of the
 * quota in each window; the rounding below costs less than a thousandth more: over 99 %.
 *
 * A closed cell's count is kept in 16 bits, rounded up: 11 bits of it and by how many it was
 * shifted. Up to 2047 it is exact, above it is at most 1/1024 too high. A key costs 256 bytes,
 * four cache lines, whatever its quota is, and rate and quota may change under it: a cell is only a
 * count. What every decision needs is in the first of these lines. */
#include "dataplane/route/limiter.h"

#include <assert.h>
#include <string.h>

#define CLOSED LIMIT_WINDOW_CELLS
#define DIGITS 11 /* bits of a count that are kept */

struct cells {
    struct limit_slot slot; /* clock: the number of the present cell; spent: its count and those of
                               the closed ones */
    uint32_t present;
    uint16_t closed[CLOSED]; /* cell n at n % CLOSED */
};

static_assert(sizeof(struct cells) == 256, "four cache lines");

static uint16_t compress(uint32_t count)
{
    unsigned shift = 0;
    while (count >> DIGITS != 0) {
        count = count / 2 + count % 2;
        shift++;
    }
    return (uint16_t)(shift << DIGITS | count);
}

static uint64_t expand(uint16_t cell)
{
    return (uint64_t)(cell & ((1u << DIGITS) - 1)) << (cell >> DIGITS);
}

static uint64_t sum(const struct cells *c)
{
    uint64_t total = c->present;
    for (unsigned i = 0; i < CLOSED; i++)
        total += expand(c->closed[i]);
    return total;
}

/* Closes the present cell and those that passed without a request. */
static void advance(struct cells *c, uint64_t cell)
{
    struct limit_slot *slot = &c->slot;
    if (cell <= slot->clock)
        return; /* of a worker whose clock is behind */
    if (cell - slot->clock > CLOSED) {
        memset(&c->present, 0, sizeof(*c) - offsetof(struct cells, present));
        slot->spent = 0;
        slot->clock = cell;
        return;
    }
    uint64_t round = slot->clock / CLOSED;
    unsigned at = (unsigned)(slot->clock % CLOSED);
    uint64_t before = expand(c->closed[at]) + c->present;
    c->closed[at] = compress(c->present);
    c->present = 0;
    slot->spent = slot->spent + expand(c->closed[at]) - before;
    while (++slot->clock < cell) {
        at = at + 1 == CLOSED ? 0 : at + 1;
        slot->spent -= expand(c->closed[at]);
        c->closed[at] = 0;
    }
    /* A process that was killed between two of these steps left a sum that is wrong; not for
     * longer than a window. */
    if (slot->clock / CLOSED != round)
        slot->spent = sum(c);
}

static bool are_empty(const uint16_t *cells, unsigned count)
{
    uint64_t bits = 0;
    memcpy(&bits, cells, count * sizeof(*cells));
    return bits == 0;
}

/* How many cells, oldest first, have to go for so many requests to be gone; CLOSED if even all are
 * too few. Most cells are empty when few requests make the quota: those are passed over by fours.
 */
static unsigned cells_holding(const struct cells *c, uint64_t count)
{
    unsigned at = (unsigned)(c->slot.clock % CLOSED); /* the oldest */
    uint64_t gone = 0;
    for (unsigned n = 0; n < CLOSED;) {
        unsigned few = MIN(4, CLOSED - MAX(at, n));
        if (are_empty(&c->closed[at], few)) {
            n += few;
            at += few;
        } else {
            gone += expand(c->closed[at++]);
            n++;
        }
        if (gone >= count)
            return n;
        at = at == CLOSED ? 0 : at;
    }
    return CLOSED;
}

/* When the quota has room for one again: as the oldest cells go that make up the excess. */
static uint64_t next_ns(const struct limit_policy *p, const struct cells *c, uint64_t now_ns)
{
    uint64_t excess = c->slot.spent + 1 - p->quota, held = c->slot.spent - c->present;
    unsigned cells = held < excess ? CLOSED + 1 : cells_holding(c, excess);
    uint64_t at = (c->slot.clock + cells) * p->cell_ns;
    return at > now_ns ? at - now_ns : 1;
}

static struct limit_verdict decide(const struct limit_policy *p, struct limit_slot *slot,
                                   uint64_t now_ns)
{
    struct cells *c = (struct cells *)slot;
    advance(c, now_ns / p->cell_ns);
    bool allowed = slot->spent < p->quota && c->present < UINT32_MAX;
    if (allowed) {
        c->present++;
        slot->spent++;
    }
    uint64_t over = (slot->clock + CLOSED + 1) * p->cell_ns;
    return (struct limit_verdict){
        .allowed = allowed,
        .remaining = p->quota > slot->spent ? p->quota - slot->spent : 0,
        .retry_ns = allowed ? 0 : next_ns(p, c, now_ns),
        .reset_ns = over > now_ns ? over - now_ns : 1,
    };
}

/* The sum as it stood, less and less as time passes without a request. */
static uint64_t weight(const struct limit_policy *p, const struct limit_slot *slot, uint64_t now_ns)
{
    uint64_t cell = now_ns / p->cell_ns, age = cell > slot->clock ? cell - slot->clock : 0;
    return age > CLOSED ? 0 : slot->spent * (CLOSED + 1 - age);
}

/* Whoever was here lately closes the cell before. */
static void prefetch(const struct limit_policy *p, const struct limit_slot *slot, uint64_t now_ns)
{
    const struct cells *c = (const struct cells *)slot;
    __builtin_prefetch(c, 1);
    __builtin_prefetch(&c->closed[(now_ns / p->cell_ns + CLOSED - 1) % CLOSED], 1);
}

const struct limit_algorithm limit_window = {
    .slot_bytes = sizeof(struct cells), .prefetch = prefetch, .decide = decide, .weight = weight};
