/* What the admin API answers, as people see it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/show.h"

typedef void show_fn(const json_t *document, FILE *out, bool color);

/* What is shown of a document; the caller frees it. */
static char *shown(show_fn *show, const char *document)
{
    char *text = NULL;
    size_t len = 0;
    json_t *o = json_loads(document, 0, NULL);
    cr_assert_not_null(o, "%s", document);
    FILE *out = open_memstream(&text, &len);
    show(o, out, false);
    fclose(out);
    json_decref(o);
    return text;
}

static void expect_shown(show_fn *show, const char *document, const char *expected)
{
    char *got = shown(show, document);
    cr_expect_str_eq(got, expected);
    free(got);
}

static bool accepted(const char *document)
{
    json_t *o = json_loads(document, 0, NULL);
    bool all = show_all_accepted(o);
    json_decref(o);
    return all;
}

Test(show, push_tells_generation_and_changes)
{
    expect_shown(show_push,
                 "{\"generation\":7,\"previous\":6,\"dry_run\":false,\"unchanged\":false,"
                 "\"changes\":[\"route users added\"],\"dataplanes\":[{\"name\":\"dp-1\","
                 "\"accepted\":true,\"reason\":\"\",\"compile_us\":1500,\"swap_us\":80}]}",
                 "generation 7 is in force, it was 6\n"
                 "  route users added\n"
                 "DATA PLANE  ACCEPTED  COMPILED  SWAPPED  REASON\n"
                 "dp-1        yes       1.5 ms    80 us    -\n");
}

Test(show, what_nobody_has_answered_to_is_not_said_to_be_in_force)
{
    expect_shown(show_push,
                 "{\"generation\":7,\"previous\":6,\"dataplanes\":[{\"name\":\"dp-1\","
                 "\"accepted\":null,\"reason\":\"\",\"compile_us\":0,\"swap_us\":0}]}",
                 "generation 7 is sent; 6 stays in force until every data plane has taken it\n"
                 "DATA PLANE  ACCEPTED       COMPILED  SWAPPED  REASON\n"
                 "dp-1        no answer yet  -         -        -\n");
}

Test(show, dry_run_and_no_change_are_told_as_such)
{
    expect_shown(show_push, "{\"generation\":7,\"dry_run\":true,\"changes\":[\"route a removed\"]}",
                 "the configuration is valid and would be taken; nothing was changed\n"
                 "  route a removed\n");
    expect_shown(show_push, "{\"generation\":7,\"previous\":7,\"unchanged\":true}",
                 "nothing changed: generation 7 stays in force\n");
    expect_shown(show_push, "{\"generation\":1,\"previous\":0,\"note\":\"no data plane yet\"}",
                 "generation 1 is in force\nno data plane yet\n");
}

Test(show, acceptance_is_every_data_planes)
{
    cr_expect(accepted("{}"));
    cr_expect(accepted("{\"dataplanes\":[]}"));
    cr_expect(accepted("{\"dataplanes\":[{\"accepted\":true},{\"accepted\":true}]}"));
    cr_expect_not(accepted("{\"dataplanes\":[{\"accepted\":true},{\"accepted\":false}]}"));
    cr_expect_not(accepted("{\"dataplanes\":[{\"accepted\":null}]}"));
    cr_expect_not(accepted("{\"dataplanes\":[{}]}"));
}

Test(show, diagnostics_are_one_line_each)
{
    expect_shown(show_diagnostics,
                 "{\"diagnostics\":[{\"severity\":\"error\",\"source\":\"g.yaml\",\"line\":3,"
                 "\"column\":5,\"message\":\"unknown key \\\"a\\\"\",\"suggestion\":\"did you mean "
                 "\\\"b\\\"?\"},{\"severity\":\"warning\",\"source\":\"g.yaml\",\"line\":4,"
                 "\"column\":1,\"message\":\"odd\",\"suggestion\":null}]}",
                 "g.yaml:3:5: error: unknown key \"a\": did you mean \"b\"?\n"
                 "g.yaml:4:1: warning: odd\n");
    expect_shown(show_diagnostics, "{\"diagnostics\":[{}],\"text\":\"as the other side has it\"}",
                 "as the other side has it\n");
    expect_shown(show_diagnostics, "{}", "");
}

