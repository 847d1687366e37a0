#include "controlplane/tallies.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/log.h"

#define MAX_BYTES ((size_t)512 * 1024 * 1024) /* of addresses; only what is used takes memory */
#define STEP_BYTES ((size_t)256 * 1024)
#define LAYOUT 1

static const char magic[8] = "gwp-tlly";

struct head {
    char magic[8];
    uint64_t layout;
};

static struct head *head_of(const struct tallies *l)
{
    return (struct head *)(void *)l->memory;
}

static struct tally *row_at(const struct tallies *l, size_t at)
{
    return (struct tally *)(void *)(l->memory + at);
}

/* ---- memory ---- */

/* Blocks are asked for before they are touched: a full disk is an error here, not a signal there.
 */
static int make_room(struct tallies *l, size_t bytes)
{
    if (bytes > MAX_BYTES)
        return -1;
    if (l->fd < 0 || bytes <= l->allocated)
        return 0;
    size_t wanted = MIN((bytes + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES, MAX_BYTES);
    int error = posix_fallocate(l->fd, (off_t)l->allocated, (off_t)(wanted - l->allocated));
    if (error) {
        errno = error;
        return -1;
    }
    l->allocated = wanted;
    return 0;
}

static int map(struct tallies *l, struct err *err)
{
    int flags = l->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    l->memory = mmap(NULL, MAX_BYTES, PROT_READ | PROT_WRITE, flags, l->fd, 0);
    if (l->memory != MAP_FAILED)
        return 0;
    l->memory = NULL;
    return err_set_errno(err, "%s cannot be mapped", l->path);
}

static void begin(struct tallies *l)
{
    struct head *h = head_of(l);
    assert(h); /* it is mapped */
    memcpy(h->magic, magic, sizeof(magic));
    h->layout = LAYOUT;
    l->used = sizeof(*h);
}

void tallies_give_up_file(struct tallies *l, const struct err *why)
{
    log_warn("tallies", "counts are not kept over a restart: %s", why->text);
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

static void use_memory_only(struct tallies *l, const struct err *why)
{
    struct err err;
    tallies_give_up_file(l, why);
    if (l->memory)
        munmap(l->memory, MAX_BYTES);
    l->allocated = 0;
    if (map(l, &err) < 0)
        log_fatal("tallies", "%s", err.text);
    begin(l);
}

/* ---- opening ---- */

static int open_file(struct tallies *l, int flags, struct err *err)
{
    struct stat st;
    l->allocated = 0;
    if (files_make_parent(l->path, err) < 0)
        return -1;
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (l->fd < 0 || fstat(l->fd, &st) < 0)
        return err_set_errno(err, "%s cannot be opened", l->path);
    if ((size_t)st.st_size > MAX_BYTES)
        return err_set(err, "%s is larger than %zu bytes", l->path, MAX_BYTES);
    l->allocated = (size_t)st.st_size;
    if (make_room(l, MAX(l->allocated, STEP_BYTES)) < 0)
        return err_set_errno(err, "there is no room for %s", l->path);
    return map(l, err);
}

/* Steps over the rows; -1 when one of them cannot be one. */
static int find_end(struct tallies *l)
{
    const struct head *h = head_of(l);
    static const struct head none;
    if (memcmp(h, &none, sizeof(none)) == 0) { /* a new file */
        begin(l);
        return 0;
    }
    if (memcmp(h->magic, magic, sizeof(magic)) != 0 || h->layout != LAYOUT)
        return -1;
    l->used = sizeof(*h);
    while (l->used + sizeof(struct tally) <= l->allocated) {
        const struct tally *r = row_at(l, l->used);
        if (r->bytes == 0)
            return 0;
        if (r->bytes % 8 != 0 || r->bytes > l->allocated - l->used ||
            sizeof(*r) + r->count * sizeof(uint64_t) + r->key_len > r->bytes)
            return -1;
        l->used += r->bytes;
    }
    return 0;
}

static void put_aside(struct tallies *l)
{
    char aside[4096];
    snprintf(aside, sizeof(aside), "%s.damaged", l->path);
    log_warn("tallies", "%s is not understood, counts begin anew; it is kept as %s", l->path,
             aside);
    munmap(l->memory, MAX_BYTES);
    close(l->fd);
    l->memory = NULL;
    l->fd = -1;
    if (rename(l->path, aside) < 0)
        unlink(l->path);
}

void tallies_open(struct tallies *l, const char *state_dir, const char *name)
{
    struct err err;
    *l = (struct tallies){.fd = -1};
    if (asprintf(&l->path, "%s/%s", state_dir ? state_dir : "", name) < 0)
        log_fatal("tallies", "out of memory");
    if (!state_dir) {
        if (map(l, &err) < 0)
            log_fatal("tallies", "%s", err.text);
        begin(l);
        return;
    }
    int result = open_file(l, 0, &err);
    if (result == 0 && find_end(l) < 0) {
        put_aside(l);
        result = open_file(l, 0, &err);
        if (result == 0)
            begin(l);
    }
    if (result < 0)
        use_memory_only(l, &err);
}

void tallies_close(struct tallies *l)
{
    if (l->memory)
        munmap(l->memory, MAX_BYTES);
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    *l = (struct tallies){.fd = -1};
}

/* ---- rows ---- */

/* What another process has added. */
static void catch_up(struct tallies *l)
{
    while (l->fd >= 0 && l->used + sizeof(struct tally) <= l->allocated &&
           __atomic_load_n(&row_at(l, l->used)->bytes, __ATOMIC_ACQUIRE) != 0)
        l->used += row_at(l, l->used)->bytes;
}

struct tally *tallies_add(struct tallies *l, uint64_t owner, struct view key, size_t count)
{
    catch_up(l);
    size_t bytes = (sizeof(struct tally) + count * sizeof(uint64_t) + key.len + 7) / 8 * 8;
    /* The row behind it must be readable as well: there the rows end. */
    if (key.len > UINT16_MAX || count > UINT16_MAX ||
        make_room(l, l->used + bytes + sizeof(struct tally)) < 0) {
        if (!l->is_full)
            log_warn("tallies", "%s has no room for more; what is new is not counted", l->path);
        l->is_full = true;
        return NULL;
    }
    struct tally *r = row_at(l, l->used);
    r->owner = owner;
    r->count = (uint16_t)count;
    r->key_len = (uint16_t)key.len;
    memset(r->values, 0, count * sizeof(uint64_t));
    memcpy(r->values + count, key.at, key.len);
    /* Last: a process that is killed here leaves no half of a row. */
    __atomic_store_n(&r->bytes, (uint32_t)bytes, __ATOMIC_RELEASE);
    l->used += bytes;
    return r;
}

struct tally *tallies_next(const struct tallies *l, const struct tally *r)
{
    size_t at = r ? (size_t)((const char *)r - l->memory) + r->bytes : sizeof(struct head);
    return at < l->used ? row_at(l, at) : NULL;
}

/* ---- rewriting ---- */

int tallies_begin_rewrite(const struct tallies *l, struct tallies *fresh, struct err *err)
{
    *fresh = (struct tallies){.fd = -1};
    if (asprintf(&fresh->path, "%s.new", l->path) < 0)
        log_fatal("tallies", "out of memory");
    int result = l->fd < 0 ? map(fresh, err) : open_file(fresh, O_TRUNC, err);
    if (result == 0)
        begin(fresh);
    else
        tallies_close(fresh);
    return result;
}

int tallies_end_rewrite(struct tallies *l, struct tallies *fresh, struct err *err)
{
    if (fresh->is_full)
        err_set(err, "there is no room for %s", fresh->path);
    else if (l->fd >= 0 && (fsync(fresh->fd) < 0 || rename(fresh->path, l->path) < 0))
        err_set_errno(err, "%s cannot take the place of %s", fresh->path, l->path);
    else {
        char *path = l->path;
        l->path = NULL;
        tallies_close(l);
        free(fresh->path);
        *l = *fresh;
        l->path = path;
        return 0;
    }
    unlink(fresh->path);
    tallies_close(fresh);
    return -1;
}
