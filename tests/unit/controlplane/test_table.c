#include <criterion/criterion.h>
#include <stdio.h>

#include "controlplane/table.h"

#define MANY 5000

static char keys[MANY][16];

static void fill(struct table *t)
{
    table_init(t);
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof(keys[i]), "key-%d", i);
        table_add(t, view_of(keys[i]), keys[i]);
    }
}

Test(table, finds_everything_that_was_added)
{
    struct table t;
    fill(&t);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(table_get(&t, view_of(keys[i])), keys[i]);
    cr_assert_null(table_get(&t, view_of("key-5000")));
    table_fini(&t);
}

Test(table, a_removal_hides_nothing_else)
{
    struct table t;
    fill(&t);
    for (int i = 0; i < MANY; i += 3)
        cr_assert_eq(table_remove(&t, view_of(keys[i])), keys[i]);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(table_get(&t, view_of(keys[i])), i % 3 == 0 ? NULL : keys[i]);
    cr_assert_null(table_remove(&t, view_of(keys[0])));
    table_fini(&t);
}

Test(table, each_item_comes_once)
{
    struct table t;
    size_t count = 0;
    fill(&t);
    table_each(slot, &t) count++;
    cr_assert_eq(count, MANY);
    table_clear(&t);
    cr_assert_eq(t.count, 0);
    cr_assert_null(table_get(&t, view_of(keys[1])));
    table_fini(&t);
}

Test(table, an_empty_one_knows_nothing)
{
    struct table t;
    table_init(&t);
    cr_assert_null(table_get(&t, view_of("a")));
    cr_assert_null(table_remove(&t, view_of("a")));
    table_each(slot, &t) cr_assert_fail("nothing is in it");
    table_fini(&t);
}
