#include "controlplane/builder.h"

#include <stdlib.h>
#include <string.h>

#include "controlplane/config/url.h"
#include "controlplane/table.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"
#include "proto/gateway.pb-c.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HOST_BYTES 256 /* of an address or a name: at most 253 */

static_assert((int)LB_IP_HASH == (int)GWP__ROUTE__ALGORITHM__IP_HASH, "carried as numbers");
static_assert((int)LIMIT_SLIDING_WINDOW == (int)GWP__RATE_LIMIT__ALGORITHM__SLIDING_WINDOW,
              "carried as numbers");
static_assert((int)LIMIT_BY_API_KEY == (int)GWP__RATE_LIMIT__KEY__API_KEY, "carried as numbers");
static_assert((int)REDIS_DENY == (int)GWP__RATE_LIMIT__ON_REDIS_FAILURE__DENY,
              "carried as numbers");
static_assert((int)LOG_ERROR == (int)GWP__LOGGING__LEVEL__ERROR, "carried as numbers");
static_assert((int)CONFIG_LOG_CONSOLE == (int)GWP__LOGGING__FORMAT__CONSOLE, "carried as numbers");

#define FIRST_BYTES (64u * 1024)
#define FIRST_ADDRESSES 64

/* The numbers of Snapshot's fields that are packed one by one. */
#define FIELD_ENDPOINTS 13
#define FIELD_ROUTES 14

/* One route after the other is made and packed, so that what is at work fits a cache, however many
 * there are. */
struct build {
    const struct builder_input *in;
    struct builder_output *out;
    size_t room;         /* of out->packed */
    struct arena *arena; /* owned: one message; its texts are borrowed from the config */
    struct arena *kept;  /* owned: addresses */
    struct table index;  /* address -> its place in addresses, from 1 */
    char **addresses;    /* in kept: of endpoints, each once */
    size_t address_room;
    XXH3_state_t *targets;
};

/* A message in the arena, as its INIT macro makes it. */
#define MAKE(b, Type, INIT)                                                                        \
    ({                                                                                             \
        Type *made_ = arena_alloc((b)->arena, sizeof(Type));                                       \
        *made_ = (Type)INIT;                                                                       \
        made_;                                                                                     \
    })

/* ---- server and logging ---- */

static char **texts(const struct strings *s)
{
    return (char **)s->at; /* protobuf-c has no const, and packing changes nothing */
}

static Gwp__Server *build_server(struct build *b)
{
    const struct server_config *c = &b->in->config->server;
    Gwp__Server *m = MAKE(b, Gwp__Server, GWP__SERVER__INIT);
    m->listen = texts(&c->addr);
    m->n_listen = c->addr.count;
    m->workers = c->workers;
    m->read_timeout_ms = c->read_timeout_ms;
    m->write_timeout_ms = c->write_timeout_ms;
    m->header_timeout_ms = c->header_timeout_ms;
    m->idle_timeout_ms = c->idle_timeout_ms;
    m->max_header_bytes = c->max_header_bytes;
    m->max_headers = c->max_headers;
    m->max_body_bytes = c->max_body_bytes;
    m->max_connections = c->max_connections;
    m->max_requests_per_connection = c->max_requests_per_connection;
    m->drain_delay_ms = c->drain_delay_ms;
    m->watchdog_ms = c->watchdog_ms;
    m->shutdown_grace_ms = c->shutdown_grace_ms;
    m->trusted_proxies = texts(&c->trusted_proxies);
    m->n_trusted_proxies = c->trusted_proxies.count;
    m->proxy_protocol = c->proxy_protocol;
    m->makes_traces = c->trace_context == TRACE_CREATE;
    return m;
}

static Gwp__Logging *build_logging(struct build *b)
{
    const struct logging_config *c = &b->in->config->logging;
    Gwp__Logging *m = MAKE(b, Gwp__Logging, GWP__LOGGING__INIT);
    m->level = (Gwp__Logging__Level)c->level;
    m->format = (Gwp__Logging__Format)c->format;
    m->access_log = (char *)c->access_log;
    m->access_log_sample = c->access_log_sample;
    return m;
}

/* ---- endpoints and targets ---- */

static Gwp__Place *build_place(struct build *b, struct place place)
{
    Gwp__Place *m = MAKE(b, Gwp__Place, GWP__PLACE__INIT);
    m->line = place.line;
    m->column = place.column;
    return m;
}

