#include "dataplane/http/reasons.h"

#include <assert.h>

static const struct row {
    const char *word, *message;
    uint16_t status;
    bool closes;
} rows[R_COUNT] = {
#define REASON(NAME, status, word, message, closes) [R_##NAME] = {word, message, status, closes},
#include "dataplane/http/reasons.def"
#undef REASON
};

static const struct row *row_of(enum reason r)
{
    assert((unsigned)r < R_COUNT);
    return &rows[r];
}

unsigned reason_status(enum reason r)
{
    return row_of(r)->status;
}

const char *reason_word(enum reason r)
{
    return row_of(r)->word;
}

const char *reason_message(enum reason r)
{
    return row_of(r)->message;
}

bool reason_closes(enum reason r)
{
    return row_of(r)->closes;
}
