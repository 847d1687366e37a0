#include "controlplane/publisher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/builder.h"
#include "controlplane/config/compare.h"
#include "controlplane/files.h"
#include "proto/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define NAMES_SECONDS 2.
#define GATHER_SECONDS 0.05

static void finish(struct publisher *p, enum push_verdict verdict, const char *message);

static uint64_t now_ms(void)
{
    return (uint64_t)(ev_time() * 1000);
}

static uint64_t number_of(const struct generation *g)
{
    return g ? g->number : 0;
}

/* ---- telling ---- */

static void remember(struct publisher *p, bool ok, const char *message)
{
    p->last_reload.ok = ok;
    p->last_reload.at = ev_time();
    snprintf(p->last_reload.message, sizeof(p->last_reload.message), "%s", message);
}

/* For a push that never became a candidate. */
static void tell(struct publisher *p, const struct push *push, const struct push_outcome *outcome)
{
    struct push_outcome full = *outcome;
    full.dry_run = push->dry_run;
    full.previous = full.in_force = number_of(p->generations.in_force);
    if (!full.message)
        full.message = "";
    if (full.unchanged)
        full.generation = full.previous;
    if (push->done)
        push->done(push->owner, &full);
}

static void tell_candidate(struct publisher *p, const struct push_outcome *outcome)
{
    struct push_outcome full = *outcome;
    full.dry_run = p->push.dry_run;
    full.diagnostics = &p->diagnostics;
    full.answers = p->generations.answers;
    full.answer_count = p->generations.answer_count;
    if (!p->answered && p->push.done)
        p->push.done(p->push.owner, &full);
    p->answered = true;
}

/* ---- snapshots ---- */

static void build(struct publisher *p, struct generation *g, bool dry_run)
{
    struct builder_output out;
    struct builder_input in = {.config = g->config,
                               .lookup = resolver_lookup,
                               .owner = p->resolver,
                               .generation = g->number,
                               .created_ms = g->created_ms = now_ms(),
                               .dry_run = dry_run};
    builder_build(&in, &out);
    free(g->packed);
    g->packed = out.packed;
    g->len = out.len;
    g->backends = out.backends;
    g->endpoints = out.endpoints;
    g->targets_hash = out.targets_hash;
}

static void send_to(struct session *s, const struct generation *g, bool dry_run)
{
    session_send_snapshot(s, g->number, dry_run, g->packed, g->len);
}

/* The configuration in force once more, with the addresses of now, to everyone. */
static void send_rollback(struct publisher *p)
{
    struct generation *g = p->generations.in_force;
    if (!g)
        return;
    uint64_t before = g->number;
    g->number = generations_next_number(&p->generations);
    build(p, g, false);
    sessions_each(s, p->sessions) send_to(s, g, false);
    p->committed(p->owner, g);
    log_warn("publisher", "generation %llu in force again, as generation %llu",
             (unsigned long long)before, (unsigned long long)g->number);
}

static void send_candidate(struct publisher *p)
{
    struct generation *g = p->generations.candidate;
    bool dry_run = p->push.dry_run;
    ev_timer_stop(p->loop, &p->deadline);
    p->state = PUBLISHER_ANSWERS;
    p->addresses_wait = false;
    g->number = dry_run ? p->generations.last + 1 : generations_next_number(&p->generations);
    build(p, g, dry_run);
    if (g->len > FRAME_MAX_BYTES) {
        finish(p, PUSH_FAILED, "its snapshot is larger than a frame may be");
        return;
    }
    sessions_each(s, p->sessions)
    {
        generations_expect(&p->generations, s->instance_id, s->name);
        send_to(s, g, dry_run);
    }
    if (generations_verdict(&p->generations) == VERDICT_ACCEPTED) {
        finish(p, PUSH_ACCEPTED, "");
        return;
    }
    bool waits = p->push.wait_seconds > 0;
    ev_timer_set(&p->deadline, waits ? p->push.wait_seconds : PUBLISHER_ANSWER_SECONDS, 0.);
    ev_timer_start(p->loop, &p->deadline);
    if (!waits)
        tell_candidate(p, &(struct push_outcome){.verdict = PUSH_ACCEPTED,
                                                 .message = "",
                                                 .generation = g->number,
                                                 .previous = number_of(p->generations.in_force),
                                                 .in_force = number_of(p->generations.in_force),
                                                 .changes = g->changes});
}

/* ---- the verdict ---- */

