#include "dataplane/report/report.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/route/redis_server.h"
#include "dataplane/state/segment.h"
#include "dataplane/state/snapshot.h"
#include "proto/base/arena.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/pace.h"

#define PART_BYTES (1024 * 1024)
#define ARENA_BYTES (64 * 1024)
#define NO_ROUTE_NAME "none"

/* What was reported last, so that what did not change can be left out. */
struct series_seen {
    uint64_t requests[METHOD_LABELS];
    uint64_t counts; /* of all kinds together */
};

struct target_seen {
    uint64_t counts; /* likewise */
    uint32_t active, epoch;
};

struct report {
    const struct registry *registry; /* borrowed; NULL: of a process that is gone */
    const struct names *names;       /* borrowed: of that one's slots */
    uint64_t sequence, lineage;
    struct series_seen none;
    struct series_seen *routes; /* owned, by slot */
    uint32_t route_room;
    struct target_seen *targets; /* owned, by slot */
    uint32_t target_room;
    struct stats_series sum; /* being merged */
};

/* A report in the making: everything in an arena, cut into parts when it is whole. */
#define COUNTERS (STAT_COUNT + 2) /* the workers' own, and the process' */

struct draft {
    const struct report_request *request;
    struct arena *arena;
    bool complete;
    uint64_t lineage;
    double bounds[STATS_MAX_BUCKETS];
    uint32_t bound_count;
    Gwp__RouteSeries **series;
    size_t series_count, series_room;
    Gwp__TargetStats **targets;
    size_t target_count, target_room;
    Gwp__RouteCount **counts;
    size_t count_count, count_room;
    Gwp__GenerationStats **generations;
    size_t generation_count;
    Gwp__RedisStats **redis;
    size_t redis_count;
    Gwp__Counter counters[COUNTERS];
    Gwp__Counter *counter_at[COUNTERS];
    size_t counter_count;
};

static void *checked(void *memory)
{
    if (!memory)
        log_fatal("report", "out of memory");
    return memory;
}

struct report *report_new(const struct registry *registry)
{
    struct report *r = checked(calloc(1, sizeof(*r)));
    r->registry = registry;
    return r;
}

void report_free(struct report **rp)
{
    struct report *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    free(r->routes);
    free(r->targets);
    free(r);
}

/* Zeroed room for `count` elements. */
static void *with_room(void *array, uint32_t *room, uint32_t count, size_t bytes)
{
    if (count <= *room)
        return array;
    uint32_t wanted = MAX(count, *room * 2);
    char *bigger = checked(realloc(array, wanted * bytes));
    memset(bigger + *room * bytes, 0, (wanted - *room) * bytes);
    *room = wanted;
    return bigger;
}

static void append(struct arena *arena, void ***array, size_t *count, size_t *room, void *element)
{
    if (*count == *room) {
        size_t wanted = *room ? *room * 2 : 64;
        void **bigger = arena_array(arena, wanted, sizeof(*bigger));
        if (*count > 0)
            memcpy(bigger, *array, *count * sizeof(*bigger));
        *array = bigger;
        *room = wanted;
    }
    (*array)[(*count)++] = element;
}

/* ---- which counters, since when ---- */

/* Reads epochs and bounds; false when workers differ in them, or one is changing them. */
static bool is_settled(const struct report_request *q, uint32_t *epochs, struct draft *d)
{
    for (unsigned i = 0; i < q->worker_count; i++) {
        double bounds[STATS_MAX_BUCKETS];
        epochs[i] = stats_epoch(q->workers[i]);
        uint32_t count = stats_bounds(q->workers[i], bounds);
        uint64_t lineage = stats_lineage(q->workers[i]);
        if (epochs[i] % 2 != 0)
            return false;
        if (i == 0) {
            d->lineage = lineage;
            d->bound_count = count;
            memcpy(d->bounds, bounds, count * sizeof(*bounds));
        } else if (lineage != d->lineage || count != d->bound_count ||
                   (count > 0 && memcmp(d->bounds, bounds, count * sizeof(*bounds)) != 0)) {
            return false;
        }
    }
    return true;
}

static bool is_unmoved(const struct report_request *q, const uint32_t *epochs)
{
    for (unsigned i = 0; i < q->worker_count; i++)
        if (stats_epoch(q->workers[i]) != epochs[i])
            return false;
    return true;
}

/* ---- content ---- */

