#include "controlplane/config/scan.h"

#include <string.h>

#define KEY_MAX_BYTES 128

/* ---- bytes ---- */

static uint8_t is_odd(char c)
{
    return (uint8_t)((uint8_t)(c - ' ') > '~' - ' ') & (uint8_t)(c != '\n');
}

bool scan_init(struct scan *s, struct view text)
{
    memset(s, 0, offsetof(struct scan, levels));
    s->begin = s->at = s->line_start = text.at;
    s->end = text.at + text.len;
    uint8_t odd = 0;
    for (const char *p = s->at; p < s->end; p++) /* no way out: compilers do sixteen at once */
        odd |= is_odd(*p);
    return odd == 0;
}

static char peek(const struct scan *s, const char *p)
{
    return p < s->end ? *p : '\n';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n';
}

/* By table: most bytes of a configuration are asked about. */
enum { WORD = 1, DIGIT = 2, IN_KEY = 4 };
static const uint8_t classes[256] = {
    ['a' ... 'z'] = WORD | IN_KEY,
    ['A' ... 'Z'] = WORD | IN_KEY,
    ['0' ... '9'] = WORD | IN_KEY | DIGIT,
    ['_'] = IN_KEY,
    ['-'] = IN_KEY,
    ['.'] = IN_KEY,
};

static bool is_word(char c)
{
    return classes[(uint8_t)c] & WORD;
}

static uint32_t column(const struct scan *s, const char *p)
{
    return (uint32_t)(p - s->line_start);
}

static void skip_spaces(struct scan *s)
{
    while (s->at < s->end && *s->at == ' ')
        s->at++;
}

/* To the next content, on this line or below; what stands behind a value must be set off from it.
 */
static void skip_to_content(struct scan *s)
{
    bool set_off = s->at == s->line_start;
    while (s->at < s->end) {
        char c = *s->at;
        if (c == ' ') {
            s->at++;
            set_off = true;
        } else if (c == '\n') {
            s->line_start = ++s->at;
            s->line++;
            set_off = true;
        } else if (c == '#' && set_off) {
            const char *eol = memchr(s->at, '\n', (size_t)(s->end - s->at));
            s->at = eol ? eol : s->end;
        } else {
            break;
        }
    }
    s->is_here = true;
}

/* How long the key is that stands here; 0 = none that is plain. */
static size_t key_length(const struct scan *s, const char *p, bool in_flow)
{
    const char *q = p;
    if (p >= s->end || (!is_word(*p) && *p != '_') || classes[(uint8_t)*p] & DIGIT)
        return 0;
    while (q < s->end && classes[(uint8_t)*q] & IN_KEY)
        q++;
    if (peek(s, q) != ':' || q - p > KEY_MAX_BYTES)
        return 0;
    char behind = peek(s, q + 1);
    return behind == ' ' || (!in_flow && behind == '\n') ? (size_t)(q - p) : 0;
}

static bool is_entry(const struct scan *s, const char *p)
{
    return peek(s, p) == '-' && p + 1 < s->end && p[1] == ' ';
}

/* ---- events ---- */

static void mark(const struct scan *s, yaml_event_t *e, yaml_event_type_t type, const char *from,
                 const char *to)
{
    memset(e, 0, sizeof(*e));
    e->type = type;
    e->start_mark.line = e->end_mark.line = s->line;
    e->start_mark.column = column(s, from);
    e->end_mark.column = column(s, to);
    e->start_mark.index = (size_t)(from - s->begin);
    e->end_mark.index = (size_t)(to - s->begin);
}

static bool put_scalar(struct scan *s, yaml_event_t *e, struct view text, yaml_scalar_style_t style,
                       const char *from, const char *to)
{
    mark(s, e, YAML_SCALAR_EVENT, from, to);
    e->data.scalar.value = (yaml_char_t *)text.at;
    e->data.scalar.length = text.len;
    e->data.scalar.style = style;
    s->at = to;
    return true;
}

static bool push(struct scan *s, enum scan_kind kind, uint32_t indent, bool same_indent)
{
    if (s->depth == SCAN_MAX_LEVELS)
        return false;
    s->levels[s->depth++] = (struct scan_level){kind, indent, same_indent};
    return true;
}

/* A block that begins here; how much of its first token the mark covers is libyaml's way. */
static bool open_block(struct scan *s, yaml_event_t *e, bool same_indent)
{
    bool is_list = is_entry(s, s->at);
    if (!is_list && key_length(s, s->at, false) == 0)
        return false;
    mark(s, e, is_list ? YAML_SEQUENCE_START_EVENT : YAML_MAPPING_START_EVENT, s->at,
         s->at + same_indent);
    s->state = is_list ? SCAN_ENTRY : SCAN_KEY;
    return push(s, is_list ? SCAN_LIST : SCAN_MAP, column(s, s->at), same_indent);
}

