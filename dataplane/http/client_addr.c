#include "dataplane/http/client_addr.h"

#include <arpa/inet.h>

#define MAPPED_PREFIX 0x0000ffff00000000ull /* in .low, with .high 0 */

static uint64_t load_be(const uint8_t *p)
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return n;
}

struct ip ip_from_v4(const uint8_t bytes[4])
{
    uint64_t v4 =
        (uint64_t)bytes[0] << 24 | (uint64_t)bytes[1] << 16 | (uint64_t)bytes[2] << 8 | bytes[3];
    return (struct ip){0, MAPPED_PREFIX | v4};
}

struct ip ip_from_v6(const uint8_t bytes[16])
{
    return (struct ip){load_be(bytes), load_be(bytes + 8)};
}

bool ip_is_v4(struct ip ip)
{
    return ip.high == 0 && (ip.low & 0xffffffff00000000) == MAPPED_PREFIX;
}

bool ip_equal(struct ip a, struct ip b)
{
    return a.high == b.high && a.low == b.low;
}

bool ip_from_addr(const struct addr *a, struct ip *ip)
{
    uint8_t v4[4];
    if (a->sa.any.sa_family == AF_INET) {
        memcpy(v4, &a->sa.in4.sin_addr, 4);
        *ip = ip_from_v4(v4);
        return true;
    }
    if (a->sa.any.sa_family == AF_INET6)
        *ip = ip_from_v6(a->sa.in6.sin6_addr.s6_addr);
    return a->sa.any.sa_family == AF_INET6;
}

/* By hand, as it is done for every entry of every trusted request: four numbers up to 255 without
 * leading zeros, which some read as octal. */
static bool parse_v4(struct view text, struct ip *ip)
{
    uint8_t bytes[4];
    size_t at = 0;
    for (int i = 0; i < 4; i++) {
        unsigned n = 0;
        if (i > 0 && (at >= text.len || text.at[at++] != '.'))
            return false;
        size_t start = at;
        while (at < text.len && text.at[at] >= '0' && text.at[at] <= '9' && at - start < 3)
            n = n * 10 + (unsigned)(text.at[at++] - '0');
        if (at == start || n > 255 || (text.at[start] == '0' && at - start > 1))
            return false;
        bytes[i] = (uint8_t)n;
    }
    *ip = ip_from_v4(bytes);
    return at == text.len;
}

static bool parse_v6(struct view text, struct ip *ip)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.at, '\0', text.len))
        return false;
    memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET6, copy, &v6) != 1)
        return false;
    *ip = ip_from_v6(v6.s6_addr);
    return true;
}

bool ip_parse(struct view text, struct ip *ip)
{
    return parse_v4(text, ip) || parse_v6(text, ip);
}

size_t ip_format(struct ip ip, char out[INET6_ADDRSTRLEN])
{
    uint8_t bytes[16];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(ip.high >> (56 - 8 * i));
        bytes[8 + i] = (uint8_t)(ip.low >> (56 - 8 * i));
    }
    bool v4 = ip_is_v4(ip);
    if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? bytes + 12 : bytes, out, INET6_ADDRSTRLEN))
        out[0] = '\0';
    return strlen(out);
}

/* ---- networks ---- */

/* The upper `bits` of 128. */
static struct ip mask_of(unsigned bits)
{
    struct ip m = {0, 0};
    if (bits > 0)
        m.high = bits >= 64 ? UINT64_MAX : UINT64_MAX << (64 - bits);
    if (bits > 64)
        m.low = bits >= 128 ? UINT64_MAX : UINT64_MAX << (128 - bits);
    return m;
}

/* "/8" -> 8; nothing -> `most`. */
static bool parse_length(struct view text, unsigned most, unsigned *length)
{
    *length = text.len == 0 ? most : 0;
    if (text.len == 0)
        return true;
    if (text.len < 2 || text.len > 4 || (text.at[1] == '0' && text.len > 2))
        return false;
    for (size_t i = 1; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *length = *length * 10 + (unsigned)(text.at[i] - '0');
    }
    return *length <= most;
}

