#include <criterion/criterion.h>
#include <ctype.h>

#include "dataplane/http/head.h"

static const char *const names[] = {
#define FIELD(ID, name, fate, trails) [FIELD_##ID] = name,
#include "dataplane/http/fields.def"
#undef FIELD
};

Test(head, every_known_name_is_found_in_any_case)
{
    for (unsigned id = 1; id < FIELD_LOOKALIKE; id++) {
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
                                  "accepts",
                                  "a-name-that-is-longer-than-all-known-ones"};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        cr_assert_eq(field_find(view_of(others[i])), FIELD_OTHER, "%s", others[i]);
}

Test(head, only_case_makes_no_difference)
{
    /* every byte of every name, changed in every bit */
    for (unsigned id = 1; id < FIELD_LOOKALIKE; id++) {
        for (size_t i = 0; names[id][i]; i++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                char text[64];
                strcpy(text, names[id]);
                text[i] ^= (char)(1u << bit);
                bool same_letter = bit == 5 && isalpha((unsigned char)names[id][i]);
                struct view name = {text, strlen(names[id])};
                cr_assert_eq(field_find(name) == id, same_letter, "%s, byte %zu, bit %u", names[id],
                             i, bit);
            }
        }
    }
}

Test(head, underscores_do_not_hide_a_name)
{
    cr_assert_eq(field_find_lookalike(view_of("X_Forwarded-for")), FIELD_FORWARDED_FOR);
    cr_assert_eq(field_find_lookalike(view_of("content_length")), FIELD_CONTENT_LENGTH);
    cr_assert_eq(field_find_lookalike(view_of("x_y")), FIELD_OTHER);
    cr_assert_eq(field_fate(FIELD_LOOKALIKE), OURS);
    cr_assert_not(field_may_trail(FIELD_LOOKALIKE));
}

Test(head, what_frames_routes_or_authenticates_may_not_trail)
{
    const enum field_id never[] = {
        FIELD_HOST,          FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING,
        FIELD_AUTHORIZATION, FIELD_CONTENT_TYPE,   FIELD_FORWARDED_FOR,
        FIELD_CONNECTION,    FIELD_TRAILER,        FIELD_SET_COOKIE};
    for (size_t i = 0; i < COUNT_OF(never); i++)
        cr_assert_not(field_may_trail(never[i]), "%s", names[never[i]]);
    cr_assert(field_may_trail(FIELD_OTHER));
    cr_assert(field_may_trail(FIELD_ETAG));
}
