#include "controlplane/health/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "proto/base/log.h"

#define FIRST_SECONDS 0.5 /* new checks begin within this */
#define QUICK_SECONDS 0.2 /* between two while there is no verdict */
#define JITTER 0.1

static void *must(void *memory)
{
    if (!memory)
        log_fatal("health", "out of memory");
    return memory;
}

const char *health_word(enum health_state state)
{
    static const char *const words[] = {"unknown", "up", "down"};
    return words[state];
}

double health_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- when ---- */

/* 0 to 1; xorshift64*. */
static double chance(struct health *h)
{
    h->random ^= h->random >> 12;
    h->random ^= h->random << 25;
    h->random ^= h->random >> 27;
    return (double)((h->random * 2685821657736338717u) >> 11) / (double)(UINT64_C(1) << 53);
}

/* From the start of one to the start of the next. */
static double pause_of(struct health *h, const struct check *c)
{
    double interval = c->interval_ms / 1000., down = c->unhealthy_interval_ms / 1000.;
    double pause = c->state == HEALTH_DOWN ? down : interval;
    if (c->state == HEALTH_UNKNOWN && c->last.result != PROBE_NOT_MADE)
        pause = MIN(pause, MIN(down, QUICK_SECONDS));
    return pause * (1 - JITTER + 2 * JITTER * chance(h));
}

/* One that took longer than its pause is not begun again in the same breath. */
static void schedule(struct check *c, double now)
{
    double pause = pause_of(c->health, c);
    due_put(&c->health->due, &c->due, MAX(c->began_at + pause, now + pause / 10));
}

static void arm(struct health *h, double now)
{
    const struct due_item *first = due_first(&h->due);
    if (!h->loop)
        return;
    ev_timer_stop(h->loop, &h->timer);
    if (!first || h->under_way >= h->under_way_max)
        return; /* whatever ends begins the next */
    ev_now_update(h->loop);
    ev_timer_set(&h->timer, MAX(0., first->at - now), 0.);
    ev_timer_start(h->loop, &h->timer);
}

void health_turn(struct health *h, double now)
{
    struct due_item *first;
    while (h->under_way < h->under_way_max && (first = due_first(&h->due)) && first->at <= now) {
        struct check *c = CONTAINER_OF(first, struct check, due);
        due_remove(&h->due, first);
        h->under_way++;
        c->began_at = now;
        h->prober->start(c);
    }
    arm(h, now);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int events)
{
    health_turn(w->data, health_now());
}

/* ---- verdicts ---- */

static void set_state(struct check *c, enum health_state state)
{
    enum health_state before = c->state;
    c->state = state;
    ledger_add(state == HEALTH_UP ? c->health->to_up : c->health->to_down, 1);
    c->health->changed(c->health->owner, c, before);
}

static void judge(struct check *c)
{
    if (c->last.result == PROBE_NOT_MADE)
        return;
    bool is_good = c->last.result == PROBE_OK;
    c->good = is_good ? c->good + 1 : 0;
    c->failed = is_good ? 0 : c->failed + 1;
    if (c->state != HEALTH_UP && c->good >= c->healthy_threshold)
        set_state(c, HEALTH_UP);
    else if (c->state != HEALTH_DOWN && c->failed >= c->unhealthy_threshold)
        set_state(c, HEALTH_DOWN);
}

void health_done(struct check *c, const struct probe_outcome *outcome, double now)
{
    struct health *h = c->health;
    h->under_way--;
    ledger_add(h->counts[outcome->result], 1);
    ledger_add(h->nanoseconds, (uint64_t)(outcome->seconds * 1e9));
    c->probe = NULL;
    c->last = *outcome;
    c->checked_at = ev_time();
    judge(c);
    schedule(c, now);
    health_turn(h, now);
}

/* ---- real probes ---- */

static void on_probed(void *owner, const struct probe_outcome *outcome)
{
    health_done(owner, outcome, health_now());
}

static void start_probe(struct check *c)
{
    const struct probe_request request = {.addr = &c->addr,
                                          .path = c->path,
                                          .host = c->host,
                                          .timeout_ms = c->timeout_ms,
                                          .expected = &c->expected};
    c->probe = probe_start(c->health->loop, &request, on_probed, c);
}

static void cancel_probe(struct check *c)
{
    probe_cancel(&c->probe);
}

static const struct health_prober real_prober = {start_probe, cancel_probe};

/* ---- what is wanted ---- */

struct key_buffer {
    char *at;
    size_t len;
};

static void add_bytes(struct key_buffer *k, const void *bytes, size_t len)
{
    memcpy(k->at + k->len, bytes, len);
    k->len += len;
}

static bool is_http(const struct check_spec *s)
{
    return s->check->path[0] != '\0';
}

