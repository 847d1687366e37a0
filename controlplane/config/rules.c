#include "controlplane/config/rules.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "controlplane/config/url.h"
#include "proto/base/addr.h"
#include "proto/base/pace.h"

/* A route that does not say stands for the server's limit, which may come later in the file. */
#define BODY_AS_SERVER UINT64_MAX

#define TOKEN_MIN_BYTES 16
#define PAIRWISE_MAX 16

/* Routes with the same host and prefix, told apart by their methods. */
struct match {
    const struct route_config *route;
    struct match *next;
};

void rules_init(struct rules *r, struct arena *kept, struct arena *scratch, struct diagnostics *d)
{
    *r = (struct rules){.reader = {kept, d},
                        .scratch = scratch,
                        .names = {.arena = scratch},
                        .matches = {.arena = scratch}};
}

/* The value of a key that was written with one, or NULL. */
static const struct node *given(const struct node *map, const char *name)
{
    if (!map || map->kind != NODE_MAP)
        return NULL;
    for (const struct node *n = map->first; n; n = n->next)
        if (view_equal(n->key->text, view_of(name)))
            return n->null ? NULL : n;
    return NULL;
}

/* Was its value reported, so that the default in its place says nothing? */
static bool is_bad(const struct node *map, const char *name)
{
    const struct node *n = given(map, name);
    return n && n->bad;
}

/* Where a section is spoken of as a whole: at its key, or where it begins in a list. */
static const struct node *head(const struct node *map)
{
    return map->key ? map->key : map;
}

/* A key that is written where it does nothing. */
static void warn_idle(struct rules *r, const struct node *map, const char *name, const char *why)
{
    const struct node *n = given(map, name);
    if (n)
        node_warning(r->reader.d, n->key, NULL, "\"%s\" does nothing %s", name, why);
}

/* ---- server, admin, metrics ---- */

static void check_server(struct rules *r, const struct node *map, struct server_config *server)
{
    const struct node *addr = given(map, "addr");
    if (server->addr.count == 0)
        node_error(r->reader.d, addr ? addr : map, NULL, "the server listens nowhere");
    if (server->proxy_protocol && server->trusted_proxies.count == 0)
        warn_idle(r, map, "proxy_protocol", "without \"trusted_proxies\"");
}

static void check_admin(struct rules *r, const struct node *map, struct admin_config *admin)
{
    struct addr addr;
    struct err err;
    const struct node *socket = given(map, "socket"), *token = given(map, "token");
    const char *text = arena_printf(r->scratch, "unix:%s", admin->socket);
    if (socket && !socket->bad && addr_parse(&addr, text, &err))
        node_error(r->reader.d, socket, NULL, "%s", err.text);
    if (token && *admin->token && strlen(admin->token) < TOKEN_MIN_BYTES)
        node_warning(r->reader.d, token, NULL, "a token of fewer than %d characters can be guessed",
                     TOKEN_MIN_BYTES);
    if (token && *admin->token && !*admin->addr)
        warn_idle(r, map, "token", "without \"addr\"");
}

/* ---- header edits ---- */

static void check_headers(struct rules *r, const struct node *map, struct header_edits *edits)
{
    const struct node *set = given(map, "set");
    for (size_t i = 0; i < edits->remove.count; i++)
        for (size_t j = 0; j < edits->set_count; j++)
            if (strcasecmp(edits->remove.at[i], edits->set[j].name) == 0)
                node_warning(r->reader.d, set->key, NULL,
                             "\"%.60s\" is removed and set: setting it is enough",
                             edits->set[j].name);
}

/* ---- health checks ---- */

static void check_health(struct rules *r, const struct node *map, struct health_check_config *h)
{
    const struct node *until = given(map, "until_checked");
    if (!h->enabled && h->until_checked == UNTIL_CHECKED_DOWN)
        node_error(r->reader.d, until ? until : head(map), NULL,
                   "without checks an endpoint that is down until it is checked stays down");
    if (!*h->path && !is_bad(map, "path")) {
        warn_idle(r, map, "expected_status", "without a \"path\": only a connection is made");
        warn_idle(r, map, "host", "without a \"path\": only a connection is made");
    }
    if (h->timeout_ms > h->interval_ms) {
        const struct node *n = given(map, "timeout_seconds");
        n = n ? n : given(map, "interval_seconds");
        if (n)
            node_warning(r->reader.d, n, NULL,
                         "a check may take longer (%g s) than until the next one (%g s)",
                         h->timeout_ms / 1e3, h->interval_ms / 1e3);
    }
}

