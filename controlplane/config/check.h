/* check: from text to struct config, through the schema: the three functions that config.h
 * promises. All errors of a text are found in one go; nothing that is wrong is repaired. */
#pragma once

#include "controlplane/config/config.h"
