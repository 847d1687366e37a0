/* api: the endpoints of the admin API, as a table: method, path, who may, and what it does. On the
 * control plane's loop. */
#pragma once

#include "controlplane/admin/admin.h"

enum endpoint_access { READ, WRITE };

struct endpoint {
    const char *method, *path;
    enum endpoint_access access; /* WRITE: the private socket, or the token */
    void (*handle)(struct request *rq);
};

/* The one for this method (HEAD counts as GET) and path. NULL: then `allowed` holds the methods
 * that the path has, "GET, HEAD" or so, or "" when there is no such path. */
const struct endpoint *api_find(const char *method, const char *path, char allowed[64]);
