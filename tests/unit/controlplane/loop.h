/* loop: for tests that wait for a condition on the loop, never for time. */
#pragma once

#include <criterion/criterion.h>
#include <ev.h>

#define LOOP_PATIENCE_SECONDS 10.

static void loop_wake(struct ev_loop *loop, ev_timer *w, int revents)
{
}

/* Turns the loop until `condition` holds; the test fails when it does not within
 * LOOP_PATIENCE_SECONDS. */
#define LOOP_UNTIL(loop, condition)                                                                \
    do {                                                                                           \
        ev_timer wake_;                                                                            \
        ev_tstamp end_ = ev_time() + LOOP_PATIENCE_SECONDS;                                        \
        ev_timer_init(&wake_, loop_wake, 0.02, 0.02);                                              \
        ev_timer_start((loop), &wake_);                                                            \
        while (!(condition) && ev_time() < end_)                                                   \
            ev_run((loop), EVRUN_ONCE);                                                            \
        ev_timer_stop((loop), &wake_);                                                             \
        cr_assert(condition, "never: %s", #condition);                                             \
    } while (0)