static void put_statuses(struct draft *d, Gwp__RouteSeries *out, const struct stats_series *sum)
{
    Gwp__StatusCount *counts = arena_array(d->arena, sum->status_count, sizeof(*counts));
    out->n_statuses = sum->status_count;
    out->statuses = arena_array(d->arena, sum->status_count, sizeof(Gwp__StatusCount *));
    for (uint32_t i = 0; i < sum->status_count; i++) {
        gwp__status_count__init(&counts[i]);
        counts[i].status = sum->statuses[i].status;
        counts[i].count = sum->statuses[i].count;
        out->statuses[i] = &counts[i];
    }
}

static uint64_t *copy_buckets(struct draft *d, const uint64_t *buckets)
{
    size_t bytes = (d->bound_count + 1) * sizeof(uint64_t);
    return memcpy(arena_alloc(d->arena, bytes), buckets, bytes);
}

static void put_series(struct draft *d, const char *route, enum method_label method,
                       const struct stats_series *sum)
{
    Gwp__RouteSeries *out = arena_alloc(d->arena, sizeof(*out));
    gwp__route_series__init(out);
    out->route = (char *)route;
    out->method = (char *)method_label_word(method);
    put_statuses(d, out, sum);
    out->n_buckets = out->n_upstream_buckets = d->bound_count + 1;
    out->buckets = copy_buckets(d, sum->buckets);
    out->upstream_buckets = copy_buckets(d, sum->upstream_buckets);
    out->sum_seconds = sum->sum_seconds;
    out->upstream_sum_seconds = sum->upstream_sum_seconds;
    append(d->arena, (void ***)&d->series, &d->series_count, &d->series_room, out);
}

static void put_count(struct draft *d, const char *family, const char *route, const char *value,
                      uint64_t count)
{
    if (count == 0)
        return;
    Gwp__RouteCount *out = arena_alloc(d->arena, sizeof(*out));
    gwp__route_count__init(out);
    out->family = (char *)family;
    out->route = (char *)route;
    out->value = (char *)value;
    out->count = count;
    append(d->arena, (void ***)&d->counts, &d->count_count, &d->count_room, out);
}

/* Several reasons share a word, and are one outcome: they are added to the first that has it. */
static void merge_outcomes(uint64_t outcomes[R_COUNT])
{
    for (int i = 1; i < R_COUNT; i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(reason_word((enum reason)i), reason_word((enum reason)k)) == 0) {
                outcomes[k] += outcomes[i];
                outcomes[i] = 0;
                break;
            }
        }
    }
}

static void take_counts(struct draft *d, uint32_t slot, const char *name, uint64_t *seen)
{
    struct stats_route sum = {0};
    uint64_t all = 0;
    for (unsigned i = 0; i < d->request->worker_count; i++)
        stats_read_route(d->request->workers[i], slot, &sum);
    for (int i = 0; i < R_COUNT; i++)
        all += sum.outcomes[i];
    for (int i = 0; i < DECISION_COUNT; i++)
        all += sum.decisions[i];
    if (all == 0 || (!d->complete && all == *seen))
        return;
    *seen = all;
    merge_outcomes(sum.outcomes);
    for (int i = 0; i < R_COUNT; i++)
        put_count(d, "request_outcomes_total", name, reason_word((enum reason)i), sum.outcomes[i]);
    for (int i = 0; i < DECISION_COUNT; i++)
        put_count(d, "limit_decisions_total", name, decision_word((enum decision)i),
                  sum.decisions[i]);
}

static void take_route(struct report *r, struct draft *d, uint32_t slot, const char *name,
                       struct series_seen *seen)
{
    take_counts(d, slot, name, &seen->counts);
    for (unsigned m = 0; m < METHOD_LABELS; m++) {
        stats_series_clear(&r->sum);
        for (unsigned i = 0; i < d->request->worker_count; i++)
            stats_read_series(d->request->workers[i], slot, m, &r->sum);
        if (r->sum.requests == 0 || (!d->complete && r->sum.requests == seen->requests[m]))
            continue;
        seen->requests[m] = r->sum.requests;
        put_series(d, name, (enum method_label)m, &r->sum);
    }
}

static uint32_t route_slots(const struct report *r)
{
    return r->registry ? registry_route_slots(r->registry) : names_route_slots(r->names);
}

static const char *route_name(const struct report *r, uint32_t slot)
{
    return r->registry ? registry_route_name(r->registry, slot) : names_route(r->names, slot);
}

