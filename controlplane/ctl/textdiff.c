#include "controlplane/ctl/textdiff.h"

#include <stdlib.h>
#include <string.h>

#include "controlplane/ctl/print.h"
#include "proto/base/log.h"

/* The lines of a text; the last one may lack its line break. */
struct lines {
    struct view *at; /* owned; line breaks not included */
    size_t count;
};

/* One line of the result: of both, of the first, or of the second. */
struct edit {
    char mark;       /* ' ', '-', '+' */
    size_t from, to; /* index of the line there, or of the next one */
};

struct script {
    struct edit *at; /* owned */
    size_t count, room;
};

static void *must(void *memory)
{
    if (!memory)
        log_fatal("textdiff", "out of memory");
    return memory;
}

static struct lines split(struct view text)
{
    size_t room = 64;
    struct lines l = {must(malloc(room * sizeof(*l.at))), 0};
    while (text.len > 0) {
        const char *end = memchr(text.at, '\n', text.len);
        size_t len = end ? (size_t)(end - text.at) : text.len;
        if (l.count == room)
            l.at = must(realloc(l.at, (room *= 2) * sizeof(*l.at)));
        l.at[l.count++] = (struct view){text.at, len};
        len += end != NULL;
        text = (struct view){text.at + len, text.len - len};
    }
    return l;
}

static void add(struct script *s, char mark, size_t from, size_t to)
{
    if (s->count == s->room)
        s->at = must(realloc(s->at, (s->room = s->room ? 2 * s->room : 256) * sizeof(*s->at)));
    s->at[s->count++] = (struct edit){mark, from, to};
}

static void reverse(struct script *s, size_t begin)
{
    for (size_t i = begin, k = s->count; i + 1 < k; i++, k--) {
        struct edit e = s->at[i];
        s->at[i] = s->at[k - 1];
        s->at[k - 1] = e;
    }
}

/* ---- the shortest script between the parts that differ ---- */

struct part {
    const struct lines *a, *b;
    long a_at, a_count, b_at, b_count;
};

static bool same(const struct part *p, long x, long y)
{
    return view_equal(p->a->at[p->a_at + x], p->b->at[p->b_at + y]);
}

/* How far each diagonal reaches with `d` edits; rows[d] holds them from -d to d. The row that
 * reaches the end, or -1 beyond the bound. */
static long search(const struct part *p, int **rows)
{
    long bound = MIN(p->a_count + p->b_count, TEXTDIFF_MAX_EDITS);
    for (long d = 0; d <= bound; d++) {
        int *row = rows[d] = must(malloc((size_t)(2 * d + 1) * sizeof(int)));
        for (long k = -d; k <= d; k += 2) {
            const int *last = d > 0 ? rows[d - 1] + (d - 1) : NULL; /* last[k] is diagonal k */
            bool down = d > 0 && (k == -d || (k != d && last[k - 1] < last[k + 1]));
            long x = d == 0 ? 0 : down ? last[k + 1] : last[k - 1] + 1, y = x - k;
            while (x < p->a_count && y < p->b_count && y >= 0 && same(p, x, y)) {
                x++;
                y++;
            }
            row[k + d] = (int)x;
            if (x >= p->a_count && y >= p->b_count)
                return d;
        }
    }
    return -1;
}

/* Back from the end, edit by edit. */
static void trace(const struct part *p, int **rows, long d, struct script *s)
{
    size_t begin = s->count;
    long x = p->a_count, y = p->b_count;
    for (; d > 0; d--) {
        const int *last = rows[d - 1] + (d - 1);
        long k = x - y;
        bool down = k == -d || (k != d && last[k - 1] < last[k + 1]);
        long from_x = down ? last[k + 1] : last[k - 1], from_y = from_x - (down ? k + 1 : k - 1);
        while (x > from_x + !down && y > from_y + down) {
            x--;
            y--;
            add(s, ' ', (size_t)(p->a_at + x), (size_t)(p->b_at + y));
        }
        x = from_x;
        y = from_y;
        add(s, down ? '+' : '-', (size_t)(p->a_at + x), (size_t)(p->b_at + y));
    }
    while (x > 0) {
        x--;
        y--;
        add(s, ' ', (size_t)(p->a_at + x), (size_t)(p->b_at + y));
    }
    reverse(s, begin);
}

