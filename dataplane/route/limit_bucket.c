/* Token bucket: the generic cell rate algorithm, kept as tokens spent and when, rather than as the
 * time at which all will be there again: so a changed rate means the same tokens at another pace.
 *
 * Unit: 2^-32 of a token. Refilling rounds down, and is only written back when a request passes:
 * refusals, however many, lose nothing, and one that passes loses less than a unit. */
#include "dataplane/route/limiter.h"

#define TOKEN ((uint64_t)1 << 32)

/* What is still spent at `now_ns`. */
static uint64_t spent_at(const struct limit_policy *p, const struct limit_slot *slot,
                         uint64_t now_ns)
{
    if (now_ns <= slot->clock)
        return slot->spent;
    double refilled = (double)(now_ns - slot->clock) * p->tokens_per_ns;
    return refilled >= (double)slot->spent ? 0 : slot->spent - (uint64_t)refilled;
}

/* How long until so many units are there, rounded up. */
static uint64_t ns_for(const struct limit_policy *p, uint64_t units)
{
    double ns = (double)units / p->tokens_per_ns + 1;
    return ns < 1e18 ? (uint64_t)ns : (uint64_t)1e18;
}

static struct limit_verdict decide(const struct limit_policy *p, struct limit_slot *slot,
                                   uint64_t now_ns)
{
    uint64_t size = p->quota * TOKEN, spent = spent_at(p, slot, now_ns);
    bool allowed = spent + TOKEN <= size;
    if (allowed) {
        spent += TOKEN;
        slot->spent = spent;
        slot->clock = MAX(slot->clock, now_ns);
    }
    return (struct limit_verdict){
        .allowed = allowed,
        .remaining = spent < size ? (size - spent) / TOKEN : 0,
        .retry_ns = allowed ? 0 : ns_for(p, spent + TOKEN - size),
        .reset_ns = ns_for(p, spent),
    };
}

static void prefetch(const struct limit_policy *p, const struct limit_slot *slot, uint64_t now_ns)
{
    __builtin_prefetch(slot, 1);
}

const struct limit_algorithm limit_bucket = {.slot_bytes = sizeof(struct limit_slot),
                                             .prefetch = prefetch,
                                             .decide = decide,
                                             .weight = spent_at};
