/* Three tables, each keyed by a 64-bit hash of text:
 *
 *   hosts      "api.example.com"                 -> index of the host
 *   suffixes   "example.com" for *.example.com   -> index of the host
 *   prefixes   host's salt ^ hash of "/a/b"      -> the routes with that host and prefix
 *
 * Hashes run byte by byte, so that one pass over the path leaves the hash of every prefix that ends
 * at a segment, and one pass over the host, from its end, that of every suffix that ends at a
 * label. Tables are at most half full with linear probing. They are keyed by a seed of the process:
 * no configuration can be written so that its names collide, and what clients ask for is only
 * looked up, never stored. A hash that is equal is compared as text before it is believed.
 *
 * Hot path: no allocation, lock, log line or system call. */
#include "dataplane/route/router.h"

#include <sys/random.h>

#include "proto/base/pace.h"

#define MAX_DEPTH 64   /* segments of a prefix */
#define MAX_LABELS 128 /* a name of 255 bytes has no more */
#define NONE UINT32_MAX

struct cell {
    uint32_t hash;  /* its lower half: more would only save few looks at the text */
    uint32_t index; /* into hosts or claims; NONE = empty */
};

struct map {
    struct cell *cells;
    uint32_t mask;
};

/* All routes of one host and prefix; they differ in their methods. */
struct claim {
    _Alignas(CACHE_LINE_BYTES) struct view prefix;
    uint32_t host, named_count;
    uint64_t allowed;           /* every method of them all */
    const struct route **named; /* those that list their methods */
    const struct route *any;    /* the one that takes every method, or NULL */
    char brief[16];             /* where `prefix` is unless it is longer */
};

static_assert(sizeof(struct claim) == CACHE_LINE_BYTES, "a request reads one line of it");

struct host {
    struct view name; /* without "*." and final dot */
    uint64_t salt;
    uint32_t depth; /* segments of its deepest prefix */
};

struct router {
    uint64_t seed;
    struct map exact, suffixes, prefixes;
    struct host *hosts;
    struct claim *claims;
    uint32_t host_count, claim_count;
    uint32_t exact_count; /* hosts that are no suffixes */
    uint32_t any_host;    /* index of "", or NONE */
    uint32_t max_labels;  /* of the longest suffix */
    uint32_t max_depth;
};

/* ---- hashing ---- */

static uint64_t step(uint64_t h, unsigned char c)
{
    return (h ^ c) * 0x9E3779B97F4A7C15u;
}

/* The multiplication carries upwards only; this brings the high bits down to where the mask is. */
static uint64_t finish(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ (h >> 32);
}

static unsigned char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : (unsigned char)c;
}

/* From the end, so that the hashes of a name's suffixes are on the way. */
static uint64_t hash_host(uint64_t seed, struct view name)
{
    uint64_t h = seed;
    for (size_t i = name.len; i > 0; i--)
        h = step(h, lower(name.at[i - 1]));
    return finish(h);
}

static uint64_t hash_path(uint64_t seed, struct view path)
{
    uint64_t h = seed;
    for (size_t i = 0; i < path.len; i++)
        h = step(h, (unsigned char)path.at[i]);
    return h;
}

static uint64_t seed_of_process(void)
{
    static uint64_t seed; /* control thread only */
    while (seed == 0)
        if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
            seed = 0;
    return seed;
}

/* "/" is the prefix without segments. */
static struct view as_key(struct view prefix)
{
    return prefix.len == 1 ? (struct view){prefix.at, 0} : prefix;
}

static uint64_t hash_claim(uint64_t salt, uint64_t path_hash)
{
    return finish(salt ^ path_hash);
}

/* ---- tables ---- */

static void map_init(struct map *m, struct arena *arena, uint32_t count)
{
    uint32_t size = 4;
    while (size < count * 2)
        size *= 2;
    m->mask = size - 1;
    m->cells = arena_array(arena, size, sizeof(*m->cells));
    for (uint32_t i = 0; i < size; i++)
        m->cells[i].index = NONE;
}

static void map_add(struct map *m, uint64_t hash, uint32_t index)
{
    uint32_t i = (uint32_t)hash & m->mask;
    while (m->cells[i].index != NONE)
        i = (i + 1) & m->mask;
    m->cells[i] = (struct cell){(uint32_t)hash, index};
}

static uint32_t find_host(const struct router *r, const struct map *m, uint64_t hash,
                          struct view name)
{
    for (uint32_t i = (uint32_t)hash & m->mask; m->cells[i].index != NONE; i = (i + 1) & m->mask)
        if (m->cells[i].hash == (uint32_t)hash &&
            view_equal_nocase(r->hosts[m->cells[i].index].name, name))
            return m->cells[i].index;
    return NONE;
}

