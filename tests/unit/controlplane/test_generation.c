#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/generation.h"
#include "controlplane/config/diagnostics.h"

static char dir[] = "/tmp/gwp-generation-XXXXXX";

static void make_dir(void)
{
    cr_assert(mkdtemp(dir));
}

static void remove_dir(void)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/generation", dir);
    unlink(path);
    rmdir(dir);
}

TestSuite(generation, .init = make_dir, .fini = remove_dir);

static struct generation *some(void)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load(
        "g.yaml", view_of("routes: [{path_prefix: /, backends: [{url: 'http://127.0.0.1:1'}]}]"),
        &d);
    diagnostics_fini(&d);
    cr_assert(cfg);
    return generation_new(cfg, ORIGIN_FILE);
}

Test(generation, numbers_go_on_after_a_restart)
{
    struct generations gs;
    generations_init(&gs, dir);
    cr_expect_eq(generations_next_number(&gs), 1);
    cr_expect_eq(generations_next_number(&gs), 2);
    generations_fini(&gs);
    generations_init(&gs, dir);
    cr_expect_eq(generations_next_number(&gs), 3);
    generations_fini(&gs);
}

Test(generation, without_a_state_directory_the_clock_numbers)
{
    struct generations gs;
    generations_init(&gs, "/proc/nowhere");
    uint64_t first = generations_next_number(&gs);
    cr_expect_geq(first, (uint64_t)time(NULL) - 5);
    cr_expect_gt(generations_next_number(&gs), first);
    generations_fini(&gs);
}

Test(generation, in_force_when_everyone_has_accepted)
{
    struct generations gs;
    generations_init(&gs, dir);
    struct generation *g = some();
    generations_propose(&gs, g);
    generations_expect(&gs, "i1", "dp-1");
    generations_expect(&gs, "i2", "dp-2");
    cr_expect_eq(generations_verdict(&gs), VERDICT_PENDING);
    cr_expect(generations_answer(&gs, "i1", true, "", 10, 20));
    cr_expect_eq(generations_verdict(&gs), VERDICT_PENDING);
    cr_expect_null(gs.in_force);
    cr_expect(generations_answer(&gs, "i2", true, "", 1, 2));
    cr_expect_not(generations_answer(&gs, "i2", true, "", 1, 2), "an answer is given once");
    cr_expect_eq(generations_verdict(&gs), VERDICT_ACCEPTED);
    generations_commit(&gs, 5);
    cr_expect_eq(gs.in_force, g);
    cr_expect_null(gs.candidate);
    generations_fini(&gs);
}

Test(generation, one_refusal_is_enough)
{
    struct generations gs;
    generations_init(&gs, dir);
    generations_propose(&gs, some());
    generations_commit(&gs, 1);
    struct generation *before = gs.in_force;
    generations_propose(&gs, generation_again(before, ORIGIN_DNS));
    generations_expect(&gs, "i1", "dp-1");
    generations_expect(&gs, "i2", "dp-2");
    generations_answer(&gs, "i1", false, "no", 0, 0);
    cr_expect_eq(generations_verdict(&gs), VERDICT_REFUSED);
    cr_expect(generations_is_out(&gs), "the other may still take it");
    generations_answer(&gs, "i2", false, "no", 0, 0);
    cr_expect_not(generations_is_out(&gs));
    generations_drop(&gs);
    cr_expect_eq(gs.in_force, before);
    cr_expect_str_eq(gs.answers[0].reason, "no");
    generations_fini(&gs);
}

Test(generation, nobody_asked_is_consent)
{
    struct generations gs;
    generations_init(&gs, dir);
    generations_propose(&gs, some());
    cr_expect_eq(generations_verdict(&gs), VERDICT_ACCEPTED);
    generations_fini(&gs);
}
