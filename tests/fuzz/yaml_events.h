/* yaml_events: the events of scan.c against those of libyaml, for a test and a fuzz driver. */
#pragma once

#include <stdio.h>
#include <string.h>

#include "controlplane/config/scan.h"

static inline bool yaml_events_have_end_mark(const yaml_event_t *e)
{
    return e->type == YAML_SCALAR_EVENT || e->type == YAML_SEQUENCE_START_EVENT ||
           e->type == YAML_MAPPING_START_EVENT;
}

static inline bool yaml_events_are_same(const yaml_event_t *a, const yaml_event_t *b)
{
    if (a->type != b->type)
        return false;
    if (!yaml_events_have_end_mark(a))
        return true;
    if (a->start_mark.line != b->start_mark.line || a->start_mark.column != b->start_mark.column ||
        a->end_mark.line != b->end_mark.line || a->end_mark.column != b->end_mark.column)
        return false;
    if (a->type != YAML_SCALAR_EVENT)
        return true;
    return (a->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) ==
               (b->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) &&
           !b->data.scalar.tag && !b->data.scalar.anchor &&
           a->data.scalar.length == b->data.scalar.length &&
           memcmp(a->data.scalar.value, b->data.scalar.value, a->data.scalar.length) == 0;
}

enum yaml_events_result { YAML_EVENTS_SAME, YAML_EVENTS_GAVE_UP, YAML_EVENTS_DIFFER };

/* Where the scanner gives up it need not be right before; where it does not, all is the same. */
static inline enum yaml_events_result yaml_events_compare(struct view text)
{
    static struct scan s;
    struct scan all;
    yaml_parser_t parser;
    yaml_event_t a, b;
    enum yaml_events_result result = YAML_EVENTS_SAME;
    bool goes = scan_init(&s, text);
    for (all = s; goes;) { /* is it in its part of YAML at all? */
        goes = scan_next(&all, &a);
        if (goes && a.type == YAML_STREAM_END_EVENT)
            break;
    }
    if (!goes)
        return YAML_EVENTS_GAVE_UP;
    yaml_parser_initialize(&parser);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.at, text.len);
    for (bool end = false; !end && result == YAML_EVENTS_SAME;) {
        if (!scan_next(&s, &a) || !yaml_parser_parse(&parser, &b)) {
            result = YAML_EVENTS_DIFFER;
            break;
        }
        end = b.type == YAML_STREAM_END_EVENT;
        if (!yaml_events_are_same(&a, &b)) {
            fprintf(stderr,
                    "line %zu column %zu: event %d, libyaml has %d at line %zu column %zu\n",
                    a.start_mark.line + 1, a.start_mark.column + 1, a.type, b.type,
                    b.start_mark.line + 1, b.start_mark.column + 1);
            result = YAML_EVENTS_DIFFER;
        }
        yaml_event_delete(&b);
    }
    yaml_parser_delete(&parser);
    return result;
}
