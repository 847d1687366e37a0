#include "dataplane/state/snapshot.h"

#include <llhttp.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dataplane/report/stats.h"
#include "dataplane/route/limit_script.h"
#include "dataplane/route/roster.h"
#include "dataplane/route/router.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

#define FIRST_BLOCK_BYTES (64 * 1024)
#define REDIS_WORD_MAX_BYTES 1024 /* user or password */
#define MAX_DURATION_MS (24u * 3600 * 1000)

/* What the first protocol version has is not named; only what came later would be. */
const char *const snapshot_features[] = {"keeping", "explain", "limits", NULL};
const size_t snapshot_feature_count = COUNT_OF(snapshot_features) - 1;

/* One compilation. Nothing outside the arena is touched before everything has been found good, so
 * giving up is freeing the arena. */
struct compilation {
    const Gwp__Snapshot *in;
    struct snapshot *out;
    struct redis_use **redis; /* by route, NULL where it has none; in the arena */
    struct err *err;
};

static struct view copy(struct compilation *c, const char *text)
{
    struct view v = view_of(text);
    v.at = arena_copy(c->out->arena, v);
    return v;
}

/* Visible ASCII only: what goes into a request line or a field must not be able to end it. */
static bool is_visible(const char *text)
{
    for (; *text; text++)
        if (*text <= ' ' || *text > '~')
            return false;
    return true;
}

/* ---- the whole ---- */

static int check_features(struct compilation *c)
{
    for (size_t i = 0; i < c->in->n_required_features; i++) {
        const char *wanted = c->in->required_features[i];
        bool known = false;
        for (size_t k = 0; k < snapshot_feature_count; k++)
            known = known || strcmp(snapshot_features[k], wanted) == 0;
        if (!known)
            return err_set(c->err,
                           "%s asks for \"%s\", which this release of the data plane does not know",
                           c->out->source.at, wanted);
    }
    return 0;
}

struct bounded {
    const char *name;
    uint32_t value, least, most;
};

static int check_bounds(struct compilation *c, const char *what, uint32_t line,
                        const struct bounded *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].value < rows[i].least || rows[i].value > rows[i].most)
            return err_set(c->err, "%s:%u: %s: %s is %u, not within %u to %u", c->out->source.at,
                           line, what, rows[i].name, rows[i].value, rows[i].least, rows[i].most);
    return 0;
}

static int take_listen(struct compilation *c)
{
    const Gwp__Server *in = c->in->server;
    struct snapshot *s = c->out;
    if (in->n_listen == 0)
        return err_set(c->err, "%s: server: there is no address to listen on", s->source.at);
    s->listen_count = (uint32_t)in->n_listen;
    s->listen = arena_array(s->arena, in->n_listen, sizeof(*s->listen));
    s->listen_text = arena_array(s->arena, in->n_listen, sizeof(*s->listen_text));
    s->listeners = arena_array(s->arena, in->n_listen, sizeof(struct listener *));
    for (uint32_t i = 0; i < s->listen_count; i++) {
        struct err why;
        if (addr_parse(&s->listen[i], in->listen[i], &why) < 0)
            return err_set(c->err, "%s: server: %s", s->source.at, why.text);
        for (uint32_t k = 0; k < i; k++)
            if (addr_equal(&s->listen[i], &s->listen[k]))
                return err_set(c->err, "%s: server: address %s is listed twice", s->source.at,
                               in->listen[i]);
        s->listen_text[i] = arena_copy(s->arena, view_of(in->listen[i]));
    }
    return 0;
}

