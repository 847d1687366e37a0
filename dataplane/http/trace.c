#include "dataplane/http/trace.h"

#include "proto/base/digits.h"

#define STATE_MAX_MEMBERS 32
#define KEY_MAX_BYTES 256
#define TENANT_MAX_BYTES 241
#define SYSTEM_MAX_BYTES 14
#define VALUE_MAX_BYTES 256

/* ---- traceparent ---- */

/* Lower case, as the format says: upper case is not valid. */
static bool is_hex(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!((at[i] >= '0' && at[i] <= '9') || (at[i] >= 'a' && at[i] <= 'f')))
            return false;
    return true;
}

static bool is_zero(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] != '0')
            return false;
    return true;
}

/* version "-" trace-id "-" parent-id "-" flags; version 00 ends there, later ones may go on behind
 * another "-", and ff is no version. */
bool trace_is_parent(struct view v)
{
    if (v.len < TRACE_PARENT_BYTES || v.at[2] != '-' || v.at[35] != '-' || v.at[52] != '-')
        return false;
    if (!is_hex(v.at, 2) || !is_hex(v.at + 3, 32) || !is_hex(v.at + 36, 16) ||
        !is_hex(v.at + 53, 2) || is_zero(v.at + 3, 32) || is_zero(v.at + 36, 16))
        return false;
    if (memcmp(v.at, "ff", 2) == 0)
        return false;
    if (memcmp(v.at, "00", 2) == 0)
        return v.len == TRACE_PARENT_BYTES;
    return v.len == TRACE_PARENT_BYTES || v.at[TRACE_PARENT_BYTES] == '-';
}

/* ---- tracestate ---- */

static bool is_key_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '*' ||
           c == '/';
}

static bool is_name(const char *at, size_t len, size_t max)
{
    for (size_t i = 0; i < len; i++)
        if (!is_key_byte(at[i]))
            return false;
    return len > 0 && len <= max;
}

/* "vendor" or "tenant@system". */
static bool is_key(struct view key)
{
    const char *sign = key.len > 0 ? memchr(key.at, '@', key.len) : NULL;
    size_t before = sign ? (size_t)(sign - key.at) : key.len;
    if (!sign)
        return is_name(key.at, key.len, KEY_MAX_BYTES);
    return is_name(key.at, before, TENANT_MAX_BYTES) &&
           is_name(sign + 1, key.len - before - 1, SYSTEM_MAX_BYTES);
}

static bool is_value(struct view value)
{
    if (value.len == 0 || value.len > VALUE_MAX_BYTES || value.at[value.len - 1] == ' ')
        return false;
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] < 0x20 || value.at[i] > 0x7e || value.at[i] == '=')
            return false;
    return true;
}

static struct view trimmed(struct view v)
{
    while (v.len > 0 && (v.at[0] == ' ' || v.at[0] == '\t')) {
        v.at++;
        v.len--;
    }
    while (v.len > 0 && (v.at[v.len - 1] == ' ' || v.at[v.len - 1] == '\t'))
        v.len--;
    return v;
}

/* Empty members are allowed. */
static bool is_member(struct view member)
{
    member = trimmed(member);
    const char *equals = member.len > 0 ? memchr(member.at, '=', member.len) : NULL;
    if (!equals)
        return member.len == 0;
    size_t len = (size_t)(equals - member.at);
    return is_key((struct view){member.at, len}) &&
           is_value((struct view){equals + 1, member.len - len - 1});
}

bool trace_is_state(struct view v, unsigned *members)
{
    while (v.len > 0) {
        const char *comma = memchr(v.at, ',', v.len);
        size_t len = comma ? (size_t)(comma - v.at) : v.len;
        if (++*members > STATE_MAX_MEMBERS || !is_member((struct view){v.at, len}))
            return false;
        len += comma != NULL;
        v.at += len;
        v.len -= len;
    }
    return true;
}

/* ---- a request's ---- */

static void leave_out(struct head *h, enum field_id id)
{
    for (unsigned i = h->at[id]; i > 0 && i <= h->field_count; i++)
        if (h->fields[i - 1].id == id)
            h->fields[i - 1].id = FIELD_LOOKALIKE;
    h->at[id] = 0;
}

static bool are_states(const struct head *h, const struct buffer *b)
{
    unsigned members = 0;
    for (unsigned i = h->at[FIELD_TRACESTATE]; i > 0 && i <= h->field_count; i++)
        if (h->fields[i - 1].id == FIELD_TRACESTATE &&
            !trace_is_state(field_value(b, &h->fields[i - 1]), &members))
            return false;
    return true;
}

/* Two traceparents are none: nobody can tell which is meant. */
static bool is_single(const struct head *h, enum field_id id)
{
    for (unsigned i = h->at[id]; i < h->field_count; i++)
        if (h->fields[i].id == id)
            return false;
    return true;
}

enum trace trace_check(struct head *h, const struct buffer *b)
{
    if (h->at[FIELD_TRACEPARENT] == 0 && h->at[FIELD_TRACESTATE] == 0)
        return TRACE_NONE;
    bool valid = h->at[FIELD_TRACEPARENT] > 0 && is_single(h, FIELD_TRACEPARENT) &&
                 trace_is_parent(head_value(h, b, FIELD_TRACEPARENT));
    if (!valid)
        leave_out(h, FIELD_TRACEPARENT);
    if (!valid || !are_states(h, b))
        leave_out(h, FIELD_TRACESTATE);
    return valid ? TRACE_RECEIVED : TRACE_NONE;
}

void trace_make(const uint64_t random[3], char out[TRACE_PARENT_BYTES])
{
    memcpy(out, "00-", 3);
    digits_hex(out + 3, random[0] | 1); /* zero is no id */
    digits_hex(out + 19, random[1]);
    out[35] = '-';
    digits_hex(out + 36, random[2] | 1);
    memcpy(out + 52, "-01", 3);
}
