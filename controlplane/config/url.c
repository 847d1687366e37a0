#include "controlplane/config/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <sys/un.h>

#define HOST_MAX_BYTES 253
#define LABEL_MAX_BYTES 63

static struct view after(struct view v, size_t n)
{
    return (struct view){v.at + n, v.len - n};
}

/* Where the first of a few bytes stands; v.len if none does. */
static size_t find(struct view v, const char *bytes)
{
    size_t nearest = v.len;
    for (; *bytes && nearest > 0; bytes++) {
        const char *at = memchr(v.at, *bytes, nearest);
        nearest = at ? (size_t)(at - v.at) : nearest;
    }
    return nearest;
}

/* ---- hosts ---- */

static bool is_ipv6(struct view v)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr in6;
    if (v.len >= sizeof(text))
        return false;
    memcpy(text, v.at, v.len);
    text[v.len] = '\0';
    return inet_pton(AF_INET6, text, &in6) == 1;
}

static int check_label(struct view label, struct view host, struct err *err)
{
    if (label.len == 0 || label.len > LABEL_MAX_BYTES)
        return err_set(err, "\"%.*s\" is not a host name: between its dots are 1 to %d characters",
                       VIEW_ARG(host), LABEL_MAX_BYTES);
    if (label.at[0] == '-' || label.at[label.len - 1] == '-')
        return err_set(err, "\"%.*s\" is not a host name: no part of it begins or ends with \"-\"",
                       VIEW_ARG(host));
    for (size_t i = 0; i < label.len; i++) {
        unsigned char c = (unsigned char)label.at[i];
        if (c >= 0x80)
            return err_set(err, "\"%.*s\" is not ASCII: write the name in its xn-- form",
                           VIEW_ARG(host));
        /* Underscores are not for host names (RFC 952), but containers have them. */
        if (!isalnum(c) && c != '-' && c != '_')
            return err_set(err, "\"%.*s\" is not a host name: \"%c\" cannot be part of one",
                           VIEW_ARG(host), isprint(c) ? c : '?');
    }
    return 0;
}

int url_check_host(struct view host, struct err *err)
{
    if (host.len == 0)
        return err_set(err, "the host is missing");
    if (host.len > HOST_MAX_BYTES)
        return err_set(err, "a host name of %zu bytes: at most %d are possible", host.len,
                       HOST_MAX_BYTES);
    if (host.at[0] == '[') {
        if (host.at[host.len - 1] != ']' || !is_ipv6((struct view){host.at + 1, host.len - 2}))
            return err_set(err, "\"%.*s\" is not an IPv6 address", VIEW_ARG(host));
        return 0;
    }
    /* What ends in a number is an address (WHATWG URL, 3.5): 10.0.0.300 is no name. */
    const char *dot_at = memrchr(host.at, '.', host.len);
    struct view last = dot_at ? after(host, (size_t)(dot_at - host.at) + 1) : host;
    if (last.len > 0 && strspn(last.at, "0123456789") >= last.len) {
        char text[HOST_MAX_BYTES + 1];
        struct in_addr in4;
        memcpy(text, host.at, host.len);
        text[host.len] = '\0';
        if (inet_pton(AF_INET, text, &in4) != 1)
            return err_set(err, "\"%s\" is not an IPv4 address", text);
        return 0;
    }
    for (struct view rest = host;;) {
        size_t dot = find(rest, ".");
        if (check_label((struct view){rest.at, dot}, host, err))
            return -1;
        if (dot == rest.len)
            return 0;
        rest = after(rest, dot + 1);
    }
}

static int parse_port(struct view text, uint16_t *port, struct err *err)
{
    unsigned n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!isdigit((unsigned char)text.at[i]) ||
            (n = n * 10 + (unsigned)(text.at[i] - '0')) > 65535)
            return err_set(err, "\"%.*s\" is not a port: 1 to 65535", (int)MIN(text.len, 40),
                           text.at);
    }
    if (n == 0)
        return err_set(err, text.len ? "a port cannot be 0" : "there is no port behind \":\"");
    *port = (uint16_t)n;
    return 0;
}