static int take_server(struct compilation *c)
{
    const Gwp__Server *in = c->in->server;
    if (!in)
        return err_set(c->err, "%s: the server's settings are missing", c->out->source.at);
    const struct bounded rows[] = {
        {"workers", in->workers, 0, MAX_WORKERS},
        {"read_timeout_ms", in->read_timeout_ms, 0, MAX_DURATION_MS},
        {"write_timeout_ms", in->write_timeout_ms, 0, MAX_DURATION_MS},
        {"header_timeout_ms", in->header_timeout_ms, 0, MAX_DURATION_MS},
        {"idle_timeout_ms", in->idle_timeout_ms, 0, MAX_DURATION_MS},
        {"max_header_bytes", in->max_header_bytes, 256, 1024 * 1024},
        {"max_headers", in->max_headers, 1, 10000},
        {"drain_delay_ms", in->drain_delay_ms, 0, MAX_DURATION_MS},
        {"shutdown_grace_ms", in->shutdown_grace_ms, 0, MAX_DURATION_MS},
        {"watchdog_ms", in->watchdog_ms, 0, MAX_DURATION_MS},
    };
    if (check_bounds(c, "server", 0, rows, COUNT_OF(rows)) < 0)
        return -1;
    c->out->server = (struct server_settings){
        .workers = in->workers,
        .read_timeout_ms = in->read_timeout_ms,
        .write_timeout_ms = in->write_timeout_ms,
        .header_timeout_ms = in->header_timeout_ms,
        .idle_timeout_ms = in->idle_timeout_ms,
        .max_header_bytes = in->max_header_bytes,
        .max_headers = in->max_headers,
        .max_connections = in->max_connections,
        .max_requests_per_connection = in->max_requests_per_connection,
        .drain_delay_ms = in->drain_delay_ms,
        .shutdown_grace_ms = in->shutdown_grace_ms,
        .watchdog_ms = in->watchdog_ms,
        .proxy_protocol = in->proxy_protocol,
        .makes_traces = in->makes_traces,
    };
    if (cidr_list_compile(&c->out->server.trusted_proxies, (const char *const *)in->trusted_proxies,
                          in->n_trusted_proxies, c->out->arena, c->err) < 0)
        return -1;
    return take_listen(c);
}

static int take_logging(struct compilation *c)
{
    const Gwp__Logging *in = c->in->logging;
    struct snapshot *s = c->out;
    if (!in)
        return err_set(c->err, "%s: the logging settings are missing", s->source.at);
    static const int levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR};
    static const int formats[] = {LOG_JSON, LOG_CONSOLE};
    if ((unsigned)in->level >= COUNT_OF(levels) || (unsigned)in->format >= COUNT_OF(formats))
        return err_set(c->err, "%s: logging: unknown level %d or format %d", s->source.at,
                       (int)in->level, (int)in->format);
    if (!(in->access_log_sample >= 0 && in->access_log_sample <= 1))
        return err_set(c->err, "%s: logging: access_log_sample is %g, not within 0 to 1",
                       s->source.at, in->access_log_sample);
    s->log_level = levels[in->level];
    s->log_format = formats[in->format];
    s->access_log = copy(c, in->access_log[0] ? in->access_log : "off");
    s->access_log_sample = in->access_log_sample;
    return 0;
}

static int take_buckets(struct compilation *c)
{
    const double *in = c->in->duration_buckets_seconds;
    size_t count = c->in->n_duration_buckets_seconds;
    struct snapshot *s = c->out;
    if (count > STATS_MAX_BUCKETS)
        return err_set(c->err, "%s: metrics: %zu duration buckets, more than %d", s->source.at,
                       count, STATS_MAX_BUCKETS);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(in[i]) || !(in[i] > (i > 0 ? in[i - 1] : 0)))
            return err_set(c->err, "%s: metrics: duration bucket %g is not above the one before it",
                           s->source.at, in[i]);
    s->duration_bucket_count = (uint32_t)count;
    s->duration_buckets = arena_array(s->arena, count + 1, sizeof(double));
    if (count > 0)
        memcpy(s->duration_buckets, in, count * sizeof(double));
    return 0;
}

/* ---- routes ---- */

