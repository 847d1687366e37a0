#include "controlplane/config/suggest.h"

#include <ctype.h>

#define WORD_MAX 40

static bool same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

unsigned suggest_distance(struct view a, struct view b)
{
    /* Three rows of the classic matrix are enough: the third is for swapped neighbours. */
    unsigned row[3][WORD_MAX + 1];
    if (a.len > WORD_MAX || b.len > WORD_MAX)
        return SUGGEST_FAR;
    for (unsigned j = 0; j <= b.len; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *now = row[i % 3];
        const unsigned *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned best = last[j - 1] + !same(a.at[i - 1], b.at[j - 1]);
            best = MIN(best, MIN(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && same(a.at[i - 1], b.at[j - 2]) && same(a.at[i - 2], b.at[j - 1]))
                best = MIN(best, before[j - 2] + 1);
            now[j] = best;
        }
    }
    return row[a.len % 3][b.len];
}

/* "timeout" was meant to be "timeout_seconds": a unit that is left out is no distance. */
static struct view without_unit(struct view word)
{
    static const char *const units[] = {"_seconds", "_bytes", "_percent", "_ms"};
    for (size_t i = 0; i < COUNT_OF(units); i++) {
        size_t len = strlen(units[i]);
        if (word.len > len && memcmp(word.at + word.len - len, units[i], len) == 0)
            return (struct view){word.at, word.len - len};
    }
    return word;
}

void suggest_consider(struct suggest *s, struct view word)
{
    unsigned distance = suggest_distance(s->wanted, word);
    unsigned bare = suggest_distance(s->wanted, without_unit(word));
    if (bare <= 1)
        distance = MIN(distance, bare);
    if (s->best.len == 0 || distance < s->distance) {
        s->best = word;
        s->distance = distance;
    }
}

struct view suggest_best(const struct suggest *s)
{
    size_t longer = MAX(s->wanted.len, s->best.len);
    if (s->best.len == 0 || s->distance == SUGGEST_FAR || 3 * (size_t)s->distance > longer)
        return (struct view){NULL, 0};
    return s->best;
}
