/* Clients fall into 65,536 buckets by their address. For each bucket every target has a score, made
 * of the bucket's number, the target's id and its weight; the highest of those that may be used
 * takes the bucket's clients. Nothing else enters, so it is the same in every process and
 * generation, and a target that comes or goes moves only the buckets it wins.
 *
 * Looking at all scores costs n, so each bucket's winner is remembered: the one among all
 * (preferred), and the one among those in service (substitute), for when the first may not be used.
 * An entry carries the number of the roster it was found under and is worth nothing under another:
 * what is remembered can be old, never wrong. */
#include "dataplane/route/balancer.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 65536u
#define NOBODY UINT32_MAX
#define FEW 8       /* of so few all can be asked every time */
#define MANY 65535u /* an entry has 16 bits for the target */
#define MOST_TRIES 4

struct hash_memo {
    _Atomic uint32_t weights; /* goes up when a weight changes */
    _Atomic uint32_t calls;   /* goes up when the roster is called */
    uint32_t last_weights;    /* control thread: hash of the weights */
    /* An entry: number << 16 | target + 1. Never touched pages cost nothing. */
    _Atomic uint32_t preferred[BUCKETS], substitute[BUCKETS];
};

struct hash_memo *lb_iphash_new(uint32_t targets)
{
    if (targets <= FEW || targets >= MANY)
        return NULL;
    return calloc(1, sizeof(struct hash_memo)); /* without it everybody is asked every time */
}

void lb_iphash_free(struct hash_memo **m)
{
    free(*m);
    *m = NULL;
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ (h >> 32);
}

/* Numbers are 16 bits wide: when they have gone round, what carries an old one goes. */
static void count_up(_Atomic uint32_t *number, _Atomic uint32_t *entries)
{
    uint32_t next = atomic_load_explicit(number, memory_order_relaxed) + 1;
    for (uint32_t i = 0; (next & 0xFFFF) == 0 && i < BUCKETS; i++)
        atomic_store_explicit(&entries[i], 0, memory_order_relaxed);
    atomic_store_explicit(number, next, memory_order_release);
}

void lb_iphash_refresh(const struct route *route)
{
    struct hash_memo *m = route->roster->memo;
    uint32_t weights = 0;
    for (uint32_t i = 0; i < route->target_count; i++)
        weights = weights * 31 + roster_weight(&route->targets[i]);
    if (weights != m->last_weights)
        count_up(&m->weights, m->preferred);
    m->last_weights = weights;
    count_up(&m->calls, m->substitute);
}

/* ---- scores ---- */

static uint32_t bucket_of(const struct pick *p)
{
    uint64_t half[2] = {0, 0};
    if (p->client_len > 0)
        memcpy(half, p->client, MIN(p->client_len, sizeof(half)));
    return (uint32_t)(mix(half[0] + mix(half[1] + p->client_len)) >> 48);
}

static uint64_t draw_of(uint64_t salt, const struct target *t)
{
    uint64_t h = (salt ^ t->state->id) * 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    return h * 0xD6E8FEB86659FD93u;
}

/* With draws from (0, 1) the least of -log(draw) / weight wins in proportion to the weights. */
static double distance_of(uint64_t draw, uint32_t weight)
{
    return -log2(((double)(draw >> 11) + 0.5) * 0x1p-53) / weight;
}

/* Before a target that starts slowly has its whole share, it has the buckets below this line. */
static bool is_held_back(const struct route *route, const struct target *t, uint32_t bucket,
                         uint64_t now_ms)
{
    uint32_t ramp = roster_ramp(route, t, now_ms);
    return UNLIKELY(ramp < 1u << 16) && mix(t->state->id + bucket) >> 48 >= ramp;
}

/* May it stand in for others? Not while it starts slowly. */
static bool may_stand_in(const struct route *route, const struct target *t, uint64_t now_ms)
{
    return balancer_would_admit(route, t, now_ms) && roster_ramp(route, t, now_ms) == 1u << 16;
}

