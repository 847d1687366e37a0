/* fuzz_proxy_header: bytes that a connection begins with. */
#include "dataplane/http/proxy_header.h"
#include "fuzz.h"

static enum proxy_status parse(const char *bytes, size_t len, struct proxy_header *h)
{
    const char *detail = NULL;
    char *exact = malloc(len > 0 ? len : 1);
    PROMISE(exact);
    if (len > 0)
        memcpy(exact, bytes, len);
    enum proxy_status status = proxy_header_parse(exact, len, h, &detail);
    PROMISE(status != PROXY_BAD || detail);
    free(exact);
    return status;
}

/* The source written as version 1 is read back. */
static void promise_source(const struct proxy_header *h)
{
    char ip[ADDR_TEXT_BYTES], line[PROXY_HEADER_V1_MAX_BYTES + 1];
    struct proxy_header again;
    struct addr a = h->source;
    PROMISE(a.sa.any.sa_family == AF_INET || a.sa.any.sa_family == AF_INET6);
    addr_format_ip(&a, ip);
    bool v4 = strchr(ip, ':') == NULL;
    unsigned port = a.sa.any.sa_family == AF_INET ? a.sa.in4.sin_port : a.sa.in6.sin6_port;
    int len = snprintf(line, sizeof(line), "PROXY %s %s %s %u 80\r\n", v4 ? "TCP4" : "TCP6", ip,
                       v4 ? "127.0.0.1" : "::1", ntohs((in_port_t)port));
    PROMISE(parse(line, (size_t)len, &again) == PROXY_DONE && again.has_source);
    PROMISE(again.consumed == (size_t)len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    struct proxy_header whole, part;
    bool over = false;
    enum proxy_status status = parse(bytes, size, &whole);
    PROMISE(size < PROXY_HEADER_V2_MAX_BYTES || status != PROXY_MORE);
    if (status == PROXY_DONE) {
        PROMISE(whole.consumed > 0 && whole.consumed <= size);
        if (whole.has_source)
            promise_source(&whole);
    }
    /* However it arrives: MORE for a while, then always the same. */
    for (size_t len = 0; len <= size; len += 1 + len / 64) {
        enum proxy_status early = parse(bytes, len, &part);
        PROMISE(early == PROXY_MORE ? !over : early == status);
        over = early != PROXY_MORE;
        PROMISE(early != PROXY_DONE || part.consumed == whole.consumed);
    }
    return 0;
}
