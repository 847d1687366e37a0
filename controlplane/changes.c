#include "controlplane/changes.h"

static json_t *place_of(const char *source, uint32_t line)
{
    return line > 0 ? json_sprintf("%s:%u", source, line) : json_null();
}

/* Of what is no UTF-8, as variables may put it in, nothing can be said in JSON. */
static json_t *text_of(const char *text)
{
    json_t *t = text ? json_string(text) : json_null();
    return t ? t : json_string("?");
}

static json_t *change_of(const struct change *one, const struct config *before,
                         const struct config *now)
{
    static const char *const kinds[] = {
        [CHANGE_ADDED] = "added", [CHANGE_REMOVED] = "removed", [CHANGE_CHANGED] = "changed"};
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "change", kinds[one->kind],
                     "route", text_of(one->route), "backend", text_of(one->backend), "key",
                     text_of(one->key), "from", text_of(one->from), "to", text_of(one->to),
                     "from_place", place_of(before->source, one->from_line), "to_place",
                     place_of(now->source, one->to_line), "text", text_of(one->sentence));
}

json_t *changes_document(const struct changes *changes, const struct config *before,
                         const struct config *now)
{
    json_t *list = json_array();
    for (size_t i = 0; i < changes->count; i++)
        json_array_append_new(list, change_of(&changes->at[i], before, now));
    return json_pack("{s:o, s:I}", "changes", list, "more", (json_int_t)changes->dropped);
}
