/* pages: files of controlplane/admin/pages/, compiled in: the dashboard and the description of the
 * API. */
#pragma once

#include "proto/base/str.h"

struct page {
    const char *type;
    struct view text;
};

/* false: there is no such page. */
MUST_CHECK bool page_find(const char *path, struct page *page);
