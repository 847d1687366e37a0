/* notify: tells a service manager how this program is (sd_notify(3)): over the datagram socket that
 * NOTIFY_SOCKET names. Without it nothing happens. Any thread. */
#pragma once

#include "proto/base/defs.h"

/* "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=..."; several are separated by newlines. */
void notify_manager(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* How often the manager wants a sign of life, in seconds: half of what it allows. 0 = never. */
double notify_watchdog_seconds(void);
