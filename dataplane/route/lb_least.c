/* A tournament: the leaves are the targets' loads, each node above holds the least of the sixteen
 * below it, which are one cache line. Finding the least is one line per level: two for 256 targets,
 * three for 4,096. The tree belongs to the snapshot, the counts to the registry, so a tree can miss
 * what happens under another snapshot; each choice looks at one target anew, in turn, which sets
 * that right within one round.
 *
 * Who changes what a key is made from afterwards stores the key, then looks whether it is still
 * right, and the same on each level up: of two who do so at once the later one to store sees what
 * the other has changed, so when all have gone every node is right (all of it in one order,
 * seq_cst). In between a node is off by what is under way, as any count of things under way is. */
#include "dataplane/route/balancer.h"

#include <string.h>

#define FAN 16
#define MOST_LEVELS 8
#define NOBODY UINT32_MAX
#define MOST_TRIES 4

struct least_tree {
    uint32_t targets;
    uint32_t levels;
    _Atomic uint32_t *at[MOST_LEVELS]; /* [0] the leaves; whole lines, filled up with NOBODY */
    uint32_t count[MOST_LEVELS];
};

static_assert(FAN * sizeof(uint32_t) == CACHE_LINE_BYTES, "a node's children are one line");

struct least_tree *lb_least_new(uint32_t targets, struct arena *arena)
{
    struct least_tree *tree = arena_array(arena, 1, sizeof(*tree));
    tree->targets = targets;
    for (uint32_t count = MAX(targets, 1);; count = (count + FAN - 1) / FAN) {
        uint32_t whole = (count + FAN - 1) / FAN * FAN;
        _Atomic uint32_t *level = arena_array(arena, whole, sizeof(*level));
        for (uint32_t i = 0; i < whole; i++)
            atomic_init(&level[i], NOBODY);
        tree->at[tree->levels] = level;
        tree->count[tree->levels++] = count;
        if (count <= FAN)
            return tree;
    }
}

/* Loads as numbers that compare like what they stand for: positive floats do. */
static uint32_t load_of(uint32_t active, float weight)
{
    float load = (float)active / weight;
    uint32_t bits;
    memcpy(&bits, &load, sizeof(bits));
    return bits;
}

static uint32_t key_of(const struct route *route, const struct target *t, uint64_t now_ms)
{
    uint32_t active = atomic_load_explicit(&t->state->active, memory_order_seq_cst);
    if ((t->max_connections > 0 && active >= t->max_connections) ||
        !balancer_would_admit(route, t, now_ms))
        return NOBODY;
    uint32_t ramp = roster_ramp(route, t, now_ms);
    if (LIKELY(ramp == 1u << 16))
        return load_of(active, (float)roster_weight(t));
    /* Counted as if it had one more: not the first choice for having nothing to do yet. */
    return load_of(active + 1, (float)roster_weight(t) * (float)MAX(ramp, 1) / (1u << 16));
}

static uint32_t least_of(const _Atomic uint32_t *line)
{
    uint32_t least = NOBODY;
    for (unsigned i = 0; i < FAN; i++) {
        uint32_t key = atomic_load_explicit(&line[i], memory_order_seq_cst);
        least = MIN(least, key);
    }
    return least;
}

/* Is a node above to be looked at? Not when this one was right already. */
static bool set_right(_Atomic uint32_t *node, const _Atomic uint32_t *line)
{
    bool was_wrong = false;
    for (uint32_t least;
         (least = least_of(line)) != atomic_load_explicit(node, memory_order_seq_cst);
         was_wrong = true)
        atomic_store_explicit(node, least, memory_order_seq_cst);
    return was_wrong;
}

