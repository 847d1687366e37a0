#include "controlplane/history.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "controlplane/files.h"
#include "proto/base/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PATH_BYTES 4096
#define HEAD_BYTES 8192 /* of both lines; users and messages are bounded */
#define ENTRY_MAX_BYTES ((16u << 20) + HEAD_BYTES) /* a configuration has at most 16 MiB */
#define CHECKED_MAX_BYTES (32u << 20)              /* at the start; older ones when they are read */
#define FIRST_LINE "# gateway-pro generation, checksum "

static void path_of(const struct history *h, uint64_t number, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%020" PRIu64 ".yaml", h->folder, number);
}

/* ---- the head ---- */

/* Of what is no UTF-8 nothing can be said in JSON. */
static json_t *text_or_mark(const char *text)
{
    json_t *t = json_string(text);
    return t ? t : json_string("?");
}

static int write_head(const struct history_entry *e, char out[HEAD_BYTES])
{
    char hash[17];
    snprintf(hash, sizeof(hash), "%016" PRIx64, e->hash);
    json_t *d = json_pack("{s:I, s:I, s:s, s:I, s:o, s:o, s:o, s:s, s:I}", "number",
                          (json_int_t)e->number, "time_ms", (json_int_t)e->time_ms, "origin",
                          origin_word(e->origin), "again", (json_int_t)e->again, "user",
                          text_or_mark(e->user), "message", text_or_mark(e->message), "source",
                          text_or_mark(e->source), "hash", hash, "bytes", (json_int_t)e->bytes);
    char *line = d ? json_dumps(d, JSON_COMPACT) : NULL;
    json_decref(d);
    if (!line)
        log_fatal("history", "out of memory");
    int n = snprintf(out, HEAD_BYTES, FIRST_LINE "%016" PRIx64 "\n# %s\n",
                     (uint64_t)XXH3_64bits(line, strlen(line)), line);
    free(line);
    return n;
}

static void take_text(char *out, size_t cap, const json_t *d, const char *key)
{
    const char *text = json_string_value(json_object_get(d, key));
    snprintf(out, cap, "%s", text ? text : "");
}

static uint64_t number_of(const json_t *d, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(d, key));
}

static void take_members(struct history_entry *e, const json_t *d)
{
    const char *hash = json_string_value(json_object_get(d, "hash"));
    *e = (struct history_entry){.number = number_of(d, "number"),
                                .time_ms = number_of(d, "time_ms"),
                                .again = number_of(d, "again"),
                                .bytes = number_of(d, "bytes"),
                                .hash = hash ? strtoull(hash, NULL, 16) : 0};
    e->origin = origin_of_word(json_string_value(json_object_get(d, "origin")));
    take_text(e->user, sizeof(e->user), d, "user");
    take_text(e->message, sizeof(e->message), d, "message");
    take_text(e->source, sizeof(e->source), d, "source");
}

/* How many bytes the head takes; 0 when it is none or not as it was written. */
static size_t read_head(struct view text, struct history_entry *e)
{
    size_t first = sizeof(FIRST_LINE) - 1;
    if (!view_starts_with(text, view_of(FIRST_LINE)) || text.len < first + 17 ||
        text.at[first + 16] != '\n')
        return 0;
    uint64_t checksum = strtoull(text.at + first, NULL, 16);
    struct view rest = {text.at + first + 17, text.len - first - 17};
    const char *end = memchr(rest.at, '\n', rest.len);
    if (!end || !view_starts_with(rest, view_of("# ")))
        return 0;
    struct view line = {rest.at + 2, (size_t)(end - rest.at) - 2};
    if (XXH3_64bits(line.at, line.len) != checksum)
        return 0;
    json_t *d = json_loadb(line.at, line.len, 0, NULL);
    if (!d)
        return 0;
    take_members(e, d);
    json_decref(d);
    return (size_t)(end + 1 - text.at);
}

/* ---- reading ---- */

/* The whole file, checked against its head. `offset` is where the configuration begins. */
static char *read_entry(const char *path, struct history_entry *e, size_t *offset, struct err *err)
{
    size_t len;
    char *file = files_read(path, ENTRY_MAX_BYTES, &len, err);
    if (!file)
        return NULL;
    *offset = read_head((struct view){file, len}, e);
    if (*offset == 0)
        err_set(err, "%s is damaged: its head is not as it was written", path);
    else if (len - *offset != e->bytes || XXH3_64bits(file + *offset, e->bytes) != e->hash)
        err_set(err, "%s is damaged: its configuration is not as it was written", path);
    else
        return file;
    free(file);
    return NULL;
}

char *history_read(const struct history *h, const struct history_entry *entry, struct err *err)
{
    char path[PATH_BYTES];
    struct history_entry found;
    size_t offset;
    path_of(h, entry->number, path);
    char *file = read_entry(path, &found, &offset, err);
    if (file)
        memmove(file, file + offset, found.bytes + 1);
    return file;
}

