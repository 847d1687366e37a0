#include "dataplane/http/target.h"

#include <llhttp.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_unreserved(unsigned c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

/* What bytes of a target want a closer look for. FORBIDDEN: controls, what is not ASCII, and "#",
 * which a client must not send. ODD: what no path may hold unencoded, and "\", which some servers
 * take for "/"; in a query browsers and people send them. */
enum { FORBIDDEN = 1, ODD = 2, ENCODED = 4, DOT = 8 };

static const uint8_t classes[256] = {
    [0 ... ' '] = FORBIDDEN,
    ['#'] = FORBIDDEN,
    [127 ... 255] = FORBIDDEN,
    ['\\'] = ODD,
    ['"'] = ODD,
    ['<'] = ODD,
    ['>'] = ODD,
    ['%'] = ENCODED,
    ['.'] = DOT,
};

static unsigned classes_of(struct view v)
{
    unsigned seen = 0;
    for (size_t i = 0; i < v.len; i++)
        seen |= classes[(unsigned char)v.at[i]];
    return seen;
}

static enum reason bad(const char **detail, const char *why)
{
    *detail = why;
    return R_BAD_REQUEST;
}

/* Every % followed by two hex digits and not %00. */
static enum reason check_encoding(struct view v, const char **detail)
{
    for (size_t i = 0; i < v.len; i++) {
        if (v.at[i] != '%')
            continue;
        if (v.len - i < 3 || hex(v.at[i + 1]) < 0 || hex(v.at[i + 2]) < 0)
            return bad(detail, "incomplete percent-encoding in the path");
        if (v.at[i + 1] == '0' && v.at[i + 2] == '0')
            return bad(detail, "encoded NUL in the path");
    }
    return R_SERVED;
}

/* Of two hex digits, which check_encoding() has seen to. */
static unsigned byte_of(const char *digits)
{
    return ((unsigned)hex(digits[0]) << 4 | (unsigned)hex(digits[1])) & 0xff;
}

static struct view decode_unreserved(struct view v, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < v.len; i++) {
        if (v.at[i] != '%') {
            out[n++] = v.at[i];
            continue;
        }
        unsigned c = byte_of(v.at + i + 1);
        if (is_unreserved(c)) {
            out[n++] = (char)c;
        } else {
            static const char digits[] = "0123456789ABCDEF";
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
        i += 2;
    }
    return (struct view){out, n};
}

/* Length of a delimiter at `i`: "/" or an encoded slash or backslash; 0 if there is none. */
static size_t delimiter(struct view v, size_t i)
{
    if (v.at[i] == '/')
        return 1;
    if (v.at[i] == '%' && v.len - i >= 3 &&
        ((v.at[i + 1] == '2' && v.at[i + 2] == 'F') || (v.at[i + 1] == '5' && v.at[i + 2] == 'C')))
        return 3;
    return 0;
}

/* The value of an encoded byte at `i`, 0 if there is none. */
static unsigned encoded_at(struct view v, size_t i)
{
    if (i + 3 > v.len || v.at[i] != '%')
        return 0;
    return byte_of(v.at + i + 1);
}

/* Longer forms of shorter characters (RFC 3629 3): no text has them, but a careless decoder makes
 * dots and slashes of %C0%AE and %E0%80%AF. */
static bool has_overlong_utf8(struct view v)
{
    for (size_t i = 0; i < v.len; i++) {
        unsigned lead = encoded_at(v, i), next = encoded_at(v, i + 3);
        if (next >> 6 != 2)
            continue;
        if (lead == 0xc0 || lead == 0xc1 || (lead == 0xe0 && next < 0xa0) ||
            (lead == 0xf0 && next < 0x90))
            return true;
    }
    return false;
}

/* What some servers take for the end of a segment's name: its parameters, encoded or not. */
static bool is_parameter(struct view v, size_t i)
{
    return v.at[i] == ';' || encoded_at(v, i) == ';';
}

/* `v` is decoded already, so a dot is a dot. */
static bool has_dot_segment(struct view v)
{
    for (size_t i = 0; i < v.len;) {
        size_t step = delimiter(v, i);
        if (step == 0) {
            i++;
            continue;
        }
        i += step;
        size_t dots = 0;
        while (i + dots < v.len && dots < 3 && v.at[i + dots] == '.')
            dots++;
        if (dots == 0 || dots == 3)
            continue;
        size_t after = i + dots;
        if (after == v.len || is_parameter(v, after) || delimiter(v, after) > 0)
            return true;
    }
    return false;
}

/* "http://host:port/path" -> authority; what is left begins with "/" or "?" or is empty. */
static enum reason split_absolute(struct view *v, struct request_target *t, const char **detail)
{
    static const struct view scheme = {"http://", 7};
    if (v->len < scheme.len || strncasecmp(v->at, scheme.at, scheme.len) != 0)
        return bad(detail, "the target is neither a path nor an http URI");
    const char *start = v->at + scheme.len;
    size_t left = v->len - scheme.len, len = 0;
    while (len < left && start[len] != '/' && start[len] != '?')
        len++;
    if (len == 0 || memchr(start, '@', len))
        return bad(detail, "the target's authority is empty or names a user");
    t->authority = (struct view){start, len};
    *v = (struct view){start + len, left - len};
    return R_SERVED;
}

enum reason target_parse(struct view raw, unsigned method, char *scratch, struct request_target *t,
                         const char **detail)
{
    memset(t, 0, sizeof(*t));
    if (raw.len == 1 && raw.at[0] == '*') {
        t->path = raw;
        return method == HTTP_OPTIONS ? R_SERVED : bad(detail, "\"*\" is for OPTIONS only");
    }
    unsigned seen = classes_of(raw);
    if (seen & FORBIDDEN)
        return bad(detail, "forbidden byte in the target");
    bool is_path = raw.len > 0 && raw.at[0] == '/';
    enum reason r = is_path ? R_SERVED : split_absolute(&raw, t, detail);
    if (r != R_SERVED)
        return r;

    const char *mark = raw.len > 0 ? memchr(raw.at, '?', raw.len) : NULL;
    struct view path = {raw.at, mark ? (size_t)(mark - raw.at) : raw.len};
    t->query = (struct view){mark, mark ? raw.len - path.len : 0};
    if (path.len == 0) /* http://host and http://host?q stand for the root (RFC 9112 3.2.2) ... */
        path = (struct view){"/", 1};
    if (raw.len == 0 && method == HTTP_OPTIONS) /* ... or for the server itself (3.2.4) */
        path = (struct view){"*", 1};
    if (seen & (ODD | ENCODED) && t->query.len > 0) /* of the path alone, then */
        seen = classes_of(path);
    if (seen & ODD)
        return bad(detail, "forbidden byte in the path");
    if (seen & ENCODED) {
        if ((r = check_encoding(path, detail)) != R_SERVED)
            return r;
        path = decode_unreserved(path, scratch);
        if (has_overlong_utf8(path))
            return bad(detail, "overlong UTF-8 in the path");
    }
    if (seen & (ENCODED | DOT) && has_dot_segment(path))
        return bad(detail, "dot segment in the path");
    t->path = path;
    return R_SERVED;
}