void lb_least_refresh(const struct route *route, uint32_t i, uint64_t now_ms)
{
    const struct least_tree *tree = route->roster->least;
    const struct target *t = &route->targets[i];
    bool was_wrong = false;
    for (uint32_t key; (key = key_of(route, t, now_ms)) !=
                       atomic_load_explicit(&tree->at[0][i], memory_order_seq_cst);
         was_wrong = true)
        atomic_store_explicit(&tree->at[0][i], key, memory_order_seq_cst);
    for (uint32_t level = 1; was_wrong && level < tree->levels; level++) {
        i /= FAN;
        was_wrong = set_right(&tree->at[level][i], &tree->at[level - 1][i * FAN]);
    }
}

void lb_least_refresh_all(const struct route *route, uint64_t now_ms)
{
    for (uint32_t i = 0; i < route->target_count; i++)
        lb_least_refresh(route, i, now_ms);
}

/* Which of a line's sixteen have that key or less. */
static uint32_t mark_least(const _Atomic uint32_t *line, uint32_t least)
{
    uint32_t marks = 0;
    for (unsigned i = 0; i < FAN; i++)
        marks |= (uint32_t)(atomic_load_explicit(&line[i], memory_order_relaxed) <= least) << i;
    return marks;
}

/* A leaf with the least key; `turn` decides among equals, of whom none gets more for standing
 * behind busy ones: the turns are spread evenly over 0 to 1, each level takes its digit of that and
 * leaves the rest to the one below. (Between lines it is the lines that share alike, however many
 * of each are equal: who is chosen has more to do then, so that evens out.) NOBODY if the tree
 * changes. */
static uint32_t find_least(const struct least_tree *tree, uint64_t turn)
{
    uint32_t top = tree->levels - 1, i = 0, least = least_of(tree->at[top]);
    uint32_t digits = (uint32_t)(turn * 0x9E3779B97F4A7C15u >> 32);
    if (least == NOBODY)
        return NOBODY;
    for (uint32_t level = top + 1; level-- > 0;) {
        uint32_t marks = mark_least(&tree->at[level][i * FAN], least);
        uint64_t digit = (uint64_t)digits * (unsigned)__builtin_popcount(marks);
        digits = (uint32_t)digit;
        if (marks == 0)
            return NOBODY;
        for (digit >>= 32; digit > 0; digit--)
            marks &= marks - 1;
        i = i * FAN + (unsigned)__builtin_ctz(marks);
    }
    return i;
}

/* Whose turn it is, if nobody has less to do: so among idle targets shares are those of the
 * weights. Its key is set right on the way. */
static const struct target *try_turn(const struct route *route, struct pick *p, uint64_t turn)
{
    const struct roster *r = route->roster;
    uint32_t units = atomic_load_explicit(&r->units, memory_order_acquire);
    if (units == 0)
        return NULL;
    uint32_t i = roster_at(r, units, turn);
    const struct target *t = &route->targets[i];
    lb_least_refresh(route, i, p->now_ms);
    uint32_t ramp = roster_ramp(route, t, p->now_ms);
    if (t == p->avoid || (uint32_t)(turn * 0x9E3779B97F4A7C15u >> 48) >= ramp)
        return NULL;
    uint32_t active = atomic_load_explicit(&t->state->active, memory_order_relaxed);
    if (load_of(active, (float)roster_weight(t)) > least_of(r->least->at[r->least->levels - 1]))
        return NULL;
    return balancer_admit(route, t, p) ? t : NULL;
}

const struct target *lb_least_choose(const struct route *route, struct pick *p)
{
    const struct least_tree *tree = route->roster->least;
    uint64_t turn = balancer_turn(route, p);
    const struct target *t = try_turn(route, p, turn);
    for (unsigned tries = 0; !t && tries < MOST_TRIES; tries++) {
        uint32_t i = find_least(tree, turn + tries);
        if (i >= tree->targets)
            continue;
        t = &route->targets[i];
        if (t == p->avoid || !balancer_admit(route, t, p)) {
            t = NULL;
            lb_least_refresh(route, i, p->now_ms);
        }
    }
    return t;
}