/* In one piece where that fits: hashing piece by piece costs three times as much. */
uint64_t builder_target_id(const char *route, const char *url, const char *address)
{
    char piece[1024];
    XXH3_state_t state;
    size_t sizes[] = {strlen(route) + 1, strlen(url) + 1, strlen(address)};
    if (sizes[0] + sizes[1] + sizes[2] <= sizeof(piece)) {
        memcpy(piece, route, sizes[0]);
        memcpy(piece + sizes[0], url, sizes[1]);
        memcpy(piece + sizes[0] + sizes[1], address, sizes[2]);
        return XXH3_64bits(piece, sizes[0] + sizes[1] + sizes[2]);
    }
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, route, sizes[0]);
    XXH3_64bits_update(&state, url, sizes[1]);
    XXH3_64bits_update(&state, address, sizes[2]);
    return XXH3_64bits_digest(&state);
}

/* Thirty thousand times: without printf. */
char *builder_address(struct arena *a, const char *ip, uint16_t port)
{
    char text[HOST_BYTES + 16], digits[5];
    bool v6 = strchr(ip, ':') != NULL;
    size_t len = strnlen(ip, HOST_BYTES), n = 0;
    char *out = text;
    if (v6)
        *out++ = '[';
    memcpy(out, ip, len);
    out += len;
    if (v6)
        *out++ = ']';
    *out++ = ':';
    do
        digits[n++] = (char)('0' + port % 10);
    while ((port /= 10) > 0);
    while (n > 0)
        *out++ = digits[--n];
    return arena_copy(a, (struct view){text, (size_t)(out - text)});
}

static void keep_address(struct build *b, const char *address)
{
    if (b->out->endpoints == b->address_room) {
        size_t room = MAX(FIRST_ADDRESSES, 2 * b->address_room);
        char **more = arena_array(b->kept, room, sizeof(*more));
        if (b->address_room > 0)
            memcpy(more, b->addresses, b->address_room * sizeof(*more));
        b->addresses = more;
        b->address_room = room;
    }
    char *copy = arena_copy(b->kept, view_of(address));
    b->addresses[b->out->endpoints++] = copy;
    table_add(&b->index, view_of(copy), (void *)(uintptr_t)b->out->endpoints);
}

/* Each address once: its index, under which it is added when it is new. */
static uint32_t endpoint_of(struct build *b, const char *address)
{
    uintptr_t known = (uintptr_t)table_get(&b->index, view_of(address));
    if (known > 0)
        return (uint32_t)known - 1;
    keep_address(b, address);
    return (uint32_t)b->out->endpoints - 1;
}

const char *builder_host(struct arena *a, const struct backend_config *backend)
{
    bool v6 = strchr(backend->host, ':') != NULL;
    if (backend->port == 80)
        return v6 ? arena_printf(a, "[%s]", backend->host) : backend->host;
    return builder_address(a, backend->host, backend->port);
}

static void build_target(struct build *b, Gwp__Route *route, const struct backend_config *c,
                         Gwp__Place *place, char *host, const char *ip)
{
    char *address = builder_address(b->arena, ip, c->port);
    Gwp__Target *m = MAKE(b, Gwp__Target, GWP__TARGET__INIT);
    m->id = builder_target_id(route->name, c->url, address);
    m->endpoint = endpoint_of(b, address);
    m->url = (char *)c->url;
    m->place = place;
    m->weight = c->weight;
    m->max_connections = c->max_connections;
    m->host = host;
    m->base_path = (char *)c->base_path;
    XXH3_64bits_update(b->targets, &m->id, sizeof(m->id));
    route->targets[route->n_targets++] = m;
}

static void build_targets(struct build *b, Gwp__Route *m, const struct route_config *c)
{
    const struct strings **found = arena_alloc(b->arena, c->backend_count * sizeof(*found));
    size_t count = 0;
    for (size_t i = 0; i < c->backend_count; i++) {
        found[i] = b->in->lookup(b->in->owner, c->backends[i].host);
        count += found[i] ? found[i]->count : 0;
    }
    m->targets = arena_alloc(b->arena, count * sizeof(*m->targets));
    for (size_t i = 0; i < c->backend_count; i++) {
        const struct backend_config *backend = &c->backends[i];
        const struct strings *ips = found[i];
        Gwp__Place *place = build_place(b, backend->place);
        char *host = (char *)builder_host(b->arena, backend);
        for (size_t k = 0; ips && k < ips->count; k++)
            build_target(b, m, backend, place, host, ips->at[k]);
    }
    b->out->backends += c->backend_count;
}

/* ---- policies ---- */

static Gwp__HeaderField **build_fields(struct build *b, const struct header_field *fields,
                                       size_t count)
{
    Gwp__HeaderField **list = arena_alloc(b->arena, count * sizeof(*list));
    for (size_t i = 0; i < count; i++) {
        list[i] = MAKE(b, Gwp__HeaderField, GWP__HEADER_FIELD__INIT);
        list[i]->name = (char *)fields[i].name;
        list[i]->value = (char *)fields[i].value;
    }
    return list;
}

