#include "controlplane/admin/exposition.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "proto/base/log.h"
#include "proto/base/pace.h"

#define FIRST_BYTES ((size_t)64 * 1024)

/* ---- bytes ---- */

static void make_room(struct exposition *x, size_t bytes)
{
    if (x->len + bytes <= x->room)
        return;
    x->room = MAX(x->room * 2, x->len + bytes);
    x->at = realloc(x->at, x->room);
    if (!x->at)
        log_fatal("exposition", "out of memory: %zu bytes of metrics", x->room);
}

static void put(struct exposition *x, const char *text, size_t len)
{
    make_room(x, len);
    memcpy(x->at + x->len, text, len);
    x->len += len;
}

static void put_text(struct exposition *x, const char *text)
{
    put(x, text, strlen(text));
}

static void put_number(struct exposition *x, uint64_t n)
{
    char digits[20];
    size_t i = sizeof(digits);
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    put(x, digits + i, sizeof(digits) - i);
}

/* Backslash and line feed are escaped everywhere, a quote where the text stands in quotes (and in
 * OpenMetrics always). */
static void put_escaped(struct exposition *x, const char *text, bool quotes)
{
    for (;;) {
        size_t plain = strcspn(text, quotes ? "\n\\\"" : "\n\\");
        put(x, text, plain);
        text += plain;
        if (!*text)
            return;
        char escape[2] = {'\\', *text == '\n' ? 'n' : *text};
        put(x, escape, sizeof(escape));
        text++;
    }
}

/* ---- the whole ---- */

void exposition_init(struct exposition *x, enum exposition_format format)
{
    *x = (struct exposition){.format = format};
    make_room(x, FIRST_BYTES);
}

char *exposition_finish(struct exposition *x, size_t *len)
{
    if (x->format == EXPOSITION_OPENMETRICS)
        put_text(x, "# EOF\n");
    *len = x->len;
    return x->at;
}

