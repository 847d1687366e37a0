#include "dataplane/http/http1_check.h"

#include <arpa/inet.h>
#include <llhttp.h>

/* Of all Connection fields together. */
#define CONNECTION_MAX_BYTES 512

/* token characters of RFC 9110 5.6.2: 1, and 3 for the one that is read as "-" by some */
static const uint8_t tchar[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 3,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1,
};

/* reg-name and IPv4address: unreserved and the sub-delims that occur. No percent-encoding: what one
 * server decodes and the next one does not is two hosts. */
static const bool is_host_char[256] = {
    ['-'] = 1, ['.'] = 1,  ['_'] = 1,         ['~'] = 1,         ['!'] = 1,         ['$'] = 1,
    ['&'] = 1, ['\''] = 1, ['('] = 1,         [')'] = 1,         ['*'] = 1,         ['+'] = 1,
    [';'] = 1, ['='] = 1,  ['0' ... '9'] = 1, ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1,
};

static enum reason bad(const char **detail, const char *why)
{
    *detail = why;
    return R_BAD_REQUEST;
}

/* ---- lines ---- */

typedef uint8_t bytes16 __attribute__((vector_size(16)));

/* Adds up the 16 counts. */
static uint32_t total(bytes16 counts)
{
    const uint64_t even = 0x00ff00ff00ff00ff, ones = 0x0001000100010001;
    uint64_t half[2];
    memcpy(half, &counts, sizeof(half));
    uint64_t sums =
        (half[0] & even) + (half[0] >> 8 & even) + (half[1] & even) + (half[1] >> 8 & even);
    return (uint32_t)(sums * ones >> 48);
}

/* 255 in each place that holds a control byte (RFC 9110 5.5: none may stand in a field; HTAB may).
 */
static bytes16 controls(const char *at)
{
    bytes16 v;
    memcpy(&v, at, sizeof(v));
    return (bytes16)(((v < ' ') & (v != '\t')) | (v == 127));
}

/* How many control bytes, of at least 16 bytes. What is left of a multiple of 16 is counted with
 * the last 16, but for those of them that were counted before. */
static uint32_t count_controls(const char *at, size_t len)
{
    static const uint8_t places[32] = {[16 ... 31] = 255};
    bytes16 fresh, counts;
    memcpy(&fresh, places + len % 16, sizeof(fresh));
    counts = -(controls(at + len - 16) & fresh);
    uint32_t count = 0;
    for (const char *end = at + len - len % 16; at < end; counts = (bytes16){0}) {
        const char *block_end = MIN(end, at + (size_t)240 * 16); /* a count fits its byte */
        for (; at < block_end; at += 16)
            counts -= controls(at);
        count += total(counts);
    }
    return count;
}

static bool is_crlf(const char *at)
{
    return at[0] == '\r' && at[1] == '\n';
}

/* `at` is behind a ":" or a value: the next byte that is no space or tab. The blank line at the
 * head's end stops it at the latest. */
static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

/* Every byte of the field section has its place: name ":" OWS value OWS CRLF for each field, and
 * CRLF at the end (RFC 9112 5). llhttp, depending on its version, takes lines that end in a bare CR
 * or LF, folded ones and white space in odd places, which other servers read differently.
 *
 * The walk does not look into names and values. But it counts on CRLF at the end of each line, so
 * two control bytes a line and none other in the whole head leave no line end within a value. */
static enum reason check_fields(const struct head *h, const struct buffer *b, uint32_t start_at,
                                uint32_t fields_at, const char **detail)
{
    const char *at = b->data + fields_at;
    for (unsigned i = 0; i < h->field_count; i++) {
        const struct field *f = &h->fields[i];
        if (at != b->data + f->name_at || at[f->name_len] != ':')
            return bad(detail, "a line that is no field");
        at = skip_blanks(at + f->name_len + 1);
        if (f->value_len > 0) {
            if (at != b->data + f->value_at)
                return bad(detail, "a field that is not one line");
            at = skip_blanks(at + f->value_len);
        }
        if (!is_crlf(at))
            return bad(detail, "a field line that does not end in CRLF");
        at += 2;
    }
    if (at + 2 != b->data + h->bytes || !is_crlf(at))
        return bad(detail, "a head that does not end in CRLF CRLF");
    if (count_controls(b->data + start_at, h->bytes - start_at) != 2u * (h->field_count + 2u))
        return bad(detail, "bare CR or LF, or a control byte");
    return R_SERVED;
}

/* What http1_parse has let through as an extension it has looked at. */
static bool is_method(const struct head *h, struct view word)
{
    return h->method == METHOD_EXTENSION ||
           view_equal(word, view_of(llhttp_method_name((llhttp_method_t)h->method)));
}