static Gwp__HeaderEdits *build_edits(struct build *b, const struct header_edits *c)
{
    if (c->set_count + c->add_count + c->remove.count == 0)
        return NULL;
    Gwp__HeaderEdits *m = MAKE(b, Gwp__HeaderEdits, GWP__HEADER_EDITS__INIT);
    m->set = build_fields(b, c->set, c->set_count);
    m->n_set = c->set_count;
    m->add = build_fields(b, c->add, c->add_count);
    m->n_add = c->add_count;
    m->remove = texts(&c->remove);
    m->n_remove = c->remove.count;
    return m;
}

/* Its addresses are DNS' to decide, like a target's. */
static Gwp__Redis *build_redis(struct build *b, const char *text)
{
    struct redis_url url;
    struct err unused;
    if (!*text || url_parse_redis(&url, b->arena, text, &unused) < 0)
        return NULL;
    Gwp__Redis *m = MAKE(b, Gwp__Redis, GWP__REDIS__INIT);
    m->name = (char *)url.name;
    m->user = (char *)url.user;
    m->password = (char *)url.password;
    m->database = url.database;
    const struct strings *ips = url.host ? b->in->lookup(b->in->owner, url.host) : NULL;
    m->addresses = arena_alloc(b->arena, (1 + (ips ? ips->count : 0)) * sizeof(*m->addresses));
    if (url.path)
        m->addresses[m->n_addresses++] = arena_printf(b->arena, "unix:%s", url.path);
    for (size_t i = 0; ips && i < ips->count; i++) {
        char *address = builder_address(b->arena, ips->at[i], url.port);
        m->addresses[m->n_addresses++] = address;
        XXH3_64bits_update(b->targets, address, strlen(address));
    }
    return m;
}

static Gwp__RateLimit *build_limit(struct build *b, const struct rate_limit_config *c)
{
    if (!c)
        return NULL;
    Gwp__RateLimit *m = MAKE(b, Gwp__RateLimit, GWP__RATE_LIMIT__INIT);
    m->place = build_place(b, c->place);
    m->observe = c->mode == LIMIT_OBSERVE;
    m->algorithm = (Gwp__RateLimit__Algorithm)c->algorithm;
    m->rate = c->rate;
    m->burst = c->burst;
    m->window_ms = c->window_ms;
    m->key_by = (Gwp__RateLimit__Key)c->key_by;
    m->user_header = (char *)c->user_header;
    m->api_key_header = (char *)c->api_key_header;
    m->ipv6_prefix = c->ipv6_prefix;
    m->max_keys = c->max_keys;
    m->redis_url = (char *)c->redis_url;
    m->redis_timeout_ms = c->redis_timeout_ms;
    m->on_redis_failure = (Gwp__RateLimit__OnRedisFailure)c->on_redis_failure;
    m->hide_headers = !c->headers;
    m->redis = build_redis(b, c->redis_url);
    return m;
}

static Gwp__CircuitBreaker *build_breaker(struct build *b, const struct circuit_breaker_config *c)
{
    if (!c || !c->enabled)
        return NULL;
    Gwp__CircuitBreaker *m = MAKE(b, Gwp__CircuitBreaker, GWP__CIRCUIT_BREAKER__INIT);
    m->place = build_place(b, c->place);
    m->failure_threshold_percent = c->failure_threshold_percent;
    m->min_requests = c->min_requests;
    m->window_ms = c->window_ms;
    m->open_duration_ms = c->open_duration_ms;
    m->half_open_requests = c->half_open_requests;
    m->max_open_duration_ms = c->max_open_duration_ms;
    m->max_open_percent = c->max_open_percent;
    m->n_failure_status = c->failure_status.count;
    m->failure_status = arena_alloc(b->arena, m->n_failure_status * sizeof(*m->failure_status));
    for (size_t i = 0; i < m->n_failure_status; i++) {
        m->failure_status[i] = MAKE(b, Gwp__StatusRange, GWP__STATUS_RANGE__INIT);
        m->failure_status[i]->first = c->failure_status.at[i].first;
        m->failure_status[i]->last = c->failure_status.at[i].last;
    }
    return m;
}

/* ---- the whole ---- */

