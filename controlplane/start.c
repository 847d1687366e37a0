#include "controlplane/start.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define CONFIG_MAX_BYTES (16u << 20)

static struct config *load(struct start *s, const char *source, struct view text)
{
    diagnostics_fini(&s->diagnostics);
    diagnostics_init(&s->diagnostics);
    struct config *cfg = config_load(source, text, &s->diagnostics);
    if (cfg) /* what the diagnostics show of the text has to outlive the caller's copy */
        s->diagnostics.text = (struct view){cfg->text, cfg->text_len};
    return cfg;
}

/* Prints what is wrong with the file whole: nobody else will. */
static void refuse_file(struct start *s, const char *source, FILE *out)
{
    const struct diagnostics *d = &s->diagnostics;
    diagnostics_print(d, out, isatty(fileno(out)));
    err_set(&s->refused, "%s has %zu error%s", source, d->errors, d->errors == 1 ? "" : "s");
}

static struct config *load_file(struct start *s, const char *path, struct generations *gs,
                                uint64_t hash, struct view text, FILE *out)
{
    const char *slash = strrchr(path, '/'), *source = slash ? slash + 1 : path;
    struct config *cfg = load(s, source, text);
    if (!cfg)
        refuse_file(s, source, out);
    generations_saw_file(gs, hash);
    s->origin = ORIGIN_FILE;
    s->entry = 0;
    return cfg;
}

/* The newest that is whole and can be loaded now: ${VAR}s may have gone since. */
static struct config *load_entry(struct start *s, const struct history *h)
{
    for (size_t i = h->count; i > 0; i--) {
        const struct history_entry *e = &h->at[i - 1];
        struct err err;
        char *text = history_read(h, e, &err);
        struct config *cfg = text ? load(s, e->source, (struct view){text, e->bytes}) : NULL;
        if (text && !cfg)
            err_set(&err, "it has %zu error%s now", s->diagnostics.errors,
                    s->diagnostics.errors == 1 ? "" : "s");
        free(text);
        s->origin = e->origin;
        s->entry = e->number;
        if (cfg)
            return cfg;
        log_about(LOG_WARN, "start", LOG_FIELDS(about_generation(e->number), about_cause(err.text)),
                  "generation %llu cannot be begun with: %s", (unsigned long long)e->number,
                  err.text);
    }
    return NULL;
}

static bool is_order(const struct history_entry *e)
{
    return e && (e->origin == ORIGIN_PUSH || e->origin == ORIGIN_ROLLBACK);
}

int start_choose(struct start *s, const char *path, struct generations *gs, const struct history *h,
                 FILE *out)
{
    size_t len = 0;
    const struct history_entry *newest = history_newest(h);
    memset(s, 0, sizeof(*s));
    diagnostics_init(&s->diagnostics);
    char *text = files_read(path, CONFIG_MAX_BYTES, &len, &s->refused);
    s->unread = !text;
    if (s->unread)
        fprintf(out, "%s\n", s->refused.text);
    uint64_t hash = text ? XXH3_64bits(text, len) : 0;
    if (text && is_order(newest) && hash == gs->file_hash)
        s->config = load_entry(s, h);
    if (text && !s->config)
        s->config = load_file(s, path, gs, hash, (struct view){text, len}, out);
    if (s->config && s->origin == ORIGIN_FILE && newest && newest->hash == s->config->hash)
        s->entry = newest->number;
    if (!s->config)
        s->config = load_entry(s, h);
    free(text);
    return s->config ? 0 : -1;
}

void start_free(struct start *s)
{
    config_free(&s->config);
    if (s->diagnostics.arena)
        diagnostics_fini(&s->diagnostics);
}
