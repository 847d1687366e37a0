#include "dataplane/http/http1_check.h"

#include <llhttp.h>

/* token characters of RFC 9110 5.6.2 */
static const bool is_tchar[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1,
};

/* reg-name, IPv4address and the inside of an IP literal: unreserved, percent-encodings, sub-delims
 * that occur. */
static const bool is_host_char[256] = {
    ['-'] = 1, ['.'] = 1, ['_'] = 1,  ['~'] = 1,         ['%'] = 1,         ['!'] = 1,
    ['$'] = 1, ['&'] = 1, ['\''] = 1, ['('] = 1,         [')'] = 1,         ['*'] = 1,
    ['+'] = 1, [';'] = 1, ['='] = 1,  ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1,
};

/* What may stand in a head outside CRLF: anything but controls (RFC 9110 5.5); HTAB may. */
static const bool is_control[256] = {[0 ... 8] = 1, [10 ... 31] = 1, [127] = 1};

static enum reason bad(const char **detail, const char *why)
{
    *detail = why;
    return R_BAD_REQUEST;
}

/* Every line ends in CRLF and none is folded (RFC 9112 2.2, 5.2): a lone CR or LF, a control byte
 * or a line that begins with white space is read differently by different servers. Empty lines
 * before the start line are none of the head's. */
static enum reason check_lines(const struct head *h, const struct buffer *b, const char **detail)
{
    const unsigned char *p = (const unsigned char *)b->data, *end = p + h->bytes;
    while (p < end && (*p == '\r' || *p == '\n'))
        p++;
    for (; p < end; p++) {
        if (!is_control[*p])
            continue;
        if (*p != '\r')
            return bad(detail, *p == '\n' ? "bare LF" : "control byte in the head");
        if (p + 1 == end || p[1] != '\n')
            return bad(detail, "bare CR");
        p++;
        if (p + 1 < end && (p[1] == ' ' || p[1] == '\t'))
            return bad(detail, "folded or indented line");
    }
    return R_SERVED;
}

/* method SP request-target SP HTTP-version CRLF, with exactly these spaces (RFC 9112 3). */
static enum reason check_start_line(const struct head *h, const struct buffer *b,
                                    const char **detail)
{
    const char *method = llhttp_method_name((llhttp_method_t)h->method);
    size_t method_len = strlen(method), after = h->target_at + h->target_len;
    const char *p = b->data;
    if (h->target_len == 0 || h->target_at < method_len + 1 || h->bytes < after + 11 ||
        p[h->target_at - 1] != ' ' ||
        memcmp(p + h->target_at - 1 - method_len, method, method_len) != 0 || p[after] != ' ' ||
        memcmp(p + after + 1, "HTTP/1.", 7) != 0 || p[after + 9] != '\r')
        return bad(detail, "request line");
    return R_SERVED;
}

bool http1_is_token(struct view v)
{
    for (size_t i = 0; i < v.len; i++)
        if (!is_tchar[(unsigned char)v.at[i]])
            return false;
    return v.len > 0;
}

static enum reason check_names(const struct head *h, const struct buffer *b, const char **detail)
{
    for (unsigned i = 0; i < h->field_count; i++)
        if (!http1_is_token(field_name(b, &h->fields[i])))
            return bad(detail, "field name that is no token");
    return R_SERVED;
}

static unsigned count_of(const struct head *h, enum field_id id)
{
    unsigned n = 0;
    if (h->at[id] == 0)
        return 0;
    for (unsigned i = h->at[id] - 1u; i < h->field_count; i++)
        n += h->fields[i].id == id;
    return n;
}

/* 1*DIGIT and nothing else (RFC 9110 8.6): no sign, no list, no white space, no overflow. */
static bool parse_length(struct view v, uint64_t *length)
{
    *length = 0;
    if (v.len == 0 || v.len > 18)
        return false;
    for (size_t i = 0; i < v.len; i++) {
        if (v.at[i] < '0' || v.at[i] > '9')
            return false;
        *length = *length * 10 + (uint64_t)(v.at[i] - '0');
    }
    return true;
}

bool http1_has_token(struct view value, struct view token)
{
    while (value.len > 0) {
        const char *comma = memchr(value.at, ',', value.len);
        size_t len = comma ? (size_t)(comma - value.at) : value.len;
        if (view_equal_nocase(view_trim((struct view){value.at, len}), token))
            return true;
        len += comma != NULL;
        value.at += len;
        value.len -= len;
    }
    return false;
}

/* Persistence (RFC 9112 9.3): 1.1 keeps unless told "close"; 1.0 closes unless told "keep-alive".
 */
static void find_keep_alive(struct head *h, const struct buffer *b)
{
    h->keep_alive = h->minor >= 1;
    for (unsigned i = h->at[FIELD_CONNECTION]; i > 0 && i <= h->field_count; i++) {
        if (h->fields[i - 1].id != FIELD_CONNECTION)
            continue;
        struct view value = field_value(b, &h->fields[i - 1]);
        if (http1_has_token(value, (struct view){"close", 5})) {
            h->keep_alive = false;
            return;
        }
        if (h->minor == 0 && http1_has_token(value, (struct view){"keep-alive", 10}))
            h->keep_alive = true;
    }
}