/* ---- rate limits ---- */

static void check_bucket(struct rules *r, const struct node *map, struct rate_limit_config *l)
{
    warn_idle(r, map, "window_seconds", "under token_bucket");
    if (l->burst > 0 || l->rate <= 0)
        return;
    l->burst = (uint32_t)ceil(l->rate);
    const struct node *burst = given(map, "burst");
    if (!burst)
        node_warning(r->reader.d, head(map), NULL, "no \"burst\", so it is one second's worth: %u",
                     l->burst);
}

static void check_window(struct rules *r, const struct node *map, struct rate_limit_config *l)
{
    warn_idle(r, map, "burst", "under sliding_window");
    const struct node *rate = given(map, "rate");
    if (rate && l->rate > 0 && l->rate * l->window_ms < 1000)
        node_error(r->reader.d, rate, NULL,
                   "%g per second is less than one request in a window of %g seconds: all would be "
                   "refused",
                   l->rate, l->window_ms / 1e3);
}

static void check_limit(struct rules *r, const struct node *map, struct rate_limit_config *l)
{
    if (l->algorithm == LIMIT_TOKEN_BUCKET)
        check_bucket(r, map, l);
    else
        check_window(r, map, l);
    if (l->key_by != LIMIT_BY_USER)
        warn_idle(r, map, "user_header", "unless \"key_by\" is user");
    if (l->key_by != LIMIT_BY_API_KEY)
        warn_idle(r, map, "api_key_header", "unless \"key_by\" is api_key");
    if (!*l->redis_url && !is_bad(map, "redis_url")) {
        warn_idle(r, map, "redis_timeout_ms", "without \"redis_url\"");
        warn_idle(r, map, "on_redis_failure", "without \"redis_url\"");
    }
}

/* ---- circuit breakers ---- */

static void check_breaker(struct rules *r, const struct node *map, struct circuit_breaker_config *b)
{
    const struct node *most = given(map, "max_open_duration_seconds");
    if (most && b->max_open_duration_ms > 0 && b->max_open_duration_ms < b->open_duration_ms)
        node_error(r->reader.d, most, NULL,
                   "the open time cannot grow from %g seconds (\"open_duration_seconds\") up to %g",
                   b->open_duration_ms / 1e3, b->max_open_duration_ms / 1e3);
}

/* ---- routes ---- */

/* False: the URL is none, which has been reported. */
static bool name_backend(struct rules *r, struct node *n, struct backend_config *b)
{
    struct url url;
    struct err err, advice;
    struct node *text = (struct node *)given(n, "url");
    if (url_parse_backend(&url, r->reader.arena, b->url, &advice, &err)) {
        node_error(r->reader.d, text, *advice.text ? advice.text : NULL, "%s", err.text);
        text->bad = true;
        b->url = NULL;
        return false;
    }
    b->host = url.host;
    b->port = url.port;
    b->base_path = url.path;
    return true;
}

/* One of the same route before it that would be the same endpoint. A few are compared one by one; a
 * table of their own would cost each of ten thousand routes more. */
static const struct backend_config *find_same(struct rules *r, struct symbols *seen,
                                              const struct route_config *route,
                                              struct backend_config *b)
{
    if (route->backend_count > PAIRWISE_MAX)
        return symbols_put(
            seen, view_of(arena_printf(r->scratch, "%s %u %s", b->host, b->port, b->base_path)), b);
    for (const struct backend_config *other = route->backends; other < b; other++)
        if (other->host && other->port == b->port && strcmp(other->host, b->host) == 0 &&
            strcmp(other->base_path, b->base_path) == 0)
            return other;
    return NULL;
}