/* What the log, the status and the pusher are told, in one sentence. */
static void explain(const struct publisher *p, enum push_verdict verdict, const char *message,
                    struct err *out)
{
    const struct generations *gs = &p->generations;
    if (verdict == PUSH_FAILED || verdict == PUSH_ACCEPTED) {
        err_set(out, "%s", message);
        return;
    }
    for (size_t i = 0; i < gs->answer_count; i++) {
        const struct answer *a = &gs->answers[i];
        if (verdict == PUSH_REFUSED && a->state == ANSWER_REFUSED)
            err_set(out, "data plane %s did not take it: %s", a->name, a->reason);
        else if (verdict == PUSH_TIMEOUT && a->state == ANSWER_PENDING)
            err_set(out, "data plane %s did not answer within %.1f s", a->name,
                    p->push.wait_seconds > 0 ? p->push.wait_seconds : PUBLISHER_ANSWER_SECONDS);
        else
            continue;
        return;
    }
}

static void commit(struct publisher *p)
{
    struct generations *gs = &p->generations;
    struct generation *g = gs->candidate;
    bool same_config = gs->in_force && gs->in_force->config == g->config;
    uint64_t before = number_of(gs->in_force);
    generations_commit(gs, now_ms());
    log_info("publisher",
             "generation %llu -> %llu in force: %zu routes, %zu backends, %zu endpoints (%s)",
             (unsigned long long)before, (unsigned long long)g->number, g->config->route_count,
             g->backends, g->endpoints, origin_word(g->origin));
    if (!same_config) {
        remember(p, true, "");
        p->in_force(p->owner, g->config);
    }
    p->committed(p->owner, g);
    /* Whoever connected meanwhile has the one before. */
    sessions_each(s, p->sessions)
    {
        if (s->sent != g->number)
            send_to(s, g, false);
    }
}

static void give_up(struct publisher *p, const struct err *why)
{
    struct generations *gs = &p->generations;
    bool is_out = generations_is_out(gs) && p->state == PUBLISHER_ANSWERS;
    if (!p->push.dry_run) {
        log_error("publisher", "generation %llu (%s) is not in force: %s",
                  (unsigned long long)gs->candidate->number, origin_word(gs->candidate->origin),
                  why->text);
        remember(p, false, why->text);
    }
    generations_drop(gs);
    p->addresses_wait = true; /* they may have changed for the one that stays, too */
    if (is_out && !p->push.dry_run)
        send_rollback(p);
}

/* What came up while the candidate was under way. */
static void take_up(struct publisher *p)
{
    if (p->file_waits) {
        p->file_waits = false;
        publisher_file_changed(p);
    } else if (p->addresses_wait && p->generations.in_force) {
        ev_timer_again(p->loop, &p->addresses);
    }
}

/* The one way out of NAMES and ANSWERS. */
static void finish(struct publisher *p, enum push_verdict verdict, const char *message)
{
    struct generations *gs = &p->generations;
    struct generation *g = gs->candidate;
    struct err why = {""};
    explain(p, verdict, message, &why);
    struct push_outcome outcome = {.verdict = verdict,
                                   .message = why.text,
                                   .generation = g->number,
                                   .previous = number_of(gs->in_force),
                                   .changes = g->changes};
    ev_timer_stop(p->loop, &p->deadline);
    /* Its changes lie in its configuration, which is kept until they are told. */
    struct generation *keep = generation_again(g, g->origin);
    if (verdict == PUSH_ACCEPTED && !p->push.dry_run)
        commit(p);
    else if (verdict == PUSH_ACCEPTED)
        generations_drop(gs);
    else
        give_up(p, &why);
    p->state = PUBLISHER_IDLE;
    outcome.in_force = number_of(gs->in_force);
    tell_candidate(p, &outcome);
    generation_free(&keep);
    resolver_want(p->resolver, gs->in_force ? gs->in_force->config : NULL, NULL);
    take_up(p);
}

static void judge(struct publisher *p)
{
    switch (generations_verdict(&p->generations)) {
    case VERDICT_PENDING:
        break;
    case VERDICT_ACCEPTED:
        finish(p, PUSH_ACCEPTED, "");
        break;
    case VERDICT_REFUSED:
        finish(p, PUSH_REFUSED, "");
        break;
    }
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct publisher *p = w->data;
    if (p->state == PUBLISHER_NAMES)
        send_candidate(p);
    else if (p->push.origin == ORIGIN_DNS)
        finish(p, PUSH_ACCEPTED, "");
    else
        finish(p, PUSH_TIMEOUT, "");
}

/* ---- starting ---- */

