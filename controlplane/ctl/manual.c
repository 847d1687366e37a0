#include "controlplane/ctl/manual.h"

#include <string.h>

#include "proto/base/roff.h"
#include "proto/base/version.h"

#define COLUMNS 92
#define NAME_COLUMN 24

static const struct {
    enum exit_code code;
    const char *says;
} exit_codes[] = {
    {EXIT_OK, "done; after a push: every data plane has accepted"},
    {EXIT_NO, "the answer is no: the configuration is invalid, or was refused"},
    {EXIT_UNREACHABLE, "the control plane cannot be reached, or answered nonsense"},
    {EXIT_USAGE, "wrong usage"},
    {EXIT_OUTPUT, "the output could not be written"},
};

static const struct {
    const char *name, *says;
} variables[] = {
    {"GWP_ADMIN", "what --admin says"},
    {"GWP_ADMIN_SOCKET",
     "the path of the admin socket, where neither says (" MANUAL_DEFAULT_SOCKET ")"},
    {"GWP_TOKEN", "what --token says"},
    {"NO_COLOR", "if set, there are no colours; else there are on a terminal"},
};

const char *manual_usage(const struct command *c, char out[MANUAL_USAGE_BYTES])
{
    int n = snprintf(out, MANUAL_USAGE_BYTES, "%s", c->name);
    for (const struct operand *o = c->operands; o->name; o++)
        n += snprintf(out + n, (size_t)(MANUAL_USAGE_BYTES - n), o->is_optional ? " [%s]" : " %s",
                      o->name);
    for (enum argument a = ARG_OF_ALL; a < ARG_COUNT; a++) {
        const struct argument_row *r = &argument_rows[a];
        if (c->takes & (1u << a))
            n += snprintf(out + n, (size_t)(MANUAL_USAGE_BYTES - n), " [%s%s%s]", r->word,
                          r->value ? " " : "", r->value ? r->value : "");
    }
    return out;
}

/* ---- --help ---- */

/* Words broken into lines that begin `indent` columns in; the first begins where we are. */
static void print_wrapped(FILE *out, int indent, struct view text)
{
    int column = indent;
    while (text.len > 0) {
        size_t len = 0;
        while (len < text.len && text.at[len] != ' ' && text.at[len] != '\n')
            len++;
        if (column > indent && column + 1 + (int)len > COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putc(' ', out);
            column++;
        }
        fwrite(text.at, 1, len, out);
        column += (int)len;
        text.at += len;
        text.len -= len;
        while (text.len > 0 && *text.at == ' ') {
            text.at++;
            text.len--;
        }
        if (text.len > 1 && text.at[0] == '\n' && text.at[1] == '\n') {
            fprintf(out, "\n\n%*s", indent, "");
            column = indent;
        }
        while (text.len > 0 && *text.at == '\n') {
            text.at++;
            text.len--;
        }
    }
    putc('\n', out);
}

static void print_row(FILE *out, const char *left, const char *right)
{
    fprintf(out, "  %-*s ", NAME_COLUMN, left);
    if (strlen(left) > NAME_COLUMN)
        fprintf(out, "\n%*s", NAME_COLUMN + 3, "");
    print_wrapped(out, NAME_COLUMN + 3, view_of(right));
}

static const char *left_side(const struct argument_row *r, char out[64])
{
    int n = r->letter ? snprintf(out, 64, "-%c, ", r->letter) : 0;
    snprintf(out + n, (size_t)(64 - n), "%s%s%s", r->word, r->value ? " " : "",
             r->value ? r->value : "");
    return out;
}

void manual_print_overview(FILE *out)
{
    char left[64];
    fprintf(out, "gwpctl: watches and changes a running gateway\n\n"
                 "Usage: gwpctl [OPTION]... COMMAND [ARGUMENT]...\n\nCommands:\n");
    for (size_t i = 0; i < command_count; i++)
        print_row(out, commands[i].name, commands[i].summary);
    print_row(out, "help COMMAND", "more about a command, with examples");
    fputs("\nOptions, before or after the command:\n", out);
    for (enum argument a = 0; a < ARG_OF_ALL; a++)
        print_row(out, left_side(&argument_rows[a], left), argument_rows[a].help);
    fputs("\nEnvironment:\n", out);
    for (size_t i = 0; i < COUNT_OF(variables); i++)
        print_row(out, variables[i].name, variables[i].says);
    fputs("\nExit codes:\n", out);
    for (size_t i = 0; i < COUNT_OF(exit_codes); i++)
        fprintf(out, "  %2d  %s\n", exit_codes[i].code, exit_codes[i].says);
}

