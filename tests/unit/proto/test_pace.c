#include <criterion/criterion.h>

#include "proto/base/clock.h"
#include "proto/base/pace.h"

static void compute(uint64_t us)
{
    for (uint64_t until = clock_us() + us; clock_us() < until;)
        ;
}

Test(pace, the_processor_is_offered_after_half_a_millisecond_and_not_before)
{
    compute(PACE_US + 1);
    cr_expect(pace_look());
    uint64_t begun = clock_us();
    bool again = pace_look();
    cr_expect(!again || clock_us() - begun >= PACE_US); /* unless something else took the time */
    compute(PACE_US + 1);
    cr_expect(pace_look());
}

Test(pace, small_pieces_add_up)
{
    compute(PACE_US + 1);
    for (unsigned i = 0; i < PACE_CALLS; i++)
        pace_yield();
    uint64_t begun = clock_us();
    bool again = pace_look();
    cr_expect(!again || clock_us() - begun >= PACE_US);
}
