/* config: the typed model of one gateway.yaml. Made by config_load() (check.c) in one arena, then
 * read-only; whoever asked for it owns it. Every value is in the unit its name says, defaults are
 * filled in, ${VAR}s are expanded, and what a route inherits from the server is already merged.
 * Places point into the YAML, so that every later message can name its line. */
#pragma once

#include <stdio.h>

#include "proto/base/arena.h"

struct diagnostics; /* diagnostics.h: every error and warning of one text, with places */

struct place {
    uint32_t line, column; /* from 1; 0 = a default, not written anywhere */
};

struct strings {
    const char **at;
    size_t count;
};

enum lb_algorithm { LB_ROUND_ROBIN, LB_LEAST_CONN, LB_WEIGHTED, LB_IP_HASH };
enum limit_algorithm { LIMIT_TOKEN_BUCKET, LIMIT_SLIDING_WINDOW };
enum limit_key { LIMIT_BY_IP, LIMIT_BY_USER, LIMIT_BY_API_KEY };
enum limit_mode { LIMIT_ENFORCE, LIMIT_OBSERVE };
enum redis_failure { REDIS_LOCAL, REDIS_ALLOW, REDIS_DENY };
enum until_checked { UNTIL_CHECKED_UP, UNTIL_CHECKED_DOWN };
enum trace_context { TRACE_PASS, TRACE_CREATE };
enum config_log_format { CONFIG_LOG_JSON, CONFIG_LOG_CONSOLE };

struct server_config {
    struct strings addr;
    uint32_t workers; /* 0 = auto */
    uint32_t read_timeout_ms, write_timeout_ms, header_timeout_ms, idle_timeout_ms;
    uint32_t max_header_bytes, max_headers;
    uint64_t max_body_bytes;
    uint32_t max_connections, max_requests_per_connection;
    uint32_t drain_delay_ms, shutdown_grace_ms, watchdog_ms;
    struct strings trusted_proxies;
    bool proxy_protocol;
    enum trace_context trace_context;
};

enum ready_routes { READY_ANY, READY_ALL, READY_NONE };

struct admin_config {
    const char *addr; /* "" = no TCP side */
    const char *socket;
    const char *token;              /* "" = none */
    enum ready_routes ready_routes; /* how many must have a healthy backend */
};

struct logging_config {
    int level; /* enum log_level */
    enum config_log_format format;
    const char *access_log;
    double access_log_sample;
};

struct backend_config {
    struct place place;
    const char *url;  /* as written */
    const char *host; /* name or literal address, without brackets */
    uint16_t port;
    const char *base_path; /* "" or "/base", no trailing slash */
    uint32_t weight, max_connections;
};

struct status_range {
    uint16_t first, last;
};

struct status_set {
    struct status_range *at;
    size_t count;
};

struct health_check_config {
    struct place place;
    bool enabled;
    const char *path, *host;
    uint32_t interval_ms, timeout_ms, unhealthy_interval_ms;
    uint32_t healthy_threshold, unhealthy_threshold;
    struct status_set expected_status;
    enum until_checked until_checked;
};

struct rate_limit_config {
    struct place place;
    enum limit_mode mode;
    enum limit_algorithm algorithm;
    double rate; /* per second */
    uint32_t burst, window_ms;
    enum limit_key key_by;
    const char *user_header, *api_key_header;
    uint32_t ipv6_prefix, max_keys;
    const char *redis_url; /* "" = in-process */
    uint32_t redis_timeout_ms;
    enum redis_failure on_redis_failure;
    bool headers;
};

struct circuit_breaker_config {
    struct place place;
    bool enabled;
    uint32_t failure_threshold_percent, min_requests;
    uint32_t window_ms, open_duration_ms, max_open_duration_ms;
    uint32_t half_open_requests, max_open_percent;
    struct status_set failure_status;
};

struct header_field {
    const char *name, *value;
};

struct header_edits {
    struct header_field *set, *add;
    size_t set_count, add_count;
    struct strings remove;
};

struct route_config {
    struct place place;
    const char *name; /* never empty: made from host and prefix where none was given; unique */
    const char *host; /* lower case; "" = any */
    const char *path_prefix;
    struct strings methods; /* upper case; none = all */
    bool strip_prefix, preserve_host;
    uint32_t timeout_ms, connect_timeout_ms, response_idle_timeout_ms;
    uint32_t retries;
    uint64_t max_body_bytes; /* 0 = unlimited */
    struct header_edits request_headers, response_headers;
    enum lb_algorithm lb_algorithm;
    struct backend_config *backends;
    size_t backend_count;
    struct health_check_config health_check; /* always there: the defaults when absent */
    uint32_t slow_start_ms, panic_threshold_percent;
    struct rate_limit_config *rate_limit;           /* NULL = none */
    struct circuit_breaker_config *circuit_breaker; /* NULL = none */
};

struct config {
    struct arena *arena; /* owned; holds this struct too */
    const char *source;  /* base name of the file, for messages: "gateway.yaml" */
    const char *text;    /* the YAML itself, as it was read */
    size_t text_len;
    uint64_t hash; /* XXH3 of text */
    struct server_config server;
    struct admin_config admin;
    struct logging_config logging;
    double *duration_buckets;
    size_t duration_bucket_count;
    struct route_config *routes;
    size_t route_count;
};

/* Reads and checks a text. NULL when `d` holds an error; warnings alone do not refuse it. `source`
 * names it in messages. Pure but for the environment, which ${VAR} reads. */
struct config *config_load(const char *source, struct view text, struct diagnostics *d);

/* The same for a file; "-" is standard input. */
struct config *config_load_file(const char *path, struct diagnostics *d);

/* "gateway.yaml is valid: 1 route, 2 backends" */
void config_print_validity(const struct config *cfg, FILE *out);

void config_free(struct config **cfg); /* nulls *cfg; NULL is allowed */