/* method SP request-target SP HTTP-version CRLF, with exactly these spaces (RFC 9112 3), behind any
 * number of empty lines (2.2). Then the fields. */
static enum reason check_request_lines(const struct head *h, const struct buffer *b,
                                       const char **detail)
{
    const char *p = b->data;
    size_t after = h->target_at + h->target_len;
    uint32_t start = 0;
    while (is_crlf(p + start))
        start += 2;
    if (h->target_len == 0 || h->target_at != start + h->method_len + 1 || h->bytes < after + 13 ||
        p[h->target_at - 1] != ' ' || !is_method(h, head_view(b, start, h->method_len)) ||
        memcmp(p + after, " HTTP/1.", 8) != 0 || !is_crlf(p + after + 9))
        return bad(detail, "request line");
    return check_fields(h, b, start, (uint32_t)after + 11, detail);
}

/* HTTP-version SP 3DIGIT [SP [reason-phrase]] CRLF (RFC 9112 4; the space before a missing reason
 * is commonly missing as well). The digits are llhttp's; here they are the only ones. */
static enum reason check_response_lines(const struct head *h, const struct buffer *b,
                                        const char **detail)
{
    const char *p = b->data;
    uint32_t end = 12;
    if (h->bytes < 16 || memcmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ' || h->status < 100)
        return bad(detail, "status line");
    for (int i = 9; i < 12; i++)
        if (p[i] < '0' || p[i] > '9')
            return bad(detail, "status line");
    if (p[12] == ' ')
        end = h->target_len > 0 ? h->target_at + h->target_len : 13;
    if ((h->target_len > 0 && h->target_at != 13) || !is_crlf(p + end))
        return bad(detail, "status line");
    return check_fields(h, b, 0, end + 2, detail);
}

/* ---- fields ---- */

/* The classes of all bytes that have one in common, and those that any of them has; 0 common: one
 * is no token character. */
static void classify(struct view v, uint8_t *common, uint8_t *any)
{
    *common = v.len > 0;
    *any = 0;
    for (size_t i = 0; i < v.len; i++) {
        *common &= tchar[(unsigned char)v.at[i]];
        *any |= tchar[(unsigned char)v.at[i]];
    }
}

bool http1_is_token(struct view v)
{
    uint8_t common, any;
    classify(v, &common, &any);
    return common != 0;
}

bool http1_is_plain_name(struct view name)
{
    uint8_t common, any;
    classify(name, &common, &any);
    return common != 0 && any == 1;
}

/* Names that fields.def lists are tokens; of others every byte is looked at, and what would come
 * out as one of the gateway's own names where "_" is read as "-" is marked so that it is not passed
 * on, and refused where it would frame a request. */
static enum reason check_names(struct head *h, const struct buffer *b, const char **detail)
{
    for (unsigned i = 0; i < h->field_count; i++) {
        struct field *f = &h->fields[i];
        struct view name = field_name(b, f);
        if (f->id != FIELD_OTHER || http1_is_plain_name(name))
            continue;
        if (!http1_is_token(name))
            return bad(detail, "field name that is no token");
        enum field_id id = field_find_lookalike(name);
        bool frames = id == FIELD_CONTENT_LENGTH || id == FIELD_TRANSFER_ENCODING;
        if (frames && h->status == 0)
            return bad(detail, "field name that looks like one of the framing");
        if (field_fate(id) != KEEP)
            f->id = FIELD_LOOKALIKE;
    }
    return R_SERVED;
}

/* 0, 1, or 2 for more than one. */
static unsigned count_of(const struct head *h, enum field_id id)
{
    return h->at[id] == 0 ? 0 : 1 + (h->repeated >> id & 1);
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

/* OWS may be a tab (RFC 9110 5.6.3), but llhttp takes none behind a length before its version 9.4,
 * and nobody sends one: what is refused shall not depend on the version. */
static bool is_before_tab(const struct buffer *b, const struct field *f)
{
    const char *at = b->data + f->value_at + f->value_len;
    while (*at == ' ')
        at++;
    return *at == '\t';
}

/* The next element of a list (RFC 9110 5.6.1), taken off `list`. */
static struct view next_element(struct view *list)
{
    const char *comma = memchr(list->at, ',', list->len);
    size_t len = comma ? (size_t)(comma - list->at) : list->len;
    struct view element = view_trim((struct view){list->at, len});
    len += comma != NULL;
    list->at += len;
    list->len -= len;
    return element;
}

bool http1_has_token(struct view value, struct view token)
{
    while (value.len > 0)
        if (view_equal_nocase(next_element(&value), token))
            return true;
    return false;
}

bool http1_lists_token(const struct head *h, const struct buffer *b, enum field_id id,
                       struct view token)
{
    for (unsigned i = h->at[id]; i > 0 && i <= h->field_count; i++)
        if (h->fields[i - 1].id == id && http1_has_token(field_value(b, &h->fields[i - 1]), token))
            return true;
    return false;
}

/* Persistence (RFC 9112 9.3): 1.1 keeps unless told "close"; 1.0 closes unless told "keep-alive".
 * Every field is looked for among the options later, so that a head full of commas would cost
 * hundreds of times what others do. */
static enum reason find_keep_alive(struct head *h, const struct buffer *b, const char **detail)
{
    bool closes = false, keeps = h->minor >= 1;
    size_t bytes = 0;
    for (unsigned i = h->at[FIELD_CONNECTION]; i > 0 && i <= h->field_count; i++) {
        if (h->fields[i - 1].id != FIELD_CONNECTION)
            continue;
        struct view value = field_value(b, &h->fields[i - 1]);
        if ((bytes += value.len) > CONNECTION_MAX_BYTES)
            return bad(detail, "Connection lists too much");
        closes = closes || http1_has_token(value, (struct view){"close", 5});
        keeps = keeps || http1_has_token(value, (struct view){"keep-alive", 10});
    }
    h->keep_alive = keeps && !closes;
    return R_SERVED;
}

static const struct view chunked = {"chunked", 7};

/* A Transfer-Encoding that is not just "chunked" (RFC 9112 6.1, 6.3). Codings that we do not know
 * are 501, as long as the whole is a list of codings in which "chunked" has its place, if any: once
 * and last. Anything else is an attempt to be read in two ways. */
static enum reason refuse_codings(struct view value, const char **detail)
{
    static const struct view identity = {"identity", 8};
    bool ended = false;
    if (value.len == 0 || value.at[value.len - 1] == ',')
        return bad(detail, "malformed Transfer-Encoding");
    while (value.len > 0) {
        struct view coding = next_element(&value);
        if (ended)
            return bad(detail, "chunked is not the last transfer coding");
        if (!http1_is_token(coding) || view_equal_nocase(coding, identity))
            return bad(detail, "malformed Transfer-Encoding");
        ended = view_equal_nocase(coding, chunked);
    }
    *detail = "a transfer coding other than chunked";
    return R_NOT_IMPLEMENTED;
}

/* Framing that both directions share: Transfer-Encoding and Content-Length exclude each other, each
 * comes once, the first may only say "chunked" (RFC 9112 6.1, 6.3). */
static enum reason find_framing(struct head *h, const struct buffer *b, const char **detail)
{
    unsigned lengths = count_of(h, FIELD_CONTENT_LENGTH);
    unsigned codings = count_of(h, FIELD_TRANSFER_ENCODING);
    h->framing = FRAMING_NONE;
    if (codings > 0) {
        struct view value = head_value(h, b, FIELD_TRANSFER_ENCODING);
        if (lengths > 0)
            return bad(detail, "both Content-Length and Transfer-Encoding");
        if (codings > 1)
            return bad(detail, "Transfer-Encoding given twice");
        if (h->minor == 0)
            return bad(detail, "Transfer-Encoding in HTTP/1.0");
        if (!view_equal_nocase(value, chunked))
            return refuse_codings(value, detail);
        h->framing = FRAMING_CHUNKED;
    } else if (lengths > 0) {
        if (lengths > 1)
            return bad(detail, "Content-Length given twice");
        const struct field *f = head_find(h, FIELD_CONTENT_LENGTH);
        if (!parse_length(field_value(b, f), &h->content_length) || is_before_tab(b, f))
            return bad(detail, "Content-Length is not a number");
        h->framing = FRAMING_LENGTH;
    }
    return R_SERVED;
}

/* ":" and a port, which may be missing (RFC 3986 3.2.3). */
static bool is_port(struct view v)
{
    unsigned port = 0;
    if (v.len == 0)
        return true;
    if (v.at[0] != ':' || v.len > 6)
        return false;
    for (size_t i = 1; i < v.len; i++) {
        if (v.at[i] < '0' || v.at[i] > '9')
            return false;
        port = port * 10 + (unsigned)(v.at[i] - '0');
    }
    return port <= 65535;
}

/* An IPv6 address in brackets: its length with them, 0 if it is none. */
static size_t bracketed_len(struct view v)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr ip;
    const char *end = memchr(v.at, ']', MIN(v.len, sizeof(text)));
    if (!end)
        return 0;
    size_t len = (size_t)(end - v.at);
    memcpy(text, v.at + 1, len - 1);
    text[len - 1] = '\0';
    return inet_pton(AF_INET6, text, &ip) == 1 ? len + 1 : 0;
}

bool http1_is_host(struct view host)
{
    size_t len = 0;
    if (host.len == 0 || host.len > 255 + 6)
        return false;
    if (host.at[0] == '[')
        len = bracketed_len(host);
    else
        while (len < host.len && is_host_char[(unsigned char)host.at[len]])
            len++;
    return len > 0 && is_port((struct view){host.at + len, host.len - len});
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

/* Only "100-continue" can be met (RFC 9110 10.1.1), and HTTP/1.0 knows no expectations. */
static enum reason check_expect(const struct head *h, const struct buffer *b, const char **detail)
{
    static const struct view known = {"100-continue", 12};
    if (h->at[FIELD_EXPECT] == 0 || h->minor == 0)
        return R_SERVED;
    for (unsigned i = h->at[FIELD_EXPECT] - 1u; i < h->field_count; i++) {
        struct view list = field_value(b, &h->fields[i]);
        while (h->fields[i].id == FIELD_EXPECT && list.len > 0) {
            struct view expectation = next_element(&list);
            if (expectation.len == 0 || view_equal_nocase(expectation, known))
                continue;
            *detail = "Expect";
            return R_EXPECTATION_FAILED;
        }
    }
    return R_SERVED;
}

/* 505, unless there is no version at all, as in HTTP/0.9. */
static enum reason refuse_version(const struct head *h, const struct buffer *b, const char **detail)
{
    size_t after = h->target_at + h->target_len;
    if (h->bytes < after + 6 || memcmp(b->data + after, " HTTP/", 6) != 0)
        return bad(detail, "no HTTP version");
    *detail = "HTTP version";
    return R_BAD_VERSION;
}

/* By one, in place: "10" becomes "09". */
static void count_down(char *digits, size_t len)
{
    while (len > 0 && digits[len - 1] == '0')
        digits[--len] = '9';
    digits[len - 1]--;
}

enum reason http1_count_forwards(const struct head *h, struct buffer *b, const char **detail)
{
    const struct field *f = head_find(h, FIELD_MAX_FORWARDS);
    bool zero = true;
    if (!f || (h->method != HTTP_TRACE && h->method != HTTP_OPTIONS))
        return R_SERVED;
    char *digits = b->data + f->value_at;
    if (f->value_len == 0 || count_of(h, FIELD_MAX_FORWARDS) > 1)
        return bad(detail, "Max-Forwards is not one number");
    for (size_t i = 0; i < f->value_len; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return bad(detail, "Max-Forwards is not one number");
        zero = zero && digits[i] == '0';
    }
    if (!zero) {
        count_down(digits, f->value_len);
        return R_SERVED;
    }
    *detail = "Max-Forwards has come to 0";
    return h->method == HTTP_OPTIONS ? R_LAST_HOP : R_NOT_IMPLEMENTED;
}

enum reason http1_check_request(struct head *h, const struct buffer *b, const char **detail)
{
    enum reason r;
    if (h->major != 1)
        return refuse_version(h, b, detail);
    if (!h->scanned && ((r = check_request_lines(h, b, detail)) != R_SERVED ||
                        (r = check_names(h, b, detail)) != R_SERVED))
        return r;
    if ((r = check_host(h, b, detail)) != R_SERVED ||
        (r = find_framing(h, b, detail)) != R_SERVED ||
        (r = check_expect(h, b, detail)) != R_SERVED)
        return r;
    if (h->method == HTTP_CONNECT) {
        *detail = "CONNECT";
        return R_NOT_IMPLEMENTED;
    }
    if (h->method == HTTP_TRACE && h->framing != FRAMING_NONE) /* RFC 9110 9.3.8 */
        return bad(detail, "TRACE with a body");
    h->minor = MIN(h->minor, 1);
    return find_keep_alive(h, b, detail);
}

enum reason http1_check_response(struct head *h, const struct buffer *b, unsigned request_method,
                                 const char **detail)
{
    if (h->major != 1 || h->status < 100 || h->status > 599) {
        *detail = "status line";
        return R_BAD_RESPONSE;
    }
    if ((!h->scanned && (check_response_lines(h, b, detail) != R_SERVED ||
                         check_names(h, b, detail) != R_SERVED)) ||
        find_framing(h, b, detail) != R_SERVED || find_keep_alive(h, b, detail) != R_SERVED)
        return R_BAD_RESPONSE;
    h->minor = MIN(h->minor, 1);
    /* RFC 9112 6.3, rules 1, 2 and 8 */
    if (request_method == HTTP_HEAD || h->status < 200 || h->status == 204 || h->status == 304)
        h->framing = FRAMING_NONE;
    else if (h->framing == FRAMING_NONE) {
        h->framing = FRAMING_UNTIL_CLOSE;
        h->keep_alive = false;
    }
    return R_SERVED;
}
