/* changes: what is different between two configurations, as the JSON document of the admin API and
 * of gwpctl. Pure. */
#pragma once

#include <jansson.h>

#include "controlplane/config/compare.h"

json_t *changes_document(const struct changes *changes, const struct config *before,
                         const struct config *now);