/* Logarithms only where draws and weights disagree. */
static bool is_nearer(uint64_t draw, uint32_t weight, uint64_t than_draw, uint32_t than_weight)
{
    if (weight <= than_weight && draw <= than_draw)
        return false;
    if (weight >= than_weight && draw > than_draw)
        return true;
    return distance_of(draw, weight) < distance_of(than_draw, than_weight);
}

/* The winner of a bucket among all, or among those who may stand in. */
static uint32_t find_winner(const struct route *route, uint32_t bucket, bool all, uint64_t now_ms)
{
    uint64_t salt = mix(bucket + 1), best = 0;
    uint32_t winner = NOBODY, best_weight = 0;
    for (uint32_t i = 0; i < route->target_count; i++) {
        const struct target *t = &route->targets[i];
        uint64_t draw = draw_of(salt, t);
        uint32_t weight = roster_weight(t);
        if (winner != NOBODY && !is_nearer(draw, weight, best, best_weight))
            continue;
        if (!all && !may_stand_in(route, t, now_ms))
            continue;
        winner = i;
        best = draw;
        best_weight = weight;
    }
    return winner;
}

static uint32_t remember(const struct route *route, uint32_t bucket, bool all, uint64_t now_ms)
{
    struct hash_memo *m = route->roster->memo;
    if (!m)
        return find_winner(route, bucket, all, now_ms);
    /* The number is read before anything that an entry under it depends on. */
    uint32_t number =
        atomic_load_explicit(all ? &m->weights : &m->calls, memory_order_acquire) & 0xFFFF;
    _Atomic uint32_t *entry = &(all ? m->preferred : m->substitute)[bucket];
    uint32_t known = atomic_load_explicit(entry, memory_order_relaxed);
    if (LIKELY(known >> 16 == number && (known & 0xFFFF) != 0))
        return (known & 0xFFFF) - 1;
    uint32_t winner = find_winner(route, bucket, all, now_ms);
    if (winner != NOBODY)
        atomic_store_explicit(entry, number << 16 | (winner + 1), memory_order_relaxed);
    return winner;
}

/* ---- choosing ---- */

static const struct target *try_one(const struct route *route, struct pick *p, uint32_t i)
{
    const struct target *t = i == NOBODY ? NULL : &route->targets[i];
    return t && t != p->avoid && balancer_admit(route, t, p) ? t : NULL;
}

/* The nearest that can be had at all: for those whose first two choices are full, probed enough, or
 * to be avoided. */
static const struct target *try_others(const struct route *route, struct pick *p, uint32_t bucket)
{
    uint64_t salt = mix(bucket + 1);
    double beyond = -1;
    for (unsigned tries = 0; tries < MOST_TRIES; tries++) {
        uint32_t winner = NOBODY;
        double nearest = INFINITY;
        for (uint32_t i = 0; i < route->target_count; i++) {
            const struct target *t = &route->targets[i];
            if (t == p->avoid || !balancer_would_admit(route, t, p->now_ms))
                continue; /* all of them, in an outage: no logarithms for those */
            double distance = distance_of(draw_of(salt, t), roster_weight(t));
            if (distance > beyond && distance < nearest) {
                winner = i;
                nearest = distance;
            }
        }
        const struct target *t = try_one(route, p, winner);
        if (t || winner == NOBODY)
            return t;
        beyond = nearest;
    }
    return NULL;
}

const struct target *lb_iphash_choose(const struct route *route, struct pick *p)
{
    uint32_t bucket = bucket_of(p);
    uint32_t first = remember(route, bucket, true, p->now_ms);
    if (!is_held_back(route, &route->targets[first], bucket, p->now_ms)) {
        const struct target *t = try_one(route, p, first);
        if (LIKELY(t))
            return t;
    }
    uint32_t second = remember(route, bucket, false, p->now_ms);
    const struct target *t = try_one(route, p, second);
    return t ? t : try_others(route, p, bucket);
}