/* "host", "host:port", "[v6]:port" into its two parts. */
static int split_authority(struct view v, struct view *host, uint16_t *port, struct err *err)
{
    size_t end = v.len > 0 && v.at[0] == '[' ? find(v, "]") + 1 : find(v, ":");
    end = MIN(end, v.len);
    *host = (struct view){v.at, end};
    if (end + 1 < v.len && v.at[end] == ':' && memchr(v.at + end + 1, ':', v.len - end - 1))
        return err_set(err, "\"%.*s\" has two colons: an IPv6 address goes in brackets, [::1]:80",
                       (int)MIN(v.len, 120), v.at);
    if (url_check_host(*host, err))
        return -1;
    if (end == v.len)
        return 0;
    if (v.at[end] != ':')
        return err_set(err, "\"%.*s\" stands behind the IPv6 address", (int)(v.len - end),
                       v.at + end);
    return parse_port(after(v, end + 1), port, err);
}

/* ---- backends ---- */

static int check_scheme(const char *text, struct err *advice, struct err *err)
{
    const char *colon = strstr(text, "://");
    if (!colon) {
        if (*text)
            snprintf(advice->text, sizeof(advice->text), "write \"http://%.200s\"", text);
        return err_set(err, "\"%.60s\" is not a URL", text);
    }
    if (strncasecmp(text, "https:", 6) == 0)
        return err_set(err, "\"%.60s\": https to backends is not supported yet", text);
    if (strncasecmp(text, "http:", 5) != 0)
        return err_set(err, "\"%.*s\" is not a scheme for backends: only http is",
                       (int)MIN(colon - text, 20), text);
    return 0;
}

static int check_path(struct view path, struct err *err)
{
    static const bool forbidden[256] = {
        [0 ... ' '] = true, ['"'] = true,  ['#'] = true,          ['<'] = true, ['>'] = true,
        ['?'] = true,       ['\\'] = true, ['^'] = true,          ['`'] = true, ['{'] = true,
        ['|'] = true,       ['}'] = true,  [0x7f ... 0xff] = true};
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.at[i];
        if (!forbidden[c])
            continue;
        if (c == '?' || c == '#')
            return err_set(err, "a backend's URL ends with its path: \"%c\" cannot follow", c);
        return err_set(err, "a byte that no URL may hold: percent-encode it");
    }
    return 0;
}

static const char *lower_case(struct arena *a, struct view v)
{
    char *copy = arena_copy(a, v);
    for (char *c = copy; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return copy;
}

int url_parse_backend(struct url *u, struct arena *a, const char *text, struct err *advice,
                      struct err *err)
{
    struct view host;
    *advice->text = '\0';
    if (check_scheme(text, advice, err))
        return -1;
    struct view rest = view_of(strstr(text, "://") + 3);
    struct view authority = {rest.at, find(rest, "/?#")};
    struct view path = after(rest, authority.len);
    if (memchr(authority.at, '@', authority.len))
        return err_set(err, "a backend's URL cannot hold a user or password");
    u->port = 80;
    if (split_authority(authority, &host, &u->port, err) || check_path(path, err))
        return -1;
    while (path.len > 0 && path.at[path.len - 1] == '/')
        path.len--;
    if (host.at[0] == '[')
        host = (struct view){host.at + 1, host.len - 2};
    u->host = lower_case(a, host);
    u->path = arena_copy(a, path);
    return 0;
}

/* ---- Redis ---- */

static int take_database(struct redis_url *u, struct view text, struct err *err)
{
    size_t digits = 0;
    u->database = 0;
    for (; digits < text.len && isdigit((unsigned char)text.at[digits]); digits++)
        u->database = u->database * 10 + (uint32_t)(text.at[digits] - '0');
    if (text.len == 0 || text.len > 5 || digits < text.len)
        return err_set(err, "the database of a Redis URL is a number, as in /0");
    return 0;
}

static int parse_redis_socket(struct redis_url *u, struct arena *a, struct view path,
                              struct err *err)
{
    size_t question = find(path, "?");
    if (question < 2 || path.at[0] != '/')
        return err_set(err, "a Redis socket is written unix:///path");
    size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);
    if (question >= room)
        return err_set(err, "the path of a Redis socket has at most %zu bytes", room - 1);
    u->path = arena_copy(a, (struct view){path.at, question});
    u->name = arena_printf(a, "unix://%.*s", VIEW_ARG(path));
    if (question == path.len)
        return 0;
    struct view query = after(path, question + 1);
    if (!view_starts_with(query, view_of("db=")))
        return err_set(err, "behind the path of a Redis socket only ?db=N may follow");
    return take_database(u, after(query, 3), err);
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
                                        : -1;
}