static uint32_t find_claim(const struct router *r, uint32_t host, uint64_t path_hash,
                           struct view prefix)
{
    const struct map *m = &r->prefixes;
    uint64_t hash = hash_claim(r->hosts[host].salt, path_hash);
    for (uint32_t i = (uint32_t)hash & m->mask; m->cells[i].index != NONE; i = (i + 1) & m->mask) {
        const struct claim *claim = &r->claims[m->cells[i].index];
        if (m->cells[i].hash != (uint32_t)hash)
            continue;
        route_prefetch(claim->any); /* while the text is fetched */
        if (claim->host == host && view_equal(claim->prefix, prefix))
            return m->cells[i].index;
    }
    return NONE;
}

/* ---- compiling ---- */

static struct view without_dot(struct view host)
{
    if (host.len > 0 && host.at[host.len - 1] == '.')
        host.len--;
    return host;
}

static bool is_wildcard(struct view host)
{
    return host.len > 2 && host.at[0] == '*' && host.at[1] == '.';
}

static uint32_t count_of(struct view text, char c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.at[i] == c;
    return n;
}

/* The index of a route's host, made if it is new. */
static uint32_t host_for(struct router *r, struct view host)
{
    bool wildcard = is_wildcard(host);
    struct map *m = wildcard ? &r->suffixes : &r->exact;
    struct view name = without_dot(wildcard ? (struct view){host.at + 2, host.len - 2} : host);
    uint64_t hash = hash_host(r->seed, name);
    uint32_t index = name.len == 0 ? r->any_host : find_host(r, m, hash, name);
    if (index != NONE)
        return index;
    index = r->host_count++;
    r->hosts[index] = (struct host){.name = name, .salt = finish(r->seed + index + 1)};
    if (name.len == 0)
        r->any_host = index;
    else
        map_add(m, hash, index);
    r->exact_count += name.len > 0 && !wildcard;
    if (wildcard)
        r->max_labels = MAX(r->max_labels, count_of(name, '.') + 1);
    return index;
}

static uint32_t claim_for(struct router *r, uint32_t host, struct view prefix)
{
    uint64_t path_hash = hash_path(r->seed, prefix);
    uint32_t index = find_claim(r, host, path_hash, prefix);
    if (index != NONE)
        return index;
    index = r->claim_count++;
    struct claim *claim = &r->claims[index];
    *claim = (struct claim){.prefix = prefix, .host = host};
    if (prefix.len > 0 && prefix.len <= sizeof(claim->brief))
        claim->prefix.at = memcpy(claim->brief, prefix.at, prefix.len);
    map_add(&r->prefixes, hash_claim(r->hosts[host].salt, path_hash), index);
    r->hosts[host].depth = MAX(r->hosts[host].depth, count_of(prefix, '/'));
    r->max_depth = MAX(r->max_depth, r->hosts[host].depth);
    return index;
}

static const struct route *rival_of(const struct claim *claim, const struct route *route)
{
    if (route->methods == UINT64_MAX)
        return claim->any;
    for (uint32_t i = 0; i < claim->named_count; i++)
        if (claim->named[i]->methods & route->methods)
            return claim->named[i];
    return NULL;
}

static int add_route(struct router *r, struct snapshot *s, const struct route *route,
                     struct err *err)
{
    struct view prefix = as_key(route->path_prefix);
    if (count_of(prefix, '/') > MAX_DEPTH)
        return err_set(err, "%.*s:%u: route \"%.*s\": its path prefix has more than %d segments",
                       VIEW_ARG(s->source), route->line, VIEW_ARG(route->name), MAX_DEPTH);
    struct claim *claim = &r->claims[claim_for(r, host_for(r, route->host), prefix)];
    const struct route *rival = rival_of(claim, route);
    if (rival)
        return err_set(err,
                       "%.*s:%u: route \"%.*s\" claims the same host, path and method as route "
                       "\"%.*s\" at line %u",
                       VIEW_ARG(s->source), route->line, VIEW_ARG(route->name),
                       VIEW_ARG(rival->name), rival->line);
    claim->allowed |= route->methods;
    if (route->methods == UINT64_MAX) {
        claim->any = route;
        return 0;
    }
    /* Each names a method of its own, so that there are never many. */
    const struct route **named = arena_array(s->arena, claim->named_count + 1, sizeof(*named));
    for (uint32_t i = 0; i < claim->named_count; i++)
        named[i] = claim->named[i];
    named[claim->named_count++] = route;
    claim->named = named;
    return 0;
}

