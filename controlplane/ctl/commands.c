#include "controlplane/ctl/commands.h"

#include "controlplane/ctl/await.h"
#include "controlplane/ctl/call.h"
#include "controlplane/ctl/change.h"
#include "controlplane/ctl/completion.h"
#include "controlplane/ctl/limit_commands.h"
#include "controlplane/ctl/inquire.h"
#include "controlplane/ctl/manual.h"
#include "controlplane/ctl/observe.h"
#include "controlplane/ctl/order.h"
#include "controlplane/ctl/revisions.h"
#include "controlplane/ctl/show.h"

/* ---- what there is ---- */

static int run_status(const struct invocation *in)
{
    return call_get(in, "/api/v1/status", show_status);
}

static int run_backends(const struct invocation *in)
{
    return call_get(in, "/api/v1/backends", show_backends);
}

static int run_routes(const struct invocation *in)
{
    return call_get(in, "/api/v1/routes", show_routes);
}

static int run_dataplanes(const struct invocation *in)
{
    return call_get(in, "/api/v1/dataplanes", show_dataplanes);
}

/* ---- what -o json prints ---- */

static const struct field push_fields[] = {
    {"generation", "in force now; with --dry-run the one it would have been"},
    {"previous", "in force before; 0 = none"},
    {"dry_run", "nothing was changed"},
    {"unchanged", "it was in force already"},
    {"changes[]", "sentences: what is different from the one before"},
    {"warnings[]", "severity, source, line, column, length, message, suggestion (or null)"},
    {"dataplanes[]", "name, instance_id, accepted (null = no answer yet), reason, compile_us, "
                     "swap_us"},
    {"note", "a sentence, where there is something to be said"},
    {"error", "only when it was refused: invalid_config, refused, timeout, busy, conflict, failed"},
    {"in_force", "with refused, timeout and conflict: the generation in force"},
    {"message", "with error: why, in a sentence"},
    {"diagnostics[]", "with invalid_config: as warnings"},
    {"text", "warnings or diagnostics as people read them, where there are any"},
    {NULL, NULL},
};

static const struct field validate_fields[] = {
    {"valid", "true or false"},
    {"diagnostics[]", "severity (error or warning), source, line, column, length, message, "
                      "suggestion (or null)"},
    {NULL, NULL},
};

static const struct field status_fields[] = {
    {"version", "of the control plane"},
    {"protocol", "that it speaks with data planes"},
    {"uptime_seconds", "since it was started"},
    {"config",
     "generation, accepted_as (in the history), source, origin, since, hash, routes, "
     "backends, endpoints; next_start: with what, in words; last_reload: ok, at, message"},
    {"health", "up, down, unknown, draining, routes_without_backend"},
    {"overrides[]", "orders in effect: address, route (null = every one), draining, weight (or "
                    "null), since"},
    {"dataplanes[]", "as gwpctl dataplanes"},
    {NULL, NULL},
};

static const struct field backends_fields[] = {
    {"generation", "in force"},
    {"routes[]", "name, algorithm, backends"},
    {"routes[].backends[]", "url, weight, endpoints"},
    {"routes[].backends[].endpoints[]",
     "address, active, requests, failures; health, checked, last_check, reason, check_seconds; "
     "breaker, breaker_since, breaker_until, breaker_cause; draining, weight_override (or null)"},
    {NULL, NULL},
};

static const struct field routes_fields[] = {
    {"generation", "in force"},
    {"routes[]", "name, host, path_prefix, methods, algorithm, strip_prefix, timeout_seconds, "
                 "backends, endpoints, place (file:line), requests_total"},
    {NULL, NULL},
};

static const struct field dataplanes_fields[] = {
    {"dataplanes[]",
     "name, instance_id, version, pid, role (starting, serving, draining), workers, "
     "connected_since, generation, state (in_sync, pending, refused), reason, "
     "active_connections, requests_total, rss_bytes"},
    {NULL, NULL},
};

