#include "dataplane/http/proxy_header.h"

#include <arpa/inet.h>

#define V2_HEAD_BYTES 16
#define V2_SIGNATURE_BYTES 12

static const char v2_signature[V2_SIGNATURE_BYTES + 1] = "\r\n\r\n\0\r\nQUIT\n";

static enum proxy_status bad(const char **detail, const char *why)
{
    *detail = why;
    return PROXY_BAD;
}

/* ---- version 1: "PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n" ---- */

/* The next word; one space ends it and is taken off. */
static struct view next_word(struct view *line)
{
    const char *space = line->len > 0 ? memchr(line->at, ' ', line->len) : NULL;
    struct view word = {line->at, space ? (size_t)(space - line->at) : line->len};
    size_t taken = word.len + (space != NULL);
    line->at += taken;
    line->len -= taken;
    return word;
}

/* As inet_pton() has it: four decimal numbers without leading zeros; IPv6 without a zone. */
static bool parse_ip(struct view word, int family, void *ip)
{
    char text[INET6_ADDRSTRLEN];
    if (word.len >= sizeof(text) || memchr(word.at, '\0', word.len))
        return false;
    memcpy(text, word.at, word.len);
    text[word.len] = '\0';
    return inet_pton(family, text, ip) == 1;
}

static bool parse_port(struct view word, in_port_t *port)
{
    unsigned n = 0;
    if (word.len == 0 || word.len > 5 || (word.at[0] == '0' && word.len > 1))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (word.at[i] < '0' || word.at[i] > '9')
            return false;
        n = n * 10 + (unsigned)(word.at[i] - '0');
    }
    *port = htons((in_port_t)n);
    return n <= 65535;
}

/* "source destination port port", and nothing behind it. */
static bool parse_v1_addresses(struct view rest, int family, struct addr *source)
{
    struct in6_addr ip, destination;
    in_port_t port, destination_port;
    bool ends_in_space = rest.len > 0 && rest.at[rest.len - 1] == ' ';
    if (!parse_ip(next_word(&rest), family, &ip) ||
        !parse_ip(next_word(&rest), family, &destination) || !parse_port(next_word(&rest), &port) ||
        !parse_port(next_word(&rest), &destination_port) || rest.len > 0 || ends_in_space)
        return false;
    if (family == AF_INET) {
        source->sa.in4.sin_family = AF_INET;
        source->sa.in4.sin_port = port;
        memcpy(&source->sa.in4.sin_addr, &ip, sizeof(source->sa.in4.sin_addr));
        source->len = sizeof(source->sa.in4);
    } else {
        source->sa.in6.sin6_family = AF_INET6;
        source->sa.in6.sin6_port = port;
        source->sa.in6.sin6_addr = ip;
        source->len = sizeof(source->sa.in6);
    }
    return true;
}

/* `line` is behind "PROXY ", without CRLF. */
static enum proxy_status parse_v1_line(struct view line, struct proxy_header *h,
                                       const char **detail)
{
    for (size_t i = 0; i < line.len; i++)
        if ((unsigned char)line.at[i] < ' ' || (unsigned char)line.at[i] >= 127)
            return bad(detail, "PROXY v1: a byte that is no text");
    struct view family = next_word(&line);
    if (view_equal(family, (struct view){"UNKNOWN", 7}))
        return PROXY_DONE; /* what follows means nothing */
    bool v4 = view_equal(family, (struct view){"TCP4", 4});
    if (!v4 && !view_equal(family, (struct view){"TCP6", 4}))
        return bad(detail, "PROXY v1: neither TCP4, TCP6 nor UNKNOWN");
    h->has_source = parse_v1_addresses(line, v4 ? AF_INET : AF_INET6, &h->source);
    return h->has_source ? PROXY_DONE : bad(detail, "PROXY v1: malformed addresses");
}

static enum proxy_status parse_v1(const char *bytes, size_t len, struct proxy_header *h,
                                  const char **detail)
{
    static const struct view word = {"PROXY ", 6};
    size_t seen = MIN(len, word.len);
    if (memcmp(bytes, word.at, seen) != 0)
        return bad(detail, "no PROXY header");
    const char *lf = memchr(bytes, '\n', MIN(len, (size_t)PROXY_HEADER_V1_MAX_BYTES));
    if (!lf)
        return len < PROXY_HEADER_V1_MAX_BYTES ? PROXY_MORE
                                               : bad(detail, "PROXY v1: line too long");
    h->consumed = (size_t)(lf - bytes) + 1;
    if (h->consumed < word.len + 2 || lf[-1] != '\r')
        return bad(detail, "PROXY v1: line does not end in CRLF");
    return parse_v1_line((struct view){bytes + word.len, h->consumed - word.len - 2}, h, detail);
}

