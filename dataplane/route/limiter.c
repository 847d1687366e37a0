/* A set has 16 places and a lock. Its first cache line tells by 16 bits of each key which
 * place to look at:
 *
 *     lock, again, tags[16] | slots[16]
 *
 * A key's home is the place that its digest names; it gets that one if it is free, as it is for
 * most, so that all lines can be fetched at once. Sets do not begin at pages: their first lines
 * would compete for the same few places of the processor's caches.
 *
 * The lock: deciding reads and writes two numbers that belong together, and a key may have to find
 * or take a place first. Under a lock of the set that is plain code, exact by construction, and
 * takes some tens of ns, as long as a failed compare-and-swap or two would; there are thousands of
 * sets, so two workers seldom meet. The holder makes no system call and takes no other lock, so a
 * waiter spins for that long. What can hold it up is being preempted: the waiter then yields its
 * processor, which the holder may need. A process can be killed while it holds locks, and another
 * one may go on with the table: a lock that another process' number has held for 20 ms is taken
 * over. What the killed one has left is in order: a tag is cleared before its place changes hands
 * and set when that is done, and a half-written state is one request wrong, for a while.
 *
 * Hot path: no allocation, no system call but a yield as above. */
#include "dataplane/route/limiter.h"

#include <assert.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "dataplane/state/segment.h"
#include "proto/base/log.h"

#define LAYOUT 2
#define PLACES 16
#define SLOT_MAX_BYTES 256
#define TABLE_HEAD_BYTES 4096
#define ROUTE_TEXT_BYTES 128
#define SPINS_BEFORE_YIELD 100
#define ABANDONED_NS 20000000u
#define NS_PER_MS 1000000u
#define TOKEN_UNITS 4294967296.0 /* of limit_bucket.c */

enum key_space { SPACE_ADDRESS, SPACE_TEXT };

static_assert(SPACE_TEXT + 1 == LIMIT_SPACES, "a secret for each");

/* The segment begins with this. Who finds it decides by it whether to go on with the table. */
struct table_head {
    struct segment_head head;
    uint32_t algorithm, key_by, max_keys, window_ms;
    uint64_t sets, set_bytes;
    uint64_t secrets[LIMIT_SPACES][2];
    uint64_t route_hash;          /* XXH3 of the name */
    char route[ROUTE_TEXT_BYTES]; /* its beginning, for people */
    _Atomic uint32_t gateways;    /* 0 = unknown, as of a release that does not write it */
};

static_assert(sizeof(struct table_head) <= TABLE_HEAD_BYTES, "the sets begin behind it");

struct set {
    _Alignas(CACHE_LINE_BYTES) _Atomic uint32_t lock; /* 0, or the number of who holds it */
    uint32_t again; /* bit n: the key at n was seen more than once */
    uint32_t zero[6];
    uint16_t tags[PLACES]; /* 0 = free */
};

static_assert(sizeof(struct set) == 64, "one cache line; the slots follow");

struct limiter {
    struct list link; /* of route_state.limiters */
    const struct limit_algorithm *algorithm;
    struct table_head *table; /* the segment's mapping */
    char *sets;               /* behind it */
    uint64_t set_count, set_bytes;
    size_t slot_bytes;
    uint32_t me;   /* in locks: not 0, no other process' */
    uint32_t refs; /* control thread */
    struct segment segment;
    struct sketch sketches[LIMITER_SKETCHES];
};

static const struct limit_algorithm *const algorithms[] = {
    [LIMITER_BUCKET] = &limit_bucket,
    [LIMITER_WINDOW] = &limit_window,
};

/* ---- policies ---- */

void limit_policy_derive(struct limit_policy *p)
{
    if (p->algorithm == LIMITER_BUCKET) {
        p->quota = p->burst;
        p->tokens_per_ns = p->rate * TOKEN_UNITS / 1e9;
        p->window_s = (uint64_t)ceil(p->burst / p->rate);
    } else {
        /* A rate such as 0.1 is a bit less or more in binary. */
        p->quota = (uint64_t)(p->rate * p->window_ms / 1e3 + 1e-6);
        p->window_s = (p->window_ms + 999) / 1000;
        p->cell_ns =
            (p->window_ms * (uint64_t)NS_PER_MS + LIMIT_WINDOW_CELLS - 1) / LIMIT_WINDOW_CELLS;
    }
    p->quota = MAX(p->quota, 1);
    p->window_s = MAX(p->window_s, 1);
}

