/* A tournament: the leaves are the targets' keys, each node above holds the least of the eight
 * below it, which are one cache line. Finding the least is one line per level: three for 512
 * targets, four for 4,096. The tree belongs to the snapshot, the counts to the registry, so a tree
 * can miss what happens under another snapshot; each choice looks at one target anew, in turn,
 * which sets that right within one round.
 *
 * A key is load:24 | paid:40. The load is what is under way in units of one request at the lightest
 * target, rounded down: less than that is no difference. Among equals it is the turn of who has
 * paid least: each choice is paid for with a step that is the smaller the heavier the target, so
 * shares are those of the weights, exactly, and without bursts. Who has been chosen less for having
 * had more to do may catch up on MOST_BEHIND choices and no more.
 *
 * Who changes what a key is made from afterwards stores the key, then looks whether it is still
 * right, and the same on each level up: of two who do so at once the later one to store sees what
 * the other has changed, so when all have gone every node is right (all of it in one order,
 * seq_cst). In between a node is off by what is under way, as any count of things under way is. */
#include "dataplane/route/balancer.h"

#define FAN 8
#define MOST_LEVELS 12
#define NOBODY UINT64_MAX /* a key */
#define NONE UINT32_MAX   /* an index */
#define MOST_TRIES 4

#define PAID_BITS 40
#define PAID_MAX (((uint64_t)1 << PAID_BITS) - 1)
#define PAID_ENOUGH (PAID_MAX / 2) /* the roster is to be called, which begins with 0 again */
#define LOAD_MAX 0xFFFFFEu
#define WHOLE_STEP ((uint64_t)1 << 20) /* of weight 1 */
#define MOST_BEHIND 32
#define LEAST_RAMP (1u << 10) /* of 1 << 16: a share to begin a slow start with */

struct least_tree {
    uint32_t targets;
    uint32_t levels;
    _Atomic uint64_t *at[MOST_LEVELS]; /* [0] the leaves; whole lines, filled up with NOBODY */
};

static_assert(FAN * sizeof(uint64_t) == CACHE_LINE_BYTES, "a node's children are one line");

struct least_tree *lb_least_new(uint32_t targets, struct arena *arena)
{
    struct least_tree *tree = arena_array(arena, 1, sizeof(*tree));
    tree->targets = targets;
    for (uint32_t count = MAX(targets, 1);; count = (count + FAN - 1) / FAN) {
        uint32_t whole = (count + FAN - 1) / FAN * FAN;
        _Atomic uint64_t *level = arena_array(arena, whole, sizeof(*level));
        for (uint32_t i = 0; i < whole; i++)
            atomic_init(&level[i], NOBODY);
        tree->at[tree->levels++] = level;
        if (count <= FAN)
            return tree;
    }
}

/* ---- keys ---- */

static uint64_t load_of(const struct route *route, const struct target *t, uint32_t active,
                        uint32_t ramp)
{
    uint64_t lightest = atomic_load_explicit(&route->roster->lightest, memory_order_relaxed);
    uint64_t weight = roster_weight(t);
    if (LIKELY(weight == lightest && ramp == 1u << 16))
        return active;
    return ((active * lightest) << 16) / (weight * MAX(ramp, LEAST_RAMP));
}

static uint64_t key_of(const struct route *route, const struct target *t, uint64_t now_ms)
{
    uint32_t active = atomic_load_explicit(&t->state->active, memory_order_seq_cst);
    if ((t->max_connections > 0 && active >= t->max_connections) ||
        !balancer_would_admit(route, t, now_ms))
        return NOBODY;
    uint64_t paid = atomic_load_explicit(&t->state->paid, memory_order_seq_cst);
    uint32_t ramp = roster_ramp(route, t, now_ms);
    /* Who starts slowly is not the first choice for having nothing to do yet, unless it is behind
     * with the share that it has by now. */
    if (UNLIKELY(ramp < 1u << 16))
        active += paid > atomic_load_explicit(&route->state->paid, memory_order_relaxed);
    return MIN(load_of(route, t, active, ramp), LOAD_MAX) << PAID_BITS | MIN(paid, PAID_MAX);
}

static uint64_t least_of(const _Atomic uint64_t *line)
{
    uint64_t least = NOBODY;
    for (unsigned i = 0; i < FAN; i++) {
        uint64_t key = atomic_load_explicit(&line[i], memory_order_seq_cst);
        least = MIN(least, key);
    }
    return least;
}

