#include "dataplane/selfcheck.h"

#include <errno.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "proto/base/addr.h"

#define STAND_IN_WORD "\"no_data_plane\"" /* as in its answer */

static int ask(int fd, const struct addr *addr, const char *address, struct err *err)
{
    const struct timeval limit = {.tv_sec = SELFCHECK_TIMEOUT_MS / 1000,
                                  .tv_usec = SELFCHECK_TIMEOUT_MS % 1000 * 1000};
    char answer[1024];
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(fd, &addr->sa.any, addr->len) < 0 || shutdown(fd, SHUT_WR) < 0)
        return err_set_errno(err, "%s takes no connection", address);
    ssize_t n = recv(fd, answer, sizeof(answer), 0);
    if (n < 0)
        return errno == EAGAIN
                   ? err_set(err,
                             "%s takes connections, but nobody there has answered within %d ms",
                             address, SELFCHECK_TIMEOUT_MS)
                   : err_set_errno(err, "%s has ended the connection", address);
    /* A worker that has no room for another client answers 503 before the end: it is busy, not ill.
     * The control plane does the same in the place of a data plane that is not there. */
    if (memmem(answer, (size_t)n, STAND_IN_WORD, strlen(STAND_IN_WORD)))
        return err_set(err, "%s is answered by the control plane: no data plane serves", address);
    return 0;
}

int selfcheck(const char *address, struct err *err)
{
    struct addr addr;
    if (addr_parse(&addr, address, err) < 0)
        return -1;
    int fd = socket(addr.sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, "no socket");
    int result = ask(fd, &addr, address, err);
    close(fd);
    return result;
}