int router_compile(struct snapshot *s, struct err *err)
{
    struct router *r = arena_array(s->arena, 1, sizeof(*r));
    r->seed = seed_of_process();
    r->any_host = NONE;
    map_init(&r->exact, s->arena, s->route_count);
    map_init(&r->suffixes, s->arena, s->route_count);
    map_init(&r->prefixes, s->arena, s->route_count);
    r->hosts = arena_array(s->arena, s->route_count, sizeof(*r->hosts));
    r->claims = arena_array(s->arena, s->route_count, sizeof(*r->claims));
    for (uint32_t i = 0; i < s->route_count; i++) {
        pace_yield();
        if (add_route(r, s, &s->routes[i], err) < 0)
            return -1;
    }
    s->router = r;
    return 0;
}

/* ---- looking up ---- */

/* The request's path cut at its segments: hash and length of every prefix it may match. */
struct cuts {
    struct view path;
    uint32_t count; /* of cuts, the first one is "/" */
    struct {
        uint64_t hash;
        size_t len;
    } at[MAX_DEPTH + 1];
};

static void cut_path(const struct router *r, struct view path, struct cuts *cuts)
{
    uint64_t h = r->seed;
    size_t i = 0;
    cuts->path = path;
    cuts->at[0].hash = h;
    cuts->at[0].len = 0;
    cuts->count = 1;
    while (cuts->count <= r->max_depth && i + 1 < path.len) {
        do
            h = step(h, (unsigned char)path.at[i++]);
        while (i < path.len && path.at[i] != '/');
        cuts->at[cuts->count].hash = h;
        cuts->at[cuts->count++].len = i;
    }
}

static enum reason pick(const struct claim *claim, unsigned method, const struct route **route,
                        uint64_t *allowed)
{
    uint64_t bit = (uint64_t)1 << (method & 63);
    for (uint32_t i = 0; i < claim->named_count; i++) {
        if (claim->named[i]->methods & bit) {
            *route = claim->named[i];
            return R_SERVED;
        }
    }
    if (claim->any) {
        *route = claim->any;
        return R_SERVED;
    }
    *allowed = claim->allowed;
    return R_METHOD_NOT_ALLOWED;
}

static const struct claim *longest(const struct router *r, uint32_t host, const struct cuts *cuts)
{
    for (uint32_t i = MIN(cuts->count, r->hosts[host].depth + 1); i > 0; i--) {
        struct view prefix = {cuts->path.at, cuts->at[i - 1].len};
        uint32_t index = find_claim(r, host, cuts->at[i - 1].hash, prefix);
        if (index != NONE)
            return &r->claims[index];
    }
    return NULL;
}

/* The suffixes of `host` after each of its dots, shortest first, with their hashes. */
static uint32_t cut_host(const struct router *r, struct view host, uint64_t *hashes, size_t *starts)
{
    uint32_t count = 0;
    uint64_t h = r->seed;
    for (size_t i = host.len; i > 0 && count < r->max_labels && count < MAX_LABELS; i--) {
        if (host.at[i - 1] == '.') {
            hashes[count] = finish(h);
            starts[count++] = i;
        }
        h = step(h, lower(host.at[i - 1]));
    }
    return count;
}

static const struct claim *find_by_suffix(const struct router *r, struct view host,
                                          const struct cuts *cuts)
{
    uint64_t hashes[MAX_LABELS];
    size_t starts[MAX_LABELS];
    for (uint32_t i = cut_host(r, host, hashes, starts); i > 0; i--) {
        struct view suffix = {host.at + starts[i - 1], host.len - starts[i - 1]};
        uint32_t index = find_host(r, &r->suffixes, hashes[i - 1], suffix);
        const struct claim *claim = index == NONE ? NULL : longest(r, index, cuts);
        if (claim)
            return claim;
    }
    return NULL;
}

enum reason router_find(const struct router *r, struct view host, struct view path, unsigned method,
                        const struct route **route, uint64_t *allowed)
{
    struct cuts cuts;
    const struct claim *claim = NULL;
    cut_path(r, path, &cuts);
    host = without_dot(host);
    if (host.len > 0) {
        uint32_t index = NONE;
        if (r->exact_count > 0)
            index = find_host(r, &r->exact, hash_host(r->seed, host), host);
        if (index != NONE)
            claim = longest(r, index, &cuts);
        if (!claim && r->max_labels > 0)
            claim = find_by_suffix(r, host, &cuts);
    }
    if (!claim && r->any_host != NONE)
        claim = longest(r, r->any_host, &cuts);
    return claim ? pick(claim, method, route, allowed) : R_NO_ROUTE;
}
