#include "dataplane/http/edits.h"

#include "dataplane/http/head.h"
#include "dataplane/http/http1_check.h"

static const struct {
    struct view word;
    enum edit_variable variable;
} variables[] = {
    {{"${client_ip}", 12}, EDIT_CLIENT_IP},
    {{"${request_id}", 13}, EDIT_REQUEST_ID},
    {{"${host}", 7}, EDIT_HOST},
    {{"${route}", 8}, EDIT_ROUTE},
};

static int check_name(const char *name, struct err *err)
{
    enum field_id id = field_find(view_of(name));
    if (!http1_is_token(view_of(name)))
        return err_set(err, "\"%s\" is not the name of a header field", name);
    if (field_fate(id) == HOP || id == FIELD_HOST || id == FIELD_CONTENT_LENGTH ||
        id == FIELD_TRANSFER_ENCODING)
        return err_set(err, "header field \"%s\" is the gateway's own and cannot be edited", name);
    return 0;
}

static int check_value(const char *name, const char *value, struct err *err)
{
    for (const char *p = value; *p; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 127)
            return err_set(err, "the value of header field \"%s\" holds a control byte", name);
    return 0;
}

/* The variable that `rest` begins with, EDIT_TEXT if none; *len is its length, or that of the text
 * before the next one. */
static enum edit_variable next_part(struct view rest, size_t *len)
{
    for (*len = 0; *len < rest.len; (*len)++) {
        struct view here = {rest.at + *len, rest.len - *len};
        for (size_t i = 0; i < COUNT_OF(variables); i++) {
            if (!view_starts_with(here, variables[i].word))
                continue;
            if (*len > 0)
                return EDIT_TEXT;
            *len = variables[i].word.len;
            return variables[i].variable;
        }
    }
    return EDIT_TEXT;
}

static int compile_line(struct edit_line *line, const Gwp__HeaderField *in, struct arena *arena,
                        struct err *err)
{
    if (check_name(in->name, err) < 0 || check_value(in->name, in->value, err) < 0)
        return -1;
    struct view value = {arena_copy(arena, view_of(in->value)), strlen(in->value)};
    line->name = (struct view){arena_copy(arena, view_of(in->name)), strlen(in->name)};
    line->parts = arena_array(arena, value.len + 1, sizeof(*line->parts));
    while (value.len > 0) {
        size_t len;
        struct edit_part *part = &line->parts[line->part_count++];
        part->variable = next_part(value, &len);
        part->text = (struct view){value.at, len};
        value.at += len;
        value.len -= len;
    }
    return 0;
}

int edits_compile(struct edits *e, const Gwp__HeaderEdits *in, struct arena *arena, struct err *err)
{
    *e = (struct edits){0};
    if (!in || in->n_set + in->n_add + in->n_remove == 0)
        return 0;
    e->lines = arena_array(arena, in->n_set + in->n_add, sizeof(*e->lines));
    e->gone = arena_array(arena, in->n_set + in->n_remove, sizeof(*e->gone));
    for (size_t i = 0; i < in->n_set; i++) {
        if (compile_line(&e->lines[e->line_count], in->set[i], arena, err) < 0)
            return -1;
        e->gone[e->gone_count++] = e->lines[e->line_count++].name;
    }
    for (size_t i = 0; i < in->n_add; i++)
        if (compile_line(&e->lines[e->line_count++], in->add[i], arena, err) < 0)
            return -1;
    for (size_t i = 0; i < in->n_remove; i++) {
        if (check_name(in->remove[i], err) < 0)
            return -1;
        struct view name = view_of(in->remove[i]);
        e->gone[e->gone_count++] = (struct view){arena_copy(arena, name), name.len};
    }
    return 0;
}

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

bool edits_match(const char *gone, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (lower(gone[i]) != lower(name[i]) && !(gone[i] == '-' && name[i] == '_'))
            return false;
    return true;
}

void edits_write(const struct edits *e, const struct edit_values *values, struct head_writer *w)
{
    for (uint32_t i = 0; i < e->line_count; i++) {
        const struct edit_line *line = &e->lines[i];
        write_view(w, line->name);
        write_literal(w, ": ");
        for (uint32_t k = 0; k < line->part_count; k++) {
            const struct edit_part *part = &line->parts[k];
            write_view(w, part->variable == EDIT_TEXT ? part->text : values->at[part->variable]);
        }
        write_literal(w, "\r\n");
    }
}
