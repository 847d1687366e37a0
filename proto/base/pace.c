#include "proto/base/pace.h"

#include <sched.h>

#include "proto/base/clock.h"

bool pace_look(void)
{
    static _Thread_local uint64_t yielded_us;
    if (clock_us() - yielded_us < PACE_US)
        return false;
    sched_yield();
    yielded_us = clock_us();
    return true;
}

void pace_yield(void)
{
    static _Thread_local uint32_t calls;
    if (++calls % PACE_CALLS == 0)
        pace_look();
}