/* An endpoint's identity is made from route, URL and address: a second one would be the same. */
static void check_backends(struct rules *r, const struct node *map, struct route_config *route)
{
    const struct node *list = given(map, "backends");
    struct node *n = list && list->kind == NODE_LIST ? list->first : NULL;
    struct symbols seen = {.arena = r->scratch};
    for (size_t i = 0; i < route->backend_count && n; i++, n = n->next) {
        struct backend_config *b = &route->backends[i];
        if (!b->url || !name_backend(r, n, b))
            continue;
        const struct backend_config *earlier = find_same(r, &seen, route, b);
        if (earlier)
            node_error(r->reader.d, given(n, "url"), "give it a \"weight\" instead",
                       "duplicate backend \"%.100s\", first given on line %u", b->url,
                       earlier->place.line);
        if (route->lb_algorithm == LB_ROUND_ROBIN)
            warn_idle(r, n, "weight", "while \"lb_algorithm\" is round_robin");
    }
}

static bool share_a_method(const struct strings *a, const struct strings *b)
{
    if (a->count == 0 || b->count == 0)
        return true;
    for (size_t i = 0; i < a->count; i++)
        for (size_t j = 0; j < b->count; j++)
            if (strcmp(a->at[i], b->at[j]) == 0)
                return true;
    return false;
}

/* Those already in a list share no method with each other, so no list is longer than there are
 * methods. */
static void check_match(struct rules *r, const struct node *map, const struct route_config *route)
{
    const struct node *prefix = given(map, "path_prefix");
    struct match *m = arena_alloc(r->scratch, sizeof(*m));
    m->route = route;
    const char *key = arena_printf(r->scratch, "%s %s", route->host, route->path_prefix);
    struct match *first = symbols_put(&r->matches, view_of(key), m);
    for (const struct match *other = first; other; other = other->next) {
        if (share_a_method(&other->route->methods, &route->methods)) {
            node_error(r->reader.d, prefix, "tell them apart by \"host\" or \"methods\"",
                       "the route on line %u takes the same requests%s%s: %s",
                       other->route->place.line, *route->host ? " for " : "", route->host,
                       route->path_prefix);
            return;
        }
    }
    if (first) {
        m->next = first->next;
        first->next = m;
    }
}

static void check_name(struct rules *r, const struct node *map, struct route_config *route)
{
    const struct node *name = given(map, "name");
    const struct route_config *earlier =
        *route->name ? symbols_put(&r->names, view_of(route->name), route) : NULL;
    if (earlier)
        node_error(r->reader.d, name, NULL, "duplicate route \"%s\", first defined on line %u",
                   route->name, earlier->place.line);
}

static void check_methods(struct rules *r, const struct node *map, struct route_config *route)
{
    const struct node *list = given(map, "methods");
    const struct node *n = list && list->kind == NODE_LIST ? list->first : NULL;
    for (size_t i = 0; i < route->methods.count; i++, n = n ? n->next : NULL)
        for (size_t j = 0; j < i && n; j++)
            if (strcmp(route->methods.at[i], route->methods.at[j]) == 0) {
                node_warning(r->reader.d, n, NULL, "\"%s\" is listed twice", route->methods.at[i]);
                break;
            }
}

static void check_route(struct rules *r, const struct node *map, struct route_config *route)
{
    const struct node *connect = given(map, "connect_timeout_seconds");
    if (!given(map, "max_body_bytes"))
        route->max_body_bytes = BODY_AS_SERVER;
    check_name(r, map, route);
    check_methods(r, map, route);
    if (route->path_prefix && !is_bad(map, "host") && !is_bad(map, "methods"))
        check_match(r, map, route);
    check_backends(r, map, route);
    if (connect && route->connect_timeout_ms > route->timeout_ms)
        node_warning(r->reader.d, connect, NULL,
                     "a connection may take longer than the whole answer: %g seconds",
                     route->timeout_ms / 1e3);
    if (route->strip_prefix && route->path_prefix && strcmp(route->path_prefix, "/") == 0)
        warn_idle(r, map, "strip_prefix", "with the prefix \"/\"");
}

void rules_section(struct rules *r, const struct section *s, const struct node *map, void *base)
{
    switch (s->key->rule) {
    case RULE_NONE:
        break;
    case RULE_SERVER:
        check_server(r, map, base);
        break;
    case RULE_ADMIN:
        check_admin(r, map, base);
        break;
    case RULE_HEADERS:
        check_headers(r, map, base);
        break;
    case RULE_ROUTE:
        check_route(r, map, base);
        break;
    case RULE_HEALTH_CHECK:
        check_health(r, map, base);
        break;
    case RULE_RATE_LIMIT:
        check_limit(r, map, base);
        break;
    case RULE_CIRCUIT_BREAKER:
        check_breaker(r, map, base);
        break;
    }
}