int cidr_parse(struct cidr *c, const char *text, struct err *err)
{
    struct view all = view_of(text);
    size_t ip_len = strcspn(text, "/");
    bool with_colon = memchr(text, ':', ip_len) != NULL;
    unsigned length;
    if (!ip_parse((struct view){text, ip_len}, &c->network) ||
        !parse_length((struct view){text + ip_len, all.len - ip_len}, with_colon ? 128 : 32,
                      &length))
        return err_set(err, "\"%s\" is not a network: write 10.0.0.0/8, 2001:db8::/32 or one IP",
                       text);
    if (!with_colon)
        length += 96;
    c->is_v4 = ip_is_v4(c->network) && length >= 96;
    c->mask = mask_of(length);
    c->network.high &= c->mask.high;
    c->network.low &= c->mask.low;
    return 0;
}

bool cidr_contains(const struct cidr *c, struct ip ip)
{
    return (ip.low & c->mask.low) == c->network.low &&
           (ip.high & c->mask.high) == c->network.high && c->is_v4 == ip_is_v4(ip);
}

int cidr_list_compile(struct cidr_list *list, const char *const *texts, size_t count,
                      struct arena *arena, struct err *err)
{
    struct cidr *cidrs = count > 0 ? arena_array(arena, count, sizeof(*cidrs)) : NULL;
    for (size_t i = 0; i < count; i++)
        if (cidr_parse(&cidrs[i], texts[i], err) < 0)
            return -1;
    list->count = (uint32_t)count;
    list->cidrs = cidrs;
    return 0;
}

bool cidr_list_contains(const struct cidr_list *list, struct ip ip)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (cidr_contains(&list->cidrs[i], ip))
            return true;
    return false;
}

/* ---- the walk ---- */

static bool is_port(struct view text)
{
    if (text.len < 2 || text.len > 6 || text.at[0] != ':')
        return false;
    for (size_t i = 1; i < text.len; i++)
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
    return true;
}

static bool parse_entry(struct view text, struct ip *ip)
{
    if (ip_parse(text, ip))
        return true;
    bool bracketed = text.len > 0 && text.at[0] == '[';
    const char *end = text.len > 0 ? memchr(text.at, bracketed ? ']' : ':', text.len) : NULL;
    if (!end)
        return false;
    size_t ip_len = (size_t)(end - text.at);
    struct view port = {end + bracketed, text.len - ip_len - bracketed};
    if (!bracketed)
        return is_port(port) && parse_v4((struct view){text.at, ip_len}, ip);
    return (port.len == 0 || is_port(port)) && parse_v6((struct view){text.at + 1, ip_len - 1}, ip);
}

/* The last element of a list, taken off it together with the comma before it. */
static struct view last_element(struct view *list)
{
    const char *comma = list->len > 0 ? memrchr(list->at, ',', list->len) : NULL;
    size_t before = comma ? (size_t)(comma - list->at) : 0;
    size_t skip = comma ? before + 1 : 0;
    struct view element = view_trim((struct view){list->at + skip, list->len - skip});
    list->len = before;
    return element;
}

struct ip client_addr_find(struct ip peer, const struct cidr_list *trusted, const struct head *h,
                           const struct buffer *b)
{
    struct ip current = peer, next;
    unsigned hops = 0, first = h->at[FIELD_FORWARDED_FOR];
    if (first == 0 || !cidr_list_contains(trusted, current))
        return current;
    for (unsigned i = h->field_count; i >= first; i--) {
        if (h->fields[i - 1].id != FIELD_FORWARDED_FOR)
            continue;
        struct view list = field_value(b, &h->fields[i - 1]);
        while (list.len > 0) {
            if (hops++ == CLIENT_ADDR_MAX_HOPS || !parse_entry(last_element(&list), &next))
                return current;
            current = next;
            if (!cidr_list_contains(trusted, current))
                return current;
        }
    }
    return current;
}
