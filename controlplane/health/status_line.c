#include "controlplane/health/status_line.h"

/* PREFIX "HTTP/1." MINOR "0" or "1" SPACE DIGITS, then AFTER: a space and REASON, or the line's end
 * at once, which some servers send. What follows an interim status line is skipped up to its empty
 * line; then it begins anew. */
enum state {
    PREFIX,
    MINOR,
    SPACE,
    DIGITS,
    AFTER,
    REASON,
    LINE_FEED,
    SKIP_FIRST, /* at the beginning of a field line */
    SKIP_LINE,
    SKIP_FEED,
    SKIP_LAST, /* the empty line's LF */
    DONE,
    BAD,
};

static bool is_interim(int status)
{
    return status / 100 == 1 && status != 101;
}

static enum state on_digit(struct status_line *s, char c)
{
    if (c < '0' || c > '9' || (s->matched == 0 && c == '0'))
        return BAD;
    s->status = s->status * 10 + (c - '0');
    return ++s->matched == 3 ? AFTER : DIGITS;
}

static enum state on_prefix(struct status_line *s, char c)
{
    static const char prefix[] = "HTTP/1.";
    if (c != prefix[s->matched])
        return BAD;
    return ++s->matched == sizeof(prefix) - 1 ? MINOR : PREFIX;
}

/* Tab, space, visible, or beyond ASCII. */
static bool is_text(char c)
{
    return c == '\t' || (unsigned char)c == 0x20 || ((unsigned char)c > 0x20 && c != 0x7f);
}

static enum state begin(struct status_line *s, enum state state)
{
    s->matched = 0;
    s->status = 0;
    return state;
}

static enum state next(struct status_line *s, char c)
{
    switch ((enum state)s->state) {
    case PREFIX:
        return on_prefix(s, c);
    case MINOR:
        return c == '0' || c == '1' ? SPACE : BAD;
    case SPACE:
        return c == ' ' ? begin(s, DIGITS) : BAD;
    case DIGITS:
        return on_digit(s, c);
    case AFTER:
        return c == ' ' ? REASON : c == '\r' ? LINE_FEED : BAD;
    case REASON:
        return c == '\r' ? LINE_FEED : is_text(c) ? REASON : BAD;
    case LINE_FEED:
        return c != '\n' ? BAD : is_interim(s->status) ? SKIP_FIRST : DONE;
    case SKIP_FIRST:
        return c == '\r' ? SKIP_LAST : c == '\n' ? BAD : SKIP_LINE;
    case SKIP_LINE:
        return c == '\r' ? SKIP_FEED : c == '\n' ? BAD : SKIP_LINE;
    case SKIP_FEED:
        return c == '\n' ? SKIP_FIRST : BAD;
    case SKIP_LAST:
        return c == '\n' ? begin(s, PREFIX) : BAD;
    case DONE:
    case BAD:
        break;
    }
    return (enum state)s->state;
}

enum status_line_result status_line_feed(struct status_line *s, struct view bytes)
{
    for (size_t i = 0; i < bytes.len && s->state != DONE && s->state != BAD; i++)
        s->state = next(s, bytes.at[i]);
    return s->state == DONE  ? STATUS_LINE_DONE
           : s->state == BAD ? STATUS_LINE_BAD
                             : STATUS_LINE_MORE;
}
