#include <criterion/criterion.h>
#include <stdlib.h>

#include "controlplane/config/load.h"

static struct diagnostics d;
static struct arena *nodes, *texts;

static void setup(void)
{
    diagnostics_init(&d);
    nodes = arena_new(4096);
    texts = arena_new(4096);
}

static void teardown(void)
{
    diagnostics_fini(&d);
    arena_free(&nodes);
    arena_free(&texts);
}

TestSuite(load, .init = setup, .fini = teardown);

static struct node *load(const char *text)
{
    return load_tree(view_of(text), nodes, texts, &d);
}

static const struct node *child(const struct node *map, const char *key)
{
    for (const struct node *n = map->first; n; n = n->next)
        if (view_equal(n->key->text, view_of(key)))
            return n;
    return NULL;
}

static void refuses(const char *text, const char *message)
{
    diagnostics_fini(&d);
    diagnostics_init(&d);
    load(text);
    cr_assert_eq(d.errors, 1, "%zu errors", d.errors);
    cr_expect(strstr(d.at[0].message, message), "said: %s", d.at[0].message);
}

Test(load, nodes_know_where_they_stand)
{
    const struct node *root = load("a:\n  b: [x, 'y']\n");
    cr_assert(root);
    const struct node *b = child(child(root, "a"), "b");
    cr_expect_eq(b->key->place.line, 2);
    cr_expect_eq(b->key->place.column, 3);
    cr_expect_eq(b->first->place.column, 7);
    cr_expect_eq(b->first->next->place.column, 10);
    cr_expect_eq(b->first->next->length, 3);
    cr_expect(b->first->plain);
    cr_expect_not(b->first->next->plain);
}

Test(load, an_alias_is_what_its_anchor_was_at_its_own_place)
{
    const struct node *root = load("a: &x {k: v}\nb: *x\n");
    cr_assert(root);
    const struct node *b = child(root, "b");
    cr_expect_eq(b->kind, NODE_MAP);
    cr_expect_eq(b->place.line, 2);
    cr_expect_str_eq(child(b, "k")->text.at, "v");
}

Test(load, a_merge_key_adds_what_the_map_does_not_say)
{
    const struct node *root =
        load("a: &a {k: 1, l: 2}\nb: &b {l: 3, m: 4}\nc: {<<: [*a, *b], k: 0}\n");
    cr_assert(root);
    const struct node *c = child(root, "c");
    cr_expect_eq(c->count, 3);
    cr_expect_str_eq(child(c, "k")->text.at, "0");
    cr_expect_str_eq(child(c, "l")->text.at, "2");
    cr_expect_str_eq(child(c, "m")->text.at, "4");
}

Test(load, only_an_unquoted_nothing_is_no_value)
{
    const struct node *root = load("a:\nb: ''\nc: ~\nd: 'null'\ne: ${T_NONE:-}\n");
    cr_assert(root);
    cr_expect(child(root, "a")->null);
    cr_expect_not(child(root, "b")->null);
    cr_expect(child(root, "c")->null);
    cr_expect_not(child(root, "d")->null);
    cr_expect_not(child(root, "e")->null);
}

Test(load, a_variable_cannot_add_keys)
{
    setenv("T_INJECT", "x\nadmin: {addr: y}", 1);
    const struct node *root = load("a: ${T_INJECT}\n");
    cr_assert(root);
    cr_expect_eq(root->count, 1);
    cr_expect_str_eq(child(root, "a")->text.at, "x\nadmin: {addr: y}");
}

Test(load, an_unset_variable_does_not_end_the_reading)
{
    const struct node *root = load("a: ${T_NOT_SET}\nb: 1\n");
    cr_assert(root);
    cr_expect(child(root, "a")->bad);
    cr_expect_str_eq(child(root, "b")->text.at, "1");
    cr_expect_eq(d.errors, 1);
}

Test(load, the_first_of_two_values_is_the_one_that_stays)
{
    const struct node *root = load("a: 1\nb: 2\na: 3\n");
    cr_assert(root);
    cr_expect_eq(root->count, 2);
    cr_expect_str_eq(child(root, "a")->text.at, "1");
    cr_expect_eq(d.errors, 1);
}

Test(load, a_large_map_finds_its_duplicate)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    for (int i = 0; i < 50000; i++)
        fprintf(out, "key%d: x\n", i);
    fputs("key7: y\n", out);
    fclose(out);
    refuses(text, "duplicate key \"key7\", first given on line 8");
    free(text);
}

Test(load, hostile_documents_are_refused)
{
    refuses("", "empty");
    refuses("a: 1\n---\nb: 2\n", "second document");
    refuses("a: &a [*a]\n", "inside of what it names");
    refuses("[a]: b\n", "single word");
    refuses("a: \"\\0\"\n", "NUL");
}

Test(load, a_document_beyond_16_mib_is_refused_unread)
{
    char *text = calloc(1, LOAD_MAX_BYTES + 2);
    memset(text, '\n', LOAD_MAX_BYTES + 1);
    refuses(text, "larger than 16 MiB");
    free(text);
}

Test(load, values_repeated_by_aliases_are_counted)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("a0: &a0 [x, x, x, x, x, x, x, x]\n", out);
    for (int i = 1; i < 20; i++)
        fprintf(out, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1);
    fclose(out);
    refuses(text, "more than 2000000 values");
    free(text);
}

Test(load, a_long_variable_often_used_is_refused)
{
    char *value = malloc(100001), *text = NULL;
    size_t len = 0;
    memset(value, 'x', 100000);
    value[100000] = '\0';
    setenv("T_LONG", value, 1);
    FILE *out = open_memstream(&text, &len);
    for (int i = 0; i < 1000; i++)
        fprintf(out, "- ${T_LONG}\n");
    fclose(out);
    refuses(text, "longer than 64 MiB");
    free(text);
    free(value);
}

Test(load, merging_cannot_be_made_quadratic)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    fputs("a: &a\n", out);
    for (int i = 0; i < 5000; i++)
        fprintf(out, "  key%d: x\n", i);
    fputs("b: {<<: *a}\n", out);
    fclose(out);
    refuses(text, "\"<<\" makes a map of more than 100 keys");
    free(text);
}
