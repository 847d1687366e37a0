/* One 64-bit word is the whole state machine, so a change of state and what belongs to it are one
 * compare-and-swap, and of all who try one wins:
 *
 *   state:2 | epoch:22 | CLOSED: since when, ms:40
 *                      | OPEN: until when, ms:40
 *                      | HALF_OPEN: given:20, good:20   (given: probes under way, and those that
 *                                                        were good)
 *
 * Probes: a permit is given while given < half_open_requests, so no more than that are ever under
 * way, and no more than that have a verdict. Without a verdict the permit goes back into the count.
 *
 * The window is a ring of sub-windows, each one word: tick:24 | failed:20 | total:20. Who counts
 * replaces the word of an older tick as a whole, so turning the ring over needs nobody in
 * particular. The tick's length is the breaker's, not the policy's of whoever counts: requests of
 * two snapshots count in the same steps. Only what ends in the epoch it began in is counted.
 *
 * Whoever wins a change of state notes it in `history`, at its epoch's place: numbers first, then
 * the tag with release. A reader who finds the tag before and after has read what belongs to it. */
#include "dataplane/route/breaker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/state/segment.h"
#include "proto/base/log.h"

#define LAYOUT 2
#define SLOTS 262144u /* as many as there are counters for */
#define ROUTES 65536u /* a power of two */
#define PROBES 64u    /* for a route's place, before it has none */

#define EPOCH_MASK 0x3FFFFFu
#define PAYLOAD_MASK 0xFFFFFFFFFFu
#define HALF_MASK 0xFFFFFu
#define TICK_MASK 0xFFFFFFu
#define COUNT_MASK 0xFFFFFu
#define TICKS_AHEAD BREAKER_SUB_WINDOWS /* workers of which one lags behind */

#define PERMIT_IS_VALID (1u << 30)

enum cause {
    CAUSE_NONE,
    CAUSE_WINDOW,
    CAUSE_PROBE,
    CAUSE_TIME,
    CAUSE_RECOVERED,
    CAUSE_RESET,
    CAUSE_LOST
};

struct note {
    _Atomic uint64_t tag; /* valid:1 | epoch:22 | from:2 | to:2 | cause:8 | code:8 | status:16 */
    _Atomic uint64_t at_ms;
    _Atomic uint32_t failed, total; /* CAUSE_WINDOW; CAUSE_RECOVERED: total probes */
    _Atomic uint32_t span_ms;       /* the window; CAUSE_TIME: how long it was open */
};

struct breaker {
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t word;
    _Atomic uint64_t target_id;
    _Atomic uint32_t window_ms; /* what ticks are made from; 0 = no policy was ever applied */
    _Atomic uint32_t bad_tick;  /* of the last failure */
    _Atomic uint32_t rounds;    /* of being open without success since it was closed */
    _Atomic uint32_t open_ms;   /* of the present round */
    _Atomic uint32_t moved_to[BREAKER_STATES];
    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t window[BREAKER_SUB_WINDOWS];
    struct note history[BREAKER_HISTORY];
};

static_assert(sizeof(struct breaker) <= 512, "a page holds eight");

/* Of a route, by its name's hash: found where its hash says, or in the next free place. */
struct route_place {
    _Atomic uint64_t hash; /* 0 = free */
    _Atomic uint32_t open; /* of its breakers, those that are not closed */
};

/* Several processes may map it at once, while one replaces another: a slot and a place belong to
 * whoever is noted in it first, for ever, so all of them find the same. */
struct memory {
    struct segment_head head;
    struct route_place routes[ROUTES];
    struct breaker at[SLOTS];
};

struct breakers {
    struct segment segment; /* owned */
    struct memory *memory;  /* its mapping */
};

#define GET(where) atomic_load_explicit(&(where), memory_order_relaxed)
#define SET(where, value) atomic_store_explicit(&(where), (value), memory_order_relaxed)

/* ---- the word ---- */

static uint64_t word_of(enum breaker_state state, uint32_t epoch, uint64_t payload)
{
    return (uint64_t)state << 62 | (uint64_t)(epoch & EPOCH_MASK) << 40 | (payload & PAYLOAD_MASK);
}

