#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dataplane/control.h"
#include "dataplane/explain.h"
#include "dataplane/selfcheck.h"
#include "dataplane/state/snapshot.h"
#include "proto/base/log.h"
#include "proto/base/options.h"

#define EXIT_USAGE 64

static int parse_workers(const char *text, unsigned *workers, struct err *err)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || n < 0 || n > MAX_WORKERS)
        return err_set(err, "option --workers wants a number from 0 (automatic) to %d, not \"%s\"",
                       MAX_WORKERS, text);
    *workers = (unsigned)n;
    return 0;
}

static int parse_age(const char *text, double *seconds, struct err *err)
{
    char *end;
    *seconds = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(*seconds >= 0))
        return err_set(err, "option --snapshot-max-age wants seconds, 0 for any, not \"%s\"", text);
    return 0;
}

static int parse(int argc, char **argv, struct control_options *o, const char **check,
                 bool *explains, struct err *err)
{
    static char host_name[256];
    const char *workers, *max_age;
    if (gethostname(host_name, sizeof(host_name) - 1) < 0 || host_name[0] == '\0')
        snprintf(host_name, sizeof(host_name), "dataplane");
    const struct option_row rows[] = {
        {"socket", "GWP_SOCKET", "/run/gwp/control.sock", "PATH", "the control plane's Unix socket",
         &o->socket, NULL},
        {"state-dir", "GWP_STATE_DIR", "/var/lib/gwp", "DIR",
         "keeps the last accepted configuration; \"\" keeps none", &o->state_dir, NULL},
        {"snapshot-max-age", "GWP_SNAPSHOT_MAX_AGE", "0", "SECONDS",
         "an older one is not served without a control plane; 0 = any is", &max_age, NULL},
        {"id", "GWP_ID", NULL, "NAME", "this data plane's name; without it the host's", &o->name,
         NULL},
        {"workers", "GWP_WORKERS", "0", "N",
         "worker threads, whatever the configuration says; 0 = as it says", &workers, NULL},
        {"explain", NULL, NULL, NULL,
         "tell what would become of one request, as gwpctl explain --file asks", NULL, explains},
        {"self-check", NULL, NULL, "HOST:PORT",
         "asks the data plane that listens there whether it works, and exits with 0 or 1", check,
         NULL},
    };
    const struct option_table table = {.program = "gwp-dataplane",
                                       .summary = "forwards HTTP as its control plane says",
                                       .rows = rows,
                                       .count = COUNT_OF(rows)};
    int result = options_parse(&table, argc, argv, err);
    if (result != 0)
        return result;
    if (!o->name)
        o->name = host_name;
    if (o->state_dir[0] == '\0')
        o->state_dir = NULL;
    if (parse_age(max_age, &o->max_age_s, err) < 0)
        return -1;
    return parse_workers(workers, &o->workers, err);
}

/* Each client and each backend connection is a descriptor. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("main", "the limit of open descriptors could not be raised to %llu",
                 (unsigned long long)limit.rlim_max);
}

int main(int argc, char **argv)
{
    struct control_options options = {.argv = argv};
    const char *check;
    struct err err;
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, like a full disk */
    log_init("gwp-dataplane", LOG_INFO, LOG_CONSOLE);
    bool explains = false;
    int result = parse(argc, argv, &options, &check, &explains, &err);
    if (result > 0)
        return 0;
    if (result < 0) {
        fprintf(stderr, "gwp-dataplane: %s\n", err.text);
        return EXIT_USAGE;
    }
    if (explains)
        return explain_once();
    if (check) {
        result = selfcheck(check, &err);
        if (result < 0)
            fprintf(stderr, "gwp-dataplane: %s\n", err.text);
        return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    raise_descriptor_limit();
    return control_run(&options);
}