struct limit_policy limit_policy_share(const struct limit_policy *p, uint32_t gateways)
{
    struct limit_policy share = *p;
    share.rate = p->rate / gateways;
    share.burst = MAX(p->burst / gateways, 1);
    limit_policy_derive(&share);
    return share;
}

/* ---- open and release ---- */

static void fill_random(void *bytes, size_t len)
{
    if (getrandom(bytes, len, 0) != (ssize_t)len)
        log_fatal("limiter", "the system gives no random numbers");
}

static bool counts_as(const struct limiter *l, const struct limit_policy *p)
{
    const struct table_head *t = l->table;
    return t->algorithm == (uint32_t)p->algorithm && t->key_by == (uint32_t)p->key_by &&
           t->max_keys == p->max_keys &&
           (p->algorithm == LIMITER_BUCKET || t->window_ms == p->window_ms);
}

static uint64_t set_bytes_of(const struct limit_algorithm *a)
{
    return sizeof(struct set) + PLACES * a->slot_bytes;
}

static uint64_t sets_for(uint32_t max_keys)
{
    return (max_keys + (uint64_t)max_keys / 2 + PLACES - 1) / PLACES;
}

/* From its head on, which is right. What is needed of it is copied: another process could write
 * something else there later. */
static void use_table(struct limiter *l)
{
    struct table_head *t = l->table = (struct table_head *)(void *)l->segment.head;
    l->algorithm = algorithms[t->algorithm];
    l->sets = (char *)t + TABLE_HEAD_BYTES;
    l->slot_bytes = l->algorithm->slot_bytes;
    l->set_bytes = set_bytes_of(l->algorithm);
    l->set_count = (l->segment.bytes - TABLE_HEAD_BYTES) / l->set_bytes;
    while (l->me == 0)
        fill_random(&l->me, sizeof(l->me));
}

static int make_table(struct limiter *l, const char *route, const struct limit_policy *p,
                      struct err *err)
{
    uint64_t sets = sets_for(p->max_keys), set_bytes = set_bytes_of(algorithms[p->algorithm]);
    if (segment_create(&l->segment, "gwp-limiter", LAYOUT, TABLE_HEAD_BYTES + sets * set_bytes,
                       err) < 0)
        return -1;
    struct table_head *t = (struct table_head *)(void *)l->segment.head;
    t->algorithm = (uint32_t)p->algorithm;
    t->key_by = (uint32_t)p->key_by;
    t->max_keys = p->max_keys;
    t->window_ms = p->window_ms;
    t->sets = sets;
    t->set_bytes = set_bytes;
    t->route_hash = XXH3_64bits(route, strlen(route));
    memcpy(t->route, route, MIN(strlen(route), sizeof(t->route) - 1));
    fill_random(t->secrets, sizeof(t->secrets));
    use_table(l);
    return 0;
}

struct limiter *limiter_open(struct list *limiters, const char *route, const struct limit_policy *p,
                             struct err *err)
{
    list_each (node, limiters) {
        struct limiter *l = CONTAINER_OF(node, struct limiter, link);
        if (counts_as(l, p)) {
            l->refs++;
            return l;
        }
    }
    struct limiter *l = calloc(1, sizeof(*l));
    if (!l)
        log_fatal("limiter", "out of memory");
    if (make_table(l, route, p, err) < 0) {
        free(l);
        return NULL;
    }
    list_push_front(limiters, &l->link);
    l->refs = 1;
    return l;
}

static void forget(struct limiter *l)
{
    list_remove(&l->link);
    segment_close(&l->segment);
    free(l);
}

void limiter_release(struct limiter **lp)
{
    struct limiter *l = *lp;
    *lp = NULL;
    assert(l->refs > 0);
    if (--l->refs > 0)
        return;
    forget(l);
}