/* ---- between routes ---- */

static bool takes_all_of(const struct match *first, const struct strings *methods)
{
    for (size_t i = 0; i < methods->count; i++) {
        const struct strings one = {&methods->at[i], 1};
        bool taken = false;
        for (const struct match *m = first; m && !taken; m = m->next)
            taken = share_a_method(&m->route->methods, &one);
        if (!taken)
            return false;
    }
    return true;
}

static bool takes_every_method(const struct match *first)
{
    for (const struct match *m = first; m; m = m->next)
        if (m->route->methods.count == 0)
            return true;
    return false;
}

/* The longest prefix is looked for first, the method only then: below it nobody else is asked. */
static const struct route_config *find_shadowed(struct rules *r, const struct route_config *route,
                                                const struct match *first)
{
    const char *key = arena_printf(r->scratch, "%s %s", route->host, route->path_prefix);
    size_t host_len = strlen(route->host) + 1;
    struct view path = view_of(key + host_len);
    while (path.len > 1) {
        const char *slash = memrchr(path.at, '/', path.len);
        path.len = slash > path.at ? (size_t)(slash - path.at) : 1;
        struct view shorter = {key, host_len + path.len};
        for (const struct match *m = symbols_get(&r->matches, shorter); m; m = m->next)
            if (m->route->methods.count == 0 || !takes_all_of(first, &m->route->methods))
                return m->route;
    }
    return NULL;
}

static void check_shadows(struct rules *r, const struct node *map, const struct route_config *route)
{
    if (route->methods.count == 0 || !route->path_prefix)
        return;
    const struct node *methods = given(map, "methods");
    const char *key = arena_printf(r->scratch, "%s %s", route->host, route->path_prefix);
    const struct match *first = symbols_get(&r->matches, view_of(key));
    if (!first || first->route != route || takes_every_method(first))
        return;
    const struct route_config *other = find_shadowed(r, route, first);
    if (other)
        node_warning(r->reader.d, methods->key,
                     arena_printf(r->reader.d->arena, "give \"%s\" a route for them, too",
                                  route->path_prefix),
                     "other methods below \"%s\" are answered 405, although the route on line %u "
                     "takes them for \"%s\"",
                     route->path_prefix, other->place.line, other->path_prefix);
}

/* Where the gateway itself listens: a backend there would answer by asking the gateway. */
static void check_loops(struct rules *r, const struct node *map, const struct route_config *route,
                        const struct symbols *taken, const bool *ports)
{
    for (size_t i = 0; i < route->backend_count; i++) {
        const struct backend_config *b = &route->backends[i];
        if (!b->host || !ports[b->port] ||
            (strncmp(b->host, "127.", 4) != 0 && strcmp(b->host, "localhost") != 0 &&
             strcmp(b->host, "::1") != 0))
            continue;
        const struct node *n = given(map, "backends")->first;
        for (size_t k = 0; k < i; k++)
            n = n->next;
        const char *any = arena_printf(r->scratch, "*:%u", b->port);
        const char *exact = arena_printf(r->scratch, "%s:%u", b->host, b->port);
        if (symbols_get(taken, view_of(any)) || symbols_get(taken, view_of(exact)))
            node_warning(r->reader.d, given(n, "url"), NULL,
                         "\"%s\" is where this gateway itself listens", b->url);
    }
}

/* ---- the whole file ---- */

/* What two listeners cannot share. ":80", "0.0.0.0:80" and "[::]:80" all want the same; port 0 is
 * another one each time. NULL = can be shared. */
static const char *listen_identity(struct rules *r, const char *text)
{
    struct addr a;
    char out[ADDR_TEXT_BYTES];
    if (addr_parse(&a, text, NULL))
        return NULL;
    bool any = false;
    in_port_t port = 1;
    if (a.sa.any.sa_family == AF_INET) {
        any = a.sa.in4.sin_addr.s_addr == INADDR_ANY;
        port = ntohs(a.sa.in4.sin_port);
    } else if (a.sa.any.sa_family == AF_INET6) {
        any = IN6_IS_ADDR_UNSPECIFIED(&a.sa.in6.sin6_addr);
        port = ntohs(a.sa.in6.sin6_port);
    }
    if (port == 0)
        return NULL;
    if (any)
        return arena_printf(r->scratch, "*:%u", port);
    addr_format(&a, out);
    return arena_copy(r->scratch, view_of(out));
}

