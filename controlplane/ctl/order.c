#include "controlplane/ctl/order.h"

#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/call.h"
#include "controlplane/ctl/show.h"

static int order(const struct invocation *in, const char *method, const char *what,
                 const char *query, call_show_fn *show)
{
    char endpoint[400], route[1600] = "", target[2200];
    const char *name = arguments_value(&in->arguments, ARG_ROUTE);
    if (!client_encode(endpoint, sizeof(endpoint), in->operands[0]) ||
        (name && !client_encode(route, sizeof(route), name)))
        return call_complain(EXIT_USAGE, "the name of the endpoint or of the route is too long");
    snprintf(target, sizeof(target), "/api/v1/endpoints/%s/%s?%s%s%s", endpoint, what, query,
             name ? "&route=" : "", route);
    const struct client_request request = {
        .method = method, .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show);
}

int order_drain(const struct invocation *in)
{
    return order(in, "POST", "drain", "", show_ordered);
}

int order_undrain(const struct invocation *in)
{
    return order(in, "DELETE", "drain", "", show_ordered);
}

int order_weight(const struct invocation *in)
{
    char query[48], *end;
    if (strcmp(in->operands[1], "default") == 0)
        return order(in, "DELETE", "weight", "", show_ordered);
    long weight = strtol(in->operands[1], &end, 10);
    if (end == in->operands[1] || *end || weight < 1 || weight > 1000)
        return call_complain(EXIT_USAGE, "a weight is a number from 1 to 1000, or \"default\"");
    snprintf(query, sizeof(query), "weight=%ld", weight);
    return order(in, "POST", "weight", query, show_ordered);
}

int order_breaker_reset(const struct invocation *in)
{
    return order(in, "POST", "breaker/reset", "", show_breaker_reset);
}

int order_replace(const struct invocation *in)
{
    char name[400], binary[3000] = "", target[4096];
    const char *path = arguments_value(&in->arguments, ARG_BINARY);
    double wait = arguments_number(&in->arguments, ARG_WAIT, COMMAND_DEFAULT_WAIT_SECONDS);
    if (!client_encode(name, sizeof(name), in->operands[0] ? in->operands[0] : "*") ||
        (path && !client_encode(binary, sizeof(binary), path)))
        return call_complain(EXIT_USAGE, "the name or the path is too long");
    if (path && path[0] != '/')
        return call_complain(EXIT_USAGE, "--binary wants an absolute path");
    snprintf(target, sizeof(target), "/api/v1/dataplanes/%s/replace?wait=%g%s%s", name, wait,
             path ? "&binary=" : "", binary);
    const struct client_request request = {
        .method = "POST", .target = target, .timeout_ms = (unsigned)((wait + CALL_SECONDS) * 1000)};
    return call_and_show(in, &request, show_replaced);
}
