#include "dataplane/state/names.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"

#define LAYOUT 1
#define ROUTE_SLOTS 65536u
#define TARGET_SLOTS 262144u
#define TEXT_BYTES (16u * 1024 * 1024)

struct memory {
    struct segment_head head;
    uint32_t route_slots, target_slots; /* up to the last one in use */
    uint32_t used;                      /* of text */
    uint32_t at[ROUTE_SLOTS];           /* offset in text; 0 = no name */
    uint64_t targets[TARGET_SLOTS];
    char text[TEXT_BYTES]; /* each ends with a zero byte; the first byte is nobody's */
};

struct names {
    struct segment segment; /* owned */
    struct memory *memory;  /* its mapping */
};

static struct names *wrap(struct segment segment)
{
    struct names *n = calloc(1, sizeof(*n));
    if (!n)
        log_fatal("names", "out of memory");
    n->segment = segment;
    n->memory = (struct memory *)(void *)segment.head;
    return n;
}

struct names *names_new(void)
{
    struct segment s;
    struct err err;
    if (segment_create(&s, "gwp-names", LAYOUT, sizeof(struct memory), &err) < 0)
        log_fatal("names", "%s", err.text);
    struct names *n = wrap(s);
    n->memory->used = 1;
    return n;
}

struct names *names_adopt(int fd, struct err *err)
{
    struct segment s;
    if (segment_adopt(&s, fd, "gwp-names", LAYOUT, sizeof(struct memory), err) < 0)
        return NULL;
    return wrap(s);
}

void names_free(struct names **n)
{
    if (!*n)
        return;
    segment_close(&(*n)->segment);
    free(*n);
    *n = NULL;
}

const struct segment *names_segment(const struct names *n)
{
    return &n->segment;
}

/* The offset is stored last: a name that can be found is whole, whenever its writer dies. */
void names_put_route(struct names *n, uint32_t slot, const char *name)
{
    struct memory *m = n->memory;
    size_t bytes = strlen(name) + 1;
    if (slot >= ROUTE_SLOTS || bytes > TEXT_BYTES - m->used)
        return;
    memcpy(m->text + m->used, name, bytes);
    __atomic_store_n(&m->at[slot], m->used, __ATOMIC_RELEASE);
    m->used += (uint32_t)bytes;
    m->route_slots = MAX(m->route_slots, slot + 1);
}

void names_put_target(struct names *n, uint32_t slot, uint64_t id)
{
    struct memory *m = n->memory;
    if (slot >= TARGET_SLOTS)
        return;
    m->targets[slot] = id;
    m->target_slots = MAX(m->target_slots, slot + 1);
}

uint32_t names_route_slots(const struct names *n)
{
    return MIN(n->memory->route_slots, ROUTE_SLOTS);
}

uint32_t names_target_slots(const struct names *n)
{
    return MIN(n->memory->target_slots, TARGET_SLOTS);
}

const char *names_route(const struct names *n, uint32_t slot)
{
    const struct memory *m = n->memory;
    uint32_t at = slot < ROUTE_SLOTS ? m->at[slot] : 0;
    if (at == 0 || at >= TEXT_BYTES || !memchr(m->text + at, 0, TEXT_BYTES - at))
        return NULL;
    return m->text + at;
}

uint64_t names_target(const struct names *n, uint32_t slot)
{
    return slot < TARGET_SLOTS ? n->memory->targets[slot] : 0;
}
