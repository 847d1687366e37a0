#include "controlplane/intake.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/files.h"
#include "controlplane/publisher.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Something that came while another candidate was under way. */
struct turn {
    struct list link; /* of intake.waiting */
    struct push push;
    char *text; /* owned; NULL = the file is to be looked at */
    size_t len;
    double until; /* loop time: so long it waits */
};

/* ---- texts ---- */

static void refuse_text(struct publisher *p, const struct push *push)
{
    const struct diagnostics *d = &p->diagnostics;
    const struct diagnostic *first = d->at;
    struct err why;
    while (first->severity != SEVERITY_ERROR)
        first++;
    char where[32] = "";
    if (first->place.line > 0)
        snprintf(where, sizeof(where), ", in line %u", first->place.line);
    err_set(&why, "%s has %zu error%s; the first%s: %s", push->source, d->errors,
            d->errors == 1 ? "" : "s", where, first->message);
    if (!push->dry_run) {
        diagnostics_log(d);
        log_about(LOG_ERROR, "publisher",
                  LOG_FIELDS(about_origin(origin_word(push->origin)), about_user(push->user),
                             about_source(push->source), about_line(first->place.line),
                             about_cause(why.text)),
                  "a configuration (%s) is not in force: %s", origin_word(push->origin), why.text);
        publisher_remember(p, false, why.text);
    }
    publisher_tell(p, push, &(struct push_outcome){PUSH_INVALID, why.text, .diagnostics = d});
}

/* Checks a text, which is taken over. NULL: it is refused, which has been told. */
static struct config *check_text(struct publisher *p, const struct push *push, char *text,
                                 size_t len)
{
    diagnostics_fini(&p->diagnostics);
    diagnostics_init(&p->diagnostics);
    free(p->diagnosed_text);
    p->diagnosed_text = text;
    uint64_t begun = clock_us();
    struct config *cfg = config_load(push->source, (struct view){text, len}, &p->diagnostics);
    p->load_us = clock_us() - begun;
    if (!cfg)
        refuse_text(p, push);
    else if (!push->dry_run)
        diagnostics_log(&p->diagnostics);
    return cfg;
}

/* Brings a text, which is taken over, into force. */
static void take_text(struct publisher *p, const struct push *push, char *text, size_t len)
{
    const struct generation *before = p->generations.in_force;
    struct config *cfg = check_text(p, push, text, len);
    if (cfg && before && before->config->hash == cfg->hash) {
        config_free(&cfg);
        if (!push->dry_run)
            publisher_remember(p, true, "");
        publisher_tell(p, push,
                       &(struct push_outcome){PUSH_ACCEPTED, .unchanged = true,
                                              .diagnostics = &p->diagnostics});
    } else if (cfg) {
        publisher_propose(p, generation_new(cfg, push->origin), push);
    }
}

/* ---- turns ---- */

static void turn_free(struct publisher *p, struct turn *t)
{
    list_remove(&t->link);
    p->intake.waiting_count -= t->text != NULL;
    free(t->text);
    free(t);
}

static void tell_busy(struct publisher *p, const struct push *push)
{
    publisher_tell(p, push,
                   &(struct push_outcome){PUSH_BUSY,
                                          "other configurations are under way; try again when the "
                                          "data planes have answered"});
}

/* The soonest end of anybody's patience. */
static void watch_patience(struct publisher *p)
{
    double soonest = 0;
    list_each (node, &p->intake.waiting) {
        const struct turn *t = CONTAINER_OF(node, struct turn, link);
        if (t->text && (soonest == 0 || t->until < soonest))
            soonest = t->until;
    }
    ev_timer_stop(p->loop, &p->intake.patience);
    if (soonest == 0)
        return;
    ev_timer_set(&p->intake.patience, MAX(soonest - ev_now(p->loop), 0.), 0.);
    ev_timer_start(p->loop, &p->intake.patience);
}

static void on_patience(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct publisher *p = w->data;
    list_each_safe (node, &p->intake.waiting) {
        struct turn *t = CONTAINER_OF(node, struct turn, link);
        if (!t->text || t->until > ev_now(loop))
            continue;
        tell_busy(p, &t->push);
        turn_free(p, t);
    }
    watch_patience(p);
}

/* `text` is taken over; NULL = the file, which needs one turn only. */
static void queue_turn(struct publisher *p, const struct push *push, char *text, size_t len)
{
    double wait = push->wait_seconds > 0 ? push->wait_seconds : PUBLISHER_ANSWER_SECONDS;
    list_each (node, &p->intake.waiting)
        if (!text && !CONTAINER_OF(node, struct turn, link)->text)
            return;
    if (text && p->intake.waiting_count == INTAKE_MAX_WAITING) {
        tell_busy(p, push);
        free(text);
        return;
    }
    struct turn *t = calloc(1, sizeof(*t));
    if (!t)
        log_fatal("publisher", "out of memory");
    *t = (struct turn){.push = *push, .text = text, .len = len};
    t->until = ev_now(p->loop) + wait;
    list_push_back(&p->intake.waiting, &t->link);
    p->intake.waiting_count += text != NULL;
    watch_patience(p);
}

/* ---- pushes ---- */

/* DNS gives the same configuration new numbers: all of them stand for it. */
static bool is_expected(const struct publisher *p, uint64_t number)
{
    const struct generation *g = p->generations.in_force;
    return g ? number >= g->entry && number <= g->number : number == 0;
}

