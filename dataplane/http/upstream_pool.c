#include "dataplane/http/upstream_pool.h"

#include <stdlib.h>

#include "dataplane/http/upstream.h"
#include "proto/base/log.h"

static void move_list(struct list *from, struct list *to)
{
    list_init(to);
    while (!list_is_empty(from)) {
        struct list *node = from->next;
        list_remove(node);
        list_push_back(to, node);
    }
}

void upstream_pool_resize(struct upstream_pool *p, uint32_t slots)
{
    if (slots <= p->slot_count)
        return;
    struct idle_list *bigger = calloc(slots, sizeof(*bigger));
    if (!bigger)
        log_fatal("upstream_pool", "out of memory: pools for %u endpoints", slots);
    for (uint32_t i = 0; i < slots; i++) {
        if (i < p->slot_count) {
            move_list(&p->slots[i].idle, &bigger[i].idle);
            bigger[i].count = p->slots[i].count;
        } else {
            list_init(&bigger[i].idle);
        }
    }
    free(p->slots);
    p->slots = bigger;
    p->slot_count = slots;
}

void upstream_pool_fini(struct upstream_pool *p)
{
    free(p->slots);
    p->slots = NULL;
    p->slot_count = 0;
}

struct upstream *upstream_pool_take(struct upstream_pool *p, const struct endpoint *e)
{
    struct idle_list *l = &p->slots[e->slot];
    if (list_is_empty(&l->idle))
        return NULL;
    struct upstream *u = CONTAINER_OF(l->idle.next, struct upstream, link);
    upstream_pool_remove(p, u);
    return u;
}

bool upstream_pool_put(struct upstream_pool *p, struct upstream *u)
{
    struct idle_list *l = &p->slots[u->endpoint->slot];
    if (l->count >= UPSTREAM_MAX_IDLE)
        return false;
    list_push_front(&l->idle, &u->link);
    l->count++;
    return true;
}

void upstream_pool_remove(struct upstream_pool *p, struct upstream *u)
{
    list_remove(&u->link);
    p->slots[u->endpoint->slot].count--;
}