/* The fourth value is nobody's, but the memory may have come from anywhere. */
static enum breaker_state state_of(uint64_t word)
{
    return (enum breaker_state)MIN(word >> 62, BREAKER_HALF_OPEN);
}

static uint32_t epoch_of(uint64_t word)
{
    return (uint32_t)(word >> 40) & EPOCH_MASK;
}

static uint64_t until_of(uint64_t word)
{
    return word & PAYLOAD_MASK;
}

static uint32_t given_of(uint64_t word)
{
    return (uint32_t)(word >> 20) & HALF_MASK;
}

static uint32_t good_of(uint64_t word)
{
    return (uint32_t)word & HALF_MASK;
}

static uint64_t probing(uint32_t given, uint32_t good)
{
    return (uint64_t)given << 20 | good;
}

static uint64_t with_payload(uint64_t word, uint64_t payload)
{
    return (word & ~PAYLOAD_MASK) | payload;
}

/* On failure `word` is what is there now. */
static bool replace(struct breaker *b, uint64_t *word, uint64_t by)
{
    return atomic_compare_exchange_strong_explicit(&b->word, word, by, memory_order_acq_rel,
                                                   memory_order_acquire);
}

uint32_t breaker_epochs_between(uint32_t older, uint32_t newer)
{
    return (newer - older) & EPOCH_MASK;
}

uint32_t breaker_epoch_after(uint32_t epoch)
{
    return (epoch + 1) & EPOCH_MASK;
}

/* ---- the window ---- */

static uint32_t tick_of(const struct breaker *b, uint64_t now_ms)
{
    uint32_t step_ms = MAX(GET(b->window_ms) / BREAKER_SUB_WINDOWS, 1);
    return (uint32_t)(now_ms / step_ms) & TICK_MASK;
}

static uint64_t cell_of(uint32_t tick, uint32_t failed, uint32_t total)
{
    return (uint64_t)tick << 40 | (uint64_t)failed << 20 | total;
}

static uint32_t cell_tick(uint64_t cell)
{
    return (uint32_t)(cell >> 40);
}

static uint32_t cell_failed(uint64_t cell)
{
    return (uint32_t)(cell >> 20) & COUNT_MASK;
}

static uint32_t cell_total(uint64_t cell)
{
    return (uint32_t)cell & COUNT_MASK;
}

static void count(struct breaker *b, uint32_t tick, bool failed)
{
    _Atomic uint64_t *cell = &b->window[tick % BREAKER_SUB_WINDOWS];
    uint64_t was = GET(*cell), is;
    do {
        bool is_present = ((cell_tick(was) - tick) & TICK_MASK) <= TICKS_AHEAD;
        uint32_t bad = is_present ? cell_failed(was) : 0, all = is_present ? cell_total(was) : 0;
        if (all == COUNT_MASK) { /* a million in one step: the share is what matters */
            all /= 2;
            bad /= 2;
        }
        is = cell_of(is_present ? cell_tick(was) : tick, bad + failed, all + 1);
    } while (!atomic_compare_exchange_weak_explicit(cell, &was, is, memory_order_relaxed,
                                                    memory_order_relaxed));
}

struct tally {
    uint32_t failed, total;
};

static struct tally add_up(const struct breaker *b, uint32_t tick)
{
    struct tally sum = {0, 0};
    for (unsigned i = 0; i < BREAKER_SUB_WINDOWS; i++) {
        uint64_t cell = GET(b->window[i]);
        uint32_t age = (tick + TICKS_AHEAD - cell_tick(cell)) & TICK_MASK;
        if (age >= BREAKER_SUB_WINDOWS + TICKS_AHEAD)
            continue;
        sum.failed += cell_failed(cell);
        sum.total += cell_total(cell);
    }
    return sum;
}

static void clear_window(struct breaker *b)
{
    for (unsigned i = 0; i < BREAKER_SUB_WINDOWS; i++)
        SET(b->window[i], 0);
}

/* ---- changes of state ---- */

struct why {
    enum cause cause;
    enum reason reason;
    unsigned status;
    uint32_t failed, total, span_ms;
};

/* What opens breakers, by numbers that stay the same: those of reasons.def shift between releases,
 * which may read each other's notes. */
static const enum reason noted_reasons[] = {R_SERVED, R_CONNECT_FAILED, R_CONNECT_TIMEOUT,
                                            R_RESET,  R_BAD_RESPONSE,   R_UPSTREAM_TIMEOUT};