static void diff_part(const struct part *p, struct script *s)
{
    int **rows =
        must(calloc((size_t)MIN(p->a_count + p->b_count, TEXTDIFF_MAX_EDITS) + 1, sizeof(int *)));
    long d = search(p, rows);
    if (d >= 0) {
        trace(p, rows, d, s);
    } else {
        for (long x = 0; x < p->a_count; x++)
            add(s, '-', (size_t)(p->a_at + x), (size_t)p->b_at);
        for (long y = 0; y < p->b_count; y++)
            add(s, '+', (size_t)(p->a_at + p->a_count), (size_t)(p->b_at + y));
    }
    for (long i = 0; i <= MIN(p->a_count + p->b_count, TEXTDIFF_MAX_EDITS); i++)
        free(rows[i]);
    free(rows);
}

/* What both begin and end with needs no search. */
static struct script compare(const struct lines *a, const struct lines *b)
{
    struct script s = {NULL, 0, 0};
    size_t head = 0, tail = 0;
    while (head < a->count && head < b->count && view_equal(a->at[head], b->at[head]))
        head++;
    while (tail < a->count - head && tail < b->count - head &&
           view_equal(a->at[a->count - 1 - tail], b->at[b->count - 1 - tail]))
        tail++;
    for (size_t i = 0; i < head; i++)
        add(&s, ' ', i, i);
    diff_part(&(struct part){a, b, (long)head, (long)(a->count - head - tail), (long)head,
                             (long)(b->count - head - tail)},
              &s);
    for (size_t i = tail; i > 0; i--)
        add(&s, ' ', a->count - i, b->count - i);
    return s;
}

/* ---- printing ---- */

/* The end of the hunk that begins at `i`: changes with at most twice the context between them. */
static size_t hunk_end(const struct script *s, size_t i)
{
    size_t last = i;
    for (size_t k = i; k < s->count && k <= last + 2 * TEXTDIFF_CONTEXT + 1; k++)
        if (s->at[k].mark != ' ')
            last = k;
    return MIN(last + 1 + TEXTDIFF_CONTEXT, s->count);
}

static void print_line(const struct edit *e, const struct lines *a, const struct lines *b,
                       FILE *out, bool color)
{
    struct view v = e->mark == '+' ? b->at[e->to] : a->at[e->from];
    char *line = must(malloc(v.len + 2));
    line[0] = e->mark;
    memcpy(line + 1, v.at, v.len);
    line[v.len + 1] = '\0';
    print_tinted(out, color,
                 e->mark == '+'   ? TINT_GOOD
                 : e->mark == '-' ? TINT_BAD
                                  : TINT_NONE,
                 line);
    putc('\n', out);
    free(line);
}

static void print_hunk(const struct script *s, size_t begin, size_t end, const struct lines *a,
                       const struct lines *b, FILE *out, bool color)
{
    size_t counts[2] = {0, 0};
    for (size_t i = begin; i < end; i++) {
        counts[0] += s->at[i].mark != '+';
        counts[1] += s->at[i].mark != '-';
    }
    fprintf(out, "@@ -%zu,%zu +%zu,%zu @@\n", s->at[begin].from + (counts[0] > 0), counts[0],
            s->at[begin].to + (counts[1] > 0), counts[1]);
    for (size_t i = begin; i < end; i++)
        print_line(&s->at[i], a, b, out, color);
}

void textdiff_print(struct view from, struct view to, const char *from_name, const char *to_name,
                    FILE *out, bool color)
{
    struct lines a = split(from), b = split(to);
    struct script s = compare(&a, &b);
    bool any = false;
    for (size_t i = 0; i < s.count; i++) {
        if (s.at[i].mark == ' ')
            continue;
        if (!any)
            fprintf(out, "--- %s\n+++ %s\n", from_name, to_name);
        any = true;
        size_t begin = i > TEXTDIFF_CONTEXT ? i - TEXTDIFF_CONTEXT : 0, end = hunk_end(&s, i);
        print_hunk(&s, begin, end, &a, &b, out, color);
        i = end - 1;
    }
    free(s.at);
    free(a.at);
    free(b.at);
}
