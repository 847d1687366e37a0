#include "proto/base/pace.h"

#include <sched.h>

#include "proto/base/clock.h"

bool pace_look(void)
{
    static _Thread_local uint64_t resumed_us, rest_us;
    uint64_t now_us = clock_us();
    if (now_us - resumed_us < MAX(rest_us, PACE_US))
        return false;
    sched_yield();
    resumed_us = clock_us();
    rest_us = (resumed_us - now_us) / PACE_SHARE;
    return true;
}

void pace_yield(void)
{
    static _Thread_local uint32_t calls;
    if (++calls % PACE_CALLS == 0)
        pace_look();
}
