/* explanation: what a data plane says would become of a request, as the JSON document of the admin
 * API and of gwpctl. Pure. */
#pragma once

#include <jansson.h>

#include "proto/gateway.pb-c.h"

json_t *explanation_document(const Gwp__Explanation *e);
