/* json_schema: the table of keys as a JSON Schema (draft 7), for editors and CI: what a file may
 * hold, with defaults and sentences. It says what single values are; what must hold between them
 * (names twice, two routes for the same requests) only loading tells. Pure. */
#pragma once

#include <jansson.h>

json_t *json_schema_document(void);
