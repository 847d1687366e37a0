/* exposition: metrics as Prometheus reads them, in its text format 0.0.4 or in OpenMetrics 1.0.0:
 * into one buffer, by hand, since ten thousand routes are half a million lines. One thread.
 *
 * A family is begun; each of its samples is begun, gets labels, and ends with its value. In
 * OpenMetrics the name of a counter's family goes without "_total", which its samples keep. */
#pragma once

#include "proto/base/str.h"

enum exposition_format { EXPOSITION_TEXT, EXPOSITION_OPENMETRICS };
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUMMARY };

struct exposition {
    enum exposition_format format;
    char *at; /* owned */
    size_t len, room;
    const char *family; /* borrowed: the present one */
    bool has_labels;    /* the present sample does */
    size_t labels_at;   /* where they begin */
};

void exposition_init(struct exposition *x, enum exposition_format format);

/* The whole text, which the caller frees from now on. */
char *exposition_finish(struct exposition *x, size_t *len);

/* What an Accept field asks for: OpenMetrics only where it is named, and not liked less. NULL:
 * there is none. */
enum exposition_format exposition_negotiate(const char *accept);

const char *exposition_content_type(enum exposition_format format);

/* `name` is borrowed until the next one. */
void exposition_family(struct exposition *x, const char *name, enum metric_type type,
                       const char *help);

/* `suffix` follows the family's name; "" = none. */
void exposition_begin(struct exposition *x, const char *suffix);
void exposition_label(struct exposition *x, const char *name, const char *value);
void exposition_count(struct exposition *x, uint64_t value);
void exposition_number(struct exposition *x, double value);

/* A sample without labels. */
void exposition_single(struct exposition *x, uint64_t value);

/* Upper bounds as they stand in labels, made once for many histograms. */
struct exposition_bounds {
    size_t count;
    char text[33][40]; /* `,le="0.5"} `; the last is that of infinity */
};

void exposition_bounds_init(struct exposition_bounds *b, enum exposition_format format,
                            const double *bounds, size_t count);

/* A whole histogram with the labels that have been written since exposition_begin(x, "_bucket").
 * `buckets` are not cumulative, and one more than there are bounds. */
void exposition_histogram(struct exposition *x, const struct exposition_bounds *b,
                          const uint64_t *buckets, uint64_t sum_ns);