/* How large a table must be that has this head; 0 when the head makes no sense. */
static size_t bytes_of(const struct table_head *t)
{
    if (t->algorithm >= COUNT_OF(algorithms) || t->max_keys == 0 ||
        (t->algorithm == LIMITER_WINDOW && t->window_ms == 0) || t->sets != sets_for(t->max_keys) ||
        t->set_bytes != set_bytes_of(algorithms[t->algorithm]))
        return 0;
    return TABLE_HEAD_BYTES + t->sets * t->set_bytes;
}

static int check_table(const struct segment *s, const char *route, struct err *err)
{
    const struct table_head *t = (const struct table_head *)(const void *)s->head;
    if (s->bytes < TABLE_HEAD_BYTES || bytes_of(t) != s->bytes)
        return err_set(err, "the limiter table of route \"%s\" does not add up", route);
    if (t->route_hash != XXH3_64bits(route, strlen(route)))
        return err_set(err, "the limiter table of route \"%s\" is another route's", route);
    return 0;
}

struct limiter *limiter_adopt(struct list *limiters, const char *route, int fd, struct err *err)
{
    struct segment s;
    if (segment_adopt(&s, fd, "gwp-limiter", LAYOUT, 0, err) < 0)
        return NULL;
    if (check_table(&s, route, err) < 0) {
        segment_close(&s);
        return NULL;
    }
    struct limiter *l = calloc(1, sizeof(*l));
    if (!l)
        log_fatal("limiter", "out of memory");
    l->segment = s;
    use_table(l);
    list_push_back(limiters, &l->link);
    return l;
}

void limiter_forget_unused(struct list *limiters)
{
    list_each_safe (node, limiters) {
        struct limiter *l = CONTAINER_OF(node, struct limiter, link);
        if (l->refs == 0)
            forget(l);
    }
}

const struct segment *limiter_segment(const struct limiter *l)
{
    return &l->segment;
}

struct limiter *limiter_of_link(struct list *link)
{
    return CONTAINER_OF(link, struct limiter, link);
}

size_t limiter_bytes(const struct limiter *l)
{
    return l->segment.bytes;
}

/* ---- keys ---- */

static struct ip cut_to_prefix(struct ip ip, uint32_t bits)
{
    if (ip_is_v4(ip))
        return ip;
    ip.high &= bits >= 64 ? UINT64_MAX : ~(UINT64_MAX >> bits);
    ip.low &= bits >= 128 ? UINT64_MAX : bits <= 64 ? 0 : ~(UINT64_MAX >> (bits - 64));
    return ip;
}

struct digest128 limit_subject_digest(const struct limit_policy *p, const struct limit_subject *who,
                                      const uint64_t secrets[LIMIT_SPACES][2])
{
    if (who->text.len > 0)
        return siphash128(secrets[SPACE_TEXT], who->text);
    struct ip ip = cut_to_prefix(who->ip, p->ipv6_prefix);
    return siphash128(secrets[SPACE_ADDRESS], (struct view){(const char *)&ip, sizeof(ip)});
}

struct digest128 limiter_key(const struct limit_policy *p, const struct limit_subject *who)
{
    return limit_subject_digest(p, who, p->limiter->table->secrets);
}

struct digest128 limiter_key_of_ip(const struct limit_policy *p, struct ip ip)
{
    return limiter_key(p, &(struct limit_subject){.ip = ip});
}

struct digest128 limiter_key_of_text(const struct limit_policy *p, struct view text)
{
    return siphash128(p->limiter->table->secrets[SPACE_TEXT], text);
}

