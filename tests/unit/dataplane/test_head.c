#include <criterion/criterion.h>
#include <ctype.h>

#include "dataplane/http/head.h"

static const char *const names[] = {
#define FIELD(ID, name, fate) [FIELD_##ID] = name,
#include "dataplane/http/fields.def"
#undef FIELD
};

Test(head, every_known_name_is_found_in_any_case)
{
    for (unsigned id = 1; id < FIELD_COUNT; id++) {
        char upper[64] = "";
        for (size_t i = 0; names[id][i]; i++)
            upper[i] = (char)toupper((unsigned char)names[id][i]);
        cr_assert_eq(field_find(view_of(names[id])), id, "%s", names[id]);
        cr_assert_eq(field_find(view_of(upper)), id, "%s", upper);
    }
}

Test(head, other_names_are_other)
{
    const char *const others[] = {"",
                                  "x",
                                  "hosts",
                                  "hos",
                                  "content-lengths",
                                  "content_length",
                                  "keep\ralive",
                                  "x-forwarded-server",
                                  "accept",
                                  "a-name-that-is-longer-than-all-known-ones"};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        cr_assert_eq(field_find(view_of(others[i])), FIELD_OTHER, "%s", others[i]);
}