/* Framing that both directions share: Transfer-Encoding and Content-Length exclude each other, each
 * comes once, the first may only say "chunked" (RFC 9112 6.1, 6.3). */
static enum reason find_framing(struct head *h, const struct buffer *b, const char **detail)
{
    unsigned lengths = count_of(h, FIELD_CONTENT_LENGTH),
             codings = count_of(h, FIELD_TRANSFER_ENCODING);
    h->framing = FRAMING_NONE;
    if (codings > 0) {
        if (lengths > 0)
            return bad(detail, "both Content-Length and Transfer-Encoding");
        if (codings > 1)
            return bad(detail, "Transfer-Encoding given twice");
        if (h->minor == 0)
            return bad(detail, "Transfer-Encoding in HTTP/1.0");
        if (!view_equal_nocase(head_value(h, b, FIELD_TRANSFER_ENCODING),
                               (struct view){"chunked", 7})) {
            *detail = "a transfer coding other than chunked";
            return R_NOT_IMPLEMENTED;
        }
        h->framing = FRAMING_CHUNKED;
    } else if (lengths > 0) {
        if (lengths > 1)
            return bad(detail, "Content-Length given twice");
        if (!parse_length(head_value(h, b, FIELD_CONTENT_LENGTH), &h->content_length))
            return bad(detail, "Content-Length is not a number");
        h->framing = FRAMING_LENGTH;
    }
    return R_SERVED;
}

bool http1_is_host(struct view host)
{
    size_t i = 0;
    if (host.len > 255 + 6)
        return false;
    if (host.len > 0 && host.at[0] == '[') {
        for (i = 1; i < host.len && host.at[i] != ']'; i++)
            if (!is_host_char[(unsigned char)host.at[i]] && host.at[i] != ':')
                return false;
        if (i++ >= host.len || i == 2)
            return false;
    } else {
        while (i < host.len && is_host_char[(unsigned char)host.at[i]])
            i++;
        if (i == 0)
            return false;
    }
    if (i == host.len)
        return true;
    if (host.at[i] != ':' || host.len - i > 6)
        return false;
    for (i++; i < host.len; i++)
        if (host.at[i] < '0' || host.at[i] > '9')
            return false;
    return true;
}

static enum reason check_host(const struct head *h, const struct buffer *b, const char **detail)
{
    unsigned hosts = count_of(h, FIELD_HOST);
    if (hosts > 1)
        return bad(detail, "Host given twice");
    if (hosts == 0)
        return h->minor == 0 ? R_SERVED : bad(detail, "no Host");
    struct view host = head_value(h, b, FIELD_HOST);
    if (host.len > 0 && !http1_is_host(host))
        return bad(detail, "Host is not a host");
    return R_SERVED;
}

enum reason http1_check_request(struct head *h, const struct buffer *b, const char **detail)
{
    enum reason r;
    if (h->major == 0)
        return bad(detail, "no HTTP version");
    if (h->major != 1 || h->minor > 1) {
        *detail = "HTTP version";
        return R_BAD_VERSION;
    }
    if ((r = check_lines(h, b, detail)) != R_SERVED ||
        (r = check_start_line(h, b, detail)) != R_SERVED ||
        (r = check_names(h, b, detail)) != R_SERVED || (r = check_host(h, b, detail)) != R_SERVED ||
        (r = find_framing(h, b, detail)) != R_SERVED)
        return r;
    if (h->method == HTTP_CONNECT) {
        *detail = "CONNECT";
        return R_NOT_IMPLEMENTED;
    }
    /* RFC 9110 10.1.1: any other expectation cannot be met. */
    if (h->at[FIELD_EXPECT] &&
        !view_equal_nocase(head_value(h, b, FIELD_EXPECT), (struct view){"100-continue", 12})) {
        *detail = "Expect";
        return R_EXPECTATION_FAILED;
    }
    find_keep_alive(h, b);
    return R_SERVED;
}

enum reason http1_check_response(struct head *h, const struct buffer *b, unsigned request_method,
                                 const char **detail)
{
    if (h->major != 1 || h->minor > 1 || h->status < 100 || h->status > 599) {
        *detail = "status line";
        return R_BAD_RESPONSE;
    }
    if (check_lines(h, b, detail) != R_SERVED || check_names(h, b, detail) != R_SERVED ||
        find_framing(h, b, detail) != R_SERVED)
        return R_BAD_RESPONSE;
    find_keep_alive(h, b);
    /* RFC 9112 6.3, rules 1, 2 and 8 */
    if (request_method == HTTP_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
        h->framing = FRAMING_NONE;
    else if (h->framing == FRAMING_NONE) {
        h->framing = FRAMING_UNTIL_CLOSE;
        h->keep_alive = false;
    }
    return R_SERVED;
}