/* ---- locks ---- */

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("" ::: "memory");
#endif
}

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool try_lock(struct set *s, uint32_t expected, uint32_t me)
{
    return atomic_compare_exchange_strong_explicit(&s->lock, &expected, me, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void lock_slowly(struct set *s, uint32_t me)
{
    uint64_t since_ns = 0;
    for (unsigned turn = 1;; turn++) {
        uint32_t holder = atomic_load_explicit(&s->lock, memory_order_relaxed);
        if (holder == 0 && try_lock(s, 0, me))
            return;
        if (turn < SPINS_BEFORE_YIELD) {
            relax();
            continue;
        }
        sched_yield();
        if (holder == 0 || holder == me) {
            since_ns = 0; /* of ours: a thread of this process will let it go */
        } else if (since_ns == 0) {
            since_ns = clock_ns();
        } else if (clock_ns() - since_ns > ABANDONED_NS && try_lock(s, holder, me)) {
            return;
        }
    }
}

static void lock(struct set *s, uint32_t me)
{
    if (UNLIKELY(!try_lock(s, 0, me)))
        lock_slowly(s, me);
}

static void unlock(struct set *s)
{
    atomic_store_explicit(&s->lock, 0, memory_order_release);
}

/* ---- places ---- */

/* Which of the set: 32 bits of the digest as a fraction. */
static struct set *set_of(const struct limiter *l, struct digest128 key)
{
    uint64_t n = (key.high >> 32) * l->set_count >> 32;
    return (struct set *)(void *)(l->sets + n * l->set_bytes);
}

static uint16_t tag_of(struct digest128 key)
{
    uint16_t tag = (uint16_t)key.low;
    return tag ? tag : 1;
}

static unsigned home_of(const struct limiter *l, struct digest128 key)
{
    return (unsigned)((key.high & UINT32_MAX) * PLACES >> 32);
}

static struct limit_slot *slot_at(const struct limiter *l, const struct set *s, unsigned place)
{
    return (struct limit_slot *)(void *)((char *)(s + 1) + place * l->slot_bytes);
}

static bool is_at(const struct limiter *l, const struct set *s, unsigned i, struct digest128 key)
{
    const struct limit_slot *slot = slot_at(l, s, i);
    return slot->key.low == key.low && slot->key.high == key.high;
}

/* PLACES when it has no place. */
static unsigned find(const struct limiter *l, const struct set *s, struct digest128 key)
{
    uint16_t tag = tag_of(key);
    unsigned home = home_of(l, key);
    uint32_t same = 0;
    if (LIKELY(s->tags[home] == tag && is_at(l, s, home, key)))
        return home;
    for (unsigned i = 0; i < PLACES; i++)
        same |= (uint32_t)(s->tags[i] == tag) << i;
    for (; same != 0; same &= same - 1) {
        unsigned i = (unsigned)__builtin_ctz(same);
        if (is_at(l, s, i, key))
            return i;
    }
    return PLACES;
}

#define SEEN_AGAIN ((uint64_t)1 << 63) /* above any weight */

/* A free place, at home first, or the one whose key is the least loss. */
static unsigned choose(const struct limit_policy *p, const struct set *s, unsigned home,
                       uint64_t now_ns)
{
    const struct limiter *l = p->limiter;
    unsigned best = 0;
    uint64_t least = UINT64_MAX;
    if (s->tags[home] == 0)
        return home;
    for (unsigned i = 0; i < PLACES; i++)
        if (s->tags[i] == 0)
            return i;
    for (unsigned i = 0; i < PLACES && least > 0; i++) {
        const struct limit_slot *slot = slot_at(l, s, i);
        uint64_t weight = l->algorithm->weight(p, slot, now_ns);
        if (weight > 0 && s->again >> i & 1)
            weight |= SEEN_AGAIN;
        if (weight < least || (weight == least && slot->clock < slot_at(l, s, best)->clock)) {
            least = weight;
            best = i;
        }
    }
    return best;
}

static unsigned take(const struct limit_policy *p, struct set *s, struct digest128 key,
                     uint64_t now_ns)
{
    const struct limiter *l = p->limiter;
    unsigned i = choose(p, s, home_of(l, key), now_ns);
    struct limit_slot *slot = slot_at(l, s, i);
    s->tags[i] = 0;
    atomic_signal_fence(memory_order_seq_cst); /* in this order, should we be killed here */
    s->again &= ~(1u << i);
    memset(slot, 0, l->slot_bytes);
    slot->key = key;
    atomic_signal_fence(memory_order_seq_cst);
    s->tags[i] = tag_of(key);
    return i;
}

struct limit_verdict limiter_decide(const struct limit_policy *p, struct digest128 key,
                                    uint64_t now_ns)
{
    const struct limiter *l = p->limiter;
    struct set *s = set_of(l, key);
    l->algorithm->prefetch(p, slot_at(l, s, home_of(l, key)), now_ns);
    lock(s, l->me);
    unsigned i = find(l, s, key);
    if (i < PLACES)
        s->again |= 1u << i;
    else
        i = take(p, s, key, now_ns);
    struct limit_verdict v = l->algorithm->decide(p, slot_at(l, s, i), now_ns);
    unlock(s);
    return v;
}

/* On a copy, under the lock for no longer than copying takes. */
struct limit_verdict limiter_peek(const struct limit_policy *p, struct digest128 key,
                                  uint64_t now_ns)
{
    const struct limiter *l = p->limiter;
    struct set *s = set_of(l, key);
    _Alignas(CACHE_LINE_BYTES) char copy[SLOT_MAX_BYTES] = {0};
    lock(s, l->me);
    unsigned i = find(l, s, key);
    if (i < PLACES)
        memcpy(copy, slot_at(l, s, i), l->slot_bytes);
    unlock(s);
    return l->algorithm->decide(p, (struct limit_slot *)(void *)copy, now_ns);
}

/* ---- looking and forgetting ---- */

uint32_t limiter_gateways(struct limiter *l, uint32_t heard)
{
    _Atomic uint32_t *noted = &l->table->gateways;
    uint32_t before = atomic_load_explicit(noted, memory_order_relaxed);
    if (heard > 0 && heard != before)
        atomic_store_explicit(noted, heard, memory_order_relaxed);
    return MAX(heard > 0 ? heard : before, 1);
}

void limiter_note(const struct limit_policy *p, struct digest128 key,
                  const struct limit_subject *who, bool limited, uint64_t random, uint64_t now_ns)
{
    struct sketch *sketches = p->limiter->sketches;
    struct ip ip = cut_to_prefix(who->ip, p->ipv6_prefix);
    sketch_note(&sketches[LIMITER_BUSIEST], key, ip, who->text, limited, random, now_ns);
    if (limited)
        sketch_note(&sketches[LIMITER_MOST_LIMITED], key, ip, who->text, true, random >> 32,
                    now_ns);
}

struct sketch *limiter_sketch(struct limiter *l, enum limiter_sketch which)
{
    return &l->sketches[which];
}

unsigned limiter_forget(struct limiter *l, struct digest128 key)
{
    struct set *s = set_of(l, key);
    for (unsigned i = 0; i < LIMITER_SKETCHES; i++)
        sketch_forget(&l->sketches[i], &key);
    lock(s, l->me);
    unsigned place = find(l, s, key);
    if (place < PLACES)
        s->tags[place] = 0;
    unlock(s);
    return place < PLACES ? 1 : 0;
}

static unsigned clear(struct limiter *l, struct set *s)
{
    unsigned count = 0;
    lock(s, l->me);
    for (unsigned i = 0; i < PLACES; i++)
        count += s->tags[i] != 0;
    memset(s->tags, 0, sizeof(s->tags));
    unlock(s);
    return count;
}

/* Only where there is memory: looking at a page that was never written would take one. */
uint64_t limiter_forget_all(struct limiter *l)
{
    uint64_t count = 0, next = 0;
    for (unsigned i = 0; i < LIMITER_SKETCHES; i++)
        sketch_forget(&l->sketches[i], NULL);
    for (off_t from = TABLE_HEAD_BYTES, to;; from = to) {
        from = lseek(l->segment.fd, from, SEEK_DATA);
        to = from < 0 ? -1 : lseek(l->segment.fd, from, SEEK_HOLE);
        if (to < 0)
            return count;
        uint64_t first = ((uint64_t)from - TABLE_HEAD_BYTES) / l->set_bytes;
        uint64_t last = ((uint64_t)to - 1 - TABLE_HEAD_BYTES) / l->set_bytes;
        for (next = MAX(next, first); next <= last && next < l->set_count; next++)
            count += clear(l, (struct set *)(void *)(l->sets + next * l->set_bytes));
    }
}