static Gwp__Route *build_route(struct build *b, const struct route_config *c)
{
    Gwp__Route *m = MAKE(b, Gwp__Route, GWP__ROUTE__INIT);
    m->name = (char *)c->name;
    m->place = build_place(b, c->place);
    m->host = (char *)c->host;
    m->path_prefix = (char *)c->path_prefix;
    m->methods = texts(&c->methods);
    m->n_methods = c->methods.count;
    build_targets(b, m, c);
    m->algorithm = (Gwp__Route__Algorithm)c->lb_algorithm;
    m->strip_prefix = c->strip_prefix;
    m->timeout_ms = c->timeout_ms;
    m->connect_timeout_ms = c->connect_timeout_ms;
    m->response_idle_timeout_ms = c->response_idle_timeout_ms;
    m->retries = c->retries;
    m->preserve_host = c->preserve_host;
    m->max_body_bytes = c->max_body_bytes;
    m->slow_start_ms = c->slow_start_ms;
    m->panic_threshold_percent = c->panic_threshold_percent;
    m->start_down = c->health_check.enabled && c->health_check.until_checked == UNTIL_CHECKED_DOWN;
    m->request_headers = build_edits(b, &c->request_headers);
    m->response_headers = build_edits(b, &c->response_headers);
    m->rate_limit = build_limit(b, c->rate_limit);
    m->circuit_breaker = build_breaker(b, c->circuit_breaker);
    return m;
}

/* Where `len` more bytes go. */
static uint8_t *grow(struct build *b, size_t len)
{
    struct builder_output *out = b->out;
    if (out->len + len > b->room) {
        b->room = MAX(out->len + len, MAX(FIRST_BYTES, 2 * b->room));
        out->packed = realloc(out->packed, b->room);
        if (!out->packed)
            log_fatal("builder", "out of memory: a snapshot of %zu bytes", b->room);
    }
    out->len += len;
    return out->packed + out->len - len;
}

static size_t put_varint(uint8_t *to, size_t n)
{
    size_t len = 0;
    for (; n >= 0x80; n >>= 7)
        to[len++] = (uint8_t)(n | 0x80);
    to[len++] = (uint8_t)n;
    return len;
}

/* A field of Snapshot that holds a message. */
static void pack_field(struct build *b, uint8_t number, const ProtobufCMessage *m)
{
    uint8_t head[1 + 10] = {(uint8_t)(number << 3 | 2)};
    size_t len = protobuf_c_message_get_packed_size(m), head_len = 1 + put_varint(head + 1, len);
    memcpy(grow(b, head_len), head, head_len);
    protobuf_c_message_pack(m, grow(b, len));
}

/* All but endpoints and routes. Returns how many bytes tell one making from the next: they come
 * first, since fields are packed in the order of their numbers. */
static size_t pack_head(struct build *b)
{
    const struct config *c = b->in->config;
    Gwp__Snapshot s = GWP__SNAPSHOT__INIT;
    s.generation = b->in->generation;
    s.content_hash = c->hash;
    s.source = (char *)c->source;
    s.created_ms = b->in->created_ms;
    size_t making = gwp__snapshot__get_packed_size(&s);
    s.dry_run = b->in->dry_run;
    s.server = build_server(b);
    s.logging = build_logging(b);
    s.duration_buckets_seconds = c->duration_buckets;
    s.n_duration_buckets_seconds = c->duration_bucket_count;
    size_t len = gwp__snapshot__get_packed_size(&s);
    gwp__snapshot__pack(&s, grow(b, len));
    return making;
}

static void pack_routes(struct build *b)
{
    const struct config *c = b->in->config;
    for (size_t i = 0; i < c->route_count; i++) {
        pack_field(b, FIELD_ROUTES, &build_route(b, &c->routes[i])->base);
        arena_clear(b->arena);
        pace_yield();
    }
}

static void pack_endpoints(struct build *b)
{
    for (size_t i = 0; i < b->out->endpoints; i++) {
        Gwp__Endpoint m = GWP__ENDPOINT__INIT;
        m.address = b->addresses[i];
        pack_field(b, FIELD_ENDPOINTS, &m.base);
    }
}

void builder_build(const struct builder_input *in, struct builder_output *out)
{
    XXH3_state_t targets;
    struct build b = {.in = in,
                      .out = out,
                      .arena = arena_new(FIRST_BYTES),
                      .kept = arena_new(FIRST_BYTES),
                      .targets = &targets};
    memset(out, 0, sizeof(*out));
    table_init(&b.index);
    XXH3_INITSTATE(&targets);
    XXH3_64bits_reset(&targets);
    size_t making = pack_head(&b);
    pack_routes(&b);
    pack_endpoints(&b);
    out->targets_hash = XXH3_64bits_digest(&targets);
    out->body_hash =
        XXH3_64bits_withSeed(out->packed + making, out->len - making, in->config->hash);
    table_fini(&b.index);
    arena_free(&b.kept);
    arena_free(&b.arena);
}
