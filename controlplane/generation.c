#include "controlplane/generation.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/log.h"

struct shared_config {
    struct config *config; /* owned */
    unsigned refs;
};

static const char *const origin_words[] = {"file", "push", "reload", "dns", "rollback"};

const char *origin_word(enum origin origin)
{
    return origin_words[origin];
}

enum origin origin_of_word(const char *word)
{
    for (size_t i = 0; word && i < COUNT_OF(origin_words); i++)
        if (strcmp(origin_words[i], word) == 0)
            return (enum origin)i;
    return ORIGIN_FILE;
}

/* ---- one generation ---- */

static void *must(void *memory)
{
    if (!memory)
        log_fatal("generation", "out of memory");
    return memory;
}

static struct generation *make(struct shared_config *shared, enum origin origin)
{
    struct generation *g = must(calloc(1, sizeof(*g)));
    shared->refs++;
    g->shared = shared;
    g->config = shared->config;
    g->origin = origin;
    return g;
}

struct generation *generation_new(struct config *config, enum origin origin)
{
    struct shared_config *shared = must(calloc(1, sizeof(*shared)));
    shared->config = config;
    return make(shared, origin);
}

uint64_t generation_number(const struct generation *g)
{
    return g ? g->number : 0;
}

struct generation *generation_again(const struct generation *other, enum origin origin)
{
    struct generation *g = make(other->shared, origin);
    g->entry = other->entry;
    return g;
}

void generation_free(struct generation **gp)
{
    struct generation *g = *gp;
    *gp = NULL;
    if (!g)
        return;
    if (--g->shared->refs == 0) {
        config_free(&g->shared->config);
        free(g->shared);
    }
    free(g->packed);
    free(g);
}

/* ---- numbers ---- */

/* "12 file 0123456789abcdef held 11 0123456789abcdef" */
static void read_numbers(struct generations *gs)
{
    char text[128] = "", *end;
    int fd = open(gs->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    gs->last = n > 0 ? strtoull(text, &end, 10) : 0;
    if (n > 0 && strncmp(end, " file ", 6) == 0)
        gs->file_hash = strtoull(end + 6, &end, 16);
    if (n > 0 && strncmp(end, " held ", 6) == 0) {
        gs->held = strtoull(end + 6, &end, 10);
        gs->held_hash = strtoull(end, NULL, 16);
    }
}

void generations_keep(struct generations *gs)
{
    struct err err;
    char text[128];
    int len = snprintf(text, sizeof(text), "%llu file %016llx held %llu %016llx\n",
                       (unsigned long long)gs->last, (unsigned long long)gs->file_hash,
                       (unsigned long long)gs->held, (unsigned long long)gs->held_hash);
    if (files_make_parent(gs->path, &err) == 0 &&
        files_write_soon(gs->path, (struct view){text, (size_t)len}, &err) == 0) {
        gs->warned = false;
        return;
    }
    gs->last = MAX(gs->last, (uint64_t)time(NULL));
    if (!gs->warned)
        log_warn("generation",
                 "the last number cannot be kept (%s); generations are numbered by the clock",
                 err.text);
    gs->warned = true;
}

void generations_init(struct generations *gs, const char *state_dir)
{
    memset(gs, 0, sizeof(*gs));
    if (asprintf(&gs->path, "%s/generation", state_dir) < 0)
        log_fatal("generation", "out of memory");
    read_numbers(gs);
}

uint64_t generations_next_number(struct generations *gs)
{
    gs->last++;
    generations_keep(gs);
    return gs->last;
}

void generations_heard(struct generations *gs, uint64_t number)
{
    if (number > gs->last && number < UINT64_MAX / 2) /* else it is no number of ours */
        gs->last = number;
}

void generations_hold(struct generations *gs, const struct generation *g)
{
    if (gs->held == g->number && gs->held_hash == g->body_hash)
        return;
    gs->held = g->number;
    gs->held_hash = g->body_hash;
    generations_keep(gs);
}

void generations_saw_file(struct generations *gs, uint64_t hash)
{
    if (hash == gs->file_hash)
        return;
    gs->file_hash = hash;
    generations_keep(gs);
}

/* ---- candidate and answers ---- */

static void forget_answers(struct generations *gs)
{
    for (size_t i = 0; i < gs->answer_count; i++) {
        free(gs->answers[i].instance_id);
        free(gs->answers[i].name);
        free(gs->answers[i].reason);
    }
    free(gs->answers);
    gs->answers = NULL;
    gs->answer_count = 0;
}

void generations_fini(struct generations *gs)
{
    forget_answers(gs);
    generation_free(&gs->candidate);
    generation_free(&gs->in_force);
    free(gs->path);
}

void generations_propose(struct generations *gs, struct generation *g)
{
    assert(!gs->candidate);
    forget_answers(gs);
    gs->candidate = g;
}

void generations_expect(struct generations *gs, const char *instance_id, const char *name)
{
    gs->answers = must(realloc(gs->answers, (gs->answer_count + 1) * sizeof(*gs->answers)));
    gs->answers[gs->answer_count++] = (struct answer){.instance_id = must(strdup(instance_id)),
                                                      .name = must(strdup(name)),
                                                      .state = ANSWER_PENDING,
                                                      .reason = must(strdup(""))};
}

bool generations_answer(struct generations *gs, const char *instance_id, bool accepted,
                        const char *reason, uint64_t compile_us, uint64_t swap_us)
{
    for (size_t i = 0; i < gs->answer_count; i++) {
        struct answer *a = &gs->answers[i];
        if (a->state != ANSWER_PENDING || strcmp(a->instance_id, instance_id) != 0)
            continue;
        a->state = accepted ? ANSWER_ACCEPTED : ANSWER_REFUSED;
        free(a->reason);
        a->reason = must(strdup(accepted ? "" : reason));
        a->compile_us = compile_us;
        a->swap_us = swap_us;
        return true;
    }
    return false;
}

enum verdict generations_verdict(const struct generations *gs)
{
    enum verdict verdict = VERDICT_ACCEPTED;
    for (size_t i = 0; i < gs->answer_count; i++) {
        if (gs->answers[i].state == ANSWER_REFUSED)
            return VERDICT_REFUSED;
        if (gs->answers[i].state == ANSWER_PENDING)
            verdict = VERDICT_PENDING;
    }
    return verdict;
}

bool generations_is_out(const struct generations *gs)
{
    for (size_t i = 0; i < gs->answer_count; i++)
        if (gs->answers[i].state != ANSWER_REFUSED)
            return true;
    return false;
}

void generations_commit(struct generations *gs, uint64_t now_ms)
{
    generation_free(&gs->in_force);
    gs->in_force = gs->candidate;
    gs->in_force->in_force_ms = now_ms;
    gs->candidate = NULL;
}

void generations_drop(struct generations *gs)
{
    generation_free(&gs->candidate);
}