static void take_routes(struct report *r, struct draft *d)
{
    uint32_t slots = 0;
    for (unsigned i = 0; i < d->request->worker_count; i++)
        slots = MAX(slots, stats_route_slots(d->request->workers[i]));
    slots = MIN(slots, route_slots(r));
    r->routes = with_room(r->routes, &r->route_room, slots, sizeof(*r->routes));
    for (uint32_t slot = 0; slot < slots; slot++) {
        const char *name = route_name(r, slot);
        pace_yield();
        if (name)
            take_route(r, d, slot, name, &r->routes[slot]);
    }
    take_route(r, d, STATS_NO_ROUTE, NO_ROUTE_NAME, &r->none);
}

/* A moment of the monotonic clock in milliseconds of the wall clock. */
static uint64_t wall_ms(uint64_t at_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + at_ms - clock_ms();
}

static void put_breaker(struct draft *d, Gwp__TargetStats *out, const struct breaker *b,
                        const struct breaker_view *view)
{
    struct breaker_transition last;
    out->breaker_state = view->state;
    out->breaker_closed = view->moved_to[BREAKER_CLOSED];
    out->breaker_opened = view->moved_to[BREAKER_OPEN];
    out->breaker_half_opened = view->moved_to[BREAKER_HALF_OPEN];
    if (view->until_ms > 0)
        out->breaker_until_ms = wall_ms(view->until_ms);
    if (!breaker_recall(b, view->epoch, &last))
        return;
    out->breaker_cause = arena_copy(d->arena, view_of(last.cause));
    out->breaker_since_ms = wall_ms(last.at_ms);
}

static void put_target(struct draft *d, uint64_t id, const struct stats_target *sum,
                       const struct target_state *state, const struct breaker_view *breaker)
{
    Gwp__TargetStats *out = arena_alloc(d->arena, sizeof(*out));
    gwp__target_stats__init(out);
    out->target_id = id;
    out->requests = sum->requests;
    out->failures = sum->failures;
    out->connections_opened = sum->connections[CONNECTION_OPENED];
    out->connections_reused = sum->connections[CONNECTION_REUSED];
    out->connections_failed = sum->connections[CONNECTION_FAILED];
    out->active = state ? atomic_load_explicit(&state->active, memory_order_relaxed) : 0;
    if (state && state->breaker)
        put_breaker(d, out, state->breaker, breaker);
    append(d->arena, (void ***)&d->targets, &d->target_count, &d->target_room, out);
}

static uint64_t target_id(const struct report *r, uint32_t slot)
{
    return r->registry ? registry_target_id(r->registry, slot) : names_target(r->names, slot);
}

static void take_target(struct report *r, struct draft *d, uint32_t slot)
{
    struct target_seen *seen = &r->targets[slot];
    struct stats_target sum = {0};
    uint64_t id = target_id(r, slot);
    const struct target_state *state = r->registry ? registry_find_target(r->registry, id) : NULL;
    uint32_t active = state ? atomic_load_explicit(&state->active, memory_order_relaxed) : 0;
    struct breaker_view breaker = {.epoch = seen->epoch};
    if (state && state->breaker)
        breaker_look(state->breaker, &breaker);
    for (unsigned i = 0; i < d->request->worker_count; i++)
        stats_read_target(d->request->workers[i], slot, &sum);
    uint64_t counts = sum.requests;
    for (int i = 0; i < CONNECTION_KINDS; i++)
        counts += sum.connections[i];
    if (counts == 0 && active == 0 && seen->active == 0 && breaker.epoch == 0)
        return;
    if (!d->complete && counts == seen->counts && active == seen->active &&
        breaker.epoch == seen->epoch)
        return;
    *seen = (struct target_seen){counts, active, breaker.epoch};
    put_target(d, id, &sum, state, &breaker);
}

static void take_targets(struct report *r, struct draft *d)
{
    uint32_t slots =
        r->registry ? registry_target_slots(r->registry) : names_target_slots(r->names);
    r->targets = with_room(r->targets, &r->target_room, slots, sizeof(*r->targets));
    for (uint32_t slot = 0; slot < slots; slot++) {
        pace_yield();
        take_target(r, d, slot);
    }
}

/* ---- generations ---- */

/* The one of that number, made when it is new: workers have them in different slots. */
static Gwp__GenerationStats *generation_of(struct draft *d, uint64_t number)
{
    for (size_t i = 0; i < d->generation_count; i++)
        if (d->generations[i]->generation == number)
            return d->generations[i];
    Gwp__GenerationStats *g = arena_alloc(d->arena, sizeof(*g));
    gwp__generation_stats__init(g);
    g->generation = number;
    g->n_classes = STATS_CLASSES;
    g->classes = arena_array(d->arena, STATS_CLASSES, sizeof(uint64_t));
    memset(g->classes, 0, STATS_CLASSES * sizeof(uint64_t));
    g->n_buckets = d->bound_count + 1;
    g->buckets = arena_array(d->arena, g->n_buckets, sizeof(uint64_t));
    memset(g->buckets, 0, g->n_buckets * sizeof(uint64_t));
    return d->generations[d->generation_count++] = g;
}

