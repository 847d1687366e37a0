#include "proto/base/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/roff.h"
#include "proto/base/version.h"

static void print_help(const struct option_table *t)
{
    printf("%s: %s\n\nUsage: %s [OPTION]...\n\n", t->program, t->summary, t->program);
    for (size_t i = 0; i < t->count; i++) {
        const struct option_row *r = &t->rows[i];
        char left[64];
        snprintf(left, sizeof(left), "--%s%s%s", r->name, r->argument ? " " : "",
                 r->argument ? r->argument : "");
        printf("  %-24s %s", left, r->help);
        if (r->preset)
            printf(" (default %s)", r->preset);
        if (r->env)
            printf(" [%s]", r->env);
        putchar('\n');
    }
    printf("  %-24s %s\n  %-24s %s\n  %-24s %s\n", "--help", "print this and exit", "--version",
           "print the version and exit", "--manual", "print the manual page and exit");
}

/* The page NAME(8), made of the same rows. */
static void print_manual(const struct option_table *t)
{
    char left[64], right[512];
    printf(".\\\" made by \"%s --manual\"\n.TH ", t->program);
    for (const char *c = t->program; *c; c++)
        putchar(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    printf(" 8 \"\" \"gateway-pro %s\" \"gateway-pro\"\n.SH NAME\n", GWP_VERSION);
    roff_put(stdout, t->program);
    fputs(" \\- ", stdout);
    roff_put(stdout, t->summary);
    fputs("\n.SH SYNOPSIS\n.B ", stdout);
    roff_put(stdout, t->program);
    fputs("\n.RI [ OPTION ]...\\&\n.SH OPTIONS\n"
          "A variable in brackets stands in for its option.\n",
          stdout);
    for (size_t i = 0; i < t->count; i++) {
        const struct option_row *r = &t->rows[i];
        snprintf(left, sizeof(left), "--%s%s%s", r->name, r->argument ? " " : "",
                 r->argument ? r->argument : "");
        snprintf(right, sizeof(right), "%s%s%s%s%s%s%s", r->help, r->preset ? " (default " : "",
                 r->preset ? r->preset : "", r->preset ? ")" : "", r->env ? " [" : "",
                 r->env ? r->env : "", r->env ? "]" : "");
        roff_put_item(stdout, left, right);
    }
    fputs(".SH \"SEE ALSO\"\n.BR gwpctl (1),\n.BR gwp\\-controlplane (8),\n"
          ".BR gwp\\-dataplane (8)\n",
          stdout);
}

static const struct option_row *find(const struct option_table *t, const char *name, size_t len)
{
    for (size_t i = 0; i < t->count; i++)
        if (strlen(t->rows[i].name) == len && memcmp(t->rows[i].name, name, len) == 0)
            return &t->rows[i];
    return NULL;
}

static void preset_all(const struct option_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct option_row *r = &t->rows[i];
        const char *env = r->env ? getenv(r->env) : NULL;
        if (r->value)
            *r->value = env && *env ? env : r->preset;
        else
            *r->is_set = env && strcmp(env, "1") == 0;
    }
}

int options_parse(const struct option_table *t, int argc, char **argv, struct err *err)
{
    preset_all(t);
    for (int i = 1; i < argc; i++) {
        /* "-config" is how the predecessor spelt it: one dash is as good as two. */
        const char *name = argv[i][0] == '-' ? argv[i] + 1 + (argv[i][1] == '-') : argv[i];
        if (strcmp(name, "help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(t);
            return 1;
        }
        if (strcmp(name, "manual") == 0) {
            print_manual(t);
            return 1;
        }
        if (strcmp(name, "version") == 0) {
            printf("%s %s\n", t->program, GWP_VERSION);
            return 1;
        }
        size_t len = strcspn(name, "=");
        const struct option_row *r = argv[i][0] == '-' ? find(t, name, len) : NULL;
        if (!r)
            return err_set(err, "unknown option \"%s\"; %s --help lists them", argv[i], t->program);
        if (r->is_set) {
            *r->is_set = true;
        } else if (name[len] == '=') {
            *r->value = name + len + 1;
        } else if (i + 1 < argc) {
            *r->value = argv[++i];
        } else {
            return err_set(err, "option --%s wants a value: --%s %s", r->name, r->name,
                           r->argument);
        }
    }
    return 0;
}
