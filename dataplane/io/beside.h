/* beside: a second listening socket of an address whose first one is held by a process that hangs.
 * Control thread.
 *
 * TCP: both have SO_REUSEPORT, which each of ours gets once it listens (an ordinary bind still
 * fails when the address is taken), so they are one group for the kernel; a program of one
 * instruction, attached to it, says which of the two gets the new connections. Whoever waits at the
 * other one goes on waiting.
 *
 * Unix: the path is given to the second one; the first one's file is put aside meanwhile. Only
 * where the process that has opened it is seen to be dead: any other may well be serving it. */
#pragma once

#include "proto/base/addr.h"

enum beside_place { BESIDE_FIRST, BESIDE_SECOND };

/* This listening socket may have a second one. */
void beside_permit(int fd);

/* Before bind(), of a TCP socket that is to be the second. */
MUST_CHECK bool beside_join(int fd);

/* New connections go there. Does nothing where there is no group, or no such place in it. */
void beside_steer(int fd, enum beside_place place);

/* Of Unix sockets. False when somebody may be serving it, or it cannot be renamed. */
MUST_CHECK bool beside_put_aside(const struct addr *addr);
/* Is the first one there still? Whoever has put it aside may have died, too; a file that nobody
 * listens on any more is removed. False for TCP. */
MUST_CHECK bool beside_is_aside(const struct addr *addr);
void beside_put_back(const struct addr *addr); /* over the second one's, which is to be closed */
void beside_forget(const struct addr *addr);   /* the second one stays */