static bool turn_away_late(struct publisher *p, const struct push *push)
{
    const struct generation *g = p->generations.in_force;
    struct err why;
    if (!push->has_expected || is_expected(p, push->expected))
        return false;
    const struct history_entry *e = g ? history_find(&p->history, g->entry) : NULL;
    err_set(&why, "generation %llu is in force, not %llu: by %s%s%s, %s",
            (unsigned long long)generation_number(g), (unsigned long long)push->expected,
            g ? origin_word(g->origin) : "nobody", e && *e->user ? " of " : "", e ? e->user : "",
            "look at it with gwpctl diff before you push again");
    publisher_tell(p, push, &(struct push_outcome){PUSH_CONFLICT, why.text});
    return true;
}

/* The text is taken over. */
static void begin(struct publisher *p, const struct push *push, char *text, size_t len)
{
    if (p->state != PUBLISHER_IDLE)
        queue_turn(p, push, text, len);
    else if (turn_away_late(p, push))
        free(text);
    else
        take_text(p, push, text, len);
}

void intake_push(struct publisher *p, const struct push *push, struct view text)
{
    char *copy = malloc(text.len + 1);
    if (!copy)
        log_fatal("publisher", "out of memory: a configuration of %zu bytes", text.len);
    memcpy(copy, text.at, text.len);
    copy[text.len] = '\0';
    begin(p, push, copy, text.len);
}

void intake_rollback(struct publisher *p, const struct push *push, uint64_t number)
{
    const struct generation *g = p->generations.in_force;
    const struct history_entry *e = number > 0 ? history_find(&p->history, number)
                                               : history_before(&p->history, g ? g->entry : 0);
    struct err err;
    struct push named = *push;
    if (!e && number > 0)
        err_set(&err, "there is no generation %llu in the history; gwpctl history lists them",
                (unsigned long long)number);
    else if (!e)
        err_set(&err, "there is no generation before the one in force");
    char *text = e ? history_read(&p->history, e, &err) : NULL;
    if (!text) {
        publisher_tell(p, push, &(struct push_outcome){e ? PUSH_FAILED : PUSH_UNKNOWN, err.text});
        return;
    }
    named.origin = ORIGIN_ROLLBACK;
    named.again = e->number;
    snprintf(named.source, sizeof(named.source), "%s", e->source);
    begin(p, &named, text, e->bytes);
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
    char *text = files_read(p->path, INTAKE_MAX_BYTES, len, &err);
    if (text)
        return text;
    log_about(LOG_ERROR, "publisher",
              LOG_FIELDS(about_origin(origin_word(push->origin)), about_user(push->user),
                         about_cause(err.text)),
              "the configuration stays as it is: %s", err.text);
    publisher_remember(p, false, err.text);
    p->intake.unread = true;
    publisher_tell(p, push, &(struct push_outcome){PUSH_FAILED, err.text});
    return NULL;
}

void intake_reload(struct publisher *p, const struct push *push)
{
    struct push named = *push;
    size_t len;
    char *text = read_file(p, push, &len);
    if (!text)
        return;
    snprintf(named.source, sizeof(named.source), "%s", base_name(p->path));
    generations_saw_file(&p->generations, XXH3_64bits(text, len));
    begin(p, &named, text, len);
}

void intake_file_changed(struct publisher *p)
{
    struct push push = {.origin = ORIGIN_FILE, .wait_seconds = PUBLISHER_ANSWER_SECONDS};
    size_t len;
    snprintf(push.source, sizeof(push.source), "%s", base_name(p->path));
    if (p->state != PUBLISHER_IDLE) {
        queue_turn(p, &push, NULL, 0);
        return;
    }
    char *text = read_file(p, &push, &len);
    if (!text)
        return;
    uint64_t hash = XXH3_64bits(text, len);
    if (hash == p->generations.file_hash && !p->intake.unread) {
        free(text);
        return;
    }
    if (hash == p->generations.file_hash) { /* there again: what is said of it, and no more */
        struct config *cfg = check_text(p, &push, text, len);
        if (cfg)
            publisher_remember(p, true, "");
        config_free(&cfg);
        return;
    }
    generations_saw_file(&p->generations, hash);
    take_text(p, &push, text, len);
}

void intake_next(struct publisher *p)
{
    while (p->state == PUBLISHER_IDLE && !list_is_empty(&p->intake.waiting)) {
        struct turn *t = CONTAINER_OF(p->intake.waiting.next, struct turn, link);
        list_remove(&t->link);
        p->intake.waiting_count -= t->text != NULL;
        if (t->text)
            begin(p, &t->push, t->text, t->len);
        else
            intake_file_changed(p);
        assert(p->intake.waiting.next != &t->link); /* it has left the list */
        free(t);
    }
    watch_patience(p);
}

/* ---- life ---- */

void intake_init(struct publisher *p)
{
    list_init(&p->intake.waiting);
    ev_timer_init(&p->intake.patience, on_patience, 0., 0.);
    p->intake.patience.data = p;
}

void intake_fini(struct publisher *p)
{
    list_each_safe (node, &p->intake.waiting) {
        struct turn *t = CONTAINER_OF(node, struct turn, link);
        if (t->text)
            publisher_tell(p, &t->push,
                           &(struct push_outcome){PUSH_FAILED, "the control plane is stopping"});
        turn_free(p, t);
    }
    ev_timer_stop(p->loop, &p->intake.patience);
}
