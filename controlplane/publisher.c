#include "controlplane/publisher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/builder.h"
#include "controlplane/config/compare.h"
#include "controlplane/start.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#define NAMES_SECONDS 2.
#define GATHER_SECONDS 0.05

static void finish(struct publisher *p, enum push_verdict verdict, const char *message);

static uint64_t now_ms(void)
{
    return (uint64_t)(ev_time() * 1000);
}

/* ---- telling ---- */

void publisher_remember(struct publisher *p, bool ok, const char *message)
{
    p->intake.unread = false;
    p->last_reload.ok = ok;
    p->last_reload.at = ev_time();
    snprintf(p->last_reload.message, sizeof(p->last_reload.message), "%s", message);
}

/* For a push that never became a candidate. */
void publisher_tell(struct publisher *p, const struct push *push,
                    const struct push_outcome *outcome)
{
    struct push_outcome full = *outcome;
    full.dry_run = push->dry_run;
    full.previous = full.in_force = generation_number(p->generations.in_force);
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
    full.unkept =
        p->unkept.number > 0 && p->unkept.number == full.generation ? p->unkept_why.text : "";
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
    g->body_hash = out.body_hash;
}

/* A control plane that begins with what was in force under the one before it goes on with its
 * number, too, unless a higher one was given to a candidate, which somebody may serve. */
static void number_and_build(struct publisher *p, struct generation *g)
{
    struct generations *gs = &p->generations;
    if (!gs->in_force && gs->held > 0 && gs->held == gs->last) {
        g->number = gs->held;
        build(p, g, false);
        if (g->body_hash == gs->held_hash)
            return;
    }
    g->number = generations_next_number(gs);
    build(p, g, false);
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
    sessions_each(s, p->sessions)
    {
        if (!s->leaving)
            send_to(s, g, false);
    }
    generations_hold(&p->generations, g);
    p->committed(p->owner, g);
    log_about(LOG_WARN, "publisher",
              LOG_FIELDS(about_generation(g->number), about_previous(before)),
              "generation %llu in force again, as generation %llu", (unsigned long long)before,
              (unsigned long long)g->number);
}

/* For who asked, while the data planes are at work. */
static void compare(const struct publisher *p, struct generation *g)
{
    const struct generation *before = p->generations.in_force;
    if (p->push.done)
        g->changes = compare_configs(before ? before->config : NULL, g->config, g->config->arena);
}