static bool close_level(struct scan *s, yaml_event_t *e)
{
    enum scan_kind kind = s->levels[--s->depth].kind;
    mark(s, e,
         kind == SCAN_MAP || kind == SCAN_FLOW_MAP ? YAML_MAPPING_END_EVENT
                                                   : YAML_SEQUENCE_END_EVENT,
         s->at, s->at);
    return true;
}

/* ---- values on one line ---- */

static bool in_flow(const struct scan *s)
{
    return s->depth > 0 && s->levels[s->depth - 1].kind >= SCAN_FLOW_MAP;
}

/* Behind a value: what comes next depends on where we are. */
static void pass_value(struct scan *s)
{
    s->state = SCAN_AFTER;
    s->is_here = false;
}

static bool put_quoted(struct scan *s, yaml_event_t *e)
{
    char quote = *s->at;
    const char *from = s->at, *p = from + 1;
    while (p < s->end && *p != quote && *p != '\n' && *p != '\\')
        p++;
    if (peek(s, p) != quote || peek(s, p + 1) == quote)
        return false;
    char behind = peek(s, p + 1);
    if (!is_blank(behind) && !(in_flow(s) && (behind == ',' || behind == ']' || behind == '}')))
        return false;
    pass_value(s);
    return put_scalar(s, e, (struct view){from + 1, (size_t)(p - from - 1)},
                      quote == '"' ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                                   : YAML_SINGLE_QUOTED_SCALAR_STYLE,
                      from, p + 1);
}

/* Up to the end of the line or a comment; inside of it everything is itself but ": ". */
static const char *end_of_plain(const struct scan *s, const char *p)
{
    const char *eol = memchr(p, '\n', (size_t)(s->end - p)), *end = eol ? eol : s->end;
    const char *hash = p;
    while ((hash = memchr(hash, '#', (size_t)(end - hash))) && hash[-1] != ' ')
        hash++;
    end = hash ? hash : end;
    for (const char *q = p; (q = memchr(q, ':', (size_t)(end - q))); q++)
        if (is_blank(peek(s, q + 1)))
            return NULL;
    while (end[-1] == ' ')
        end--;
    return end;
}

/* In flow only words without spaces, and no indicator but ":" within them. */
static const char *end_of_flow_plain(const struct scan *s, const char *p)
{
    for (; p < s->end; p++) {
        bool inner = *p == ':' && (is_word(peek(s, p + 1)) || peek(s, p + 1) == '/');
        if (!is_word(*p) && !strchr("_./%+=@-", *p) && !inner)
            break;
    }
    return strchr(" ,]}", peek(s, p)) ? p : NULL;
}

static bool put_plain(struct scan *s, yaml_event_t *e)
{
    const char *from = s->at, first = *from;
    if (!is_word(first) && first != '/' && first != '.' && (first != '$' || in_flow(s)))
        return false;
    const char *to = in_flow(s) ? end_of_flow_plain(s, from) : end_of_plain(s, from);
    if (!to)
        return false;
    pass_value(s);
    return put_scalar(s, e, (struct view){from, (size_t)(to - from)}, YAML_PLAIN_SCALAR_STYLE, from,
                      to);
}

static bool open_flow(struct scan *s, yaml_event_t *e)
{
    bool is_list = *s->at == '[';
    mark(s, e, is_list ? YAML_SEQUENCE_START_EVENT : YAML_MAPPING_START_EVENT, s->at, s->at + 1);
    s->at++;
    s->state = SCAN_FLOW;
    return push(s, is_list ? SCAN_FLOW_LIST : SCAN_FLOW_MAP, 0, false);
}

static bool put_value(struct scan *s, yaml_event_t *e)
{
    if (s->at >= s->end)
        return false;
    if (*s->at == '"' || *s->at == '\'')
        return put_quoted(s, e);
    if (*s->at == '[' || *s->at == '{')
        return open_flow(s, e);
    return put_plain(s, e);
}

/* ---- blocks ---- */

static bool put_key(struct scan *s, yaml_event_t *e, enum scan_state next)
{
    const char *from = s->at;
    size_t len = key_length(s, from, next == SCAN_FLOW_VALUE);
    if (len == 0)
        return false;
    put_scalar(s, e, (struct view){from, len}, YAML_PLAIN_SCALAR_STYLE, from, from + len);
    s->at++;
    s->state = next;
    return true;
}

