/* api: the endpoints of the admin API, as a table: method, path, who may, and what it does. On the
 * control plane's loop. */
#pragma once

#include "controlplane/admin/admin.h"

enum endpoint_access { READ, WRITE };

struct endpoint {
    const char *method, *path;   /* "{address}" in a path stands for one segment */
    enum endpoint_access access; /* WRITE: the private socket, or the token */
    void (*handle)(struct request *rq);
};

/* The one for this method (HEAD counts as GET) and path. NULL: then `allowed` holds the methods
 * that the path has, "GET, HEAD" or so, or "" when there is no such path. What stands for
 * "{address}" goes to `argument`, "" when there is none or it is too long. */
const struct endpoint *api_find(const char *method, const char *path, char allowed[64],
                                char argument[API_ARGUMENT_BYTES]);
