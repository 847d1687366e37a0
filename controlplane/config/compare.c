#include "controlplane/config/compare.h"

#include <string.h>

#include "controlplane/table.h"

/* ---- values ---- */

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_strings(const struct strings *a, const struct strings *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!same_text(a->at[i], b->at[i]))
            return false;
    return true;
}

static bool same_statuses(const struct status_set *a, const struct status_set *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->at[i].first != b->at[i].first || a->at[i].last != b->at[i].last)
            return false;
    return true;
}

static bool same_fields(const struct header_field *a, size_t a_count, const struct header_field *b,
                        size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++)
        if (!same_text(a[i].name, b[i].name) || !same_text(a[i].value, b[i].value))
            return false;
    return true;
}

/* ---- parts of a route; places do not count, since a line moves when one is put in above it ----
 */

static bool same_edits(const struct header_edits *a, const struct header_edits *b)
{
    return same_fields(a->set, a->set_count, b->set, b->set_count) &&
           same_fields(a->add, a->add_count, b->add, b->add_count) &&
           same_strings(&a->remove, &b->remove);
}

static bool same_backends(const struct route_config *a, const struct route_config *b)
{
    if (a->backend_count != b->backend_count)
        return false;
    for (size_t i = 0; i < a->backend_count; i++) {
        const struct backend_config *x = &a->backends[i], *y = &b->backends[i];
        if (!same_text(x->url, y->url) || x->weight != y->weight ||
            x->max_connections != y->max_connections)
            return false;
    }
    return true;
}

static bool same_check(const struct health_check_config *a, const struct health_check_config *b)
{
    return a->enabled == b->enabled && same_text(a->path, b->path) && same_text(a->host, b->host) &&
           a->interval_ms == b->interval_ms && a->timeout_ms == b->timeout_ms &&
           a->unhealthy_interval_ms == b->unhealthy_interval_ms &&
           a->healthy_threshold == b->healthy_threshold &&
           a->unhealthy_threshold == b->unhealthy_threshold &&
           same_statuses(&a->expected_status, &b->expected_status) &&
           a->until_checked == b->until_checked;
}

static bool same_limit(const struct rate_limit_config *a, const struct rate_limit_config *b)
{
    if (!a || !b)
        return a == b;
    return a->mode == b->mode && a->algorithm == b->algorithm && a->rate == b->rate &&
           a->burst == b->burst && a->window_ms == b->window_ms && a->key_by == b->key_by &&
           same_text(a->user_header, b->user_header) &&
           same_text(a->api_key_header, b->api_key_header) && a->ipv6_prefix == b->ipv6_prefix &&
           a->max_keys == b->max_keys && same_text(a->redis_url, b->redis_url) &&
           a->redis_timeout_ms == b->redis_timeout_ms &&
           a->on_redis_failure == b->on_redis_failure && a->headers == b->headers;
}

static bool same_breaker(const struct circuit_breaker_config *a,
                         const struct circuit_breaker_config *b)
{
    if (!a || !b)
        return a == b;
    return a->enabled == b->enabled &&
           a->failure_threshold_percent == b->failure_threshold_percent &&
           a->min_requests == b->min_requests && a->window_ms == b->window_ms &&
           a->open_duration_ms == b->open_duration_ms &&
           a->max_open_duration_ms == b->max_open_duration_ms &&
           a->half_open_requests == b->half_open_requests &&
           a->max_open_percent == b->max_open_percent &&
           same_statuses(&a->failure_status, &b->failure_status);
}

static bool same_matching(const struct route_config *a, const struct route_config *b)
{
    return same_text(a->host, b->host) && same_text(a->path_prefix, b->path_prefix) &&
           same_strings(&a->methods, &b->methods) && a->strip_prefix == b->strip_prefix &&
           a->preserve_host == b->preserve_host;
}

static bool same_bounds(const struct route_config *a, const struct route_config *b)
{
    return a->timeout_ms == b->timeout_ms && a->connect_timeout_ms == b->connect_timeout_ms &&
           a->response_idle_timeout_ms == b->response_idle_timeout_ms && a->retries == b->retries &&
           a->max_body_bytes == b->max_body_bytes;
}