Test(show, status_names_generation_and_last_reload)
{
    char *got = shown(show_status,
                      "{\"version\":\"1.2\",\"protocol\":1,\"uptime_seconds\":61,\"config\":{"
                      "\"source\":\"g.yaml\",\"generation\":3,\"origin\":\"push\",\"routes\":2,"
                      "\"backends\":3,\"endpoints\":4,\"last_reload\":{\"ok\":false,\"at\":\"now\","
                      "\"message\":\"g.yaml:1:1: broken\"}},\"dataplanes\":[]}");
    cr_expect_str_eq(got, "gwp-controlplane 1.2, protocol 1, up 1 min 1 s\n"
                          "generation 3 from g.yaml, by push\n"
                          "2 routes, 3 backends, 4 endpoints\n"
                          "last reload: refused at now: g.yaml:1:1: broken\n"
                          "\n"
                          "no data plane is connected\n");
    free(got);
}

Test(show, routes_and_backends_are_rows)
{
    expect_shown(show_routes,
                 "{\"routes\":[{\"name\":\"a\",\"host\":\"\",\"path_prefix\":\"/a\",\"methods\":"
                 "[\"GET\",\"POST\"],\"algorithm\":\"round_robin\",\"strip_prefix\":true,"
                 "\"timeout_seconds\":0.5,\"backends\":1,\"endpoints\":2,\"requests_total\":9,"
                 "\"place\":\"g.yaml:4\"}]}",
                 "ROUTE  HOST  PREFIX  METHODS   STRIP  ALGORITHM    TIMEOUT  BACKENDS  ENDPOINTS  "
                 "REQUESTS  PLACE\n"
                 "a      any   /a      GET,POST  yes    round_robin  0.5 s    1         2          "
                 "9         g.yaml:4\n");
    expect_shown(
        show_backends,
        "{\"routes\":[{\"name\":\"a\",\"backends\":[{\"url\":\"http://b\",\"weight\":1,"
        "\"endpoints\":[{\"address\":\"1.2.3.4:80\",\"health\":\"up\",\"breaker\":"
        "\"closed\",\"active\":0,\"requests\":5,\"failures\":1,\"checked\":true,"
        "\"reason\":\"status 500 is not expected\",\"check_seconds\":0.002,"
        "\"weight_override\":7}]},{\"url\":\"http://c\",\"weight\":2,\"endpoints\":[]}]}]}",
        "ROUTE  BACKEND   WEIGHT  ENDPOINT    HEALTH  BREAKER  ACTIVE  REQUESTS  FAILURES  "
        "LAST CHECK\n"
        "a      http://b  7 (1)   1.2.3.4:80  up      closed   0       5         1         "
        "status 500 is not expected, 2 ms\n"
        "a      http://c  2       no address  -       -        -       -         -         "
        "-\n");
}

Test(show, an_order_is_told_by_route)
{
    expect_shown(show_ordered,
                 "{\"address\":\"1.2.3.4:80\",\"note\":\"not kept\",\"targets\":[{\"route\":\"a\","
                 "\"url\":\"http://b\",\"draining\":true,\"weight\":2,\"weight_override\":null}]}",
                 "1.2.3.4:80 as the data planes have been told now\n"
                 "ROUTE  BACKEND   DRAINING  WEIGHT\n"
                 "a      http://b  yes       2\n"
                 "not kept\n");
    expect_shown(show_ordered, "{\"address\":\"1.2.3.4:80\",\"targets\":[]}",
                 "1.2.3.4:80 is not in use; nothing is ordered of it any more\n");
}

Test(show, breakers_that_were_reset_are_named)
{
    expect_shown(show_breaker_reset,
                 "{\"address\":\"1.2.3.4:80\",\"targets\":[{\"route\":\"a\",\"url\":\"http://b\","
                 "\"draining\":false,\"weight\":1,\"weight_override\":null}]}",
                 "the breakers of 1.2.3.4:80 are closed: the data planes have been told\n"
                 "ROUTE  BACKEND\n"
                 "a      http://b\n");
}

Test(show, strange_documents_are_survived)
{
    static const char *const strange[] = {
        "{}",
        "[]",
        "{\"routes\":1,\"dataplanes\":{},\"config\":[],\"changes\":7,\"diagnostics\":\"x\"}",
        ("{\"routes\":[null,[],{\"backends\":[null,{\"endpoints\":[null]}],\"methods\":[1]}],"
         "\"dataplanes\":[null,{\"rss_bytes\":\"x\"}],\"changes\":[null],\"diagnostics\":[null]}"),
    };
    static show_fn *const shows[] = {show_status,        show_backends,   show_routes,
                                     show_dataplanes,    show_push,       show_ordered,
                                     show_breaker_reset, show_diagnostics};
    for (size_t i = 0; i < COUNT_OF(strange); i++)
        for (size_t k = 0; k < COUNT_OF(shows); k++)
            free(shown(shows[k], strange[i]));
}
