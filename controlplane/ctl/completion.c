/* bash and zsh get the same skeleton: the words before the cursor that are no options and no values
 * of options are put together, and a "case" over them says what may come next; only how it is
 * offered differs. fish is told of each candidate under which condition it is one. */
#include "controlplane/ctl/completion.h"

#include <string.h>

#include "controlplane/ctl/call.h"

/* The first word of a command's name: is this the first command that begins with it? */
static bool begins_anew(size_t i, size_t *len)
{
    *len = strcspn(commands[i].name, " ");
    for (size_t k = 0; k < i; k++)
        if (strcspn(commands[k].name, " ") == *len &&
            memcmp(commands[k].name, commands[i].name, *len) == 0)
            return false;
    return true;
}

static void put_argument(FILE *out, const struct argument_row *r, const char *between)
{
    fputs(r->word, out);
    if (r->letter)
        fprintf(out, "%s-%c", between, r->letter);
}

static bool wants_value(enum argument a)
{
    return argument_rows[a].value != NULL;
}

static bool wants_file(enum argument a)
{
    return argument_rows[a].kind == IS_FILE;
}

static bool wants_format(enum argument a)
{
    return argument_rows[a].kind == IS_OUTPUT;
}

/* "--wait|--output|-o": those that `fits` is true of. */
static bool put_pattern(FILE *out, bool (*fits)(enum argument a), const char *between)
{
    bool any = false;
    for (enum argument a = 0; a < ARG_COUNT; a++) {
        if (!fits(a))
            continue;
        fputs(any ? between : "", out);
        put_argument(out, &argument_rows[a], between);
        any = true;
    }
    return any;
}

/* ---- bash and zsh ---- */

/* Behind the name its operands, one after the other. Longer patterns come first: a shorter one
 * would match as well. */
static void put_command_cases(FILE *out, const struct command *c)
{
    size_t count = 0;
    while (c->operands[count].name)
        count++;
    for (size_t i = count + 1; i-- > 0;) {
        const struct operand *o = &c->operands[i];
        fprintf(out, "        \"%s\"", c->name);
        for (size_t k = 0; k < i; k++)
            fputs("\" \"*", out);
        fputs(") options+=\"", out);
        for (enum argument a = ARG_OF_ALL; a < ARG_COUNT; a++)
            if (c->takes & (1u << a)) {
                putc(' ', out);
                put_argument(out, &argument_rows[a], " ");
            }
        fprintf(out, "\"%s%s%s%s ;;\n", o->words ? " operands=\"" : "", o->words ? o->words : "",
                o->words ? "\"" : "", o->is_file ? " files=1" : "");
    }
}

static void put_names(FILE *out)
{
    size_t len;
    fputs("        \"\") operands=\"help", out);
    for (size_t i = 0; i < command_count; i++)
        if (begins_anew(i, &len))
            fprintf(out, " %.*s", (int)len, commands[i].name);
    fputs("\" ;;\n", out);
    for (size_t i = 0; i < command_count; i++) {
        if (!begins_anew(i, &len) || commands[i].name[len] == '\0')
            continue;
        fprintf(out, "        \"%.*s\") operands=\"", (int)len, commands[i].name);
        for (size_t k = i; k < command_count; k++)
            if (strncmp(commands[k].name, commands[i].name, len + 1) == 0)
                fprintf(out, "%s%s", k > i ? " " : "", commands[k].name + len + 1);
        fputs("\" ;;\n", out);
    }
}

static void put_skeleton(FILE *out)
{
    fputs("    options=\"", out);
    for (enum argument a = 0; a < ARG_OF_ALL; a++) {
        fputs(a > 0 ? " " : "", out);
        put_argument(out, &argument_rows[a], " ");
    }
    fputs("\"\n    case $prev in\n    ", out);
    put_pattern(out, wants_format, "|");
    fputs(") operands=\"table json\" ;;\n    ", out);
    if (put_pattern(out, wants_file, "|"))
        fputs(") files=1 ;;\n    ", out);
    put_pattern(out, wants_value, "|");
    fputs(") ;;\n    *)\n        case ${command#help } in\n", out);
    for (size_t i = 0; i < command_count; i++)
        put_command_cases(out, &commands[i]);
    put_names(out);
    fputs("        esac ;;\n    esac\n", out);
}

/* Puts the words before the cursor together. Arrays of zsh begin at 1. */
static void put_gathering(FILE *out, const char *first, const char *before_cursor, const char *word)
{
    fprintf(out, "    for ((i = %s; i < %s; i++)); do\n        case %s in\n        ", first,
            before_cursor, word);
    put_pattern(out, wants_value, "|");
    fprintf(out,
            ") ((i++)) ;;\n        -*) ;;\n        *) command+=\"${command:+ }%s\" ;;\n"
            "        esac\n    done\n",
            word);
}

void completion_print_bash(FILE *out)
{
    fputs("# bash completion for gwpctl, made by \"gwpctl completion bash\"\n_gwpctl()\n{\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
          "    local command=\"\" options operands=\"\" files=\"\" i\n",
          out);
    put_gathering(out, "1", "COMP_CWORD", "${COMP_WORDS[i]}");
    put_skeleton(out);
    fputs("    if [[ $cur == -?* ]]; then\n        operands=$options files=\"\"\n    fi\n"
          "    if [[ $files ]]; then\n        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$operands\" -- \"$cur\"; compgen -f -- "
          "\"$cur\")\n    else\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$operands\" -- \"$cur\")\n    fi\n}\n"
          "complete -F _gwpctl gwpctl\n",
          out);
}

