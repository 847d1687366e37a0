/* Whatever scan.c does not give up on, libyaml reads in the same way, event by event. */
#include "yaml_events.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (yaml_events_compare((struct view){(const char *)data, size}) == YAML_EVENTS_DIFFER)
        abort();
    return 0;
}
