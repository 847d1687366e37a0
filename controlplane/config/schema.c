#include "controlplane/config/schema.h"

#include <assert.h>

#include "proto/base/log.h"

static const char *const workers_words[] = {"auto", NULL};
static const char *const burst_words[] = {"rate", NULL};
static const char *const level_words[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error", NULL};
static const char *const format_words[] = {
    [CONFIG_LOG_JSON] = "json", [CONFIG_LOG_CONSOLE] = "console", NULL};
static const char *const ready_words[] = {
    [READY_ANY] = "any", [READY_ALL] = "all", [READY_NONE] = "none", NULL};
static const char *const trace_words[] = {[TRACE_PASS] = "pass", [TRACE_CREATE] = "create", NULL};
static const char *const balancer_words[] = {[LB_ROUND_ROBIN] = "round_robin",
                                             [LB_LEAST_CONN] = "least_conn",
                                             [LB_WEIGHTED] = "weighted",
                                             [LB_IP_HASH] = "ip_hash",
                                             NULL};
static const char *const until_checked_words[] = {
    [UNTIL_CHECKED_UP] = "up", [UNTIL_CHECKED_DOWN] = "down", NULL};
static const char *const limit_mode_words[] = {
    [LIMIT_ENFORCE] = "enforce", [LIMIT_OBSERVE] = "observe", NULL};
static const char *const limit_words[] = {
    [LIMIT_TOKEN_BUCKET] = "token_bucket", [LIMIT_SLIDING_WINDOW] = "sliding_window", NULL};
static const char *const limit_key_words[] = {
    [LIMIT_BY_IP] = "ip", [LIMIT_BY_USER] = "user", [LIMIT_BY_API_KEY] = "api_key", NULL};
static const char *const redis_failure_words[] = {
    [REDIS_LOCAL] = "local", [REDIS_ALLOW] = "allow", [REDIS_DENY] = "deny", NULL};

/* Where the value goes. */
#define IN(s, member) .offset = offsetof(struct s, member), .bytes = sizeof(((struct s *)0)->member)
#define COUNTED(s, member) .count_offset = offsetof(struct s, member)
#define OF(s) .bytes = sizeof(struct s)
#define RANGE(low, high) .min = (low), .max = (high)

#define DAY 86400.0
#define KIB 1024.0
#define MANY 10000000.0

/* The rows. A section comes before its keys; "[]" says that there are several of it. */
static const struct key keys[] = {
    {"server", VALUE_SECTION, RULE_SERVER, KEY_GO, IN(config, server),
     .doc = "Where clients come in, and what they may do."},
    {"server.addr", VALUE_LISTENS, 0, KEY_GO, ":8080", IN(server_config, addr),
     .doc = "Addresses that clients connect to; \":port\" takes IPv4 and IPv6."},
    {"server.workers", VALUE_INT, 0, 0, "auto", RANGE(1, 256), workers_words,
     IN(server_config, workers),
     .doc = "Threads that forward; auto is the number of CPUs allowed to the process."},
    {"server.read_timeout_seconds", VALUE_SECONDS, 0, KEY_GO, "30", RANGE(0.001, DAY),
     IN(server_config, read_timeout_ms),
     .doc = "Longest silence while a request body is being read."},
    {"server.write_timeout_seconds", VALUE_SECONDS, 0, KEY_GO, "30", RANGE(0.001, DAY),
     IN(server_config, write_timeout_ms),
     .doc = "Longest time without progress while writing to a client."},
    {"server.header_timeout_seconds", VALUE_SECONDS, 0, 0, "10", RANGE(0.001, DAY),
     IN(server_config, header_timeout_ms),
     .doc = "Within this long the whole head of a request must have arrived."},
    {"server.idle_timeout_seconds", VALUE_SECONDS, 0, 0, "75", RANGE(0.001, DAY),
     IN(server_config, idle_timeout_ms),
     .doc = "How long a kept connection may be without a request."},
    {"server.max_header_bytes", VALUE_SIZE, 0, 0, "16KiB", RANGE(KIB, KIB *KIB),
     IN(server_config, max_header_bytes), .doc = "A request with a longer head is answered 431."},
    {"server.max_headers", VALUE_INT, 0, 0, "100", RANGE(1, 1000), IN(server_config, max_headers),
     .doc = "A request with more header fields is answered 431."},
    {"server.max_body_bytes", VALUE_SIZE, 0, 0, "0", RANGE(0, 0x1p53),
     IN(server_config, max_body_bytes),
     .doc = "A request with a longer body is answered 413; 0 is unlimited."},
    {"server.max_connections", VALUE_INT, 0, 0, "0", RANGE(0, MANY),
     IN(server_config, max_connections),
     .doc = "Beyond it new clients get 503 and are closed; 0 is as descriptors allow."},
    {"server.max_requests_per_connection", VALUE_INT, 0, 0, "0", RANGE(0, MANY),
     IN(server_config, max_requests_per_connection),
     .doc = "After so many requests a client's connection is closed; 0 is unlimited."},
    {"server.drain_delay_seconds", VALUE_SECONDS, 0, 0, "0", RANGE(0, DAY),
     IN(server_config, drain_delay_ms),
     .doc = "On SIGTERM: not ready at once, but still accepting this long."},
    {"server.shutdown_grace_seconds", VALUE_SECONDS, 0, 0, "30", RANGE(0, DAY),
     IN(server_config, shutdown_grace_ms),
     .doc = "Then what is in flight may take this long before it is closed."},
    {"server.watchdog_seconds", VALUE_SECONDS, 0, 0, "30", RANGE(0, DAY),
     IN(server_config, watchdog_ms),
     .doc = "A worker without progress for so long ends the data plane; 0 is never."},
    {"server.trusted_proxies", VALUE_CIDRS, 0, 0, "[]", IN(server_config, trusted_proxies),
     .doc = "Networks whose X-Forwarded-For is believed when the client address is worked out."},
    {"server.proxy_protocol", VALUE_BOOL, 0, 0, "false", IN(server_config, proxy_protocol),
     .doc = "Expect PROXY v1 or v2 from trusted_proxies."},
    {"server.trace_context", VALUE_WORD, 0, 0, "pass", .words = trace_words,
     IN(server_config, trace_context),
     .doc = "A valid traceparent is passed on; create makes one where there is none."},

    {"admin", VALUE_SECTION, RULE_ADMIN, KEY_GO, IN(config, admin),
     .doc = "Where operators look and give orders."},
    {"admin.addr", VALUE_LISTEN, 0, KEY_GO, ":9090", IN(admin_config, addr),
     .doc = "Read-only: metrics, health, readiness, backends, API, dashboard; \"\" is none."},
    {"admin.socket", VALUE_FILE_PATH, 0, 0, "/run/gwp/admin.sock", IN(admin_config, socket),
     .doc = "The private Unix socket, mode 0660: everything, changes included."},
    {"admin.token", VALUE_TOKEN, 0, KEY_SECRET, "", IN(admin_config, token),
     .doc = "If set, changes are also taken on addr with \"Authorization: Bearer\" and this."},

    {"admin.ready_routes", VALUE_WORD, 0, 0, "any", .words = ready_words,
     IN(admin_config, ready_routes),
     .doc = "How many routes must have a healthy backend for /readyz to say 200: any, all, none."},

    {"metrics", VALUE_SECTION, 0, 0, .doc = "What is measured."},
    {"metrics.duration_buckets_seconds", VALUE_FLOATS, 0, 0,
     "[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, "
     "7.5, 10]",
     RANGE(1e-6, DAY), IN(config, duration_buckets), COUNTED(config, duration_bucket_count),
     .doc = "Upper bounds of the buckets of request durations, ascending, at most 32."},

    {"logging", VALUE_SECTION, 0, KEY_GO, IN(config, logging), .doc = "What is written down."},
    {"logging.level", VALUE_WORD, 0, KEY_GO, "info", .words = level_words,
     IN(logging_config, level), .doc = "What the programs say of themselves."},
    {"logging.format", VALUE_WORD, 0, KEY_GO, "json", .words = format_words,
     IN(logging_config, format), .doc = "For machines or for eyes."},
    {"logging.access_log", VALUE_LOG_TARGET, 0, 0, "stdout", IN(logging_config, access_log),
     .doc = "One line per request; a file is reopened on SIGUSR1 and when rotated away."},
    {"logging.access_log_sample", VALUE_FLOAT, 0, 0, "1.0", RANGE(0, 1),
     IN(logging_config, access_log_sample),
     .doc = "Share of 2xx and 3xx that is logged; errors are always logged."},

    {"routes[]", VALUE_SECTION_LIST, RULE_ROUTE, KEY_GO | KEY_PLACE,
     .offset = offsetof(struct config, routes), OF(route_config), COUNTED(config, route_count),
     .doc = "Which requests go where: most specific host, then longest prefix, then method."},
    {"routes[].name", VALUE_NAME, 0, 0, "", IN(route_config, name),
     .doc = "Unique, the label in metrics; made from host and prefix by default."},
    {"routes[].host", VALUE_HOST_PATTERN, 0, 0, "", IN(route_config, host),
     .doc = "Which Host the route is for: \"\" is any, \"*.example.com\" all below a domain."},
    {"routes[].path_prefix", VALUE_PREFIX, 0, KEY_GO | KEY_REQUIRED, NULL,
     IN(route_config, path_prefix),
     .doc = "Matches whole segments: /api/users and /api/users/1, not /api/usersX."},
    {"routes[].methods", VALUE_METHODS, 0, 0, "[]", IN(route_config, methods),
     .doc = "Methods that the route takes; none listed is all."},
    {"routes[].strip_prefix", VALUE_BOOL, 0, KEY_GO, "false", IN(route_config, strip_prefix),
     .doc = "Leave the prefix out of what the backend is asked for."},
    {"routes[].timeout_seconds", VALUE_SECONDS, 0, KEY_GO, "30", RANGE(0.001, DAY),
     IN(route_config, timeout_ms),
     .doc = "From the complete request head to the complete response head."},
    {"routes[].connect_timeout_seconds", VALUE_SECONDS, 0, 0, "2", RANGE(0.001, DAY),
     IN(route_config, connect_timeout_ms), .doc = "For a connection to a backend."},
    {"routes[].response_idle_timeout_seconds", VALUE_SECONDS, 0, 0, "60", RANGE(0.001, DAY),
     IN(route_config, response_idle_timeout_ms),
     .doc = "Longest silence within a response body; upgraded connections too."},
    {"routes[].retries", VALUE_INT, 0, 0, "1", RANGE(0, 10), IN(route_config, retries),
     .doc = "How often a request that failed before anything reached the client is sent again."},
    {"routes[].preserve_host", VALUE_BOOL, 0, 0, "false", IN(route_config, preserve_host),
     .doc = "Send the client's Host instead of the backend's."},
    {"routes[].max_body_bytes", VALUE_SIZE, 0, 0, "0", RANGE(0, 0x1p53),
     IN(route_config, max_body_bytes),
     .doc = "Overrides the server's when it is written; 0 is unlimited."},
    {"routes[].headers", VALUE_SECTION, 0, 0, .doc = "Edits of header fields on their way."},
    {"routes[].headers.request", VALUE_SECTION, RULE_HEADERS, 0, IN(route_config, request_headers),
     .doc = "On the way to the backend."},
    {"routes[].headers.request.set", VALUE_HEADER_FIELDS, 0, 0, "{}", IN(header_edits, set),
     COUNTED(header_edits, set_count), .doc = "In place of all fields of that name."},
    {"routes[].headers.request.add", VALUE_HEADER_FIELDS, 0, 0, "{}", IN(header_edits, add),
     COUNTED(header_edits, add_count), .doc = "Beside fields of that name; a list adds several."},
    {"routes[].headers.request.remove", VALUE_HEADER_NAMES, 0, 0, "[]", IN(header_edits, remove),
     .doc = "All fields of these names, before set and add."},
    {"routes[].headers.response", VALUE_SECTION, RULE_HEADERS, 0,
     IN(route_config, response_headers), .doc = "On the way to the client."},
    {"routes[].headers.response.set", VALUE_HEADER_FIELDS, 0, 0, "{}", IN(header_edits, set),
     COUNTED(header_edits, set_count), .doc = "In place of all fields of that name."},
    {"routes[].headers.response.add", VALUE_HEADER_FIELDS, 0, 0, "{}", IN(header_edits, add),
     COUNTED(header_edits, add_count), .doc = "Beside fields of that name; a list adds several."},
    {"routes[].headers.response.remove", VALUE_HEADER_NAMES, 0, 0, "[]", IN(header_edits, remove),
     .doc = "All fields of these names, before set and add."},
    {"routes[].lb_algorithm", VALUE_WORD, 0, KEY_GO, "round_robin", .words = balancer_words,
     IN(route_config, lb_algorithm), .doc = "How a backend is chosen."},
    {"routes[].backends[]", VALUE_SECTION_LIST, 0, KEY_GO | KEY_PLACE | KEY_REQUIRED,
     .offset = offsetof(struct route_config, backends), OF(backend_config),
     COUNTED(route_config, backend_count), .doc = "Who answers."},
    {"routes[].backends[].url", VALUE_BACKEND_URL, 0, KEY_GO | KEY_REQUIRED, NULL,
     IN(backend_config, url),
     .doc = "Every address of its name is an endpoint, looked up again as its TTL says."},
    {"routes[].backends[].weight", VALUE_INT, 0, KEY_GO, "1", RANGE(1, 1000),
     IN(backend_config, weight),
     .doc = "Its share; under lb_algorithm round_robin all have the same."},
    {"routes[].backends[].max_connections", VALUE_INT, 0, 0, "0", RANGE(0, MANY),
     IN(backend_config, max_connections),
     .doc = "To each of its endpoints at once; 0 is unlimited."},

    {"routes[].health_check", VALUE_SECTION, RULE_HEALTH_CHECK, KEY_PLACE,
     IN(route_config, health_check),
     .doc = "Absent: these defaults, which check that a connection is accepted."},
    {"routes[].health_check.enabled", VALUE_BOOL, 0, 0, "true", IN(health_check_config, enabled),
     .doc = "false leaves every endpoint up."},
    {"routes[].health_check.path", VALUE_PATH, 0, 0, "", IN(health_check_config, path),
     .doc = "What to GET; \"\" is content with a connection."},
    {"routes[].health_check.interval_seconds", VALUE_SECONDS, 0, 0, "10", RANGE(0.01, DAY),
     IN(health_check_config, interval_ms), .doc = "Between two checks, spread by jitter."},
    {"routes[].health_check.timeout_seconds", VALUE_SECONDS, 0, 0, "2", RANGE(0.01, DAY),
     IN(health_check_config, timeout_ms), .doc = "A check that takes longer has failed."},
    {"routes[].health_check.healthy_threshold", VALUE_INT, 0, 0, "2", RANGE(1, 100),
     IN(health_check_config, healthy_threshold), .doc = "Good checks in a row that make it up."},
    {"routes[].health_check.unhealthy_threshold", VALUE_INT, 0, 0, "3", RANGE(1, 100),
     IN(health_check_config, unhealthy_threshold),
     .doc = "Failed checks in a row that make it down."},
    {"routes[].health_check.unhealthy_interval_seconds", VALUE_SECONDS, 0, 0, "2", RANGE(0.01, DAY),
     IN(health_check_config, unhealthy_interval_ms),
     .doc = "Between two checks while an endpoint is down."},
    {"routes[].health_check.expected_status", VALUE_STATUSES, 0, 0, "200-399", RANGE(100, 599),
     IN(health_check_config, expected_status), .doc = "Statuses of a good check."},
    {"routes[].health_check.host", VALUE_HOST, 0, 0, "", IN(health_check_config, host),
     .doc = "Host to send; \"\" is the backend's."},
    {"routes[].health_check.until_checked", VALUE_WORD, 0, 0, "up", .words = until_checked_words,
     IN(health_check_config, until_checked),
     .doc = "What a new endpoint counts as before its first verdict."},
    {"routes[].slow_start_seconds", VALUE_SECONDS, 0, 0, "0", RANGE(0, DAY),
     IN(route_config, slow_start_ms),
     .doc = "A recovered endpoint's share grows to its full weight over this long."},
    {"routes[].panic_threshold_percent", VALUE_INT, 0, 0, "0", RANGE(0, 100),
     IN(route_config, panic_threshold_percent),
     .doc = "When fewer endpoints than this are healthy, all are used; 0 is off."},

    {"routes[].rate_limit", VALUE_OPTIONAL_SECTION, RULE_RATE_LIMIT, KEY_GO | KEY_PLACE,
     .offset = offsetof(struct route_config, rate_limit), OF(rate_limit_config),
     .doc = "Absent: no limit."},
    {"routes[].rate_limit.mode", VALUE_WORD, 0, 0, "enforce", .words = limit_mode_words,
     IN(rate_limit_config, mode),
     .doc = "observe counts and logs what would be limited, and lets it pass."},
    {"routes[].rate_limit.algorithm", VALUE_WORD, 0, KEY_GO, "token_bucket", .words = limit_words,
     IN(rate_limit_config, algorithm), .doc = "How requests are counted."},
    {"routes[].rate_limit.rate", VALUE_FLOAT, 0, KEY_GO | KEY_REQUIRED, NULL, RANGE(0.0001, 1e9),
     IN(rate_limit_config, rate), .doc = "Requests per second for each key."},
    {"routes[].rate_limit.burst", VALUE_INT, 0, KEY_GO, "rate", RANGE(1, 1e9), burst_words,
     IN(rate_limit_config, burst),
     .doc = "token_bucket: how many may come at once; rate is one second's worth."},
    {"routes[].rate_limit.window_seconds", VALUE_SECONDS, 0, 0, "1", RANGE(0.001, DAY),
     IN(rate_limit_config, window_ms),
     .doc = "sliding_window: at most rate * window_seconds requests in any window."},
    {"routes[].rate_limit.key_by", VALUE_WORD, 0, KEY_GO, "ip", .words = limit_key_words,
     IN(rate_limit_config, key_by), .doc = "Who is counted apart from whom."},
    {"routes[].rate_limit.user_header", VALUE_HEADER_NAME, 0, 0, "X-User-ID",
     IN(rate_limit_config, user_header), .doc = "key_by user: the header that names the user."},
    {"routes[].rate_limit.api_key_header", VALUE_HEADER_NAME, 0, 0, "X-API-Key",
     IN(rate_limit_config, api_key_header),
     .doc = "key_by api_key: the header; without it the client address counts."},
    {"routes[].rate_limit.ipv6_prefix", VALUE_INT, 0, 0, "64", RANGE(1, 128),
     IN(rate_limit_config, ipv6_prefix), .doc = "Bits of an IPv6 address that are one client."},
    {"routes[].rate_limit.max_keys", VALUE_INT, 0, 0, "100000", RANGE(1, MANY),
     IN(rate_limit_config, max_keys), .doc = "Beyond it the least recently seen make room."},
    {"routes[].rate_limit.redis_url", VALUE_REDIS_URL, 0, KEY_GO | KEY_SECRET, "",
     IN(rate_limit_config, redis_url),
     .doc = "Counts are shared by all replicas there; \"\" is in this process."},
    {"routes[].rate_limit.redis_timeout_ms", VALUE_INT, 0, 0, "50", RANGE(1, 60000),
     IN(rate_limit_config, redis_timeout_ms), .doc = "Redis counts as failed beyond it."},
    {"routes[].rate_limit.on_redis_failure", VALUE_WORD, 0, 0, "local",
     .words = redis_failure_words, IN(rate_limit_config, on_redis_failure),
     .doc = "local: by this gateway's share of the limit until Redis is back."},
    {"routes[].rate_limit.headers", VALUE_BOOL, 0, 0, "true", IN(rate_limit_config, headers),
     .doc = "Answers tell in RateLimit and X-RateLimit fields what is left."},

    {"routes[].circuit_breaker", VALUE_OPTIONAL_SECTION, RULE_CIRCUIT_BREAKER, KEY_GO | KEY_PLACE,
     .offset = offsetof(struct route_config, circuit_breaker), OF(circuit_breaker_config),
     .doc = "Absent: none."},
    {"routes[].circuit_breaker.enabled", VALUE_BOOL, 0, 0, "true",
     IN(circuit_breaker_config, enabled), .doc = "false never opens."},
    {"routes[].circuit_breaker.failure_threshold", VALUE_INT, 0, KEY_GO, "50", RANGE(1, 100),
     IN(circuit_breaker_config, failure_threshold_percent),
     .doc = "Percent of the requests in the window that must have failed."},
    {"routes[].circuit_breaker.min_requests", VALUE_INT, 0, KEY_GO, "20", RANGE(1, MANY),
     IN(circuit_breaker_config, min_requests), .doc = "Fewer in the window prove nothing."},
    {"routes[].circuit_breaker.window_seconds", VALUE_SECONDS, 0, 0, "10", RANGE(0.1, 3600),
     IN(circuit_breaker_config, window_ms), .doc = "How far back requests are counted."},
    {"routes[].circuit_breaker.open_duration_seconds", VALUE_SECONDS, 0, KEY_GO, "30",
     RANGE(0.001, DAY), IN(circuit_breaker_config, open_duration_ms),
     .doc = "How long an endpoint then gets no request."},
    {"routes[].circuit_breaker.half_open_requests", VALUE_INT, 0, KEY_GO, "5", RANGE(1, 10000),
     IN(circuit_breaker_config, half_open_requests),
     .doc = "Let through to probe, never more in flight; all must succeed to close."},
    {"routes[].circuit_breaker.max_open_duration_seconds", VALUE_SECONDS, 0, 0, "0", RANGE(0, DAY),
     IN(circuit_breaker_config, max_open_duration_ms),
     .doc = "0 is constant; else open time doubles on each failed probe round up to this."},
    {"routes[].circuit_breaker.max_open_percent", VALUE_INT, 0, 0, "100", RANGE(1, 100),
     IN(circuit_breaker_config, max_open_percent),
     .doc = "Never more than this share of a route's endpoints is open at once."},
    {"routes[].circuit_breaker.failure_status", VALUE_STATUSES, 0, 0, "500-599", RANGE(100, 599),
     IN(circuit_breaker_config, failure_status),
     .doc = "Failures besides failed connections, resets, malformed responses and timeouts."},
};

/* A section's struct begins with its place; check.c relies on it. */
static_assert(offsetof(struct route_config, place) == 0, "place first");
static_assert(offsetof(struct backend_config, place) == 0, "place first");
static_assert(offsetof(struct health_check_config, place) == 0, "place first");
static_assert(offsetof(struct rate_limit_config, place) == 0, "place first");
static_assert(offsetof(struct circuit_breaker_config, place) == 0, "place first");

const struct key *schema_keys(size_t *count)
{
    *count = COUNT_OF(keys);
    return keys;
}

struct view schema_name(const struct key *k)
{
    const char *dot = strrchr(k->path, '.');
    struct view name = view_of(dot ? dot + 1 : k->path);
    if (name.len > 2 && name.at[name.len - 1] == ']')
        name.len -= 2;
    return name;
}

/* ---- the index ---- */

static bool is_section(const struct key *k)
{
    return k->type == VALUE_SECTION || k->type == VALUE_OPTIONAL_SECTION ||
           k->type == VALUE_SECTION_LIST;
}

/* Is `k` a key of the section at `path`, and not of one inside of it? "" is the file. */
static bool belongs_to(const struct key *k, const char *path)
{
    const char *dot = strrchr(k->path, '.');
    size_t len = dot ? (size_t)(dot - k->path) : 0;
    return strlen(path) == len && memcmp(k->path, path, len) == 0;
}

static struct section *open_section(struct arena *a, const struct key *section)
{
    const char *path = section ? section->path : "";
    struct section *s = arena_alloc(a, sizeof(*s));
    s->key = section;
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        s->count += belongs_to(&keys[i], path);
    s->keys = arena_array(a, s->count, sizeof(*s->keys));
    struct section_key *at = s->keys;
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        if (belongs_to(&keys[i], path))
            *at++ = (struct section_key){schema_name(&keys[i]), &keys[i],
                                         is_section(&keys[i]) ? open_section(a, &keys[i]) : NULL};
    return s;
}

struct section *schema_open(struct arena *a)
{
    return open_section(a, NULL);
}

const struct section_key *schema_find(const struct section *s, struct view name)
{
    for (size_t i = 0; i < s->count; i++)
        if (view_equal(s->keys[i].name, name))
            return &s->keys[i];
    return NULL;
}

/* ---- for people ---- */

static const char *const type_texts[] = {
#define TYPE(name, what) what,
    VALUE_TYPES(TYPE)
#undef TYPE
};

static size_t append(char *out, size_t len, const char *text)
{
    size_t more = MIN(strlen(text), SCHEMA_DESCRIPTION_BYTES - 1 - len);
    memcpy(out + len, text, more);
    out[len + more] = '\0';
    return len + more;
}

static size_t append_number(char *out, size_t len, const struct key *k, double number)
{
    char text[48];
    if (k->type == VALUE_SIZE && number >= KIB * KIB)
        snprintf(text, sizeof(text), "%.15gMiB", number / KIB / KIB);
    else if (k->type == VALUE_SIZE && number >= KIB)
        snprintf(text, sizeof(text), "%.15gKiB", number / KIB);
    else
        snprintf(text, sizeof(text), "%.15g", number);
    return append(out, len, text);
}

const char *schema_describe(const struct key *k, char out[SCHEMA_DESCRIPTION_BYTES])
{
    size_t len = append(out, 0, type_texts[k->type]);
    bool number = k->type == VALUE_INT || k->type == VALUE_SIZE || k->type == VALUE_SECONDS ||
                  k->type == VALUE_FLOAT || k->type == VALUE_FLOATS;
    if (number && k->max >= 0x1p53) {
        len = append(out, len, " from ");
        len = append_number(out, len, k, k->min);
        len = append(out, len, " up");
    } else if (number) {
        len = append(out, len, " from ");
        len = append_number(out, len, k, k->min);
        len = append(out, len, " to ");
        len = append_number(out, len, k, k->max);
    }
    if (k->type == VALUE_SIZE)
        len = append(out, len, ", such as 64KiB or 10MiB");
    for (size_t i = 0; k->words && k->words[i]; i++) {
        len = append(out, len, k->type == VALUE_INT ? ", or " : i > 0 ? ", " : " ");
        len = append(out, len, k->words[i]);
    }
    return out;
}

void schema_print_reference(FILE *out)
{
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const struct key *k = &keys[i];
        char what[SCHEMA_DESCRIPTION_BYTES];
        fprintf(out, "%s%s\n    %s", i > 0 && is_section(k) ? "\n" : "", k->path,
                schema_describe(k, what));
        if (k->preset)
            fprintf(out, "; default %s", *k->preset ? k->preset : "\"\"");
        else if (k->flags & KEY_REQUIRED)
            fputs("; required", out);
        fprintf(out, "\n    %s\n", k->doc);
    }
}