static unsigned code_of(enum reason reason)
{
    for (unsigned i = 0; i < COUNT_OF(noted_reasons); i++)
        if (noted_reasons[i] == reason)
            return i;
    return 0;
}

static enum reason reason_of(unsigned code)
{
    return noted_reasons[code < COUNT_OF(noted_reasons) ? code : 0];
}

static void take_note(struct breaker *b, uint32_t epoch, enum breaker_state from,
                      enum breaker_state to, const struct why *why, uint64_t now_ms)
{
    struct note *n = &b->history[epoch % BREAKER_HISTORY];
    atomic_store_explicit(&n->tag, 0, memory_order_relaxed);
    atomic_store_explicit(&n->at_ms, now_ms, memory_order_release);
    atomic_store_explicit(&n->failed, why->failed, memory_order_release);
    atomic_store_explicit(&n->total, why->total, memory_order_release);
    atomic_store_explicit(&n->span_ms, why->span_ms, memory_order_release);
    uint64_t tag = (uint64_t)1 << 63 | (uint64_t)epoch << 36 | (uint64_t)from << 34 |
                   (uint64_t)to << 32 | (uint64_t)why->cause << 24 |
                   (uint64_t)code_of(why->reason) << 16 | (why->status & 0xFFFF);
    atomic_store_explicit(&n->tag, tag, memory_order_release);
}

/* From the state in `word`, which is still the present one unless this fails. */
static bool move(struct breaker *b, uint64_t *word, enum breaker_state to, uint64_t payload,
                 const struct why *why, uint64_t now_ms)
{
    enum breaker_state from = state_of(*word);
    uint32_t epoch = breaker_epoch_after(epoch_of(*word));
    if (!replace(b, word, word_of(to, epoch, payload)))
        return false;
    atomic_fetch_add_explicit(&b->moved_to[to], 1, memory_order_relaxed);
    take_note(b, epoch, from, to, why, now_ms);
    return true;
}