/* "%40" is "@"; a "%" that begins no such thing is itself. */
static const char *percent_decode(struct arena *a, struct view v)
{
    char *out = arena_copy(a, v), *at = out;
    for (size_t i = 0; i < v.len; i++) {
        int high = i + 2 < v.len && v.at[i] == '%' ? hex_digit(v.at[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(v.at[i + 2]) : -1;
        *at++ = low >= 0 ? (char)(high * 16 + low) : v.at[i];
        i += low >= 0 ? 2 : 0;
    }
    *at = '\0';
    return out;
}

static void take_login(struct redis_url *u, struct arena *a, struct view login)
{
    const char *colon = login.len > 0 ? memchr(login.at, ':', login.len) : NULL;
    size_t user_len = colon ? (size_t)(colon - login.at) : 0;
    u->user = percent_decode(a, (struct view){login.at, user_len});
    u->password = percent_decode(a, after(login, colon ? user_len + 1 : 0));
}

static int parse_redis_host(struct redis_url *u, struct arena *a, struct view v, struct err *err)
{
    struct view host;
    /* A password may hold "/" or ":" unencoded; the host cannot hold "@". */
    const char *at = v.len > 0 ? memrchr(v.at, '@', v.len) : NULL;
    if (at) {
        take_login(u, a, (struct view){v.at, (size_t)(at - v.at)});
        v = after(v, (size_t)(at - v.at) + 1);
    }
    size_t slash = find(v, "/?#");
    u->port = 6379;
    if (split_authority((struct view){v.at, slash}, &host, &u->port, NULL))
        return err_set(err, "the host or port of the Redis URL is wrong: redis://host:6379/0");
    if (slash < v.len && v.at[slash] != '/')
        return err_set(err, "behind the host of a Redis URL only /db may follow");
    if (slash + 1 < v.len && take_database(u, after(v, slash + 1), err) < 0)
        return -1;
    u->name = arena_printf(a, "redis://%.*s:%u/%u", VIEW_ARG(host), u->port, u->database);
    if (host.at[0] == '[')
        host = (struct view){host.at + 1, host.len - 2};
    u->host = lower_case(a, host);
    return 0;
}

int url_parse_redis(struct redis_url *u, struct arena *a, const char *text, struct err *err)
{
    struct view v = view_of(text);
    *u = (struct redis_url){.user = "", .password = ""};
    if (view_starts_with(v, view_of("unix://")))
        return parse_redis_socket(u, a, after(v, 7), err);
    if (view_starts_with(v, view_of("rediss://")))
        return err_set(err, "TLS to Redis (rediss://) is not supported yet");
    if (!view_starts_with(v, view_of("redis://")))
        return err_set(err, "a Redis URL begins with redis:// or unix://");
    return parse_redis_host(u, a, after(v, 8), err);
}

/* ---- networks ---- */

static void clear_host_bits(unsigned char *bytes, unsigned count, unsigned length)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned kept = length > 8 * i ? MIN(length - 8 * i, 8) : 0;
        bytes[i] &= (unsigned char)(0xff00 >> kept);
    }
}

int url_parse_cidr(char out[URL_CIDR_BYTES], const char *text, struct err *err)
{
    unsigned char bytes[16];
    char ip[INET6_ADDRSTRLEN];
    struct view v = view_of(text);
    size_t slash = find(v, "/");
    if (slash == 0 || slash >= sizeof(ip))
        return err_set(err, "\"%.60s\" is not a network, such as 10.0.0.0/8", text);
    memcpy(ip, text, slash);
    ip[slash] = '\0';
    int family = strchr(ip, ':') ? AF_INET6 : AF_INET;
    unsigned count = family == AF_INET6 ? 16 : 4, length = 8 * count;
    if (inet_pton(family, ip, bytes) != 1)
        return err_set(err, "\"%.60s\" is not a network, such as 10.0.0.0/8", text);
    if (slash < v.len) {
        struct view digits = after(v, slash + 1);
        unsigned n = 0;
        for (size_t i = 0; i < digits.len && n <= 128; i++)
            n = isdigit((unsigned char)digits.at[i]) ? 10 * n + (unsigned)(digits.at[i] - '0')
                                                     : 999;
        if (digits.len == 0 || n > length)
            return err_set(err, "\"%.60s\" is not a network: behind the slash stands 0 to %u", text,
                           length);
        length = n;
    }
    clear_host_bits(bytes, count, length);
    inet_ntop(family, bytes, ip, sizeof(ip));
    snprintf(out, URL_CIDR_BYTES, "%s/%u", ip, length);
    return 0;
}
