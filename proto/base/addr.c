#include "proto/base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static int parse_unix(struct addr *a, const char *path, struct err *err)
{
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof(a->sa.un.sun_path))
        return err_set(err, "\"unix:%.120s\": the path must have 1 to %zu bytes", path,
                       sizeof(a->sa.un.sun_path) - 1);
    a->sa.un.sun_family = AF_UNIX;
    memcpy(a->sa.un.sun_path, path, len + 1);
    a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    return 0;
}

static bool parse_port(const char *text, in_port_t *port)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    long n = strtol(text, &end, 10);
    if (*end != '\0' || n > 65535)
        return false;
    *port = htons((in_port_t)n);
    return true;
}

int addr_parse(struct addr *a, const char *text, struct err *err)
{
    memset(a, 0, sizeof(*a));
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(a, text + 5, err);

    const char *colon = strrchr(text, ':');
    in_port_t port;
    if (!colon || !parse_port(colon + 1, &port))
        return err_set(err, "\"%.120s\" is not an address: write host:port, :port or unix:/path",
                       text);

    char host[64];
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        text++;
        len -= 2;
    }
    if (len >= sizeof(host))
        return err_set(err, "\"%.120s\" is not an address: the host is too long", text);
    memcpy(host, text, len);
    host[len] = '\0';

    if (!bracketed && inet_pton(AF_INET, host, &a->sa.in4.sin_addr) == 1) {
        a->sa.in4.sin_family = AF_INET;
        a->sa.in4.sin_port = port;
        a->len = sizeof(a->sa.in4);
        return 0;
    }
    if (len == 0 || (bracketed && inet_pton(AF_INET6, host, &a->sa.in6.sin6_addr) == 1)) {
        a->sa.in6.sin6_family = AF_INET6; /* an empty host leaves in6addr_any */
        a->sa.in6.sin6_port = port;
        a->len = sizeof(a->sa.in6);
        return 0;
    }
    return err_set(err, "\"%s\" is not an address: the host must be an IPv4 or [IPv6] literal",
                   host);
}

size_t addr_format_ip(const struct addr *a, char out[ADDR_TEXT_BYTES])
{
    if (a->sa.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a->sa.in4.sin_addr, out, ADDR_TEXT_BYTES);
    } else if (a->sa.any.sa_family == AF_INET6) {
        const struct in6_addr *ip = &a->sa.in6.sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(ip))
            inet_ntop(AF_INET, &ip->s6_addr[12], out, ADDR_TEXT_BYTES);
        else
            inet_ntop(AF_INET6, ip, out, ADDR_TEXT_BYTES);
    } else {
        strcpy(out, "unix");
    }
    return strlen(out);
}

size_t addr_format(const struct addr *a, char out[ADDR_TEXT_BYTES])
{
    char ip[ADDR_TEXT_BYTES];
    int n;
    if (a->sa.any.sa_family == AF_UNIX) {
        n = snprintf(out, ADDR_TEXT_BYTES, "unix:%s", a->sa.un.sun_path);
    } else {
        addr_format_ip(a, ip);
        const char *shape = strchr(ip, ':') ? "[%s]:%u" : "%s:%u";
        in_port_t port = a->sa.any.sa_family == AF_INET6 ? a->sa.in6.sin6_port : a->sa.in4.sin_port;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        n = snprintf(out, ADDR_TEXT_BYTES, shape, ip, ntohs(port));
#pragma GCC diagnostic pop
    }
    return (size_t)n;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    return a->len == b->len && memcmp(&a->sa, &b->sa, a->len) == 0;
}

uint64_t addr_hash(const struct addr *a)
{
    return XXH3_64bits(&a->sa, a->len);
}