/* Takes `g` over. */
static void start(struct publisher *p, struct generation *g, const struct push *push)
{
    const struct generation *before = p->generations.in_force;
    p->push = *push;
    p->push.source = NULL;
    p->answered = false;
    p->state = PUBLISHER_NAMES;
    if (push->origin != ORIGIN_DNS)
        g->changes = compare_configs(before ? before->config : NULL, g->config, g->config->arena);
    generations_propose(&p->generations, g);
    resolver_want(p->resolver, before ? before->config : NULL, g->config);
    if (resolver_is_settled(p->resolver)) {
        send_candidate(p);
        return;
    }
    ev_timer_set(&p->deadline, NAMES_SECONDS, 0.);
    ev_timer_start(p->loop, &p->deadline);
}

static void log_diagnostics(const struct diagnostics *d)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct diagnostic *one = &d->at[i];
        log_event(one->severity == SEVERITY_ERROR ? LOG_ERROR : LOG_WARN, "config",
                  "%s:%u:%u: %s%s%s", d->source ? d->source : "", one->place.line,
                  one->place.column, one->message, one->suggestion ? ": " : "",
                  one->suggestion ? one->suggestion : "");
    }
}

static void refuse_text(struct publisher *p, const struct push *push)
{
    const struct diagnostics *d = &p->diagnostics;
    const struct diagnostic *first = d->at;
    struct err why;
    while (first->severity != SEVERITY_ERROR)
        first++;
    err_set(&why, "%s has %zu error%s; the first, in line %u: %s", push->source, d->errors,
            d->errors == 1 ? "" : "s", first->place.line, first->message);
    if (!push->dry_run) {
        log_diagnostics(d);
        log_error("publisher", "a configuration (%s) is not in force: %s",
                  origin_word(push->origin), why.text);
        remember(p, false, why.text);
    }
    tell(p, push, &(struct push_outcome){PUSH_INVALID, why.text, .diagnostics = d});
}

/* Checks a text, which is taken over. */
static void take_text(struct publisher *p, const struct push *push, char *text, size_t len)
{
    const struct generation *before = p->generations.in_force;
    diagnostics_fini(&p->diagnostics);
    diagnostics_init(&p->diagnostics);
    free(p->diagnosed_text);
    p->diagnosed_text = text;
    struct config *cfg = config_load(push->source, (struct view){text, len}, &p->diagnostics);
    if (!cfg) {
        refuse_text(p, push);
        return;
    }
    if (!push->dry_run)
        log_diagnostics(&p->diagnostics);
    if (before && before->config->hash == cfg->hash) {
        config_free(&cfg);
        if (!push->dry_run)
            remember(p, true, "");
        tell(p, push,
             &(struct push_outcome){PUSH_ACCEPTED, .unchanged = true,
                                    .diagnostics = &p->diagnostics});
        return;
    }
    start(p, generation_new(cfg, push->origin), push);
}

static bool turn_away_busy(struct publisher *p, const struct push *push)
{
    if (p->state == PUBLISHER_IDLE)
        return false;
    tell(p, push,
         &(struct push_outcome){PUSH_BUSY, "another configuration is under way; try again when "
                                           "the data planes have answered"});
    return true;
}

void publisher_push(struct publisher *p, const struct push *push, struct view text)
{
    if (turn_away_busy(p, push))
        return;
    char *copy = malloc(text.len + 1);
    if (!copy)
        log_fatal("publisher", "out of memory: a configuration of %zu bytes", text.len);
    memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    take_text(p, push, copy, text.len);
}

/* ---- the file ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The file's text, owned by the caller; NULL when it cannot be read, which has been told then. */
static char *read_file(struct publisher *p, const struct push *push, size_t *len)
{
    struct err err;
    char *text = files_read(p->path, PUBLISHER_CONFIG_MAX_BYTES, len, &err);
    if (text)
        return text;
    log_error("publisher", "the configuration stays as it is: %s", err.text);
    remember(p, false, err.text);
    tell(p, push, &(struct push_outcome){PUSH_FAILED, err.text});
    return NULL;
}

void publisher_reload(struct publisher *p, const struct push *push)
{
    struct push named = *push;
    size_t len;
    if (turn_away_busy(p, push))
        return;
    char *text = read_file(p, push, &len);
    if (!text)
        return;
    named.source = base_name(p->path);
    p->file_hash = XXH3_64bits(text, len);
    take_text(p, &named, text, len);
}

void publisher_file_changed(struct publisher *p)
{
    struct push push = {.origin = ORIGIN_FILE,
                        .source = base_name(p->path),
                        .wait_seconds = PUBLISHER_ANSWER_SECONDS};
    size_t len;
    if (p->state != PUBLISHER_IDLE) {
        p->file_waits = true;
        return;
    }
    char *text = read_file(p, &push, &len);
    if (!text)
        return;
    uint64_t hash = XXH3_64bits(text, len);
    if (hash == p->file_hash) {
        free(text);
        return;
    }
    p->file_hash = hash;
    take_text(p, &push, text, len);
}