/* What a connection alone does not ask is no part of its identity. Owned by the caller. */
static struct view key_of(const struct check_spec *s)
{
    const struct health_check_config *c = s->check;
    const char *host = is_http(s) ? s->host : "";
    size_t statuses = is_http(s) ? c->expected_status.count * sizeof(*c->expected_status.at) : 0;
    const uint32_t numbers[] = {c->interval_ms, c->timeout_ms, c->unhealthy_interval_ms,
                                c->healthy_threshold, c->unhealthy_threshold};
    struct key_buffer k = {must(malloc(strlen(s->address) + strlen(c->path) + strlen(host) + 3 +
                                       sizeof(numbers) + statuses))};
    add_bytes(&k, s->address, strlen(s->address) + 1);
    add_bytes(&k, c->path, strlen(c->path) + 1);
    add_bytes(&k, host, strlen(host) + 1);
    add_bytes(&k, numbers, sizeof(numbers));
    if (statuses > 0)
        add_bytes(&k, c->expected_status.at, statuses);
    return (struct view){k.at, k.len};
}

/* Takes the key over. */
static struct check *check_new(struct health *h, const struct check_spec *s, struct view key,
                               const struct addr *addr)
{
    const struct health_check_config *config = s->check;
    struct check *c = must(calloc(1, sizeof(*c)));
    size_t statuses = config->expected_status.count;
    c->key = key;
    c->health = h;
    c->addr = *addr;
    c->path = must(strdup(config->path));
    c->host = must(strdup(s->host));
    c->interval_ms = config->interval_ms;
    c->timeout_ms = config->timeout_ms;
    c->unhealthy_interval_ms = config->unhealthy_interval_ms;
    c->healthy_threshold = config->healthy_threshold;
    c->unhealthy_threshold = config->unhealthy_threshold;
    c->expected.at = must(calloc(statuses + 1, sizeof(*c->expected.at)));
    c->expected.count = statuses;
    for (size_t i = 0; i < statuses; i++)
        c->expected.at[i] = config->expected_status.at[i];
    list_init(&c->users);
    return c;
}

static void check_free(struct check *c)
{
    struct health *h = c->health;
    if (c->due.slot == 0) {
        h->prober->cancel(c);
        h->under_way--;
    }
    due_remove(&h->due, &c->due);
    free((void *)c->key.at);
    free(c->path);
    free(c->host);
    free(c->expected.at);
    free(c);
}

void health_begin(struct health *h)
{
    table_each(slot, &h->checks)
    {
        struct check *c = slot->item;
        c->is_wanted = false;
        list_init(&c->users);
    }
}

struct check *health_want(struct health *h, const struct check_spec *spec,
                          const struct check *before, double now)
{
    struct view key = key_of(spec);
    struct check *c = table_get(&h->checks, key);
    struct addr addr;
    if (c || addr_parse(&addr, spec->address, NULL) < 0) {
        free((void *)key.at);
    } else {
        c = check_new(h, spec, key, &addr);
        if (before) {
            c->state = before->state;
            c->last = before->last;
            c->checked_at = before->checked_at;
        }
        table_add(&h->checks, c->key, c);
        due_put(&h->due, &c->due, now + MIN(FIRST_SECONDS, c->interval_ms / 1000.) * chance(h));
    }
    if (c)
        c->is_wanted = true;
    return c;
}

void health_end(struct health *h, double now)
{
    size_t count = 0;
    struct check **unwanted = must(malloc((h->checks.count + 1) * sizeof(struct check *)));
    table_each(slot, &h->checks)
    {
        if (!((struct check *)slot->item)->is_wanted)
            unwanted[count++] = slot->item;
    }
    for (size_t i = 0; i < count; i++) {
        table_remove(&h->checks, unwanted[i]->key);
        check_free(unwanted[i]);
    }
    free(unwanted);
    health_turn(h, now);
}

/* ---- life ---- */

static void find_counts(struct health *h, struct ledger *ledger)
{
    char name[64];
    for (int i = 0; i < PROBE_RESULT_COUNT; i++) {
        snprintf(name, sizeof(name), "health_checks/%s", probe_word((enum probe_result)i));
        h->counts[i] = ledger_find(ledger, name);
    }
    h->to_up = ledger_find(ledger, "health_verdicts/up");
    h->to_down = ledger_find(ledger, "health_verdicts/down");
    h->nanoseconds = ledger_find(ledger, "health_check_nanoseconds");
}

void health_init(struct health *h, struct ev_loop *loop, struct ledger *ledger,
                 void (*changed)(void *owner, struct check *c, enum health_state before),
                 void *owner)
{
    memset(h, 0, sizeof(*h));
    h->loop = loop;
    h->prober = &real_prober;
    h->changed = changed;
    h->owner = owner;
    h->under_way_max = HEALTH_UNDER_WAY_MAX;
    find_counts(h, ledger);
    if (getrandom(&h->random, sizeof(h->random), 0) != sizeof(h->random) || h->random == 0)
        h->random = 1;
    table_init(&h->checks);
    ev_timer_init(&h->timer, on_timer, 0., 0.);
    h->timer.data = h;
}

void health_fini(struct health *h)
{
    if (!h->prober)
        return;
    if (h->loop)
        ev_timer_stop(h->loop, &h->timer);
    table_each(slot, &h->checks) check_free(slot->item);
    table_fini(&h->checks);
    due_fini(&h->due);
    h->prober = NULL;
}