struct listener {
    const char *text;
    const struct node *node; /* NULL = a default */
    bool bad;                /* the default stands in for what could not be read */
};

static void claim(struct rules *r, struct symbols *taken, struct listener l)
{
    const char *identity = l.bad ? NULL : listen_identity(r, l.text);
    if (!identity)
        return;
    struct listener *mine = arena_alloc(r->scratch, sizeof(*mine));
    *mine = l;
    const struct listener *other = symbols_put(taken, view_of(identity), mine);
    if (!other)
        return;
    if (l.node && other->node)
        node_error(r->reader.d, l.node, NULL, "\"%s\" is listened on already, on line %u", l.text,
                   other->node->place.line);
    else if (l.node || other->node)
        node_error(r->reader.d, l.node ? l.node : other->node, NULL,
                   "\"%s\" is taken by what another key listens on by default: \"%s\"",
                   l.node ? l.text : other->text, l.node ? other->text : l.text);
}

static void check_listeners(struct rules *r, const struct node *root, const struct config *cfg,
                            struct symbols *taken)
{
    const struct node *list = given(given(root, "server"), "addr");
    const struct node *n = list && list->kind == NODE_LIST ? list->first : list;
    const struct node *admin = given(root, "admin");
    for (size_t i = 0; i < cfg->server.addr.count; i++, n = n ? n->next : NULL)
        claim(r, taken, (struct listener){cfg->server.addr.at[i], n, list && list->bad});
    n = given(admin, "addr");
    claim(r, taken, (struct listener){cfg->admin.addr, n, n && n->bad});
    const char *socket = arena_printf(r->scratch, "unix:%s", cfg->admin.socket);
    n = given(admin, "socket");
    claim(r, taken, (struct listener){socket, n, n && n->bad});
}

/* Host and prefix say which route it is. Routes that only differ in methods get these behind it.
 * Only for a file without errors: there are at most as many of one host and prefix as there are
 * methods. */
static void invent_name(struct rules *r, struct route_config *route)
{
    const char *base = arena_printf(r->reader.arena, "%s%s", route->host, route->path_prefix);
    const char *name = base;
    if (symbols_get(&r->names, view_of(name))) {
        for (size_t i = 0; i < route->methods.count; i++)
            name = arena_printf(r->reader.arena, "%s%c%s", name, i == 0 ? ':' : ',',
                                route->methods.at[i]);
    }
    for (unsigned i = 2; symbols_put(&r->names, view_of(name), route); i++)
        name = arena_printf(r->reader.arena, "%s#%u", base, i);
    route->name = name;
}

void rules_file(struct rules *r, const struct node *root, struct config *cfg)
{
    const struct node *routes = given(root, "routes");
    if (cfg->route_count == 0 && (!routes || routes->kind == NODE_LIST))
        diagnostics_add(r->reader.d, SEVERITY_WARNING,
                        routes ? routes->key->place : (struct place){0, 0},
                        routes ? routes->key->length : 0, NULL,
                        "there are no routes: every request will be answered 404");
    for (size_t i = 0; i < cfg->route_count; i++) {
        struct route_config *route = &cfg->routes[i];
        pace_yield();
        if (!*route->name && r->reader.d->errors == 0)
            invent_name(r, route);
        if (route->max_body_bytes == BODY_AS_SERVER)
            route->max_body_bytes = cfg->server.max_body_bytes;
    }
    struct symbols taken = {.arena = r->scratch};
    bool *ports = arena_array(r->scratch, UINT16_MAX + 1, sizeof(*ports)); /* that we listen on */
    check_listeners(r, root, cfg, &taken);
    for (size_t i = 0; i < cfg->server.addr.count; i++) {
        const char *colon = strrchr(cfg->server.addr.at[i], ':');
        ports[colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : 0] = true;
    }
    const struct node *n = routes && routes->kind == NODE_LIST ? routes->first : NULL;
    for (size_t i = 0; i < cfg->route_count && n; i++, n = n->next) {
        pace_yield();
        if (n->kind != NODE_MAP)
            continue;
        check_shadows(r, n, &cfg->routes[i]);
        check_loops(r, n, &cfg->routes[i], &taken, ports);
    }
}
