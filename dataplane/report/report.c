#include "dataplane/report/report.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/state/snapshot.h"
#include "proto/base/arena.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#define PART_BYTES (1024 * 1024)
#define ARENA_BYTES (64 * 1024)
#define NO_ROUTE_NAME "none"

/* What was reported last, so that what did not change can be left out. */
struct series_seen {
    uint64_t requests[METHOD_LABELS];
};

struct target_seen {
    uint64_t requests;
    uint32_t active, epoch;
};

struct report {
    const struct registry *registry; /* borrowed */
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
    Gwp__Counter counters[COUNTERS];
    Gwp__Counter *counter_at[COUNTERS];
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
    d->lineage = 0;
    for (unsigned i = 0; i < q->worker_count; i++) {
        double bounds[STATS_MAX_BUCKETS];
        epochs[i] = stats_epoch(q->workers[i]);
        uint32_t count = stats_bounds(q->workers[i], bounds);
        d->lineage = d->lineage * 31 + stats_lineage(q->workers[i]);
        if (epochs[i] % 2 != 0)
            return false;
        if (i == 0) {
            d->bound_count = count;
            memcpy(d->bounds, bounds, count * sizeof(*bounds));
        } else if (count != d->bound_count ||
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

static void put_series(struct draft *d, const char *route, enum method_label method,
                       const struct stats_series *sum)
{
    Gwp__RouteSeries *out = arena_alloc(d->arena, sizeof(*out));
    gwp__route_series__init(out);
    out->route = (char *)route;
    out->method = (char *)method_label_word(method);
    put_statuses(d, out, sum);
    out->n_buckets = d->bound_count + 1;
    out->buckets = arena_array(d->arena, out->n_buckets, sizeof(uint64_t));
    memcpy(out->buckets, sum->buckets, out->n_buckets * sizeof(uint64_t));
    out->sum_seconds = sum->sum_seconds;
    append(d->arena, (void ***)&d->series, &d->series_count, &d->series_room, out);
}

static void take_route(struct report *r, struct draft *d, uint32_t slot, const char *name,
                       struct series_seen *seen)
{
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

static void take_routes(struct report *r, struct draft *d)
{
    uint32_t slots = 0;
    for (unsigned i = 0; i < d->request->worker_count; i++)
        slots = MAX(slots, stats_route_slots(d->request->workers[i]));
    slots = MIN(slots, registry_route_slots(r->registry));
    r->routes = with_room(r->routes, &r->route_room, slots, sizeof(*r->routes));
    for (uint32_t slot = 0; slot < slots; slot++)
        take_route(r, d, slot, registry_route_name(r->registry, slot), &r->routes[slot]);
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

static void take_target(struct report *r, struct draft *d, uint32_t slot)
{
    struct target_seen *seen = &r->targets[slot];
    uint64_t id = registry_target_id(r->registry, slot), requests = 0, failures = 0;
    const struct target_state *state = registry_find_target(r->registry, id);
    uint32_t active = state ? atomic_load_explicit(&state->active, memory_order_relaxed) : 0;
    struct breaker_view breaker = {.epoch = seen->epoch};
    if (state && state->breaker)
        breaker_look(state->breaker, &breaker);
    for (unsigned i = 0; i < d->request->worker_count; i++)
        stats_read_target(d->request->workers[i], slot, &requests, &failures);
    if (requests == 0 && active == 0 && seen->active == 0 && breaker.epoch == 0)
        return;
    if (!d->complete && requests == seen->requests && active == seen->active &&
        breaker.epoch == seen->epoch)
        return;
    *seen = (struct target_seen){requests, active, breaker.epoch};
    Gwp__TargetStats *out = arena_alloc(d->arena, sizeof(*out));
    gwp__target_stats__init(out);
    out->target_id = id;
    out->requests = requests;
    out->failures = failures;
    out->active = active;
    if (state && state->breaker)
        put_breaker(d, out, state->breaker, &breaker);
    append(d->arena, (void ***)&d->targets, &d->target_count, &d->target_room, out);
}

static void take_targets(struct report *r, struct draft *d)
{
    uint32_t slots = registry_target_slots(r->registry);
    r->targets = with_room(r->targets, &r->target_room, slots, sizeof(*r->targets));
    for (uint32_t slot = 0; slot < slots; slot++)
        take_target(r, d, slot);
}

static void put_counter(struct draft *d, unsigned i, const char *name, uint64_t value)
{
    gwp__counter__init(&d->counters[i]);
    d->counters[i].name = (char *)name;
    d->counters[i].value = value;
    d->counter_at[i] = &d->counters[i];
}

static void take_counters(struct draft *d)
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
        put_counter(d, i, names[i], sum);
    }
    put_counter(d, STAT_COUNT, "snapshots_alive", d->request->snapshots_alive);
    put_counter(d, STAT_COUNT + 1, "workers", d->request->worker_count);
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

static enum report_status emit_parts(struct report *r, struct draft *d, struct err *err)
{
    size_t series = 0, targets = 0;
    r->sequence++;
    do {
        size_t room = PART_BYTES;
        Gwp__StatsReport part = GWP__STATS_REPORT__INIT;
        part.sequence = r->sequence;
        part.lineage = d->lineage;
        part.complete = d->complete;
        part.n_counters = COUNTERS;
        part.counters = d->counter_at;
        part.n_duration_buckets_seconds = d->bound_count;
        part.duration_buckets_seconds = d->bounds;
        part.rss_bytes = rss_bytes();
        part.cpu_seconds = cpu_seconds();
        part.open_fds = open_fds();
        if (series + targets == 0) {
            part.transitions = d->request->transitions;
            part.n_transitions = d->request->transition_count;
        }
        part.routes = d->series + series;
        part.n_routes = fitting((void **)part.routes, d->series_count - series, &room);
        series += part.n_routes;
        if (series == d->series_count) {
            part.targets = d->targets + targets;
            part.n_targets = fitting((void **)part.targets, d->target_count - targets, &room);
            targets += part.n_targets;
        }
        part.more = series < d->series_count || targets < d->target_count;
        if (!d->request->emit(d->request->owner, &part, err))
            return REPORT_FAILED;
    } while (series < d->series_count || targets < d->target_count);
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
    take_counters(d);
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
    enum report_status status = make(r, &d, err);
    arena_free(&d.arena);
    return status;
}