const char *exposition_content_type(enum exposition_format format)
{
    return format == EXPOSITION_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

/* The weight of one media range, whose parameters begin at `at` (RFC 9110 12.4.2). */
static double weight_of(const char *at, const char *end)
{
    for (; at < end; at++)
        if ((at[0] == 'q' || at[0] == 'Q') && at + 1 < end && at[1] == '=' &&
            (at[-1] == ';' || at[-1] == ' '))
            return strtod(at + 2, NULL);
    return 1;
}

static bool is_range(const char *at, const char *end, const char *range)
{
    return (size_t)(end - at) == strlen(range) && strncasecmp(at, range, strlen(range)) == 0;
}

enum exposition_format exposition_negotiate(const char *accept)
{
    double best[] = {[EXPOSITION_TEXT] = 0, [EXPOSITION_OPENMETRICS] = 0};
    while (accept && *accept) {
        accept += strspn(accept, " \t,");
        const char *end = accept + strcspn(accept, ",");
        const char *parameters = accept + strcspn(accept, ";, \t");
        double weight = weight_of(parameters, end);
        if (is_range(accept, parameters, "application/openmetrics-text"))
            best[EXPOSITION_OPENMETRICS] = fmax(best[EXPOSITION_OPENMETRICS], weight);
        /* What we do not speak (Prometheus' protobuf) says nothing about what we do. */
        if (is_range(accept, parameters, "text/plain") || is_range(accept, parameters, "text/*") ||
            is_range(accept, parameters, "*/*"))
            best[EXPOSITION_TEXT] = fmax(best[EXPOSITION_TEXT], weight);
        accept = end;
    }
    return best[EXPOSITION_OPENMETRICS] > 0 && best[EXPOSITION_OPENMETRICS] >= best[EXPOSITION_TEXT]
               ? EXPOSITION_OPENMETRICS
               : EXPOSITION_TEXT;
}

void exposition_family(struct exposition *x, const char *name, enum metric_type type,
                       const char *help)
{
    static const char *const words[] = {"counter", "gauge", "histogram", "summary"};
    size_t len = strlen(name);
    x->family = name;
    if (x->format == EXPOSITION_OPENMETRICS && type == METRIC_COUNTER)
        len -= strlen("_total");
    put_text(x, "# HELP ");
    put(x, name, len);
    put_text(x, " ");
    put_escaped(x, help, x->format == EXPOSITION_OPENMETRICS);
    put_text(x, "\n# TYPE ");
    put(x, name, len);
    put_text(x, " ");
    put_text(x, words[type]);
    put_text(x, "\n");
}

/* ---- samples ---- */

void exposition_begin(struct exposition *x, const char *suffix)
{
    pace_yield();
    put_text(x, x->family);
    put_text(x, suffix);
    x->labels_at = x->len;
    x->has_labels = false;
}

void exposition_label(struct exposition *x, const char *name, const char *value)
{
    put(x, x->has_labels ? "," : "{", 1);
    put_text(x, name);
    put(x, "=\"", 2);
    put_escaped(x, value, true);
    put(x, "\"", 1);
    x->has_labels = true;
}

static void end_labels(struct exposition *x)
{
    if (x->has_labels)
        put(x, "} ", 2);
    else
        put(x, " ", 1);
}

void exposition_count(struct exposition *x, uint64_t value)
{
    end_labels(x);
    put_number(x, value);
    put(x, "\n", 1);
}

void exposition_number(struct exposition *x, double value)
{
    char text[40];
    end_labels(x);
    snprintf(text, sizeof(text), "%.15g\n", value);
    put_text(x, text);
}

void exposition_single(struct exposition *x, uint64_t value)
{
    exposition_begin(x, "");
    exposition_count(x, value);
}

/* ---- histograms ---- */

void exposition_bounds_init(struct exposition_bounds *b, enum exposition_format format,
                            const double *bounds, size_t count)
{
    b->count = count;
    for (size_t i = 0; i < count; i++) {
        /* OpenMetrics wants a bound to look like a float. */
        bool is_whole = format == EXPOSITION_OPENMETRICS && floor(bounds[i]) == bounds[i];
        snprintf(b->text[i], sizeof(b->text[i]), ",le=\"%.10g%s\"} ", bounds[i],
                 is_whole ? ".0" : "");
    }
    snprintf(b->text[count], sizeof(b->text[count]), ",le=\"+Inf\"} ");
}

static void put_line(struct exposition *x, const char *suffix, const char *labels, size_t len)
{
    put_text(x, x->family);
    put_text(x, suffix);
    put(x, labels, len);
}

/* Nanoseconds as seconds, exactly. */
static void put_seconds(struct exposition *x, uint64_t ns)
{
    char text[40];
    snprintf(text, sizeof(text), "%llu.%09llu\n", (unsigned long long)(ns / 1000000000),
             (unsigned long long)(ns % 1000000000));
    put_text(x, text);
}

void exposition_histogram(struct exposition *x, const struct exposition_bounds *b,
                          const uint64_t *buckets, uint64_t sum_ns)
{
    char labels[2048];
    size_t family_at = x->labels_at - strlen(x->family) - strlen("_bucket");
    size_t len = MIN(x->len - x->labels_at, sizeof(labels));
    uint64_t sum = 0;
    memcpy(labels, x->at + x->labels_at, len);
    x->len = family_at;
    for (size_t i = 0; i <= b->count; i++) {
        sum += buckets[i];
        put_line(x, "_bucket", labels, len);
        put_text(x, b->text[i]);
        put_number(x, sum);
        put(x, "\n", 1);
    }
    put_line(x, "_sum", labels, len);
    put(x, "} ", 2);
    put_seconds(x, sum_ns);
    put_line(x, "_count", labels, len);
    put(x, "} ", 2);
    put_number(x, sum);
    put(x, "\n", 1);
}
