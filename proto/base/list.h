/* list: doubly linked, circular, its links embedded in the members. The owner of a list is who
 * declares its head. An element that is not in a list points at itself, so list_remove() may be
 * called on it at any time. */
#pragma once

#include "proto/base/defs.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_between(struct list *node, struct list *prev, struct list *next)
{
    node->prev = prev;
    node->next = next;
    prev->next = next->prev = node;
}

static inline void list_push_front(struct list *head, struct list *node)
{
    list_insert_between(node, head, head->next);
}

static inline void list_push_back(struct list *head, struct list *node)
{
    list_insert_between(node, head->prev, head);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

#define list_each(node, head)                                                                      \
    for (struct list *node = (head)->next; node != (head); node = node->next)

/* The current element may be removed or freed; no other may. */
#define list_each_safe(node, head)                                                                 \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head);              \
         node = node##_next, node##_next = node->next)