static bool take_entry(struct scan *s, yaml_event_t *e)
{
    s->at++;
    skip_spaces(s);
    if (is_entry(s, s->at) || peek(s, s->at) == '\n' || *s->at == '#')
        return false;
    if (key_length(s, s->at, false) > 0)
        return open_block(s, e, false);
    return put_value(s, e);
}

/* On the same line, or a block below, or nothing: then the mark stands behind the ":". */
static bool take_value(struct scan *s, yaml_event_t *e)
{
    struct scan behind = *s;
    uint32_t indent = s->levels[s->depth - 1].indent;
    skip_spaces(s);
    if (peek(s, s->at) != '\n' && !(*s->at == '#' && s->at > behind.at))
        return put_value(s, e);
    s->at = behind.at; /* so that a comment is seen to be set off */
    skip_to_content(s);
    bool at_end = s->at >= s->end;
    if (!at_end && column(s, s->at) > indent)
        return open_block(s, e, false);
    if (!at_end && column(s, s->at) == indent && is_entry(s, s->at))
        return open_block(s, e, true);
    mark(&behind, e, YAML_SCALAR_EVENT, behind.at, behind.at);
    e->data.scalar.value = (yaml_char_t *)behind.at;
    e->data.scalar.style = YAML_PLAIN_SCALAR_STYLE;
    s->state = SCAN_AFTER;
    return true;
}

/* Where the next content stands says which blocks it ends. */
static bool go_on(struct scan *s, yaml_event_t *e)
{
    if (!s->is_here)
        skip_to_content(s);
    if (s->depth == 0) {
        s->state = SCAN_END;
        return s->at >= s->end && scan_next(s, e);
    }
    const struct scan_level *top = &s->levels[s->depth - 1];
    int64_t here = s->at >= s->end ? -1 : (int64_t)column(s, s->at);
    if (here < top->indent)
        return close_level(s, e);
    if (here > top->indent)
        return false;
    if (top->kind == SCAN_MAP)
        return put_key(s, e, SCAN_VALUE);
    if (is_entry(s, s->at))
        return take_entry(s, e);
    return top->same_indent && close_level(s, e);
}

/* ---- flow ---- */

static bool end_flow(struct scan *s, yaml_event_t *e)
{
    close_level(s, e);
    s->at++;
    char behind = peek(s, s->at);
    pass_value(s);
    return in_flow(s) || is_blank(behind);
}

static char closing(const struct scan *s)
{
    return s->levels[s->depth - 1].kind == SCAN_FLOW_MAP ? '}' : ']';
}

/* Behind "[", "{" or ",": another one, or (but for ",") the end. */
static bool take_flow(struct scan *s, yaml_event_t *e)
{
    bool first = s->at[-1] != ',';
    skip_spaces(s);
    if (peek(s, s->at) == closing(s))
        return first && end_flow(s, e);
    if (closing(s) == '}')
        return put_key(s, e, SCAN_FLOW_VALUE);
    return put_value(s, e);
}

static bool go_on_in_flow(struct scan *s, yaml_event_t *e)
{
    skip_spaces(s);
    char c = peek(s, s->at);
    if (c == closing(s))
        return end_flow(s, e);
    if (c != ',')
        return false;
    s->at++;
    return take_flow(s, e);
}

static bool take_flow_value(struct scan *s, yaml_event_t *e)
{
    skip_spaces(s);
    return put_value(s, e);
}

/* ---- the stream ---- */

bool scan_next(struct scan *s, yaml_event_t *e)
{
    switch (s->state) {
    case SCAN_BEGIN:
        mark(s, e, YAML_STREAM_START_EVENT, s->at, s->at);
        s->state = SCAN_DOCUMENT;
        return true;
    case SCAN_DOCUMENT:
        mark(s, e, YAML_DOCUMENT_START_EVENT, s->at, s->at);
        s->state = SCAN_NODE;
        skip_to_content(s);
        return s->at < s->end;
    case SCAN_NODE:
        return open_block(s, e, false);
    case SCAN_ENTRY:
        return take_entry(s, e);
    case SCAN_KEY:
        return put_key(s, e, SCAN_VALUE);
    case SCAN_VALUE:
        return take_value(s, e);
    case SCAN_AFTER:
        return in_flow(s) ? go_on_in_flow(s, e) : go_on(s, e);
    case SCAN_FLOW:
        return take_flow(s, e);
    case SCAN_FLOW_VALUE:
        return take_flow_value(s, e);
    case SCAN_END:
        mark(s, e, YAML_DOCUMENT_END_EVENT, s->at, s->at);
        s->state = SCAN_ENDED;
        return true;
    case SCAN_ENDED:
        mark(s, e, YAML_STREAM_END_EVENT, s->at, s->at);
        return true;
    }
    return false;
}