static void send_candidate(struct publisher *p)
{
    struct generation *g = p->generations.candidate;
    bool dry_run = p->push.dry_run;
    ev_timer_stop(p->loop, &p->deadline);
    p->state = PUBLISHER_ANSWERS;
    p->addresses_wait = false;
    uint64_t begun = clock_us();
    if (dry_run) {
        g->number = p->generations.last + 1;
        build(p, g, true);
    } else {
        number_and_build(p, g);
    }
    p->build_us = clock_us() - begun;
    if (g->len > FRAME_MAX_BYTES) {
        finish(p, PUSH_FAILED, "its snapshot is larger than a frame may be");
        return;
    }
    sessions_each(s, p->sessions)
    {
        if (s->leaving)
            continue;
        generations_expect(&p->generations, s->instance_id, s->name);
        send_to(s, g, dry_run);
    }
    p->sent_us = clock_us();
    compare(p, g);
    if (generations_verdict(&p->generations) == VERDICT_ACCEPTED) {
        finish(p, PUSH_ACCEPTED, "");
        return;
    }
    bool waits = p->push.wait_seconds > 0;
    ev_timer_set(&p->deadline, waits ? p->push.wait_seconds : PUBLISHER_ANSWER_SECONDS, 0.);
    ev_timer_start(p->loop, &p->deadline);
    if (!waits)
        tell_candidate(
            p, &(struct push_outcome){.verdict = PUSH_ACCEPTED,
                                      .message = "",
                                      .generation = g->number,
                                      .previous = generation_number(p->generations.in_force),
                                      .in_force = generation_number(p->generations.in_force),
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

/* Before anybody is told: what was said to be in force is there after a crash. */
static void keep(struct publisher *p, struct generation *g)
{
    const struct config *c = g->config;
    struct history_entry e = {.number = g->number,
                              .time_ms = g->in_force_ms,
                              .origin = g->origin,
                              .again = p->push.again};
    snprintf(e.user, sizeof(e.user), "%s", p->push.user);
    snprintf(e.message, sizeof(e.message), "%s", p->push.message);
    snprintf(e.source, sizeof(e.source), "%s", c->source);
    bool is_kept =
        history_add(&p->history, &e, (struct view){c->text, c->text_len}, &p->unkept_why) == 0;
    p->unkept = is_kept ? (struct history_entry){0} : e;
    g->entry = g->number;
}

void publisher_keep_again(struct publisher *p)
{
    const struct generation *g = p->generations.in_force;
    if (p->generations.warned)
        generations_keep(&p->generations);
    if (p->unkept.number == 0 || !g || g->entry != p->unkept.number)
        return;
    struct view text = {g->config->text, g->config->text_len};
    if (history_add(&p->history, &p->unkept, text, &p->unkept_why) == 0)
        p->unkept.number = 0;
}

static void commit(struct publisher *p)
{
    struct generations *gs = &p->generations;
    struct generation *g = gs->candidate;
    bool same_config = gs->in_force && gs->in_force->config == g->config;
    uint64_t before = generation_number(gs->in_force), answered = clock_us();
    generations_commit(gs, now_ms());
    if (g->entry == 0)
        keep(p, g);
    generations_hold(gs, g);
    log_about(LOG_INFO, "publisher",
              LOG_FIELDS(about_generation(g->number), about_previous(before),
                         about_origin(origin_word(g->origin)), about_user(p->push.user),
                         about_source(g->config->source)),
              "generation %llu -> %llu in force: %zu routes, %zu backends, %zu endpoints (%s); "
              "loaded in %.1f ms, built in %.1f ms, answered after %.1f ms",
              (unsigned long long)before, (unsigned long long)g->number, g->config->route_count,
              g->backends, g->endpoints, origin_word(g->origin), (double)p->load_us / 1000,
              (double)p->build_us / 1000, (double)(answered - p->sent_us) / 1000);
    if (!same_config) {
        if (!p->last_reload.at || p->last_reload.ok || before > 0)
            publisher_remember(p, true, ""); /* not over what the start had to say */
        p->in_force(p->owner, g->config);
    }
    p->committed(p->owner, g);
    /* Whoever connected meanwhile has the one before. */
    sessions_each(s, p->sessions)
    {
        if (s->sent != g->number && !s->leaving)
            send_to(s, g, false);
    }
}

static void give_up(struct publisher *p, const struct err *why)
{
    struct generations *gs = &p->generations;
    bool is_out = generations_is_out(gs) && p->state == PUBLISHER_ANSWERS;
    if (!p->push.dry_run) {
        log_about(
            LOG_ERROR, "publisher",
            LOG_FIELDS(about_generation(gs->candidate->number),
                       about_origin(origin_word(gs->candidate->origin)), about_user(p->push.user),
                       about_source(gs->candidate->config->source), about_cause(why->text)),
            "generation %llu (%s) is not in force: %s", (unsigned long long)gs->candidate->number,
            origin_word(gs->candidate->origin), why->text);
        publisher_remember(p, false, why->text);
    }
    generations_drop(gs);
    p->addresses_wait = true; /* they may have changed for the one that stays, too */
    if (is_out && !p->push.dry_run)
        send_rollback(p);
}

/* What the control plane began with was refused by a data plane, which read well: the newest that
 * was in force before is begun with instead, once. */
static void fall_back(struct publisher *p, uint64_t refused_hash)
{
    const struct history_entry *e = history_newest(&p->history);
    struct err err;
    if (p->generations.in_force || p->has_fallen_back || !e || e->hash == refused_hash)
        return;
    p->has_fallen_back = true;
    char *text = history_read(&p->history, e, &err);
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = text ? config_load(e->source, (struct view){text, e->bytes}, &d) : NULL;
    diagnostics_fini(&d);
    free(text);
    if (!cfg)
        return;
    log_about(LOG_WARN, "publisher", LOG_FIELDS(about_generation(e->number)),
              "nothing is in force: generation %llu is begun with instead",
              (unsigned long long)e->number);
    struct generation *g = generation_new(cfg, e->origin);
    g->entry = e->number;
    publisher_propose(
        p, g, &(struct push){.origin = e->origin, .wait_seconds = PUBLISHER_ANSWER_SECONDS});
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
                                   .previous = generation_number(gs->in_force),
                                   .changes = g->changes};
    ev_timer_stop(p->loop, &p->deadline);
    uint64_t refused_hash = g->config->hash;
    /* Its changes lie in its configuration, which is kept until they are told. */
    struct generation *keep = generation_again(g, g->origin);
    if (verdict == PUSH_ACCEPTED && !p->push.dry_run)
        commit(p);
    else if (verdict == PUSH_ACCEPTED)
        generations_drop(gs);
    else
        give_up(p, &why);
    p->state = PUBLISHER_IDLE;
    outcome.in_force = generation_number(gs->in_force);
    tell_candidate(p, &outcome);
    generation_free(&keep);
    resolver_want(p->resolver, gs->in_force ? gs->in_force->config : NULL, NULL);
    if (verdict != PUSH_ACCEPTED && !p->push.dry_run)
        fall_back(p, refused_hash);
    intake_next(p);
    if (p->state == PUBLISHER_IDLE && p->addresses_wait && gs->in_force)
        ev_timer_again(p->loop, &p->addresses);
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

void publisher_propose(struct publisher *p, struct generation *g, const struct push *push)
{
    const struct generation *before = p->generations.in_force;
    p->push = *push;
    p->answered = false;
    p->state = PUBLISHER_NAMES;
    generations_propose(&p->generations, g);
    resolver_want(p->resolver, before ? before->config : NULL, g->config);
    if (resolver_is_settled(p->resolver)) {
        send_candidate(p);
        return;
    }
    ev_timer_set(&p->deadline, NAMES_SECONDS, 0.);
    ev_timer_start(p->loop, &p->deadline);
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
    publisher_propose(
        p, next, &(struct push){.origin = ORIGIN_DNS, .wait_seconds = PUBLISHER_ANSWER_SECONDS});
}

/* ---- from the sessions ---- */

void publisher_opened(struct publisher *p, struct session *s)
{
    generations_heard(&p->generations, s->served);
    if (p->generations.in_force)
        send_to(s, p->generations.in_force, false);
}

static void log_result(const struct session *s, const Gwp__SnapshotResult *r)
{
    if (r->accepted)
        log_about(LOG_INFO, "publisher",
                  LOG_FIELDS(about_dataplane(s->name), about_generation(r->generation)),
                  "data plane %s serves generation %llu: compiled in %llu us, swapped in %llu us",
                  s->name, (unsigned long long)r->generation, (unsigned long long)r->compile_us,
                  (unsigned long long)r->swap_us);
    else if (!s->leaving)
        log_about(LOG_ERROR, "publisher",
                  LOG_FIELDS(about_dataplane(s->name), about_generation(r->generation),
                             about_cause(r->reason)),
                  "data plane %s refused generation %llu: %s", s->name,
                  (unsigned long long)r->generation, r->reason);
}

/* A data plane that serves nothing yet goes on trying what it has refused, since its addresses may
 * get free. When that was given up meanwhile, it serves what nobody else does. */
static bool is_stray(const struct publisher *p, const struct session *s,
                     const Gwp__SnapshotResult *r)
{
    const struct generation *now = p->generations.in_force;
    return p->state != PUBLISHER_ANSWERS && r->accepted && !r->dry_run && now &&
           r->generation == s->sent && r->generation != now->number;
}

void publisher_result(struct publisher *p, struct session *s, const Gwp__SnapshotResult *r)
{
    const struct generation *g = p->generations.candidate;
    if (!r->dry_run)
        log_result(s, r);
    if (is_stray(p, s, r)) {
        send_rollback(p);
        return;
    }
    if (p->state != PUBLISHER_ANSWERS || r->generation != g->number ||
        (r->dry_run != 0) != p->push.dry_run)
        return;
    if (generations_answer(&p->generations, s->instance_id, r->accepted || s->leaving, r->reason,
                           r->compile_us, r->swap_us))
        judge(p);
}

/* Who goes without an answer may have died of the candidate: that is no consent. */
void publisher_gone(struct publisher *p, struct session *s)
{
    if (p->state != PUBLISHER_ANSWERS)
        return;
    bool is_consent = p->push.origin == ORIGIN_DNS || s->leaving;
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
    history_open(&p->history, state_dir);
    if (p->history.count > 0)
        generations_heard(&p->generations, history_newest(&p->history)->number);
    diagnostics_init(&p->diagnostics);
    intake_init(p);
    ev_timer_init(&p->deadline, on_deadline, 0., 0.);
    ev_timer_init(&p->addresses, on_addresses, 0., GATHER_SECONDS);
    p->deadline.data = p->addresses.data = p;
    return 0;
}

void publisher_begin(struct publisher *p, struct start *s)
{
    struct push push = {.origin = s->origin, .wait_seconds = PUBLISHER_ANSWER_SECONDS};
    diagnostics_fini(&p->diagnostics);
    p->diagnostics = s->diagnostics;
    s->diagnostics.arena = NULL;
    p->diagnostics.text = (struct view){NULL, 0};
    diagnostics_log(&p->diagnostics);
    if (s->refused.text[0]) {
        log_about(LOG_ERROR, "start",
                  LOG_FIELDS(about_generation(s->entry), about_cause(s->refused.text)),
                  "%s: generation %llu is begun with instead", s->refused.text,
                  (unsigned long long)s->entry);
        publisher_remember(p, false, s->refused.text);
        p->intake.unread = s->unread;
    }
    struct generation *g = generation_new(s->config, s->origin);
    g->entry = s->entry;
    s->config = NULL;
    publisher_propose(p, g, &push);
}

void publisher_fini(struct publisher *p)
{
    if (!p->resolver)
        return;
    ev_timer_stop(p->loop, &p->deadline);
    ev_timer_stop(p->loop, &p->addresses);
    if (p->state != PUBLISHER_IDLE)
        tell_candidate(
            p, &(struct push_outcome){.verdict = PUSH_FAILED,
                                      .message = "the control plane is stopping",
                                      .generation = p->generations.candidate->number,
                                      .previous = generation_number(p->generations.in_force),
                                      .in_force = generation_number(p->generations.in_force)});
    intake_fini(p);
    resolver_free(&p->resolver);
    generations_fini(&p->generations);
    history_close(&p->history);
    diagnostics_fini(&p->diagnostics);
    free(p->diagnosed_text);
    memset(p, 0, sizeof(*p));
}
