#include "dataplane/http/head.h"

static const struct known {
    const char *name;
    uint8_t len, id, fate;
} known[] = {
#define FIELD(ID, name, fate) {name, sizeof(name) - 1, FIELD_##ID, fate},
#include "dataplane/http/fields.def"
#undef FIELD
};

/* Rows of fields.def are sorted by length: row i covers the names with known[i].len bytes. */
#define LONGEST_NAME 19
static const uint8_t first_of_length[LONGEST_NAME + 2] = {
    [0] = 0,   [1] = 0,   [2] = 0,   [3] = 1,   [4] = 1,   [5] = 3,   [6] = 4,
    [7] = 5,   [8] = 8,   [9] = 8,   [10] = 10, [11] = 13, [12] = 14, [13] = 15,
    [14] = 15, [15] = 16, [16] = 17, [17] = 19, [18] = 21, [19] = 22, [20] = 23,
};

static bool equal_lower(const char *name, const char *lower, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]) != lower[i])
            return false;
    return true;
}

enum field_id field_find(struct view name)
{
    if (name.len > LONGEST_NAME || name.len == 0)
        return FIELD_OTHER;
    for (unsigned i = first_of_length[name.len]; i < first_of_length[name.len + 1]; i++)
        if (equal_lower(name.at, known[i].name, name.len))
            return (enum field_id)known[i].id;
    return FIELD_OTHER;
}

enum field_fate field_fate(enum field_id id)
{
    return id == FIELD_OTHER ? KEEP : (enum field_fate)known[id - 1].fate;
}