static bool same_balancing(const struct route_config *a, const struct route_config *b)
{
    return a->lb_algorithm == b->lb_algorithm && same_backends(a, b) &&
           same_check(&a->health_check, &b->health_check) && a->slow_start_ms == b->slow_start_ms &&
           a->panic_threshold_percent == b->panic_threshold_percent;
}

static bool same_route(const struct route_config *a, const struct route_config *b)
{
    return same_matching(a, b) && same_bounds(a, b) && same_balancing(a, b) &&
           same_edits(&a->request_headers, &b->request_headers) &&
           same_edits(&a->response_headers, &b->response_headers) &&
           same_limit(a->rate_limit, b->rate_limit) &&
           same_breaker(a->circuit_breaker, b->circuit_breaker);
}

/* ---- the other sections ---- */

static bool same_server(const struct server_config *a, const struct server_config *b)
{
    return same_strings(&a->addr, &b->addr) && a->workers == b->workers &&
           a->read_timeout_ms == b->read_timeout_ms && a->write_timeout_ms == b->write_timeout_ms &&
           a->header_timeout_ms == b->header_timeout_ms &&
           a->idle_timeout_ms == b->idle_timeout_ms && a->max_header_bytes == b->max_header_bytes &&
           a->max_headers == b->max_headers && a->max_body_bytes == b->max_body_bytes &&
           a->max_connections == b->max_connections &&
           a->max_requests_per_connection == b->max_requests_per_connection &&
           a->drain_delay_ms == b->drain_delay_ms && a->shutdown_grace_ms == b->shutdown_grace_ms &&
           same_strings(&a->trusted_proxies, &b->trusted_proxies) &&
           a->proxy_protocol == b->proxy_protocol;
}

static bool same_admin(const struct admin_config *a, const struct admin_config *b)
{
    return same_text(a->addr, b->addr) && same_text(a->socket, b->socket) &&
           same_text(a->token, b->token);
}

static bool same_logging(const struct logging_config *a, const struct logging_config *b)
{
    return a->level == b->level && a->format == b->format &&
           same_text(a->access_log, b->access_log) && a->access_log_sample == b->access_log_sample;
}

static bool same_metrics(const struct config *a, const struct config *b)
{
    return a->duration_bucket_count == b->duration_bucket_count &&
           memcmp(a->duration_buckets, b->duration_buckets,
                  a->duration_bucket_count * sizeof(*a->duration_buckets)) == 0;
}

/* ---- the whole ---- */

static void say(struct strings *list, struct arena *a, const char *what, const char *name,
                const char *how)
{
    list->at[list->count++] =
        name ? arena_printf(a, "%s %s %s", what, name, how) : arena_printf(a, "%s %s", what, how);
}

static void compare_sections(const struct config *before, const struct config *now,
                             struct strings *list, struct arena *a)
{
    if (!same_server(&before->server, &now->server))
        say(list, a, "server", NULL, "changed");
    if (!same_admin(&before->admin, &now->admin))
        say(list, a, "admin", NULL, "changed");
    if (!same_logging(&before->logging, &now->logging))
        say(list, a, "logging", NULL, "changed");
    if (!same_metrics(before, now))
        say(list, a, "metrics", NULL, "changed");
}

static void compare_routes(const struct config *before, const struct config *now,
                           struct strings *list, struct arena *a)
{
    struct table old;
    table_init(&old);
    for (size_t i = 0; i < before->route_count; i++)
        table_add(&old, view_of(before->routes[i].name), &before->routes[i]);
    for (size_t i = 0; i < now->route_count; i++) {
        const struct route_config *route = &now->routes[i];
        const struct route_config *was = table_remove(&old, view_of(route->name));
        if (!was)
            say(list, a, "route", route->name, "added");
        else if (!same_route(was, route))
            say(list, a, "route", route->name, "changed");
    }
    for (size_t i = 0; i < before->route_count && old.count > 0; i++)
        if (table_remove(&old, view_of(before->routes[i].name)))
            say(list, a, "route", before->routes[i].name, "removed");
    table_fini(&old);
}

struct strings compare_configs(const struct config *before, const struct config *now,
                               struct arena *a)
{
    struct strings list = {NULL, 0};
    if (!before)
        return list;
    list.at = arena_alloc(a, (before->route_count + now->route_count + 4) * sizeof(*list.at));
    compare_sections(before, now, &list, a);
    compare_routes(before, now, &list, a);
    return list;
}