void manual_print_command(const struct command *c, FILE *out)
{
    char usage[MANUAL_USAGE_BYTES], left[64];
    fprintf(out, "gwpctl %s: %s\n\nUsage: gwpctl %s\n\n", c->name, c->summary,
            manual_usage(c, usage));
    print_wrapped(out, 0, view_of(c->text));
    if (c->takes)
        fputs("\nOptions:\n", out);
    for (enum argument a = ARG_OF_ALL; a < ARG_COUNT; a++)
        if (c->takes & (1u << a))
            print_row(out, left_side(&argument_rows[a], left), argument_rows[a].help);
    fputs("\nExamples:\n", out);
    for (size_t i = 0; c->examples[i]; i++)
        fprintf(out, "  %s\n", c->examples[i]);
    if (c->fields)
        fputs("\nWith -o json:\n", out);
    for (const struct field *f = c->fields; f && f->path; f++)
        print_row(out, f->path, f->says);
}

/* ---- the manual page ---- */

static void put_command(FILE *out, const struct command *c)
{
    char usage[MANUAL_USAGE_BYTES], left[64];
    fputs(".SS ", out);
    roff_put(out, manual_usage(c, usage));
    putc('\n', out);
    roff_put(out, c->text);
    putc('\n', out);
    for (enum argument a = ARG_OF_ALL; a < ARG_COUNT; a++)
        if (c->takes & (1u << a))
            roff_put_item(out, left_side(&argument_rows[a], left), argument_rows[a].help);
    fputs(".PP\nExamples:\n.PP\n.RS 4\n.nf\n", out);
    for (size_t i = 0; c->examples[i]; i++) {
        roff_put(out, c->examples[i]);
        putc('\n', out);
    }
    fputs(".fi\n.RE\n", out);
    if (c->fields)
        fputs(".PP\nWith\n.BR \\-o\\ json :\n", out);
    for (const struct field *f = c->fields; f && f->path; f++)
        roff_put_item(out, f->path, f->says);
}

void manual_print_page(FILE *out)
{
    char left[64];
    fprintf(
        out,
        ".\\\" made by \"gwpctl manual\"\n.TH GWPCTL 1 \"\" \"gateway-pro %s\" \"gateway-pro\"\n"
        ".SH NAME\ngwpctl \\- watches and changes a running gateway\n"
        ".SH SYNOPSIS\n.B gwpctl\n.RI [ OPTION ]...\\& \" COMMAND\" \" \" [ ARGUMENT ]...\n"
        ".SH DESCRIPTION\nTalks to the admin API of\n.BR gwp\\-controlplane (8),\n"
        "by default over its private Unix socket.\n.SH OPTIONS\n"
        "Options may stand before or after the command.\n",
        GWP_VERSION);
    for (enum argument a = 0; a < ARG_OF_ALL; a++)
        roff_put_item(out, left_side(&argument_rows[a], left), argument_rows[a].help);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; i < command_count; i++)
        put_command(out, &commands[i]);
    fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < COUNT_OF(variables); i++)
        roff_put_item(out, variables[i].name, variables[i].says);
    fputs(".SH \"EXIT STATUS\"\n", out);
    for (size_t i = 0; i < COUNT_OF(exit_codes); i++) {
        snprintf(left, sizeof(left), "%d", exit_codes[i].code);
        roff_put_item(out, left, exit_codes[i].says);
    }
    fputs(".SH \"SEE ALSO\"\n.BR gwp\\-controlplane (8),\n.BR gwp\\-dataplane (8)\n", out);
}

int manual_run(const struct invocation *in)
{
    manual_print_page(stdout);
    return EXIT_OK;
}
