#include <criterion/criterion.h>

#include "proto/base/clock.h"
#include "proto/base/pace.h"

/* Within a second, whatever others have taken meanwhile. */
static bool yields(void)
{
    for (uint64_t until = clock_us() + 1000000; clock_us() < until;)
        if (pace_look())
            return true;
    return false;
}

Test(pace, the_processor_is_offered_again_and_again_but_not_at_once)
{
    cr_assert(yields());
    uint64_t begun = clock_us();
    bool at_once = pace_look();
    cr_expect(!at_once || clock_us() - begun >= PACE_US); /* unless something else took the time */
    cr_expect(yields());
}
