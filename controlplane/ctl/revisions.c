#include "controlplane/ctl/revisions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/changes.h"
#include "controlplane/config/diagnostics.h"
#include "controlplane/ctl/call.h"
#include "controlplane/ctl/change.h"
#include "controlplane/ctl/print.h"
#include "controlplane/ctl/show.h"
#include "controlplane/ctl/textdiff.h"

/* ---- history ---- */

int revisions_history(const struct invocation *in)
{
    return call_get(in, "/api/v1/generations", show_history);
}

/* ---- show ---- */

/* Asks for a generation by its number, or by "current" or "previous". NULL: it has been answered
 * with `code`. */
static json_t *fetch(const struct invocation *in, const char *generation, int *code)
{
    struct err err;
    char target[128];
    int status = 0;
    snprintf(target, sizeof(target), "/api/v1/generations/%.32s", generation);
    const struct client_request request = {
        .method = "GET", .target = target, .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    json_t *document = call_ask(in, &request, &status, &err);
    if (!document) {
        *code = call_complain(EXIT_UNREACHABLE, err.text);
    } else if (status != 200 || !json_is_string(json_object_get(document, "text"))) {
        *code = call_show_refusal(in, document, status);
        json_decref(document);
        document = NULL;
    }
    return document;
}

static bool is_generation(const char *word)
{
    return strcmp(word, "current") == 0 || strcmp(word, "previous") == 0 ||
           (*word && strspn(word, "0123456789") == strlen(word));
}

/* The text on stdout, byte for byte, for whoever wants to put it into a file; about it on stderr.
 */
int revisions_show(const struct invocation *in)
{
    int code = EXIT_OK;
    const char *word = in->operands[0] ? in->operands[0] : "current";
    if (!is_generation(word))
        return call_complain(EXIT_USAGE, "a generation is a number, current or previous");
    json_t *document = fetch(in, word, &code);
    if (!document)
        return code;
    if (in->wants_json) {
        print_json(stdout, document);
    } else {
        const json_t *text = json_object_get(document, "text");
        show_entry(document, stderr, in->color_err);
        fwrite(json_string_value(text), 1, json_string_length(text), stdout);
    }
    json_decref(document);
    return code;
}

/* ---- diff ---- */

/* A side of a comparison: a generation, or a file whose text is here. */
struct side {
    const char *word; /* borrowed from the command line */
    bool is_file;
    char *text; /* owned */
    size_t len;
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : strcmp(path, "-") == 0 ? "stdin" : path;
}

static int open_side(struct side *s, const char *word, struct err *err)
{
    *s = (struct side){.word = word, .is_file = !is_generation(word)};
    if (s->is_file)
        s->text = change_read_file(word, &s->len, err);
    return s->is_file && !s->text ? -1 : 0;
}

/* Which two: those that were said; a file alone is compared with what is in force, as a push would
 * do; nothing at all shows what the last change was. */
static int open_sides(const struct invocation *in, struct side sides[2], struct err *err)
{
    const char *first = in->operands[0], *second = in->operands[1];
    bool is_file = first && !second && !is_generation(first);
    const char *from = is_file ? "current" : first ? first : "previous";
    const char *to = is_file ? first : second ? second : "current";
    sides[1] = (struct side){NULL, false, NULL, 0};
    return open_side(&sides[0], from, err) < 0 ? -1 : open_side(&sides[1], to, err);
}

/* As texts: those of generations are fetched first. */
static int diff_texts(const struct invocation *in, struct side sides[2])
{
    char names[2][64];
    int code = EXIT_OK;
    for (size_t i = 0; i < 2; i++) {
        struct side *s = &sides[i];
        snprintf(names[i], sizeof(names[i]), "%s%.40s", s->is_file ? "" : "generation ",
                 s->is_file ? base_name(s->word) : s->word);
        if (s->is_file)
            continue;
        json_t *document = fetch(in, s->word, &code);
        if (!document)
            return code;
        const json_t *text = json_object_get(document, "text");
        snprintf(names[i], sizeof(names[i]), "generation %lld",
                 (long long)json_integer_value(json_object_get(document, "generation")));
        s->len = json_string_length(text);
        s->text = strdup(json_string_value(text));
        json_decref(document);
        if (!s->text)
            return call_complain(EXIT_NO, "out of memory");
    }
    textdiff_print((struct view){sides[0].text, sides[0].len},
                   (struct view){sides[1].text, sides[1].len}, names[0], names[1], stdout,
                   in->color_out);
    return EXIT_OK;
}

/* NULL: it is refused, which has been told. */
static struct config *load_side(const struct invocation *in, const struct side *s)
{
    struct diagnostics d;
    diagnostics_init(&d);
    struct config *cfg = config_load(base_name(s->word), (struct view){s->text, s->len}, &d);
    if (!cfg)
        diagnostics_print(&d, stderr, in->color_err);
    diagnostics_fini(&d);
    return cfg;
}

/* Two files need no control plane; ${VAR}s are those of here. */
static int diff_files(const struct invocation *in, const struct side sides[2])
{
    struct config *before = load_side(in, &sides[0]), *now = load_side(in, &sides[1]);
    bool both = before && now;
    if (both) {
        struct changes changes = compare_configs(before, now, now->arena);
        json_t *document = changes_document(&changes, before, now);
        if (in->wants_json)
            print_json(stdout, document);
        else
            show_changes(document, stdout, in->color_out);
        json_decref(document);
    }
    config_free(&before);
    config_free(&now);
    return both ? EXIT_OK : EXIT_NO;
}

/* By meaning: the control plane compares, since ${VAR}s are its own. */
static int diff_meanings(const struct invocation *in, const struct side sides[2])
{
    char source[1024] = "", target[1500];
    const struct side *file = sides[0].is_file ? &sides[0] : sides[1].is_file ? &sides[1] : NULL;
    if (file && !client_encode(source, sizeof(source), base_name(file->word)))
        return call_complain(EXIT_USAGE, "the name of the file is too long");
    snprintf(target, sizeof(target), "/api/v1/diff?from=%.32s&to=%.32s&source=%s",
             sides[0].is_file ? "body" : sides[0].word, sides[1].is_file ? "body" : sides[1].word,
             source);
    const struct client_request request = {.method = "POST",
                                           .target = target,
                                           .content_type = file ? "application/yaml" : NULL,
                                           .body = file ? (struct view){file->text, file->len}
                                                        : (struct view){NULL, 0},
                                           .timeout_ms = (unsigned)(CALL_SECONDS * 1000)};
    return call_and_show(in, &request, show_changes);
}

int revisions_diff(const struct invocation *in)
{
    struct err err;
    struct side sides[2];
    int code;
    if (open_sides(in, sides, &err) < 0)
        code = call_complain(EXIT_NO, err.text);
    else if (arguments_value(&in->arguments, ARG_UNIFIED))
        code = diff_texts(in, sides);
    else if (sides[0].is_file && sides[1].is_file)
        code = diff_files(in, sides);
    else
        code = diff_meanings(in, sides);
    free(sides[0].text);
    free(sides[1].text);
    return code;
}
