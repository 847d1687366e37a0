/* wait: conditions instead of sleeps. */
#pragma once

#include <criterion/criterion.h>
#include <time.h>

/* Looks every millisecond, for ten seconds at most. */
#define WAIT_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int tries_ = 10000;                                                                        \
        while (!(condition) && tries_-- > 0)                                                       \
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                               \
        cr_assert(tries_ > 0, "waited in vain for " #condition);                                   \
    } while (0)