/* ---- addresses ---- */

static void on_settled(void *owner)
{
    struct publisher *p = owner;
    if (p->state == PUBLISHER_NAMES)
        send_candidate(p);
}

/* Whether they concern the generation in force is known when it is built anew. */
static void on_changed(void *owner)
{
    struct publisher *p = owner;
    p->addresses_wait = true;
    if (p->state == PUBLISHER_IDLE && p->generations.in_force)
        ev_timer_again(p->loop, &p->addresses);
}

static void on_addresses(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct publisher *p = w->data;
    const struct generation *now = p->generations.in_force;
    ev_timer_stop(loop, w);
    if (p->state != PUBLISHER_IDLE || !p->addresses_wait || !now)
        return;
    p->addresses_wait = false;
    struct generation *next = generation_again(now, ORIGIN_DNS);
    build(p, next, false);
    if (next->targets_hash == now->targets_hash) {
        generation_free(&next);
        return;
    }
    start(p, next, &(struct push){.origin = ORIGIN_DNS, .wait_seconds = PUBLISHER_ANSWER_SECONDS});
}

/* ---- from the sessions ---- */

void publisher_opened(struct publisher *p, struct session *s)
{
    if (p->generations.in_force)
        send_to(s, p->generations.in_force, false);
}

static void log_result(const struct session *s, const Gwp__SnapshotResult *r)
{
    if (r->accepted)
        log_info("publisher",
                 "data plane %s serves generation %llu: compiled in %llu us, swapped in %llu us",
                 s->name, (unsigned long long)r->generation, (unsigned long long)r->compile_us,
                 (unsigned long long)r->swap_us);
    else
        log_error("publisher", "data plane %s refused generation %llu: %s", s->name,
                  (unsigned long long)r->generation, r->reason);
}

void publisher_result(struct publisher *p, struct session *s, const Gwp__SnapshotResult *r)
{
    const struct generation *g = p->generations.candidate;
    if (!r->dry_run)
        log_result(s, r);
    if (p->state != PUBLISHER_ANSWERS || r->generation != g->number ||
        (r->dry_run != 0) != p->push.dry_run)
        return;
    if (generations_answer(&p->generations, s->instance_id, r->accepted, r->reason, r->compile_us,
                           r->swap_us))
        judge(p);
}

/* Who leaves without an answer may have died of the candidate: that is no consent. */
void publisher_gone(struct publisher *p, struct session *s)
{
    if (p->state != PUBLISHER_ANSWERS)
        return;
    bool is_consent = p->push.origin == ORIGIN_DNS;
    if (generations_answer(&p->generations, s->instance_id, is_consent,
                           "it went away before it answered", 0, 0))
        judge(p);
}

/* ---- life ---- */

int publisher_init(struct publisher *p, struct ev_loop *loop, const char *path,
                   const char *state_dir, const struct resolver_setup *names,
                   struct sessions *sessions, struct err *err)
{
    memset(p, 0, sizeof(*p));
    p->loop = loop;
    p->path = path;
    p->sessions = sessions;
    p->resolver_events = (struct resolver_events){on_changed, on_settled, p};
    p->resolver = resolver_new(loop, names, &p->resolver_events, err);
    if (!p->resolver)
        return -1;
    generations_init(&p->generations, state_dir);
    diagnostics_init(&p->diagnostics);
    ev_timer_init(&p->deadline, on_deadline, 0., 0.);
    ev_timer_init(&p->addresses, on_addresses, 0., GATHER_SECONDS);
    p->deadline.data = p->addresses.data = p;
    return 0;
}

void publisher_fini(struct publisher *p)
{
    if (!p->resolver)
        return;
    ev_timer_stop(p->loop, &p->deadline);
    ev_timer_stop(p->loop, &p->addresses);
    if (p->state != PUBLISHER_IDLE)
        tell_candidate(p, &(struct push_outcome){.verdict = PUSH_FAILED,
                                                 .message = "the control plane is stopping",
                                                 .generation = p->generations.candidate->number,
                                                 .previous = number_of(p->generations.in_force),
                                                 .in_force = number_of(p->generations.in_force)});
    resolver_free(&p->resolver);
    generations_fini(&p->generations);
    diagnostics_fini(&p->diagnostics);
    free(p->diagnosed_text);
}