/* Is a node above to be looked at? Not when this one was right already. */
static bool set_right(_Atomic uint64_t *node, const _Atomic uint64_t *line)
{
    bool was_wrong = false;
    for (uint64_t least;
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
    for (uint64_t key; (key = key_of(route, t, now_ms)) !=
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
    atomic_store_explicit(&route->state->paid, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < route->target_count; i++)
        atomic_store_explicit(&route->targets[i].state->paid, 0, memory_order_seq_cst);
    for (uint32_t i = 0; i < route->target_count; i++)
        lb_least_refresh(route, i, now_ms);
}

/* ---- choosing ---- */

/* The leaf with the least key below node `i`, whose children are on that level; of equal ones the
 * first, until it has paid. NONE when nobody can be had, or the tree changes under us. */
static uint32_t descend(const struct least_tree *tree, uint32_t level, uint32_t i)
{
    for (level++; level-- > 0;) {
        const _Atomic uint64_t *line = &tree->at[level][i * FAN];
        uint64_t least = NOBODY;
        uint32_t at = 0;
        for (uint32_t k = 0; k < FAN; k++) {
            uint64_t key = atomic_load_explicit(&line[k], memory_order_relaxed);
            at = key < least ? k : at;
            least = MIN(least, key);
        }
        if (least == NOBODY)
            return NONE;
        i = i * FAN + at;
    }
    return i;
}

/* The same without one of the leaves: its siblings, and on each level above those of the node that
 * it is under. */
static uint32_t find_least_but(const struct least_tree *tree, uint32_t leaf)
{
    uint64_t least = NOBODY;
    uint32_t found = NONE, found_level = 0;
    for (uint32_t level = 0, own = leaf; level < tree->levels; level++, own /= FAN) {
        uint32_t first = own / FAN * FAN;
        for (uint32_t i = first; i < first + FAN; i++) {
            uint64_t key = atomic_load_explicit(&tree->at[level][i], memory_order_relaxed);
            if (i == own || key >= least)
                continue;
            least = key;
            found = i;
            found_level = level;
        }
    }
    return found == NONE || found_level == 0 ? found : descend(tree, found_level - 1, found);
}

static uint32_t find_least(const struct route *route, const struct target *avoid)
{
    const struct least_tree *tree = route->roster->least;
    return LIKELY(!avoid) ? descend(tree, tree->levels - 1, 0)
                          : find_least_but(tree, (uint32_t)(avoid - route->targets));
}

/* What all have paid goes up to what this one had, so nobody falls behind by more than he may catch
 * up on. True when the numbers have become too large. */
static bool pay(const struct route *route, const struct target *t, uint64_t now_ms)
{
    uint32_t ramp = roster_ramp(route, t, now_ms);
    uint64_t step = (WHOLE_STEP << 16) / ((uint64_t)roster_weight(t) * MAX(ramp, LEAST_RAMP));
    uint64_t all = atomic_load_explicit(&route->state->paid, memory_order_relaxed);
    uint64_t least = all > MOST_BEHIND * step ? all - MOST_BEHIND * step : 0, had;
    uint64_t paid = atomic_load_explicit(&t->state->paid, memory_order_relaxed);
    do
        had = MAX(paid, least);
    while (!atomic_compare_exchange_weak_explicit(&t->state->paid, &paid, had + step,
                                                  memory_order_seq_cst, memory_order_relaxed));
    while (all < had &&
           !atomic_compare_exchange_weak_explicit(&route->state->paid, &all, had,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    return had > PAID_ENOUGH;
}

const struct target *lb_least_choose(const struct route *route, struct pick *p)
{
    const struct least_tree *tree = route->roster->least;
    uint64_t turn = balancer_turn(route, p);
    lb_least_refresh(route, (uint32_t)(turn % route->target_count), p->now_ms);
    for (unsigned tries = 0; tries < MOST_TRIES; tries++) {
        uint32_t i = find_least(route, p->avoid);
        if (i >= tree->targets)
            continue;
        const struct target *t = &route->targets[i];
        if (balancer_admit(route, t, p)) {
            if (LIKELY(!p->is_foreseen))
                p->moved |= pay(route, t, p->now_ms);
            return t;
        }
        lb_least_refresh(route, i, p->now_ms);
    }
    return NULL;
}