/* ---- version 2 ---- */

static size_t get_u16(const char *p)
{
    return (size_t)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

/* Type, length, value, one behind the other, up to the end; what they say is not of interest. */
static bool are_tlvs(const char *at, size_t len)
{
    while (len > 0) {
        if (len < 3 || len - 3 < get_u16(at + 1))
            return false;
        size_t taken = 3 + get_u16(at + 1);
        at += taken;
        len -= taken;
    }
    return true;
}

/* Bytes of both addresses and ports, by the family's number: UNSPEC, INET, INET6, UNIX. */
static const uint8_t address_bytes[] = {0, 12, 36, 216};

static void take_v2_source(const char *at, unsigned family, struct proxy_header *h)
{
    struct addr *a = &h->source;
    h->has_source = family == 1 || family == 2;
    if (family == 1) {
        a->sa.in4.sin_family = AF_INET;
        memcpy(&a->sa.in4.sin_addr, at, 4);
        memcpy(&a->sa.in4.sin_port, at + 8, 2);
        a->len = sizeof(a->sa.in4);
    } else if (family == 2) {
        a->sa.in6.sin6_family = AF_INET6;
        memcpy(&a->sa.in6.sin6_addr, at, 16);
        memcpy(&a->sa.in6.sin6_port, at + 32, 2);
        a->len = sizeof(a->sa.in6);
    }
}

/* The 16 bytes that come first: signature, version and command, family and protocol, length. */
static enum proxy_status check_v2_head(const char *bytes, const char **detail)
{
    unsigned char command = (unsigned char)bytes[12], family = (unsigned char)bytes[13];
    if (command >> 4 != 2 || (command & 15) > 1)
        return bad(detail, "PROXY v2: unknown version or command");
    if (family >> 4 >= COUNT_OF(address_bytes) || (family & 15) > 2)
        return bad(detail, "PROXY v2: unknown family or protocol");
    if (get_u16(bytes + 14) > PROXY_HEADER_V2_MAX_BYTES - V2_HEAD_BYTES)
        return bad(detail, "PROXY v2: too long");
    if (command == 0x20) /* LOCAL: the proxy speaks for itself, whatever else it says */
        return PROXY_DONE;
    if ((family & 15) == 2)
        return bad(detail, "PROXY v2: datagrams on a stream");
    if (get_u16(bytes + 14) < address_bytes[family >> 4])
        return bad(detail, "PROXY v2: shorter than its addresses");
    return PROXY_DONE;
}

static enum proxy_status parse_v2(const char *bytes, size_t len, struct proxy_header *h,
                                  const char **detail)
{
    if (len < V2_HEAD_BYTES)
        return PROXY_MORE;
    if (check_v2_head(bytes, detail) != PROXY_DONE)
        return PROXY_BAD;
    size_t body_len = get_u16(bytes + 14);
    if (len < V2_HEAD_BYTES + body_len)
        return PROXY_MORE;
    h->consumed = V2_HEAD_BYTES + body_len;
    if (bytes[12] == 0x20)
        return PROXY_DONE;
    unsigned family = (unsigned char)bytes[13] >> 4;
    size_t address_len = address_bytes[family];
    /* Behind no addresses comes nothing that would have to be TLVs. */
    if (family != 0 && !are_tlvs(bytes + V2_HEAD_BYTES + address_len, body_len - address_len))
        return bad(detail, "PROXY v2: malformed TLVs");
    take_v2_source(bytes + V2_HEAD_BYTES, family, h);
    return PROXY_DONE;
}

enum proxy_status proxy_header_parse(const char *bytes, size_t len, struct proxy_header *h,
                                     const char **detail)
{
    memset(h, 0, sizeof(*h));
    if (len == 0)
        return PROXY_MORE;
    if (bytes[0] != v2_signature[0])
        return parse_v1(bytes, len, h, detail);
    if (memcmp(bytes, v2_signature, MIN(len, (size_t)V2_SIGNATURE_BYTES)) != 0)
        return bad(detail, "no PROXY header");
    return parse_v2(bytes, len, h, detail);
}
