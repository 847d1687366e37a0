#include <criterion/criterion.h>
#include <stdlib.h>

#include "controlplane/config/schema.h"

static struct arena *arena;
static const struct key *keys;
static size_t key_count;

static void setup(void)
{
    arena = arena_new(4096);
    keys = schema_keys(&key_count);
}

static void teardown(void)
{
    arena_free(&arena);
}

TestSuite(schema, .init = setup, .fini = teardown);

Test(schema, a_key_is_written_once)
{
    for (size_t i = 0; i < key_count; i++)
        for (size_t j = 0; j < i; j++)
            cr_expect_str_neq(keys[i].path, keys[j].path);
}

Test(schema, every_key_says_what_it_is_and_has_a_default_or_is_required)
{
    for (size_t i = 0; i < key_count; i++) {
        const struct key *k = &keys[i];
        cr_expect(k->doc && *k->doc, "%s has no sentence", k->path);
        cr_expect(k->type <= VALUE_SECTION_LIST || k->preset || (k->flags & KEY_REQUIRED),
                  "%s has no default", k->path);
    }
}

static size_t count_keys(const struct section *s)
{
    size_t n = s->count;
    for (size_t i = 0; i < s->count; i++)
        n += s->keys[i].section ? count_keys(s->keys[i].section) : 0;
    return n;
}

Test(schema, the_index_reaches_every_row)
{
    cr_expect_eq(count_keys(schema_open(arena)), key_count);
}

Test(schema, keys_are_found_in_their_own_section_only)
{
    const struct section *file = schema_open(arena);
    const struct section_key *routes = schema_find(file, view_of("routes"));
    cr_assert(routes && routes->section);
    const struct section_key *prefix = schema_find(routes->section, view_of("path_prefix"));
    cr_assert(prefix);
    cr_expect_str_eq(prefix->key->path, "routes[].path_prefix");
    cr_expect_null(schema_find(file, view_of("path_prefix")));
    cr_expect_null(schema_find(routes->section, view_of("url")));
}

Test(schema, a_description_names_range_and_words)
{
    char out[SCHEMA_DESCRIPTION_BYTES];
    const struct section_key *server = schema_find(schema_open(arena), view_of("server"));
    const struct key *k = schema_find(server->section, view_of("workers"))->key;
    cr_expect_str_eq(schema_describe(k, out), "a whole number from 1 to 256, or auto");
    k = schema_find(server->section, view_of("max_header_bytes"))->key;
    cr_expect_str_eq(schema_describe(k, out),
                     "a number of bytes from 1KiB to 1MiB, such as 64KiB or 10MiB");
}

Test(schema, the_reference_holds_every_key)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    schema_print_reference(out);
    fclose(out);
    for (size_t i = 0; i < key_count; i++)
        cr_expect(strstr(text, keys[i].path), "%s is missing", keys[i].path);
    cr_expect(strstr(text, "routes[].retries\n    a whole number from 0 to 10; default 1\n"));
    cr_expect(strstr(text, "routes[].path_prefix\n    a path that begins with \"/\"; required\n"));
    free(text);
}
