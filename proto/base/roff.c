#include "proto/base/roff.h"

void roff_put(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\'')
            fputs("\\(aq", out);
        else if (*text == '^')
            fputs("\\(ha", out);
        else if (*text == '~')
            fputs("\\(ti", out);
        else if (text[0] == '\n' && text[1] == '\n')
            fputs("\n.PP", out);
        else
            putc(*text, out);
        if (text[0] == '\n' && (text[1] == '.' || text[1] == '\''))
            fputs("\\&", out);
    }
}

void roff_put_item(FILE *out, const char *word, const char *text)
{
    fputs(".TP\n.B ", out);
    roff_put(out, word);
    putc('\n', out);
    roff_put(out, text);
    putc('\n', out);
}
