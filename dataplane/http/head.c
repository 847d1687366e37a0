#include "dataplane/http/head.h"

#define LONGEST_NAME 19

static const struct known {
    char name[LONGEST_NAME + 1];
    uint8_t fate, trails;
} known[] = {
    {"", KEEP, true},
#define NEVER false
#define TRAILS true
#define FIELD(ID, name, fate, trails) {name, fate, trails},
#include "dataplane/http/fields.def"
#undef FIELD
#undef TRAILS
#undef NEVER
    {"", OURS, false}, /* FIELD_LOOKALIKE */
};

/* Rows of fields.def are sorted by length: names of n bytes have the ids from first_of_length[n]
 * on, up to those of n + 1 bytes. */
static const uint8_t first_of_length[LONGEST_NAME + 2] = {
    [0] = 1,   [1] = 1,   [2] = 1,   [3] = 2,   [4] = 4,   [5] = 8,   [6] = 10,
    [7] = 16,  [8] = 20,  [9] = 23,  [10] = 25, [11] = 29, [12] = 31, [13] = 34,
    [14] = 40, [15] = 42, [16] = 45, [17] = 51, [18] = 54, [19] = 55, [20] = 58,
};

_Static_assert(FIELD_LOOKALIKE == 58, "first_of_length[] follows fields.def");

/* A name is compared as up to three words, overlapping rather than padded, so that no byte beyond
 * it is read. */
struct words {
    uint64_t tail, start, middle;
};

static uint64_t load64(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

static uint64_t load32(const char *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

static inline struct words words_of(const char *at, size_t len)
{
    struct words w = {0, 0, 0};
    if (len >= 8) {
        w.tail = load64(at + len - 8);
        w.start = load64(at);
        if (len > 16)
            w.middle = load64(at + 8);
    } else if (len >= 4) {
        w.tail = load32(at) << 32 | load32(at + len - 4);
    } else {
        w.tail = (uint64_t)(uint8_t)at[0] << 16 | (uint64_t)(uint8_t)at[len / 2] << 8 |
                 (uint8_t)at[len - 1];
    }
    return w;
}

/* Equal but for case: where the known word, in lower case, has a letter (bit 0x40; fields.def has
 * no other such byte), the case bit is of no account. */
static inline bool same(uint64_t word, uint64_t lower)
{
    return (word | (lower & 0x4040404040404040) >> 1) == lower;
}

enum field_id field_find(struct view name)
{
    if (name.len > LONGEST_NAME || name.len == 0)
        return FIELD_OTHER;
    struct words w = words_of(name.at, name.len);
    for (unsigned id = first_of_length[name.len]; id < first_of_length[name.len + 1]; id++) {
        struct words k = words_of(known[id].name, name.len);
        if (same(w.tail, k.tail) && same(w.start, k.start) && same(w.middle, k.middle))
            return (enum field_id)id;
    }
    return FIELD_OTHER;
}

enum field_id field_find_lookalike(struct view name)
{
    char dashed[LONGEST_NAME];
    if (name.len > LONGEST_NAME)
        return FIELD_OTHER;
    for (size_t i = 0; i < name.len; i++)
        dashed[i] = name.at[i] == '_' ? '-' : name.at[i];
    return field_find((struct view){dashed, name.len});
}

enum field_fate field_fate(enum field_id id)
{
    return (enum field_fate)known[id].fate;
}

bool field_may_trail(enum field_id id)
{
    return known[id].trails;
}