/* The head alone, and that the file has the length that it says. */
static int glance(const char *path, struct history_entry *e, struct err *err)
{
    char head[HEAD_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* or a pipe would keep us waiting */
    FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
    if (!in)
        return err_set_errno(err, "%s cannot be read", path);
    size_t len = fread(head, 1, sizeof(head), in), offset = read_head((struct view){head, len}, e);
    bool whole =
        offset > 0 && fseek(in, 0, SEEK_END) == 0 && (size_t)ftell(in) == offset + e->bytes;
    fclose(in);
    return whole ? 0 : err_set(err, "%s is damaged: it is not as it was written", path);
}

static int check(const char *path, uint64_t number, struct history_entry *e, size_t *checked,
                 struct err *err)
{
    size_t offset;
    if (glance(path, e, err) < 0)
        return -1;
    if (e->number != number)
        return err_set(err, "%s holds generation %llu: a copy under another name", path,
                       (unsigned long long)e->number);
    if (*checked > CHECKED_MAX_BYTES)
        return 0;
    *checked += e->bytes;
    char *file = read_entry(path, e, &offset, err);
    free(file);
    return file ? 0 : -1;
}

/* ---- the list ---- */

static struct history_entry *make_room(struct history *h)
{
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 64;
        h->at = realloc(h->at, h->room * sizeof(*h->at));
        if (!h->at)
            log_fatal("history", "out of memory");
    }
    return &h->at[h->count++];
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*b)->d_name, (*a)->d_name); /* the newest first: those are checked whole */
}

/* Twenty digits, so that names sort as numbers do. */
static int is_entry(const struct dirent *e)
{
    return strlen(e->d_name) == 25 && strspn(e->d_name, "0123456789") == 20 &&
           strcmp(e->d_name + 20, ".yaml") == 0;
}

/* What a crash has left half written. */
static int is_leftover(const struct dirent *e)
{
    size_t len = strlen(e->d_name);
    return len > 4 && strcmp(e->d_name + len - 4, ".new") == 0;
}

static void remove_leftovers(const struct history *h)
{
    struct dirent **names;
    char path[PATH_BYTES];
    int count = scandir(h->folder, &names, is_leftover, NULL);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%s", h->folder, names[i]->d_name);
        unlink(path);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

static void reverse(struct history *h)
{
    for (size_t i = 0; i < h->count / 2; i++) {
        struct history_entry e = h->at[i];
        h->at[i] = h->at[h->count - 1 - i];
        h->at[h->count - 1 - i] = e;
    }
}

void history_open(struct history *h, const char *state_dir)
{
    struct dirent **names;
    struct err err;
    char path[PATH_BYTES];
    size_t checked = 0;
    memset(h, 0, sizeof(*h));
    if (asprintf(&h->folder, "%s/generations", state_dir) < 0)
        log_fatal("history", "out of memory");
    remove_leftovers(h);
    int count = scandir(h->folder, &names, is_entry, by_name);
    for (int i = 0; i < count; i++) {
        struct history_entry e = {0};
        uint64_t number = strtoull(names[i]->d_name, NULL, 10);
        snprintf(path, sizeof(path), "%s/%s", h->folder, names[i]->d_name);
        if (check(path, number, &e, &checked, &err) == 0)
            *make_room(h) = e;
        else
            log_warn("history", "a generation is left out: %s", err.text);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    reverse(h);
}

void history_close(struct history *h)
{
    free(h->folder);
    free(h->at);
    memset(h, 0, sizeof(*h));
}

static void forget_oldest(struct history *h)
{
    char path[PATH_BYTES];
    path_of(h, h->at[0].number, path);
    unlink(path);
    h->count--;
    memmove(h->at, h->at + 1, h->count * sizeof(*h->at));
}

int history_add(struct history *h, const struct history_entry *entry, struct view text,
                struct err *err)
{
    char path[PATH_BYTES], head[HEAD_BYTES];
    struct history_entry e = *entry;
    e.hash = XXH3_64bits(text.at, text.len);
    e.bytes = text.len;
    struct view parts[] = {{head, (size_t)write_head(&e, head)}, text};
    path_of(h, e.number, path);
    if (files_make_parent(path, err) < 0 || files_write_parts(path, parts, 2, err) < 0) {
        if (!h->warned)
            log_about(LOG_WARN, "history",
                      LOG_FIELDS(about_generation(e.number), about_cause(err->text)),
                      "generations cannot be kept: %s", err->text);
        h->warned = true;
        return -1;
    }
    if (h->warned)
        log_about(LOG_INFO, "history", LOG_FIELDS(about_generation(e.number)),
                  "generations are kept again, from %llu on", (unsigned long long)e.number);
    h->warned = false;
    *make_room(h) = e;
    while (h->count > HISTORY_KEPT)
        forget_oldest(h);
    return 0;
}

const struct history_entry *history_find(const struct history *h, uint64_t number)
{
    for (size_t i = h->count; i > 0; i--)
        if (h->at[i - 1].number == number)
            return &h->at[i - 1];
    return NULL;
}

const struct history_entry *history_newest(const struct history *h)
{
    return h->count > 0 ? &h->at[h->count - 1] : NULL;
}

const struct history_entry *history_before(const struct history *h, uint64_t number)
{
    for (size_t i = h->count; i > 0; i--)
        if (h->at[i - 1].number < number)
            return &h->at[i - 1];
    return NULL;
}
