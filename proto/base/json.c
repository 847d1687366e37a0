#include "proto/base/json.h"

/* Length of the well-formed UTF-8 sequence at `p` (RFC 3629 section 4), 0 if there is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    static const struct {
        unsigned char first_low, first_high, second_low, second_high, length;
    } rows[] = {
        {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
        {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
        {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (p[0] < rows[i].first_low || p[0] > rows[i].first_high)
            continue;
        if (left < rows[i].length || p[1] < rows[i].second_low || p[1] > rows[i].second_high)
            return 0;
        for (size_t k = 2; k < rows[i].length; k++)
            if ((p[k] & 0xC0) != 0x80)
                return 0;
        return rows[i].length;
    }
    return 0;
}

static size_t escape_control(char *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    memcpy(out, "\\u00", 4);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

/* The escape of one ASCII byte into `out` (6 bytes of room); returns its length. */
static size_t escape_ascii(char *out, unsigned char c)
{
    static const char short_form[32] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    if (c == '"' || c == '\\') {
        out[0] = '\\';
        out[1] = (char)c;
        return 2;
    }
    if (c < 32 && short_form[c]) {
        out[0] = '\\';
        out[1] = short_form[c];
        return 2;
    }
    if (c < 32 || c == 127)
        return escape_control(out, c);
    out[0] = (char)c;
    return 1;
}

/* U+0080 to U+009F: to a terminal they are what ESC and a letter are. */
static bool is_c1_control(const unsigned char *p, size_t left)
{
    return left >= 2 && p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0;
}

/* U+2028 and U+2029: JSON takes them, but to much that reads lines they end one. */
static bool is_separator(const unsigned char *p, size_t left)
{
    return left >= 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9);
}

size_t json_escape(char *out, size_t cap, struct view text)
{
    const unsigned char *p = (const unsigned char *)text.at;
    size_t n = 0;
    for (size_t i = 0; i < text.len;) {
        char piece[6];
        size_t len, step = 1;
        if (p[i] < 128) {
            len = escape_ascii(piece, p[i]);
        } else if (is_c1_control(p + i, text.len - i)) {
            step = 2;
            len = escape_control(piece, p[i + 1]);
        } else if (is_separator(p + i, text.len - i)) {
            step = 3;
            len = 6;
            memcpy(piece, p[i + 2] == 0xA8 ? "\\u2028" : "\\u2029", len);
        } else if ((step = utf8_length(p + i, text.len - i)) > 0) {
            len = step;
            memcpy(piece, p + i, len);
        } else {
            step = 1;
            len = 3;
            memcpy(piece, "\xEF\xBF\xBD", 3);
        }
        if (len > cap - n)
            break;
        memcpy(out + n, piece, len);
        n += len;
        i += step;
    }
    return n;
}
