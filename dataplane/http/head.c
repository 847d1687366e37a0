#include "dataplane/http/head.h"

#define LONGEST_NAME 19

static const struct known {
    char name[LONGEST_NAME + 1];
    bool trails;
} known[] = {
    {"", true},
#define NEVER false
#define TRAILS true
#define FIELD(ID, name, fate, trails) {name, trails},
#include "dataplane/http/fields.def"
#undef FIELD
#undef TRAILS
#undef NEVER
    {"", false}, /* FIELD_LOOKALIKE */
};

const uint8_t field_fates[FIELD_COUNT] = {
#define FIELD(ID, name, fate, trails) [FIELD_##ID] = fate,
#include "dataplane/http/fields.def"
#undef FIELD
    [FIELD_OTHER] = KEEP,
    [FIELD_LOOKALIKE] = OURS,
};

/* Rows of fields.def are sorted by length: names of n bytes have the ids from first_of_length[n]
 * on, up to those of n + 1 bytes. */
static const uint8_t first_of_length[LONGEST_NAME + 2] = {
    [0] = 1,   [1] = 1,   [2] = 1,   [3] = 2,   [4] = 4,   [5] = 8,   [6] = 10,
    [7] = 16,  [8] = 20,  [9] = 23,  [10] = 25, [11] = 30, [12] = 32, [13] = 35,
    [14] = 41, [15] = 43, [16] = 46, [17] = 52, [18] = 55, [19] = 56, [20] = 59,
};

_Static_assert(FIELD_LOOKALIKE == 59, "first_of_length[] follows fields.def");

static inline uint64_t load64(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* Of 2 to 7 bytes, each in a place of its own. */
static inline uint64_t load_short(const char *at, size_t len)
{
    uint32_t start, end;
    if (len < 4)
        return (uint64_t)(uint8_t)at[0] << 16 | (uint64_t)(uint8_t)at[1] << 8 |
               (uint8_t)at[len - 1];
    memcpy(&start, at, sizeof(start));
    memcpy(&end, at + len - 4, sizeof(end));
    return (uint64_t)start << 32 | end;
}

/* Equal but for case: where the known word, in lower case, has a letter (bit 0x40; fields.def has
 * no other such byte), the case bit is of no account. */
static inline bool same(uint64_t word, uint64_t lower)
{
    return (word | (lower & 0x4040404040404040) >> 1) == lower;
}

static enum field_id find_short(struct view name)
{
    unsigned id = first_of_length[name.len], end = first_of_length[name.len + 1];
    uint64_t word = id < end ? load_short(name.at, name.len) : 0;
    for (; id < end; id++)
        if (same(word, load_short(known[id].name, name.len)))
            return (enum field_id)id;
    return FIELD_OTHER;
}

/* Compared in words that overlap rather than go beyond the name: its end, which tells most apart,
 * its start, and of the longest what is in between. */
enum field_id field_find(struct view name)
{
    if (name.len < 8)
        return name.len < 2 ? FIELD_OTHER : find_short(name);
    if (name.len > LONGEST_NAME)
        return FIELD_OTHER;
    uint64_t start = load64(name.at), tail = load64(name.at + name.len - 8);
    unsigned end = first_of_length[name.len + 1];
    for (unsigned id = first_of_length[name.len]; id < end; id++) {
        const char *lower = known[id].name;
        if (same(tail, load64(lower + name.len - 8)) && same(start, load64(lower)) &&
            (name.len <= 16 || same(load64(name.at + 8), load64(lower + 8))))
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

bool field_claims_forwarding(struct view name)
{
    static const char prefix[] = "x-forwarded-";
    size_t len = sizeof(prefix) - 1, i = 0;
    if (name.len < len || (name.at[0] | 0x20) != 'x')
        return false;
    while (i < len && (name.at[i] == '_' ? '-' : name.at[i] | 0x20) == prefix[i])
        i++;
    return i == len;
}

bool field_may_trail(enum field_id id)
{
    return known[id].trails;
}