static const struct field explain_fields[] = {
    {"generation, reason, status, detail",
     "the generation asked; reason ok and status null: it would be passed on; else the gateway's "
     "own answer"},
    {"client, peer_trusted, host, path", "who is asking for what, as it is worked out"},
    {"route, place, algorithm, panic", "the route, where it stands, how it chooses"},
    {"limit", "null, or place, algorithm, key_by, key, keyed_by_header, allowed, observe, "
              "remaining, quota, window_seconds, retry_seconds, reset_seconds"},
    {"candidates[]", "address, url, place, weight, active, max_connections, healthy, draining, "
                     "starting, breaker, usable, chosen"},
    {"breaker_place", "of the circuit breaker's policy, or null"},
    {"chosen", "the address that the request would go to, or null"},
    {"forwarded", "the head as it would be sent there"},
    {"retry_seconds", "when breakers are why nobody can be asked: until one asks for probes"},
    {NULL, NULL},
};

#define ENTRY_FIELDS                                                                               \
    "generation, at, origin (file, reload, push, rollback), again (of a rollback: the generation " \
    "gone back to, or null), user, message, source, hash, bytes, in_force"

static const struct field history_fields[] = {
    {"generations[]", "the newest first: " ENTRY_FIELDS},
    {NULL, NULL},
};

static const struct field show_fields[] = {
    {"generation ...", ENTRY_FIELDS},
    {"text", "the configuration"},
    {NULL, NULL},
};

static const struct field diff_fields[] = {
    {"changes[]", "change (added, removed, changed), route, backend and key (or null), from and to "
                  "(values, or null), from_place and to_place (file:line, or null), text"},
    {"more", "how many changes are not listed"},
    {NULL, NULL},
};

static const struct field replace_fields[] = {
    {"name", "of the data plane"},
    {"old_pid", "of the process that leaves"},
    {"new_pid", "of the one that serves"},
    {NULL, NULL},
};

static const struct field order_fields[] = {
    {"address", "of the endpoint"},
    {"route", "that the order was for; null = every one"},
    {"targets[]", "what is so now: route, url, draining, weight, weight_override (or null)"},
    {"dataplanes", "how many were told"},
    {"note", "a sentence, where there is something to be said"},
    {NULL, NULL},
};

static const struct field limits_fields[] = {
    {"routes[]", "route, busiest, most_limited: the 20 first of each"},
    {"routes[].busiest[]", "key (an address or network, a user, or # and a hash of an API key), "
                           "requests, limited"},
    {"routes[].most_limited[]", "key, limited; requests is 0"},
    {"truncated", "there are more routes than fit into an answer"},
    {"dataplanes", "asked, answered"},
    {NULL, NULL},
};

static const struct field forgotten_fields[] = {
    {"route", "whose limit it is"},
    {"all", "every key of it"},
    {"forgotten", "keys in the tables of the data planes"},
    {"redis_away", "what is in Redis could not be forgotten"},
    {"dataplanes", "asked, answered"},
    {NULL, NULL},
};

static const struct field events_fields[] = {
    {"last", "id of the newest event"},
    {"events[]", "id, at, level (info, warn or error), kind, message; with --follow each is a line "
                 "of its own"},
    {NULL, NULL},
};

static const struct field log_level_fields[] = {
    {"configured", "by logging.level"},
    {"controlplane", "as ordered; null = as configured"},
    {"dataplane", "likewise, of every data plane"},
    {NULL, NULL},
};

/* ---- the table ---- */

#define FILE_OPERAND                                                                               \
    {                                                                                              \
        "FILE", "a file", .is_file = true                                                          \
    }
#define CHANGE_OPTIONS (TAKES(DRY_RUN) | TAKES(WAIT) | TAKES(MESSAGE) | TAKES(IF_GENERATION))
#define ENDPOINT_OPERAND                                                                           \
    {                                                                                              \
        "ENDPOINT", "an endpoint"                                                                  \
    }

