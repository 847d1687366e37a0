#include "controlplane/ctl/arguments.h"

#include <stdlib.h>
#include <string.h>

#include "controlplane/config/suggest.h"

const struct argument_row argument_rows[ARG_COUNT] = {
#define ARGUMENT(name, word, letter, value, kind, help) {word, letter, value, kind, help},
#include "controlplane/ctl/arguments.def"
#undef ARGUMENT
};

/* "--wait=5", "--wait 5", "-ojson" and "-o json" are all as good. `value` is set where it stands in
 * `arg`, else left alone. */
static const struct argument_row *find(const char *arg, const char **value)
{
    for (size_t i = 0; i < ARG_COUNT; i++) {
        const struct argument_row *r = &argument_rows[i];
        size_t len = strlen(r->word);
        if (arg[1] == '-' && strncmp(arg, r->word, len) == 0 &&
            (arg[len] == '\0' || (arg[len] == '=' && r->value))) {
            *value = arg[len] == '=' ? arg + len + 1 : NULL;
            return r;
        }
        if (arg[1] != '-' && arg[1] == r->letter && (arg[2] == '\0' || r->value)) {
            *value = arg[2] != '\0' ? arg + 2 + (arg[2] == '=') : NULL;
            return r;
        }
    }
    return NULL;
}

static int fail_unknown(const char *arg, struct err *err)
{
    struct suggest s = {.wanted = {arg, strcspn(arg, "=")}};
    for (size_t i = 0; i < ARG_COUNT; i++)
        suggest_consider(&s, view_of(argument_rows[i].word));
    struct view best = suggest_best(&s);
    if (best.len > 0)
        return err_set(err, "unknown option \"%s\": did you mean \"%.*s\"?", arg, VIEW_ARG(best));
    return err_set(err, "unknown option \"%s\"", arg);
}

static int check_value(const struct argument_row *r, const char *value, struct err *err)
{
    char *end;
    double seconds;
    switch (r->kind) {
    case IS_OUTPUT:
        if (strcmp(value, "table") != 0 && strcmp(value, "json") != 0)
            return err_set(err, "-o %s: say table or json", value);
        return 0;
    case IS_SECONDS:
        seconds = strtod(value, &end);
        if (end == value || *end || !(seconds >= 0) || seconds > ARGUMENTS_MAX_SECONDS)
            return err_set(err, "%s %s: say a number of seconds, at most %d", r->word, value,
                           ARGUMENTS_MAX_SECONDS);
        return 0;
    case IS_COUNT:
        if (strspn(value, "0123456789") != strlen(value) || strlen(value) > 15)
            return err_set(err, "%s %s: say a whole number", r->word, value);
        return 0;
    case IS_SWITCH:
    case IS_TEXT:
    case IS_FILE:
        return 0;
    }
    return 0;
}

static int take_option(struct arguments *a, int argc, char **argv, int *at, struct err *err)
{
    const char *arg = argv[*at], *value = NULL;
    const struct argument_row *r = find(arg, &value);
    if (!r)
        return fail_unknown(arg, err);
    if (r->value && !value && *at + 1 < argc)
        value = argv[++*at];
    if (r->value && (!value || !*value))
        return err_set(err, "option %s wants a value: %s %s", r->word, r->word, r->value);
    if (a->given_count == ARGUMENTS_MAX_GIVEN)
        return err_set(err, "too many options, from \"%s\" on", arg);
    a->given[a->given_count].argument = (enum argument)(r - argument_rows);
    a->given[a->given_count++].value = value ? value : "";
    return check_value(r, value ? value : "", err);
}

int arguments_parse(struct arguments *a, int argc, char **argv, struct err *err)
{
    bool options_ended = false;
    memset(a, 0, sizeof(*a));
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (!options_ended && strcmp(arg, "--") == 0) {
            options_ended = true;
        } else if (!options_ended && arg[0] == '-' && arg[1] != '\0') {
            if (take_option(a, argc, argv, &i, err) < 0)
                return -1;
        } else if (a->word_count == ARGUMENTS_MAX_WORDS) { /* "-" is a word: standard input */
            return err_set(err, "too many words, from \"%s\" on", arg);
        } else {
            a->words[a->word_count++] = arg;
        }
    }
    return 0;
}

const char *arguments_value(const struct arguments *a, enum argument argument)
{
    for (size_t i = a->given_count; i > 0; i--)
        if (a->given[i - 1].argument == argument)
            return a->given[i - 1].value;
    return NULL;
}

double arguments_number(const struct arguments *a, enum argument argument, double preset)
{
    const char *value = arguments_value(a, argument);
    return value ? strtod(value, NULL) : preset;
}
