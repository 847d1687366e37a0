#include "controlplane/ledger.h"

#include <assert.h>

static_assert(sizeof(ledger_count) == sizeof(uint64_t), "a row's value is counted in as it is");

void ledger_init(struct ledger *l, const char *state_dir)
{
    memset(l, 0, sizeof(*l));
    tallies_open(&l->tallies, state_dir, "counters");
}

void ledger_fini(struct ledger *l)
{
    tallies_close(&l->tallies);
}

static ledger_count *count_of(struct tally *r)
{
    return (ledger_count *)(void *)r->values;
}

ledger_count *ledger_find(struct ledger *l, const char *name)
{
    struct view key = view_of(name);
    tallies_each(r, &l->tallies)
    {
        if (r->count == 1 && view_equal(tallies_key(r), key))
            return count_of(r);
    }
    struct tally *made = tallies_add(&l->tallies, 0, key, 1);
    return made ? count_of(made) : &l->overflow;
}
