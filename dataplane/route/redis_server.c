#include "dataplane/route/redis_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/log.h"

static const char *const cause_texts[] = {
#define CAUSE(name, text) [REDIS_##name] = text,
    REDIS_CAUSES(CAUSE)
#undef CAUSE
};

static void *checked(void *memory)
{
    if (!memory)
        log_fatal("redis", "out of memory");
    return memory;
}

/* One for the process. Control thread. */
static const char *gateway_id(void)
{
    static char id[17];
    uint64_t random;
    if (id[0])
        return id;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        log_fatal("redis", "the system gives no random numbers");
    snprintf(id, sizeof(id), "%016llx", (unsigned long long)random);
    return id;
}

struct redis_server *redis_server_find(struct redis_server **first, const char *url,
                                       const char *name)
{
    uint64_t id = XXH3_64bits(url, strlen(url));
    for (struct redis_server *s = *first; s; s = s->next)
        if (s->id == id)
            return s;
    struct redis_server *s = checked(calloc(1, sizeof(*s)));
    s->id = id;
    s->name = checked(strdup(name));
    memcpy(s->gateway, gateway_id(), sizeof(s->gateway));
    s->slot = *first ? (*first)->slot + 1 : 0;
    s->next = *first;
    *first = s;
    return s;
}

void redis_servers_free(struct redis_server **first)
{
    while (*first) {
        struct redis_server *s = *first;
        *first = s->next;
        free(s->name);
        free(s);
    }
}

bool redis_server_set(struct redis_server *s, unsigned worker, enum redis_state state,
                      enum redis_cause cause)
{
    uint16_t now = (uint16_t)((unsigned)cause << 8 | (unsigned)state);
    return atomic_exchange_explicit(&s->states[worker], now, memory_order_relaxed) != now;
}

enum redis_state redis_server_look(const struct redis_server *s, enum redis_cause *cause)
{
    enum redis_state found = REDIS_UNUSED;
    *cause = REDIS_NONE;
    for (unsigned i = 0; i < REDIS_WORKERS; i++) {
        uint16_t word = atomic_load_explicit(&s->states[i], memory_order_relaxed);
        enum redis_state state = (enum redis_state)(word & 0xff);
        if (state > found) {
            found = state;
            *cause = (enum redis_cause)(word >> 8);
        }
    }
    return found;
}

static void tell_away(struct redis_server *s, enum redis_cause cause, bool still)
{
    if (s->told_causes & 1u << cause)
        return;
    s->told_causes |= 1u << cause;
    if (still)
        log_about(LOG_WARN, "redis",
                  LOG_FIELDS(about_redis(s->name), about_cause(cause_texts[cause])),
                  "%s is still away: %s", s->name, cause_texts[cause]);
    else
        log_about(
            LOG_WARN, "redis",
            LOG_FIELDS(about_redis(s->name), about_to("away"), about_cause(cause_texts[cause])),
            "%s is away: %s; limits go by on_redis_failure until it answers", s->name,
            cause_texts[cause]);
}

static void tell(struct redis_server *s)
{
    enum redis_cause cause;
    enum redis_state before = s->told, now = redis_server_look(s, &cause);
    uint32_t gateways = atomic_load_explicit(&s->gateways, memory_order_relaxed);
    s->told = now;
    if (now == REDIS_AWAY) {
        tell_away(s, cause, before == REDIS_AWAY);
        return;
    }
    s->told_causes = 0;
    if (now == before)
        return;
    if (now == REDIS_UP)
        log_about(LOG_INFO, "redis",
                  LOG_FIELDS(about_redis(s->name), about_from(before == REDIS_AWAY ? "away" : NULL),
                             about_to("up")),
                  "%s %s: limits are counted in it, by %u gateway%s", s->name,
                  before == REDIS_AWAY ? "is back" : "answers", gateways, gateways == 1 ? "" : "s");
    else
        log_about(LOG_INFO, "redis", LOG_FIELDS(about_redis(s->name), about_to("unused")),
                  "%s is not used any more", s->name);
}

void redis_servers_tell(struct redis_server *first)
{
    for (struct redis_server *s = first; s; s = s->next)
        tell(s);
}