static void take_generations(struct draft *d)
{
    unsigned workers = d->request->worker_count;
    d->generations = arena_array(d->arena, workers * (STATS_GENERATIONS + 1) + 1, sizeof(void *));
    for (unsigned i = 0; i < workers * (STATS_GENERATIONS + 1); i++) {
        struct stats_generation one = {0};
        stats_read_generation(d->request->workers[i % workers], i / workers, &one);
        Gwp__GenerationStats *g = generation_of(d, one.generation);
        for (unsigned k = 0; k < STATS_CLASSES; k++)
            g->classes[k] += one.classes[k];
        for (unsigned k = 0; k < g->n_buckets; k++)
            g->buckets[k] += one.buckets[k];
        g->sum_seconds += one.sum_seconds;
    }
}

static void put_counter(struct draft *d, const char *name, uint64_t value)
{
    size_t i = d->counter_count++;
    gwp__counter__init(&d->counters[i]);
    d->counters[i].name = (char *)name;
    d->counters[i].value = value;
    d->counter_at[i] = &d->counters[i];
}

static bool is_level(const char *name)
{
    size_t len = strlen(name);
    return len < 6 || strcmp(name + len - 6, "_total") != 0;
}

static void take_counters(const struct report *r, struct draft *d)
{
    static const char *const names[STAT_COUNT] = {
#define COUNTER(name, help) #name,
#include "proto/counters.def"
#undef COUNTER
    };
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        uint64_t sum = 0;
        for (unsigned w = 0; w < d->request->worker_count; w++)
            sum += stats_counter(d->request->workers[w], (enum stat_id)i);
        if (r->registry || !is_level(names[i])) /* who is gone has nothing open */
            put_counter(d, names[i], sum);
    }
    if (!r->registry)
        return;
    put_counter(d, "snapshots_alive", d->request->snapshots_alive);
    put_counter(d, "workers", d->request->worker_count);
}

/* ---- Redis ---- */

/* Several URLs may name the same one, with other logins: they are told as one. */
static Gwp__RedisStats *redis_of(struct draft *d, const char *name)
{
    for (size_t i = 0; i < d->redis_count; i++)
        if (strcmp(d->redis[i]->name, name) == 0)
            return d->redis[i];
    Gwp__RedisStats *m = arena_alloc(d->arena, sizeof(*m));
    gwp__redis_stats__init(m);
    m->name = (char *)name;
    return d->redis[d->redis_count++] = m;
}

static void take_redis(const struct report *r, struct draft *d)
{
    const struct redis_server *first = r->registry ? registry_redis_first(r->registry) : NULL;
    d->redis = arena_array(d->arena, first ? first->slot + 1 : 1, sizeof(void *));
    for (const struct redis_server *s = first; s; s = s->next) {
        enum redis_cause unused;
        enum redis_state state = redis_server_look(s, &unused);
        if (state == REDIS_UNUSED)
            continue;
        Gwp__RedisStats *m = redis_of(d, s->name);
        m->gateways = MAX(m->gateways, atomic_load_explicit(&s->gateways, memory_order_relaxed));
        m->away = m->away || state == REDIS_AWAY;
    }
}

/* ---- the process ---- */

