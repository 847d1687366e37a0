/* Hot path: no allocation, lock, log line or system call. */
#include "dataplane/http/decide.h"

#include "dataplane/http/http1_check.h"
#include "dataplane/route/router.h"

bool decide_client(const struct snapshot *s, const struct head *h, const struct buffer *b,
                   struct ip *ip)
{
    const struct cidr_list *trusted = &s->server.trusted_proxies;
    if (trusted->count == 0 || !cidr_list_contains(trusted, *ip))
        return false;
    *ip = client_addr_find(*ip, trusted, h, b);
    return true;
}

static void strip_port(struct view *host)
{
    const char *colon = host->len > 0 ? memrchr(host->at, ':', host->len) : NULL;
    const char *bracket = host->len > 0 ? memrchr(host->at, ']', host->len) : NULL;
    if (colon && (!bracket || colon > bracket))
        host->len = (size_t)(colon - host->at);
}

enum reason decide_where(const struct head *h, const struct buffer *b, char *scratch,
                         struct request_target *where, struct view *host, const char **detail)
{
    enum reason r =
        target_parse(head_view(b, h->target_at, h->target_len), h->method, scratch, where, detail);
    if (r != R_SERVED)
        return r;
    if (where->authority.len > 0 && !http1_is_host(where->authority)) {
        *detail = "the target's authority is not a host";
        return R_BAD_REQUEST;
    }
    *host = where->authority.len > 0 ? where->authority : head_value(h, b, FIELD_HOST);
    strip_port(host);
    return R_SERVED;
}

enum reason decide_route(const struct snapshot *s, const struct head *h,
                         const struct request_target *where, struct view host,
                         const struct route **route, uint64_t *allowed)
{
    static const struct view root = {"/", 1};
    struct view path = where->path.at[0] == '*' ? root : where->path;
    enum reason r = router_find(s->router, host, path, h->method, route, allowed);
    if (r != R_SERVED)
        return r;
    uint64_t most = (*route)->max_body_bytes;
    return most > 0 && h->framing == FRAMING_LENGTH && h->content_length > most ? R_BODY_TOO_LARGE
                                                                                : R_SERVED;
}

/* The only field of that name; empty if there is none. Of several, backends take one or the other:
 * who sends another first value each time would never be limited. */
static struct view find_value(const struct head *h, const struct buffer *b, struct view name)
{
    enum field_id id = field_find(name);
    const struct field *found = NULL;
    for (unsigned i = 0; i < h->field_count; i++) {
        const struct field *f = &h->fields[i];
        if (f->id != id || (id == FIELD_OTHER && !view_equal_nocase(field_name(b, f), name)))
            continue;
        if (found)
            return (struct view){NULL, 0};
        found = f;
    }
    return found ? field_value(b, found) : (struct view){NULL, 0};
}

struct limit_subject decide_limit_subject(const struct limit_policy *p, const struct head *h,
                                          const struct buffer *b, struct ip ip)
{
    struct limit_subject who = {.ip = ip};
    if (p->key_by != LIMITER_BY_IP)
        who.text = find_value(h, b, p->header);
    return who;
}