void completion_print_zsh(FILE *out)
{
    fputs("#compdef gwpctl\n# zsh completion for gwpctl, made by \"gwpctl completion zsh\"\n"
          "_gwpctl()\n{\n"
          "    local cur=${words[CURRENT]} prev=${words[CURRENT - 1]}\n"
          "    local command=\"\" options operands=\"\" files=\"\" i\n",
          out);
    put_gathering(out, "2", "CURRENT", "${words[i]}");
    put_skeleton(out);
    fputs("    if [[ $cur == -?* ]]; then\n        operands=$options files=\"\"\n    fi\n"
          "    if [[ -n $operands ]]; then\n        compadd -- ${=operands}\n    fi\n"
          "    if [[ -n $files ]]; then\n        _files\n    fi\n}\n"
          "if [[ $funcstack[1] == _gwpctl ]]; then\n    _gwpctl \"$@\"\nelse\n"
          "    compdef _gwpctl gwpctl\nfi\n",
          out);
}

/* ---- fish ---- */

/* In single quotes fish reads backslashes and single quotes only. */
static void put_quoted(FILE *out, const char *text)
{
    putc('\'', out);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            putc('\\', out);
        putc(*text, out);
    }
    putc('\'', out);
}

static void put_fish_argument(FILE *out, const struct argument_row *r, const char *command)
{
    fputs("complete -c gwpctl", out);
    if (command)
        fprintf(out, " -n '__gwpctl_begins \"%s\"'", command);
    fprintf(out, " -l %s", r->word + 2);
    if (r->letter)
        fprintf(out, " -s %c", r->letter);
    if (r->value)
        fputs(r->kind == IS_FILE ? " -r -F" : " -x", out);
    if (r->kind == IS_OUTPUT)
        fputs(" -a 'table json'", out);
    fputs(" -d ", out);
    put_quoted(out, r->help);
    putc('\n', out);
}

static void put_fish_command(FILE *out, size_t i)
{
    const struct command *c = &commands[i];
    size_t len;
    bool anew = begins_anew(i, &len), is_one_word = c->name[len] == '\0';
    if (anew)
        fprintf(out, "complete -c gwpctl -n '__gwpctl_is \"\"' -a '%.*s'", (int)len, c->name);
    if (anew && is_one_word) {
        fputs(" -d ", out);
        put_quoted(out, c->summary);
    }
    fputs(anew ? "\n" : "", out);
    if (!is_one_word) {
        fprintf(out, "complete -c gwpctl -n '__gwpctl_is \"%.*s\"' -a '%s' -d ", (int)len, c->name,
                c->name + len + 1);
        put_quoted(out, c->summary);
        putc('\n', out);
    }
    for (size_t k = 0; c->operands[k].name; k++) {
        const struct operand *o = &c->operands[k];
        if (!o->is_file && !o->words)
            continue;
        fprintf(out, "complete -c gwpctl -n '__gwpctl_is \"%s\"", c->name);
        for (size_t n = 0; n < k; n++)
            fputs(" \"*\"", out);
        fputs(o->is_file ? "' -F" : "'", out);
        if (o->words) {
            fputs(" -a ", out);
            put_quoted(out, o->words);
        }
        putc('\n', out);
    }
    for (enum argument a = ARG_OF_ALL; a < ARG_COUNT; a++)
        if (c->takes & (1u << a))
            put_fish_argument(out, &argument_rows[a], c->name);
}

void completion_print_fish(FILE *out)
{
    fputs("# fish completion for gwpctl, made by \"gwpctl completion fish\"\n"
          "function __gwpctl_words\n    set -l skip 0\n    set -l found\n"
          "    for token in (commandline -opc)[2..-1]\n"
          "        if test $skip = 1\n            set skip 0\n            continue\n        end\n"
          "        switch $token\n            case ",
          out);
    put_pattern(out, wants_value, " ");
    fputs("\n                set skip 1\n            case '-*'\n            case '*'\n"
          "                set -a found $token\n        end\n    end\n"
          "    string join ' ' -- $found\nend\n"
          "function __gwpctl_is\n    set -l typed (__gwpctl_words)\n"
          "    string match -q -- \"$argv\" \"$typed\"\nend\n"
          "function __gwpctl_begins\n    set -l typed (__gwpctl_words)\n"
          "    string match -q -- \"$argv[1]\" \"$typed\"\n"
          "    or string match -q -- \"$argv[1] *\" \"$typed\"\nend\n"
          "complete -c gwpctl -f\n"
          "complete -c gwpctl -n '__gwpctl_is \"\"' -a help -d 'more about a command'\n",
          out);
    for (enum argument a = 0; a < ARG_OF_ALL; a++)
        put_fish_argument(out, &argument_rows[a], NULL);
    for (size_t i = 0; i < command_count; i++)
        put_fish_command(out, i);
}

/* ---- the command ---- */

int completion_run(const struct invocation *in)
{
    static const struct {
        const char *shell;
        void (*print)(FILE *out);
    } shells[] = {{"bash", completion_print_bash},
                  {"zsh", completion_print_zsh},
                  {"fish", completion_print_fish}};
    for (size_t i = 0; i < COUNT_OF(shells); i++) {
        if (strcmp(in->operands[0], shells[i].shell) == 0) {
            shells[i].print(stdout);
            return EXIT_OK;
        }
    }
    return call_complain(EXIT_USAGE, "the shells are: " COMPLETION_SHELLS);
}