/* One more of the route's breakers is not closed, if that is allowed. */
static bool reserve(_Atomic uint32_t *open_in_route, uint32_t most)
{
    uint32_t open = GET(*open_in_route);
    do {
        if (open >= most)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(open_in_route, &open, open + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* Not below 0: a process may have been killed between two steps that belong together. */
static void give_back(_Atomic uint32_t *open_in_route)
{
    uint32_t open = GET(*open_in_route);
    while (open > 0 &&
           !atomic_compare_exchange_weak_explicit(open_in_route, &open, open - 1,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

static uint32_t open_time_ms(const struct breaker_policy *p, uint32_t rounds)
{
    uint64_t ms = p->open_ms;
    for (; rounds > 0 && ms < p->max_open_ms; rounds--)
        ms *= 2;
    return (uint32_t)(p->max_open_ms > p->open_ms ? MIN(ms, p->max_open_ms) : p->open_ms);
}

static bool open_for(struct breaker *b, const struct breaker_policy *p, uint64_t *word,
                     uint32_t rounds, const struct why *why, uint64_t now_ms)
{
    uint32_t open_ms = open_time_ms(p, rounds);
    if (!move(b, word, BREAKER_OPEN, now_ms + open_ms, why, now_ms))
        return false;
    SET(b->rounds, rounds + 1);
    SET(b->open_ms, open_ms);
    return true;
}

/* The window is emptied first: while no state is CLOSED nobody counts, and who counts afterwards
 * begins with nothing. */
static bool close_it(struct breaker *b, uint64_t *word, _Atomic uint32_t *open_in_route,
                     const struct why *why, uint64_t now_ms)
{
    clear_window(b);
    if (!move(b, word, BREAKER_CLOSED, now_ms, why, now_ms))
        return false;
    give_back(open_in_route);
    return true;
}

/* ---- asking ---- */

static bool begin_probing(struct breaker *b, uint64_t *word, uint64_t now_ms,
                          breaker_permit *permit)
{
    const struct why why = {.cause = CAUSE_TIME, .span_ms = GET(b->open_ms)};
    uint32_t epoch = breaker_epoch_after(epoch_of(*word));
    if (!move(b, word, BREAKER_HALF_OPEN, probing(1, 0), &why, now_ms))
        return false;
    *permit = PERMIT_IS_VALID | BREAKER_MOVED | BREAKER_PROBE | epoch;
    return true;
}

/* Fewer probes are wanted than have succeeded already: the policy has changed since. */
static bool close_late(struct breaker *b, uint64_t *word, _Atomic uint32_t *open_in_route,
                       uint64_t now_ms, breaker_permit *permit)
{
    const struct why why = {.cause = CAUSE_RECOVERED, .total = good_of(*word)};
    uint32_t epoch = breaker_epoch_after(epoch_of(*word));
    if (!close_it(b, word, open_in_route, &why, now_ms))
        return false;
    *permit = PERMIT_IS_VALID | BREAKER_MOVED | epoch;
    return true;
}

bool breaker_allow(struct breaker *b, const struct breaker_policy *p,
                   _Atomic uint32_t *open_in_route, uint64_t now_ms, breaker_permit *permit)
{
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    for (;;) {
        switch (state_of(word)) {
        case BREAKER_CLOSED:
            *permit = PERMIT_IS_VALID | epoch_of(word);
            return true;
        case BREAKER_OPEN:
            if (now_ms < until_of(word))
                return false;
            if (begin_probing(b, &word, now_ms, permit))
                return true;
            break;
        default:
            if (good_of(word) >= p->half_open_requests) {
                if (close_late(b, &word, open_in_route, now_ms, permit))
                    return true;
                break;
            }
            if (given_of(word) >= p->half_open_requests)
                return false;
            if (replace(b, &word, with_payload(word, probing(given_of(word) + 1, good_of(word))))) {
                *permit = PERMIT_IS_VALID | BREAKER_PROBE | epoch_of(word);
                return true;
            }
        }
    }
}

bool breaker_would_allow(const struct breaker *b, const struct breaker_policy *p, uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    if (LIKELY(state_of(word) == BREAKER_CLOSED))
        return true;
    if (state_of(word) == BREAKER_OPEN)
        return now_ms >= until_of(word);
    return given_of(word) < p->half_open_requests || good_of(word) >= p->half_open_requests;
}

/* ---- reporting ---- */

/* Open, if the window says so and the route may have one more open. */
static bool judge(struct breaker *b, const struct breaker_policy *p,
                  _Atomic uint32_t *open_in_route, uint64_t word, uint32_t tick,
                  const struct why *last, uint64_t now_ms)
{
    struct tally sum = add_up(b, tick);
    if (sum.failed == 0 || sum.total < p->min_requests ||
        (uint64_t)sum.failed * 100 < (uint64_t)sum.total * p->failure_threshold_percent)
        return false;
    if (!reserve(open_in_route, p->most_open))
        return false;
    struct why why = *last;
    why.cause = CAUSE_WINDOW;
    why.failed = sum.failed;
    why.total = sum.total;
    why.span_ms = GET(b->window_ms);
    if (open_for(b, p, &word, 0, &why, now_ms))
        return true;
    give_back(open_in_route); /* somebody else has opened it */
    return false;
}

static bool report_closed(struct breaker *b, const struct breaker_policy *p,
                          _Atomic uint32_t *open_in_route, uint64_t word, enum verdict verdict,
                          const struct why *why, uint64_t now_ms)
{
    uint32_t tick = tick_of(b, now_ms);
    if (verdict == VERDICT_NONE)
        return false;
    count(b, tick, verdict == VERDICT_BAD);
    if (verdict == VERDICT_BAD)
        SET(b->bad_tick, tick);
    else if (LIKELY(((tick - GET(b->bad_tick)) & TICK_MASK) >= BREAKER_SUB_WINDOWS))
        return false; /* nothing in the window has failed */
    return judge(b, p, open_in_route, word, tick, why, now_ms);
}

static bool report_probe(struct breaker *b, const struct breaker_policy *p,
                         _Atomic uint32_t *open_in_route, uint64_t word, enum verdict verdict,
                         const struct why *last, uint64_t now_ms)
{
    uint32_t epoch = epoch_of(word);
    struct why why = *last;
    while (epoch_of(word) == epoch) {
        uint32_t given = given_of(word), good = good_of(word);
        if (verdict == VERDICT_BAD) {
            why.cause = CAUSE_PROBE;
            if (open_for(b, p, &word, GET(b->rounds), &why, now_ms))
                return true;
        } else if (verdict == VERDICT_GOOD && good + 1 >= p->half_open_requests) {
            why = (struct why){.cause = CAUSE_RECOVERED, .total = good + 1};
            if (close_it(b, &word, open_in_route, &why, now_ms))
                return true;
        } else {
            uint64_t now =
                verdict == VERDICT_GOOD ? probing(given, good + 1) : probing(given - 1, good);
            if (replace(b, &word, with_payload(word, now)))
                return false;
        }
    }
    return false;
}

bool breaker_report(struct breaker *b, const struct breaker_policy *p,
                    _Atomic uint32_t *open_in_route, breaker_permit permit, enum verdict verdict,
                    enum reason why, unsigned status, uint64_t now_ms)
{
    const struct why last = {.reason = why, .status = status};
    if (!(permit & PERMIT_IS_VALID))
        return false;
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    if (epoch_of(word) != (permit & EPOCH_MASK))
        return false; /* it began in another period */
    if (LIKELY(state_of(word) == BREAKER_CLOSED))
        return report_closed(b, p, open_in_route, word, verdict, &last, now_ms);
    return report_probe(b, p, open_in_route, word, verdict, &last, now_ms);
}

/* ---- control thread ---- */

struct breakers *breakers_new(void)
{
    struct err err;
    struct breakers *all = calloc(1, sizeof(*all));
    if (!all)
        log_fatal("breaker", "out of memory");
    if (segment_create(&all->segment, "gwp-breakers", LAYOUT, sizeof(struct memory), &err) < 0)
        log_fatal("breaker", "%s", err.text);
    all->memory = (struct memory *)(void *)all->segment.head;
    return all;
}

void breakers_free(struct breakers **all)
{
    if (!*all)
        return;
    segment_close(&(*all)->segment);
    free(*all);
    *all = NULL;
}

uint64_t breakers_claim(struct breakers *all, uint32_t slot, uint64_t target_id)
{
    uint64_t there = 0;
    if (slot >= SLOTS)
        return target_id;
    return atomic_compare_exchange_strong(&all->memory->at[slot].target_id, &there, target_id)
               ? target_id
               : there;
}

struct breaker *breakers_at(struct breakers *all, uint32_t slot)
{
    return slot < SLOTS ? &all->memory->at[slot] : NULL;
}

_Atomic uint32_t *breakers_route(struct breakers *all, uint64_t hash)
{
    hash = hash ? hash : 1;
    for (uint32_t i = 0; i < PROBES; i++) {
        struct route_place *place = &all->memory->routes[(hash + i) % ROUTES];
        uint64_t there = 0;
        if (atomic_compare_exchange_strong(&place->hash, &there, hash) || there == hash)
            return &place->open;
    }
    return NULL;
}

static uint32_t used_slots(const struct memory *m)
{
    uint32_t used = 0;
    while (used < SLOTS && GET(m->at[used].target_id) != 0)
        used++;
    return used;
}

bool breakers_adopt(struct breakers *all, int fd, struct err *err)
{
    struct segment s;
    if (segment_adopt(&s, fd, "gwp-breakers", LAYOUT, sizeof(struct memory), err) < 0)
        return false;
    /* Targets come and go for as long as the memory lives; only a restart can clear it out. */
    if (used_slots((struct memory *)(void *)s.head) > SLOTS / 4 * 3) {
        err_set(err, "it is nearly full of targets that are gone");
        segment_close(&s);
        return false;
    }
    segment_close(&all->segment);
    all->segment = s;
    all->memory = (struct memory *)(void *)s.head;
    return true;
}

void breakers_mend(struct breakers *all, uint64_t now_ms)
{
    const struct why why = {.cause = CAUSE_LOST};
    uint32_t used = used_slots(all->memory);
    for (uint32_t i = 0; i < used; i++) {
        struct breaker *b = &all->memory->at[i];
        uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
        while (state_of(word) == BREAKER_HALF_OPEN &&
               !move(b, &word, BREAKER_OPEN, now_ms, &why, now_ms))
            ;
    }
}

const struct segment *breakers_segment(const struct breakers *all)
{
    return &all->segment;
}

bool breaker_reset(struct breaker *b, _Atomic uint32_t *open_in_route, uint64_t now_ms)
{
    const struct why why = {.cause = CAUSE_RESET};
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    while (state_of(word) != BREAKER_CLOSED)
        if (close_it(b, &word, open_in_route, &why, now_ms))
            return true;
    clear_window(b);
    return false;
}

static void shorten(struct breaker *b, const struct breaker_policy *p, uint64_t now_ms)
{
    uint32_t rounds = GET(b->rounds), open_ms = open_time_ms(p, MAX(rounds, 1) - 1);
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    while (state_of(word) == BREAKER_OPEN && until_of(word) > now_ms + open_ms)
        if (replace(b, &word, with_payload(word, now_ms + open_ms)))
            return;
}

void breaker_apply(struct breaker *b, const struct breaker_policy *p,
                   _Atomic uint32_t *open_in_route, uint64_t now_ms)
{
    if (!p) {
        breaker_reset(b, open_in_route, now_ms);
        return;
    }
    if (GET(b->window_ms) != p->window_ms) {
        SET(b->window_ms, p->window_ms);
        clear_window(b);
    }
    shorten(b, p, now_ms);
}

/* ---- for reports ---- */

void breaker_look(const struct breaker *b, struct breaker_view *view)
{
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    view->state = state_of(word);
    view->epoch = epoch_of(word);
    view->until_ms = view->state == BREAKER_OPEN ? until_of(word) : 0;
    for (unsigned i = 0; i < BREAKER_STATES; i++)
        view->moved_to[i] = GET(b->moved_to[i]);
}

static void tell_cause(struct breaker_transition *t, uint64_t tag, uint32_t failed, uint32_t total,
                       uint32_t span_ms)
{
    char last[32];
    unsigned status = tag & 0xFFFF;
    if (status)
        snprintf(last, sizeof(last), "status %u", status);
    else
        snprintf(last, sizeof(last), "%s", reason_word(reason_of(tag >> 16 & 0xFF)));
    switch ((enum cause)(tag >> 24 & 0xFF)) {
    case CAUSE_WINDOW:
        snprintf(t->cause, sizeof(t->cause), "%u of %u requests failed in %g s (%s last)", failed,
                 total, span_ms / 1000., last);
        break;
    case CAUSE_PROBE:
        snprintf(t->cause, sizeof(t->cause), "a probe failed (%s)", last);
        break;
    case CAUSE_TIME:
        snprintf(t->cause, sizeof(t->cause), "%g s have passed", span_ms / 1000.);
        break;
    case CAUSE_RECOVERED:
        snprintf(t->cause, sizeof(t->cause), "%u of %u probes succeeded", total, total);
        break;
    case CAUSE_RESET:
        snprintf(t->cause, sizeof(t->cause), "reset by order");
        break;
    case CAUSE_LOST:
        snprintf(t->cause, sizeof(t->cause), "its probes were lost with a data plane");
        break;
    default:
        t->cause[0] = '\0';
    }
}

bool breaker_recall(const struct breaker *b, uint32_t epoch, struct breaker_transition *t)
{
    const struct note *n = &b->history[epoch % BREAKER_HISTORY];
    uint64_t tag = atomic_load_explicit(&n->tag, memory_order_acquire);
    uint64_t at_ms = atomic_load_explicit(&n->at_ms, memory_order_acquire);
    uint32_t failed = atomic_load_explicit(&n->failed, memory_order_acquire);
    uint32_t total = atomic_load_explicit(&n->total, memory_order_acquire);
    uint32_t span_ms = atomic_load_explicit(&n->span_ms, memory_order_acquire);
    if (!(tag >> 63) || (tag >> 36 & EPOCH_MASK) != epoch || GET(n->tag) != tag)
        return false;
    t->epoch = epoch;
    t->from = (enum breaker_state)MIN(tag >> 34 & 3, BREAKER_HALF_OPEN);
    t->to = (enum breaker_state)MIN(tag >> 32 & 3, BREAKER_HALF_OPEN);
    t->at_ms = at_ms;
    tell_cause(t, tag, failed, total, span_ms);
    return true;
}

const char *breaker_state_word(enum breaker_state s)
{
    static const char *const words[] = {"closed", "open", "half_open"};
    return words[s];
}