static uint64_t rss_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    if (fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* When this process began, on the wall clock. */
static double started_seconds(void)
{
    static double started;
    struct timespec wall, since_boot;
    unsigned long long ticks = 0;
    FILE *f = started > 0 ? NULL : fopen("/proc/self/stat", "re");
    if (!f)
        return started;
    /* The name, which may hold anything, ends with the last parenthesis; ours has no spaces. */
    if (fscanf(f,
               "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
               "%*d %llu",
               &ticks) == 1) {
        clock_gettime(CLOCK_REALTIME, &wall);
        clock_gettime(CLOCK_BOOTTIME, &since_boot);
        started = (double)(wall.tv_sec - since_boot.tv_sec) +
                  (double)(wall.tv_nsec - since_boot.tv_nsec) / 1e9 +
                  (double)ticks / (double)sysconf(_SC_CLK_TCK);
    }
    fclose(f);
    return started;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Since Linux 6.2 the directory's size is the count; before, it has to be walked. */
static uint64_t open_fds(void)
{
    struct stat st;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return (uint64_t)st.st_size;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return 0;
    uint64_t count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - MIN(count, 3); /* ".", ".." and the directory itself */
}

/* ---- parts ---- */

/* How many of these messages fit into `room` bytes, at least one. */
static size_t fitting(void *const *messages, size_t count, size_t *room)
{
    size_t n = 0;
    for (; n < count; n++) {
        size_t bytes = protobuf_c_message_get_packed_size(messages[n]) + 8;
        if (n > 0 && bytes > *room)
            break;
        *room -= MIN(bytes, *room);
    }
    return n;
}

static void fill_process(Gwp__StatsReport *part)
{
    part->rss_bytes = rss_bytes();
    part->cpu_seconds = cpu_seconds();
    part->open_fds = open_fds();
    part->started_seconds = started_seconds();
}

static enum report_status emit_parts(struct report *r, struct draft *d, struct err *err)
{
    size_t series = 0, targets = 0, counts = 0;
    bool more = true;
    r->sequence++;
    do {
        size_t room = PART_BYTES;
        Gwp__StatsReport part = GWP__STATS_REPORT__INIT;
        part.sequence = r->sequence;
        part.lineage = d->lineage;
        part.complete = d->complete;
        part.n_counters = d->counter_count;
        part.counters = d->counter_at;
        part.n_duration_buckets_seconds = d->bound_count;
        part.duration_buckets_seconds = d->bounds;
        part.settled = !r->registry;
        if (r->registry) {
            part.breaker_lineage = segment_lineage(registry_breakers(r->registry));
            fill_process(&part);
            part.redis = d->redis;
            part.n_redis = d->redis_count;
        }
        if (series + targets + counts == 0) {
            part.transitions = d->request->transitions;
            part.n_transitions = d->request->transition_count;
            part.generations = d->generations;
            part.n_generations = d->generation_count;
        }
        part.routes = d->series + series;
        part.n_routes = fitting((void **)part.routes, d->series_count - series, &room);
        series += part.n_routes;
        if (series == d->series_count) {
            part.targets = d->targets + targets;
            part.n_targets = fitting((void **)part.targets, d->target_count - targets, &room);
            targets += part.n_targets;
        }
        if (series == d->series_count && targets == d->target_count) {
            part.route_counts = d->counts + counts;
            part.n_route_counts =
                fitting((void **)part.route_counts, d->count_count - counts, &room);
            counts += part.n_route_counts;
        }
        more = series < d->series_count || targets < d->target_count || counts < d->count_count;
        part.more = more;
        if (!d->request->emit(d->request->owner, &part, err))
            return REPORT_FAILED;
    } while (more);
    return REPORT_SENT;
}

static enum report_status make(struct report *r, struct draft *d, struct err *err)
{
    uint32_t epochs[MAX_WORKERS] = {0};
    if (!is_settled(d->request, epochs, d))
        return REPORT_LATER;
    d->complete = d->request->complete || d->lineage != r->lineage;
    take_routes(r, d);
    take_targets(r, d);
    take_counters(r, d);
    take_generations(d);
    take_redis(r, d);
    if (!is_unmoved(d->request, epochs)) {
        r->lineage = 0; /* what was remembered above was not reported */
        return REPORT_LATER;
    }
    r->lineage = d->lineage;
    enum report_status status = emit_parts(r, d, err);
    if (status != REPORT_SENT)
        r->lineage = 0;
    return status;
}

enum report_status report_make(struct report *r, const struct report_request *request,
                               struct err *err)
{
    struct draft d = {.request = request, .arena = arena_new(ARENA_BYTES)};
    /* An empty one is somewhere, too: parts begin at an offset of it. */
    d.series = arena_array(d.arena, 1, sizeof(*d.series));
    d.targets = arena_array(d.arena, 1, sizeof(*d.targets));
    d.counts = arena_array(d.arena, 1, sizeof(*d.counts));
    enum report_status status = make(r, &d, err);
    arena_free(&d.arena);
    return status;
}

enum report_status report_settle(const struct settlement *settlement, struct err *err)
{
    struct report *r = report_new(NULL);
    r->names = settlement->names;
    struct report_request request = {.workers = settlement->workers,
                                     .worker_count = settlement->worker_count,
                                     .complete = true,
                                     .emit = settlement->emit,
                                     .owner = settlement->owner};
    enum report_status status = report_make(r, &request, err);
    report_free(&r);
    return status;
}