static int refuse_route(struct compilation *c, const struct route *r, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

static int refuse_route(struct compilation *c, const struct route *r, const char *fmt, ...)
{
    char why[ERR_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    return err_set(c->err, "%s:%u: route \"%s\": %s", c->out->source.at, r->line, r->name.at, why);
}

static bool method_bit(const char *name, uint64_t *bit)
{
    static const struct {
        const char *name;
        unsigned number;
    } methods[] = {
#define XX(num, id, string) {#string, num},
        HTTP_METHOD_MAP(XX)
#undef XX
    };
    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        if (strcmp(methods[i].name, name) == 0) {
            *bit = (uint64_t)1 << methods[i].number;
            return true;
        }
    }
    return false;
}

static int take_methods(struct compilation *c, struct route *r, const Gwp__Route *in)
{
    r->methods = in->n_methods == 0 ? UINT64_MAX : 0;
    for (size_t i = 0; i < in->n_methods; i++) {
        uint64_t bit;
        if (!method_bit(in->methods[i], &bit))
            return refuse_route(c, r, "unknown method \"%s\"", in->methods[i]);
        r->methods |= bit;
    }
    return 0;
}

static int take_algorithm(struct compilation *c, struct route *r, const Gwp__Route *in)
{
    switch (in->algorithm) {
    case GWP__ROUTE__ALGORITHM__ROUND_ROBIN:
        r->algorithm = BALANCE_ROUND_ROBIN;
        return 0;
    case GWP__ROUTE__ALGORITHM__LEAST_CONN:
        r->algorithm = BALANCE_LEAST_CONN;
        return 0;
    case GWP__ROUTE__ALGORITHM__WEIGHTED:
        r->algorithm = BALANCE_WEIGHTED;
        return 0;
    case GWP__ROUTE__ALGORITHM__IP_HASH:
        r->algorithm = BALANCE_IP_HASH;
        return 0;
    default:
        return refuse_route(c, r, "unknown balancing algorithm %d", (int)in->algorithm);
    }
}

static int take_target(struct compilation *c, const struct route *r, struct target *t,
                       const Gwp__Target *in)
{
    if (in->endpoint >= c->in->n_endpoints)
        return refuse_route(c, r, "backend \"%s\" refers to endpoint %u of %zu", in->url,
                            in->endpoint, c->in->n_endpoints);
    if (in->weight < 1 || in->weight > 1000)
        return refuse_route(c, r, "backend \"%s\": weight is %u, not within 1 to 1000", in->url,
                            in->weight);
    if (!is_visible(in->host) || !is_visible(in->base_path))
        return refuse_route(c, r, "backend \"%s\": its host or base path holds control characters",
                            in->url);
    size_t base_len = strlen(in->base_path);
    if (base_len > 0 && (in->base_path[0] != '/' || in->base_path[base_len - 1] == '/'))
        return refuse_route(c, r,
                            "backend \"%s\": base path \"%s\" must begin with / and not end "
                            "with one",
                            in->url, in->base_path);
    t->url = copy(c, in->url);
    t->host = copy(c, in->host);
    t->base_path = copy(c, in->base_path);
    t->weight = in->weight;
    t->max_connections = in->max_connections;
    t->line = in->place ? in->place->line : r->line;
    return 0;
}

static int check_match(struct compilation *c, const struct route *r)
{
    size_t len = r->path_prefix.len;
    if (len == 0 || r->path_prefix.at[0] != '/' || !is_visible(r->path_prefix.at))
        return refuse_route(c, r, "path prefix \"%s\" is not a path that begins with /",
                            r->path_prefix.at);
    if (len > 1 && r->path_prefix.at[len - 1] == '/')
        return refuse_route(c, r, "path prefix \"%s\" ends with /", r->path_prefix.at);
    if (!is_visible(r->host.at) || r->host.len > 255)
        return refuse_route(c, r, "host \"%s\" is not a host name", r->host.at);
    const char *star = strrchr(r->host.at, '*');
    if (star && (star != r->host.at || star[1] != '.' || star[2] == '\0'))
        return refuse_route(c, r,
                            "host \"%s\": a star stands only at the beginning, as in "
                            "*.example.com",
                            r->host.at);
    return 0;
}

static int take_targets(struct compilation *c, struct route *r, const Gwp__Route *in)
{
    r->target_count = (uint32_t)in->n_targets;
    r->targets = arena_array(c->out->arena, in->n_targets, sizeof(*r->targets));
    for (uint32_t i = 0; i < r->target_count; i++)
        if (take_target(c, r, &r->targets[i], in->targets[i]) < 0)
            return -1;
    return 0;
}

static int take_failure_status(struct compilation *c, const struct route *r,
                               struct breaker_policy *p, const Gwp__CircuitBreaker *in)
{
    for (size_t i = 0; i < in->n_failure_status; i++) {
        uint32_t first = in->failure_status[i]->first, last = in->failure_status[i]->last;
        if (first < 100 || last > 599 || first > last)
            return refuse_route(c, r, "circuit breaker: %u to %u is no range of statuses", first,
                                last);
        for (uint32_t status = first; status <= last; status++)
            p->failure_status[status / 64] |= (uint64_t)1 << (status % 64);
    }
    return 0;
}

static int take_breaker(struct compilation *c, struct route *r, const Gwp__CircuitBreaker *in)
{
    if (!in)
        return 0;
    const struct bounded rows[] = {
        {"failure_threshold_percent", in->failure_threshold_percent, 1, 100},
        {"min_requests", in->min_requests, 1, UINT32_MAX},
        {"window_ms", in->window_ms, 1, MAX_DURATION_MS},
        {"open_duration_ms", in->open_duration_ms, 1, MAX_DURATION_MS},
        {"half_open_requests", in->half_open_requests, 1, 1000000},
        {"max_open_duration_ms", in->max_open_duration_ms, 0, MAX_DURATION_MS},
        {"max_open_percent", in->max_open_percent, 0, 100},
    };
    uint32_t line = in->place ? in->place->line : r->line;
    if (check_bounds(c, r->name.at, line, rows, COUNT_OF(rows)) < 0)
        return -1;
    struct breaker_policy *p = arena_array(c->out->arena, 1, sizeof(*p));
    p->failure_threshold_percent = in->failure_threshold_percent;
    p->min_requests = in->min_requests;
    p->window_ms = in->window_ms;
    p->open_ms = in->open_duration_ms;
    p->max_open_ms = in->max_open_duration_ms;
    p->half_open_requests = in->half_open_requests;
    p->most_open = (uint32_t)((uint64_t)r->target_count * in->max_open_percent / 100);
    p->line = line;
    r->breaker = p;
    return take_failure_status(c, r, p, in);
}

static int take_edits(struct compilation *c, struct route *r, const Gwp__Route *in)
{
    struct err why;
    if (edits_compile(&r->request_edits, in->request_headers, c->out->arena, &why) < 0 ||
        edits_compile(&r->response_edits, in->response_headers, c->out->arena, &why) < 0)
        return refuse_route(c, r, "%s", why.text);
    return 0;
}

/* As a string of structured fields (RFC 9651 3.3.3), which has visible ASCII and spaces only. */
static struct view quote(struct compilation *c, struct view text)
{
    char *quoted = arena_alloc(c->out->arena, 2 * text.len + 3), *at = quoted;
    *at++ = '"';
    for (size_t i = 0; i < text.len; i++) {
        char byte = text.at[i];
        if (byte == '"' || byte == '\\')
            *at++ = '\\';
        *at++ = byte >= ' ' && byte <= '~' ? byte : '?';
    }
    *at++ = '"';
    return (struct view){quoted, (size_t)(at - quoted)};
}

static int take_limit_words(struct compilation *c, const struct route *r, struct limit_policy *p,
                            const Gwp__RateLimit *in)
{
    if (in->algorithm != GWP__RATE_LIMIT__ALGORITHM__TOKEN_BUCKET &&
        in->algorithm != GWP__RATE_LIMIT__ALGORITHM__SLIDING_WINDOW)
        return refuse_route(c, r, "unknown rate limit algorithm %d", (int)in->algorithm);
    p->algorithm =
        in->algorithm == GWP__RATE_LIMIT__ALGORITHM__TOKEN_BUCKET ? LIMITER_BUCKET : LIMITER_WINDOW;
    switch (in->key_by) {
    case GWP__RATE_LIMIT__KEY__IP:
        p->key_by = LIMITER_BY_IP;
        return 0;
    case GWP__RATE_LIMIT__KEY__USER:
        p->key_by = LIMITER_BY_USER;
        p->header = copy(c, in->user_header);
        break;
    case GWP__RATE_LIMIT__KEY__API_KEY:
        p->key_by = LIMITER_BY_API_KEY;
        p->header = copy(c, in->api_key_header);
        break;
    default:
        return refuse_route(c, r, "unknown rate limit key %d", (int)in->key_by);
    }
    if (p->header.len == 0)
        return refuse_route(c, r, "the rate limit's header has no name");
    return 0;
}

static int take_addresses(struct compilation *c, const struct route *r, struct redis_use *use,
                          const Gwp__Redis *in)
{
    use->addrs = arena_array(c->out->arena, in->n_addresses, sizeof(*use->addrs));
    for (size_t i = 0; i < in->n_addresses; i++) {
        struct err why;
        if (addr_parse(&use->addrs[i], in->addresses[i], &why) < 0)
            return refuse_route(c, r, "rate_limit.redis: %s", why.text);
    }
    use->addr_count = (uint32_t)in->n_addresses;
    return 0;
}

/* Who it is comes later, from the registry. */
static int take_redis(struct compilation *c, const struct route *r, const Gwp__RateLimit *limit)
{
    const Gwp__Redis *in = limit->redis;
    if (!limit->redis_url[0])
        return 0;
    if (!in)
        return refuse_route(c, r, "rate_limit.redis_url without what it stands for");
    if (strlen(in->user) > REDIS_WORD_MAX_BYTES || strlen(in->password) > REDIS_WORD_MAX_BYTES)
        return refuse_route(c, r, "the user or password of rate_limit.redis_url is longer than %d",
                            REDIS_WORD_MAX_BYTES);
    struct redis_use *use = c->redis[r - c->out->routes] =
        arena_array(c->out->arena, 1, sizeof(*use));
    use->timeout_ms = limit->redis_timeout_ms;
    use->user = copy(c, in->user);
    use->password = copy(c, in->password);
    use->database = in->database;
    return take_addresses(c, r, use, in);
}

static int take_limit(struct compilation *c, struct route *r, const Gwp__RateLimit *in)
{
    if (!in)
        return 0;
    struct limit_policy *p = r->limit = arena_alloc(c->out->arena, sizeof(*p));
    bool is_bucket = in->algorithm == GWP__RATE_LIMIT__ALGORITHM__TOKEN_BUCKET;
    const struct bounded rows[] = {
        {"rate_limit.burst", in->burst, is_bucket, 1000000000},
        {"rate_limit.window_ms", in->window_ms, !is_bucket, MAX_DURATION_MS},
        {"rate_limit.ipv6_prefix", in->ipv6_prefix, 1, 128},
        {"rate_limit.max_keys", in->max_keys, 1, 10000000},
        {"rate_limit.redis_timeout_ms", in->redis_timeout_ms, in->redis_url[0] != '\0', 60000},
    };
    p->line = in->place ? in->place->line : r->line;
    if (take_limit_words(c, r, p, in) < 0 ||
        check_bounds(c, r->name.at, p->line, rows, COUNT_OF(rows)) < 0)
        return -1;
    if (in->on_redis_failure > GWP__RATE_LIMIT__ON_REDIS_FAILURE__DENY || in->on_redis_failure < 0)
        return refuse_route(c, r, "unknown on_redis_failure %d", (int)in->on_redis_failure);
    if (!(in->rate >= 0.0001 && in->rate <= 1e9))
        return refuse_route(c, r, "rate_limit.rate is %g, not within 0.0001 to 1e+09", in->rate);
    p->observe = in->observe;
    p->headers = !in->hide_headers;
    p->rate = in->rate;
    p->burst = in->burst;
    p->window_ms = in->window_ms;
    p->ipv6_prefix = in->ipv6_prefix;
    p->max_keys = in->max_keys;
    p->redis_timeout_ms = in->redis_timeout_ms;
    p->on_failure = (enum limiter_on_failure)in->on_redis_failure;
    limit_policy_derive(p);
    if (take_redis(c, r, in) < 0)
        return -1;
    p->label = quote(c, r->name);
    p->announced =
        view_of(arena_printf(c->out->arena, "%.*s;q=%llu;w=%llu", VIEW_ARG(p->label),
                             (unsigned long long)p->quota, (unsigned long long)p->window_s));
    return 0;
}

static int take_route(struct compilation *c, struct route *r, const Gwp__Route *in)
{
    r->name = copy(c, in->name);
    r->line = in->place ? in->place->line : 0;
    r->host = copy(c, in->host);
    r->path_prefix = copy(c, in->path_prefix);
    r->timeout_ms = in->timeout_ms;
    r->connect_timeout_ms = in->connect_timeout_ms;
    r->response_idle_timeout_ms = in->response_idle_timeout_ms;
    r->retries = in->retries;
    r->max_body_bytes = in->max_body_bytes;
    r->strip_prefix = in->strip_prefix;
    r->preserve_host = in->preserve_host;
    r->slow_start_ms = in->slow_start_ms;
    r->panic_threshold_percent = in->panic_threshold_percent;
    const struct bounded rows[] = {
        {"timeout_ms", r->timeout_ms, 0, MAX_DURATION_MS},
        {"connect_timeout_ms", r->connect_timeout_ms, 0, MAX_DURATION_MS},
        {"response_idle_timeout_ms", r->response_idle_timeout_ms, 0, MAX_DURATION_MS},
        {"retries", r->retries, 0, 100},
        {"slow_start_ms", r->slow_start_ms, 0, MAX_DURATION_MS},
        {"panic_threshold_percent", r->panic_threshold_percent, 0, 100},
    };
    if (r->name.len == 0)
        return err_set(c->err, "%s:%u: a route without a name", c->out->source.at, r->line);
    if (check_bounds(c, r->name.at, r->line, rows, COUNT_OF(rows)) < 0 || check_match(c, r) < 0 ||
        take_methods(c, r, in) < 0 || take_algorithm(c, r, in) < 0 || take_edits(c, r, in) < 0 ||
        take_limit(c, r, in->rate_limit) < 0)
        return -1;
    return take_targets(c, r, in) < 0 ? -1 : take_breaker(c, r, in->circuit_breaker);
}

static int take_routes(struct compilation *c)
{
    struct snapshot *s = c->out;
    s->route_count = (uint32_t)c->in->n_routes;
    s->routes = arena_array(s->arena, c->in->n_routes, sizeof(*s->routes));
    c->redis = arena_array(s->arena, c->in->n_routes, sizeof(*c->redis));
    for (uint32_t i = 0; i < s->route_count; i++) {
        pace_yield();
        if (take_route(c, &s->routes[i], c->in->routes[i]) < 0)
            return -1;
    }
    return router_compile(s, c->err);
}

/* ---- endpoints, and what outlives the snapshot ---- */

static struct addr *parse_endpoints(struct compilation *c)
{
    struct addr *addrs = arena_array(c->out->arena, c->in->n_endpoints, sizeof(*addrs));
    for (size_t i = 0; i < c->in->n_endpoints; i++) {
        struct err why;
        if (addr_parse(&addrs[i], c->in->endpoints[i]->address, &why) < 0) {
            err_set(c->err, "%s: endpoint %zu: %s", c->out->source.at, i, why.text);
            return NULL;
        }
    }
    return addrs;
}

/* Only a target that nobody has heard of starts as its route says: what is known is not forgotten.
 * One that joins a route which is being served starts slowly; those of a new route have nobody to
 * leave the work to. */
static void bind_targets(struct registry *registry, struct snapshot *s, struct route *r,
                         const Gwp__Route *in, bool is_served, uint64_t now_ms)
{
    for (uint32_t k = 0; k < r->target_count; k++) {
        const Gwp__Target *target = in->targets[k];
        bool is_known = registry_find_target(registry, target->id) != NULL;
        struct target_state *t = registry_target(registry, target->id);
        if (!t->route)
            t->route = r->state;
        if (in->start_down && !is_known)
            atomic_store_explicit(&t->unhealthy, true, memory_order_relaxed);
        if (is_served && !is_known)
            atomic_store_explicit(&t->fresh_since_ms, now_ms, memory_order_relaxed);
        r->targets[k].state = t;
        r->targets[k].endpoint = s->endpoints[target->endpoint];
    }
}

static void bind_to_registry(struct compilation *c, struct registry *registry,
                             const struct addr *addrs)
{
    struct snapshot *s = c->out;
    uint64_t now_ms = clock_ms();
    s->endpoint_count = (uint32_t)c->in->n_endpoints;
    s->endpoints = arena_array(s->arena, s->endpoint_count, sizeof(struct endpoint *));
    for (uint32_t i = 0; i < s->endpoint_count; i++)
        s->endpoints[i] = registry_endpoint(registry, &addrs[i]);
    s->endpoint_slots = registry_endpoint_slots(registry);
    for (uint32_t i = 0; i < s->route_count; i++) {
        struct route *r = &s->routes[i];
        pace_yield();
        r->state = registry_route(registry, r->name.at);
        bind_targets(registry, s, r, c->in->routes[i], r->state->refs > 1, now_ms);
        r->roster = roster_new(r, s->arena); /* called when it is entered */
    }
}

/* The count of another process may be off by what it was killed in the middle of. */
static void count_open_breakers(const struct route *r)
{
    uint32_t open = 0, before = atomic_load_explicit(r->state->breakers_open, memory_order_relaxed);
    for (uint32_t k = 0; k < r->target_count; k++) {
        struct breaker_view view = {.state = BREAKER_CLOSED};
        if (r->targets[k].state->breaker)
            breaker_look(r->targets[k].state->breaker, &view);
        open += view.state != BREAKER_CLOSED;
    }
    /* Whoever has changed it meanwhile has counted on. */
    atomic_compare_exchange_strong_explicit(r->state->breakers_open, &before, open,
                                            memory_order_relaxed, memory_order_relaxed);
    r->state->is_to_be_counted = false;
}

void snapshot_enter(struct snapshot *s, uint64_t now_ms)
{
    for (uint32_t i = 0; i < s->route_count; i++) {
        const struct route *r = &s->routes[i];
        pace_yield();
        if (r->state->is_to_be_counted)
            count_open_breakers(r);
        for (uint32_t k = 0; k < r->target_count; k++) {
            struct target_state *t = r->targets[k].state;
            if (t->breaker)
                breaker_apply(t->breaker, r->breaker, r->state->breakers_open, now_ms);
        }
        roster_call(r, now_ms);
    }
}

/* After everything is bound: a limiter belongs to a route by identity. Only its memory can fail. */
static int open_limiters(struct compilation *c)
{
    for (uint32_t i = 0; i < c->out->route_count; i++) {
        const struct route *r = &c->out->routes[i];
        struct err why;
        if (!r->limit)
            continue;
        r->limit->limiter = limiter_open(&r->state->limiters, r->name.at, r->limit, &why);
        if (!r->limit->limiter)
            return refuse_route(c, r, "rate limit: %s", why.text);
    }
    return 0;
}

/* ---- Redis ---- */

static struct redis_use *use_of(const struct compilation *c, const struct redis_server *server)
{
    for (uint32_t i = 0; i < c->out->redis_count; i++)
        if (c->out->redis[i].server == server)
            return &c->out->redis[i];
    return NULL;
}

/* Each Redis once, however many routes count in it. */
static void bind_redis(struct compilation *c, struct registry *registry)
{
    struct snapshot *s = c->out;
    s->redis = arena_array(s->arena, s->route_count, sizeof(*s->redis));
    for (uint32_t i = 0; i < s->route_count; i++) {
        const struct route *r = &s->routes[i];
        struct redis_use *mine = c->redis[i];
        char prefix[SCRIPT_PREFIX_BYTES];
        if (!mine)
            continue;
        const Gwp__RateLimit *in = c->in->routes[i]->rate_limit;
        r->limit->redis = mine->server = registry_redis(registry, in->redis_url, in->redis->name);
        struct redis_use *known = use_of(c, mine->server);
        if (known)
            known->timeout_ms = MAX(known->timeout_ms, mine->timeout_ms);
        else
            s->redis[s->redis_count++] = *mine;
        size_t len = script_prefix(prefix, r->name.at, r->limit);
        r->limit->redis_prefix =
            (struct view){arena_copy(s->arena, (struct view){prefix, len}), len};
    }
}

struct snapshot *snapshot_compile(const Gwp__Snapshot *message, struct registry *registry,
                                  struct err *err)
{
    struct arena *arena = arena_new(FIRST_BLOCK_BYTES);
    struct snapshot *s = arena_array(arena, 1, sizeof(*s));
    struct compilation c = {.in = message, .out = s, .err = err};
    s->arena = arena;
    s->generation = message->generation;
    s->content_hash = message->content_hash;
    s->created_ms = message->created_ms;
    s->source = copy(&c, message->source[0] ? message->source : "snapshot");
    struct addr *addrs = NULL;
    if (check_features(&c) < 0 || take_server(&c) < 0 || take_logging(&c) < 0 ||
        take_buckets(&c) < 0 || !(addrs = parse_endpoints(&c)) || take_routes(&c) < 0) {
        arena_free(&arena);
        return NULL;
    }
    if (message->dry_run)
        return s;
    bind_to_registry(&c, registry, addrs);
    if (open_limiters(&c) < 0)
        snapshot_free(&s, registry);
    else
        bind_redis(&c, registry);
    return s;
}

void snapshot_free(struct snapshot **sp, struct registry *registry)
{
    struct snapshot *s = *sp;
    *sp = NULL;
    if (!s)
        return;
    for (uint32_t i = 0; i < s->endpoint_count; i++)
        registry_release_endpoint(registry, &s->endpoints[i]);
    for (uint32_t i = 0; i < s->route_count; i++) {
        struct route *r = &s->routes[i];
        pace_yield();
        if (!r->state)
            continue; /* a dry run refers to nothing */
        if (r->limit && r->limit->limiter)
            limiter_release(&r->limit->limiter);
        roster_free(&r->roster);
        registry_release_route(registry, &r->state);
        for (uint32_t k = 0; k < r->target_count; k++)
            registry_release_target(registry, &r->targets[k].state);
    }
    struct arena *arena = s->arena; /* holds `s` too */
    arena_free(&arena);
}
