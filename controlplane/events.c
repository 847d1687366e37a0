#include "controlplane/events.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Which module's lines are events, and of what kind. Of others only complaints are. */
static const struct {
    const char *module, *kind;
} kinds[] = {
    {"breaker", "breaker"}, {"health", "health"},     {"publisher", "config"},
    {"config", "config"},   {"generation", "config"}, {"history", "config"},
    {"session", "session"}, {"fd_keeper", "session"}, {"stand_in", "session"},
    {"endpoints", "order"}, {"overrides", "order"},   {"log_levels", "order"},
};

static const char *kind_of(const char *module, enum log_level level)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (strcmp(kinds[i].module, module) == 0)
            return kinds[i].kind;
    return level >= LOG_WARN ? "system" : NULL;
}

static void on_line(void *owner, enum log_level level, const char *module, const char *message)
{
    struct events *es = owner;
    const char *kind = kind_of(module, level);
    struct timespec now;
    if (!kind)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    struct event *e = &es->ring[++es->last % EVENTS_KEPT];
    e->id = es->last;
    e->at = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    e->level = level;
    e->kind = kind;
    snprintf(e->message, sizeof(e->message), "%s", message);
    if (es->added)
        es->added(es->owner);
}

void events_init(struct events *es)
{
    memset(es, 0, sizeof(*es));
    log_listen(on_line, es);
}

void events_fini(struct events *es)
{
    log_listen(NULL, NULL);
    es->added = NULL;
}

const struct event *events_after(const struct events *es, uint64_t id)
{
    uint64_t oldest = es->last > EVENTS_KEPT ? es->last - EVENTS_KEPT + 1 : 1;
    uint64_t next = id + 1 > oldest ? id + 1 : oldest;
    return next <= es->last ? &es->ring[next % EVENTS_KEPT] : NULL;
}