const struct command commands[] = {
    {
        .name = "push config",
        .summary = "put a configuration in force",
        .text = "Sends FILE (\"-\" is standard input) to the control plane, which checks it whole "
                "and hands it to every connected data plane. Prints the new generation and what "
                "changed. Exits with 0 only when every data plane has accepted; otherwise the old "
                "configuration stays in force and all errors are printed as file:line:column.\n\n"
                "Pushes of several people take turns. With --if-generation one that was made for "
                "another generation than the one in force is refused.",
        .operands = {FILE_OPERAND},
        .takes = CHANGE_OPTIONS,
        .examples = {"gwpctl push config gateway.yaml -m 'users: timeout 30 s'",
                     "gwpctl push config gateway.yaml --dry-run",
                     "gwpctl push config gateway.yaml --if-generation 12",
                     "sed s/9001/9002/ gateway.yaml | gwpctl push config - --wait 30"},
        .fields = push_fields,
        .run = change_push,
    },
    {
        .name = "validate",
        .summary = "check a configuration without a control plane",
        .text = "Reads FILE (\"-\" is standard input) and prints every error and warning with its "
                "line. Needs no running program; ${VAR} is taken from the environment of this "
                "command.",
        .operands = {FILE_OPERAND},
        .examples = {"gwpctl validate gateway.yaml",
                     "gwpctl validate gateway.yaml -o json | jq '.diagnostics[].message'"},
        .fields = validate_fields,
        .is_offline = true,
        .run = change_validate,
    },
    {
        .name = "schema",
        .summary = "print the JSON Schema of the configuration",
        .text =
            "For editors and CI: every key with its type, range, default and what it does. What "
            "must hold between keys only gwpctl validate tells.",
        .examples = {"gwpctl schema > gateway.schema.json"},
        .is_offline = true,
        .run = change_schema,
    },
    {
        .name = "reload",
        .summary = "read the control plane's own file again",
        .text =
            "Tells the control plane to read its file now, as SIGHUP does. It does so by itself "
            "whenever the file changes; this command waits and tells how it went.",
        .examples = {"gwpctl reload", "gwpctl reload -o json"},
        .fields = push_fields,
        .run = change_reload,
    },
    {
        .name = "rollback",
        .summary = "put a configuration in force that was before",
        .text =
            "Without GEN the one before that in force. It gets a new number, and is accepted by "
            "every data plane or refused, as a push is.",
        .operands = {{"GEN", "a generation", .is_optional = true}},
        .takes = CHANGE_OPTIONS,
        .examples = {"gwpctl rollback", "gwpctl rollback 12 -m 'the limit was too low'",
                     "gwpctl rollback 12 --dry-run"},
        .fields = push_fields,
        .run = change_rollback,
    },
    {
        .name = "history",
        .summary = "show the configurations that were in force",
        .text = "The last 50, the newest first: when each came into force, whether by the file, a "
                "push or a rollback, by whom, and what they said about it.",
        .examples = {"gwpctl history", "gwpctl history -o json | jq '.generations[0]'"},
        .fields = history_fields,
        .run = revisions_history,
    },
    {
        .name = "show",
        .summary = "print a configuration that was in force",
        .text =
            "GEN is a number as gwpctl history shows it, current (the default) or previous. The "
            "text goes to standard output as it was, what is known about it to standard error.",
        .operands = {{"GEN", "a generation", .is_optional = true, .words = "current previous"}},
        .examples = {"gwpctl show 12", "gwpctl show previous > gateway.yaml"},
        .fields = show_fields,
        .run = revisions_show,
    },
    {
        .name = "diff",
        .summary = "show what is different between two configurations",
        .text = "Each is a generation (a number, current, previous) or a file (\"-\" is standard "
                "input). Without any: what the last change was. With one generation: what has "
                "changed since. With one file: what a push of it would change. Two files need no "
                "control plane; ${VAR}s are then those of here. Routes, backends and keys are "
                "compared by what they mean, with -u by their lines.",
        .operands = {{"GEN|FILE", "a generation or a file", .is_optional = true, .is_file = true,
                      .words = "current previous"},
                     {"GEN|FILE", "a generation or a file", .is_optional = true, .is_file = true,
                      .words = "current previous"}},
        .takes = TAKES(UNIFIED),
        .examples = {"gwpctl diff", "gwpctl diff 12", "gwpctl diff 12 14 -u",
                     "gwpctl diff gateway.yaml", "gwpctl diff old.yaml new.yaml"},
        .fields = diff_fields,
        .run = revisions_diff,
    },
    {
        .name = "status",
        .summary = "show the configuration in force and the data planes",
        .text = "Shows which configuration is in force since when, how the last reload went, and "
                "for each connected data plane whether it serves that configuration.",
        .examples = {"gwpctl status", "gwpctl status -o json | jq .config.generation"},
        .fields = status_fields,
        .run = run_status,
    },
    {
        .name = "backends",
        .summary = "show every backend's endpoints with health and breaker",
        .text = "Shows for each route the addresses that its backends have, whether they are "
                "healthy, what their circuit breakers do, and how many requests they had.",
        .examples = {"gwpctl backends", "gwpctl --admin http://gateway-1:9090 backends"},
        .fields = backends_fields,
        .run = run_backends,
    },
    {
        .name = "routes",
        .summary = "show the routes in force",
        .text = "Shows the routes with what they match, where they stand in the file, and their "
                "requests so far.",
        .examples = {"gwpctl routes",
                     "gwpctl routes -o json | jq -r '.routes[] | select(.requests_total == 0) | "
                     ".name'"},
        .fields = routes_fields,
        .run = run_routes,
    },
    {
        .name = "dataplanes",
        .summary = "show the connected data planes",
        .text = "Shows the data planes that are connected, the generation each serves and what it "
                "carries.",
        .examples = {"gwpctl dataplanes", "watch gwpctl dataplanes"},
        .fields = dataplanes_fields,
        .run = run_dataplanes,
    },
    {
        .name = "explain",
        .summary = "tell what would become of a request",
        .text = "Which route takes it, whether its limit lets it pass, which endpoint would be "
                "chosen among which, and what would be sent there; each with its line in the file. "
                "A data plane answers with the code and the state by which it would go; nothing is "
                "counted or sent. With --file its code answers about a file: a fresh gateway's "
                "state, names as this machine resolves them.\n\n"
                "URL may be a path alone; then -H 'Host: NAME' says which host is asked.",
        .operands = {{"METHOD", "a method", .words = "GET HEAD POST PUT PATCH DELETE OPTIONS"},
                     {"URL", "a URL"}},
        .takes = TAKES(HEADER) | TAKES(CLIENT) | TAKES(FILE),
        .examples = {"gwpctl explain GET http://api.example.com/api/users/7",
                     "gwpctl explain POST /api/orders -H 'X-API-Key: abc' --client 203.0.113.9",
                     "gwpctl explain GET /api/users --file gateway.yaml"},
        .fields = explain_fields,
        .run = inquire_explain,
    },
    {
        .name = "replace",
        .summary = "replace a data plane by a new process, without losing a request",
        .text = "The data plane NAME, or the only one, starts its successor with its own options: "
                "the same program as it is on disk now, or the one of --binary. The successor gets "
                "the listening sockets, limits and breakers; when it serves, the old one finishes "
                "what it has under way and ends. If the successor does not come to serve, nothing "
                "has changed.\n\nIn a container a restart does the same, since the container ends "
                "with its first process. Under systemd the unit must be of Type=notify with "
                "NotifyAccess=all, as the one in deploy/systemd is.",
        .operands = {{"NAME", "a data plane", .is_optional = true}},
        .takes = TAKES(BINARY) | TAKES(WAIT),
        .examples = {"gwpctl replace", "gwpctl replace dp-1 --binary /opt/gwp/2.0/gwp-dataplane"},
        .fields = replace_fields,
        .run = order_replace,
    },
    {
        .name = "wait",
        .summary = "wait until the gateway is ready, or has drained",
        .text =
            "ready: a configuration is in force, a data plane is connected, and some route has a "
            "healthy backend. drained: no data plane is connected any more. Exits with 1 when "
            "that has not come true in time; --wait 0 asks once.",
        .operands = {{"STATE", "a state: ready or drained", .words = "ready drained"}},
        .takes = TAKES(WAIT),
        .examples = {"gwpctl wait ready --wait 30", "gwpctl wait drained"},
        .run = await_run,
    },
    {
        .name = "drain",
        .summary = "send no new requests to an endpoint",
        .text = "ENDPOINT is an address as gwpctl backends shows it. New requests go to the other "
                "endpoints at once; those under way are finished. It stays so, over restarts too, "
                "until gwpctl undrain.",
        .operands = {ENDPOINT_OPERAND},
        .takes = TAKES(ROUTE),
        .examples = {"gwpctl drain 10.0.0.7:8080", "gwpctl drain 10.0.0.7:8080 --route users"},
        .fields = order_fields,
        .run = order_drain,
    },
    {
        .name = "undrain",
        .summary = "let requests go to an endpoint again",
        .text =
            "Takes a drain back. Without --route it takes back all of them, whatever route they "
            "are for.",
        .operands = {ENDPOINT_OPERAND},
        .takes = TAKES(ROUTE),
        .examples = {"gwpctl undrain 10.0.0.7:8080", "gwpctl undrain 10.0.0.7:8080 --route users"},
        .fields = order_fields,
        .run = order_undrain,
    },
    {
        .name = "weight",
        .summary = "give an endpoint another weight",
        .text = "N is 1 to 1000 and counts instead of the configured weight at once, over restarts "
                "too, until gwpctl weight ENDPOINT default. Algorithms that know no weights do not "
                "look at it.",
        .operands = {ENDPOINT_OPERAND, {"N|default", "a weight", .words = "default"}},
        .takes = TAKES(ROUTE),
        .examples = {"gwpctl weight 10.0.0.7:8080 5", "gwpctl weight 10.0.0.7:8080 default"},
        .fields = order_fields,
        .run = order_weight,
    },
    {
        .name = "breaker reset",
        .summary = "close an endpoint's circuit breaker",
        .text = "Requests go to the endpoint again at once, and what its breaker has counted is "
                "forgotten. If it goes on failing, the breaker opens again as configured.",
        .operands = {ENDPOINT_OPERAND},
        .takes = TAKES(ROUTE),
        .examples = {"gwpctl breaker reset 10.0.0.7:8080",
                     "gwpctl breaker reset 10.0.0.7:8080 --route users"},
        .fields = order_fields,
        .run = order_breaker_reset,
    },
    {
        .name = "limits",
        .summary = "show who is counted by rate limits",
        .text = "Shows for each route, or for ROUTE, the 20 clients that send most and the 20 that "
                "are limited most, as the data planes remember the last minutes: each count is "
                "halved once a minute, and is an estimate where there are many. API keys are shown "
                "as a hash.",
        .operands = {{"ROUTE", "a route", .is_optional = true, .words = "reset"}},
        .examples = {"gwpctl limits", "gwpctl limits users -o json | jq '.routes[0].most_limited'"},
        .fields = limits_fields,
        .run = limit_commands_show,
    },
    {
        .name = "limits reset",
        .summary = "forget what a rate limit has counted",
        .text = "Of every client, or of the one with KEY: an address, a user or an API key, or as "
                "gwpctl limits shows it. In the tables of all data planes, and in Redis where the "
                "route counts there.",
        .operands = {{"ROUTE", "a route"}, {"KEY", "a key", .is_optional = true}},
        .examples = {"gwpctl limits reset users", "gwpctl limits reset users 203.0.113.7",
                     "gwpctl limits reset partners '#3f0c1a9be772'"},
        .fields = forgotten_fields,
        .run = limit_commands_reset,
    },
    {
        .name = "events",
        .summary = "show what has happened lately: breakers, health, configurations, data planes",
        .text = "The last 512 events that the control plane has in memory, the oldest first. "
                "With --follow it stays and prints each one as it happens.",
        .takes = TAKES(FOLLOW) | TAKES(KIND),
        .examples = {"gwpctl events", "gwpctl events --follow --kind breaker",
                     "gwpctl events -f -o json | jq .message"},
        .fields = events_fields,
        .run = observe_events,
    },
    {
        .name = "loglevel",
        .summary = "show or change what the programs write down",
        .text = "PROGRAM is controlplane or dataplane (every data plane); without it LEVEL is for "
                "both. LEVEL is debug, info, warn, error, or default: as logging.level says. The "
                "order holds until it is changed, or until the control plane ends.",
        .operands = {{"PROGRAM", "a program", .is_optional = true,
                      .words = "controlplane dataplane"},
                     {"LEVEL", "a level", .is_optional = true,
                      .words = "debug info warn error default"}},
        .examples = {"gwpctl loglevel", "gwpctl loglevel dataplane debug",
                     "gwpctl loglevel default"},
        .fields = log_level_fields,
        .run = observe_log_level,
    },
    {
        .name = "completion",
        .summary = "print what a shell needs to complete commands",
        .text =
            "SHELL is bash, zsh or fish. The script completes commands, options and files; make "
            "install puts it where the shells look.",
        .operands = {{"SHELL", "a shell: " COMPLETION_SHELLS, .words = COMPLETION_SHELLS}},
        .examples = {"source <(gwpctl completion bash)",
                     "gwpctl completion fish > ~/.config/fish/completions/gwpctl.fish"},
        .is_offline = true,
        .run = completion_run,
    },
    {
        .name = "manual",
        .summary = "print the manual page gwpctl(1)",
        .text = "In the language of man pages; make install puts it where man looks.",
        .examples = {"gwpctl manual | man -l -"},
        .is_offline = true,
        .run = manual_run,
    },
};

const size_t command_count = COUNT_OF(commands);
