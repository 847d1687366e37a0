#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/admin/metrics.h"

static char *print(struct aggregate *a, enum exposition_format format)
{
    struct exposition x;
    size_t len;
    exposition_init(&x, format);
    metrics_print_aggregate(a, &x);
    char *text = exposition_finish(&x, &len);
    text = realloc(text, len + 1);
    text[len] = '\0';
    return text;
}

static char *print_one_series(const char *route, enum exposition_format format)
{
    struct aggregate a;
    Gwp__StatusCount status = GWP__STATUS_COUNT__INIT, *statuses[] = {&status};
    Gwp__RouteSeries series = GWP__ROUTE_SERIES__INIT, *list[] = {&series};
    Gwp__Counter counter = GWP__COUNTER__INIT, *counters[] = {&counter};
    Gwp__StatsReport report = GWP__STATS_REPORT__INIT;
    double bounds[] = {0.1, 2.5};
    uint64_t buckets[] = {3, 2, 1};
    aggregate_init(&a, "/proc/nowhere"); /* in memory only */
    aggregate_set_bounds(&a, bounds, 2);
    status.status = 200;
    status.count = 6;
    series.route = (char *)route;
    series.method = (char *)"GET";
    series.statuses = statuses;
    series.n_statuses = 1;
    series.buckets = buckets;
    series.n_buckets = 3;
    series.sum_seconds = 4.5;
    counter.name = (char *)"retries_total";
    counter.value = 9;
    report.routes = list;
    report.n_routes = 1;
    report.counters = counters;
    report.n_counters = 1;
    report.duration_buckets_seconds = bounds;
    report.n_duration_buckets_seconds = 2;
    aggregate_take(&a, "one", &report);
    char *text = print(&a, format);
    aggregate_fini(&a);
    return text;
}

static void expect_line(const char *text, const char *line)
{
    const char *at = strstr(text, line);
    cr_expect(at && (at == text || at[-1] == '\n') && at[strlen(line)] == '\n',
              "no line %s in:\n%s", line, text);
}

Test(metrics, a_histogram_is_cumulative)
{
    char *text = print_one_series("users", EXPOSITION_TEXT);
    expect_line(text, "gateway_requests_total{route=\"users\",method=\"GET\",status=\"200\"} 6");
    expect_line(
        text,
        "gateway_request_duration_seconds_bucket{route=\"users\",method=\"GET\",le=\"0.1\"} 3");
    expect_line(
        text,
        "gateway_request_duration_seconds_bucket{route=\"users\",method=\"GET\",le=\"2.5\"} 5");
    expect_line(
        text,
        "gateway_request_duration_seconds_bucket{route=\"users\",method=\"GET\",le=\"+Inf\"} 6");
    expect_line(text,
                "gateway_request_duration_seconds_sum{route=\"users\",method=\"GET\"} 4.500000000");
    expect_line(text, "gateway_request_duration_seconds_count{route=\"users\",method=\"GET\"} 6");
    expect_line(text, "# TYPE gateway_request_duration_seconds histogram");
    expect_line(text, "gateway_retries_total 9");
    expect_line(text, "gateway_active_connections 0");
    free(text);
}

Test(metrics, a_route_cannot_break_out_of_its_label)
{
    char *text = print_one_series("a\"b\\c\nd", EXPOSITION_TEXT);
    expect_line(
        text, "gateway_requests_total{route=\"a\\\"b\\\\c\\nd\",method=\"GET\",status=\"200\"} 6");
    free(text);
}

Test(metrics, openmetrics_names_counters_without_total_and_ends)
{
    char *text = print_one_series("users", EXPOSITION_OPENMETRICS);
    expect_line(text, "# TYPE gateway_requests counter");
    expect_line(text, "gateway_requests_total{route=\"users\",method=\"GET\",status=\"200\"} 6");
    expect_line(text, "# TYPE gateway_retries counter");
    expect_line(text, "gateway_retries_total 9");
    cr_expect_str_eq(text + strlen(text) - 6, "# EOF\n");
    free(text);
}

Test(metrics, openmetrics_is_what_asks_for_it)
{
    static const struct {
        const char *accept;
        enum exposition_format format;
    } cases[] = {
        {NULL, EXPOSITION_TEXT},
        {"", EXPOSITION_TEXT},
        {"*/*", EXPOSITION_TEXT},
        {"text/plain", EXPOSITION_TEXT},
        {"application/openmetrics-text", EXPOSITION_OPENMETRICS},
        {"application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         EXPOSITION_OPENMETRICS},
        {"application/openmetrics-text;q=0.4, text/plain;q=0.5", EXPOSITION_TEXT},
        {"application/openmetrics-text; q=0", EXPOSITION_TEXT},
        {",,;q=1,application/openmetrics-text ; q=0.9", EXPOSITION_OPENMETRICS},
        {"application/"
         "vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;"
         "q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
         EXPOSITION_OPENMETRICS},
        {"APPLICATION/OpenMetrics-Text;q=0.3,text/plain;q=0.2", EXPOSITION_OPENMETRICS},
        {"application/openmetrics-text2", EXPOSITION_TEXT},
        {"image/png", EXPOSITION_TEXT},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(exposition_negotiate(cases[i].accept), cases[i].format, "%s", cases[i].accept);
}
