#include "controlplane/ledger.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/files.h"
#include "proto/base/log.h"

#define LAYOUT 1

/* The name's first byte is written last: an entry without one is free, whatever a process that was
 * killed while it made one has left behind it. */
struct ledger_entry {
    char name[LEDGER_NAME_BYTES];
    ledger_count count;
};

struct ledger_file {
    char magic[8];
    uint32_t layout, entry_bytes;
    char zero[LEDGER_NAME_BYTES - 16];
    ledger_count overflow; /* of the names for which there was no room */
    struct ledger_entry entries[LEDGER_MAX];
};

static const char magic[8] = "GWPCNTR";

static_assert(sizeof(struct ledger_entry) == 64 && sizeof(struct ledger_file) == 256 * 1024,
              "the layout of files that exist");

static bool is_ours(const struct ledger_file *f)
{
    bool is_terminated = true;
    for (size_t i = 0; i < LEDGER_MAX; i++)
        is_terminated = is_terminated && f->entries[i].name[LEDGER_NAME_BYTES - 1] == '\0';
    return memcmp(f->magic, magic, sizeof(magic)) == 0 && f->layout == LAYOUT &&
           f->entry_bytes == sizeof(struct ledger_entry) && is_terminated;
}

static void put_aside(const char *path)
{
    char aside[4200];
    snprintf(aside, sizeof(aside), "%s.broken", path);
    bool is_aside = rename(path, aside) == 0;
    log_error("ledger", "%s is no file of counters: those of the control plane begin at 0%s%s",
              path, is_aside ? "; it was renamed to " : "", is_aside ? aside : "");
}

/* Takes the descriptor over. Its blocks are reserved here: a mapped page that the disk has no room
 * for would end the process when it is written. NULL with `err`. */
static struct ledger_file *map(int fd, const char *path, struct err *err)
{
    struct stat st;
    struct ledger_file *f = MAP_FAILED;
    bool is_new = fstat(fd, &st) == 0 && st.st_size == 0;
    int failure = posix_fallocate(fd, 0, sizeof(*f));
    if (failure == 0)
        f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    else
        errno = failure;
    if (f == MAP_FAILED)
        err_set_errno(err, "counters cannot be kept in %s", path);
    close(fd);
    if (f == MAP_FAILED)
        return NULL;
    if (is_new) {
        f->entry_bytes = sizeof(struct ledger_entry);
        f->layout = LAYOUT;
        memcpy(f->magic, magic, sizeof(magic));
    }
    return f;
}

static struct ledger_file *open_file(const char *path, struct err *err)
{
    for (int tries = 0; tries < 2; tries++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0) {
            err_set_errno(err, "counters cannot be kept in %s", path);
            return NULL;
        }
        struct ledger_file *f = map(fd, path, err);
        if (!f || is_ours(f))
            return f;
        munmap(f, sizeof(*f));
        put_aside(path);
    }
    err_set(err, "counters cannot be kept in %s: what is there cannot be moved", path);
    return NULL;
}

static struct ledger_file *in_memory(void)
{
    void *f = mmap(NULL, sizeof(struct ledger_file), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f == MAP_FAILED)
        log_fatal("ledger", "out of memory");
    return f;
}

void ledger_init(struct ledger *l, const char *state_dir)
{
    struct err err;
    memset(l, 0, sizeof(*l));
    if (state_dir) {
        if (asprintf(&l->path, "%s/counters", state_dir) < 0)
            log_fatal("ledger", "out of memory");
        if (files_make_parent(l->path, &err) == 0)
            l->file = open_file(l->path, &err);
        if (l->file)
            return;
        log_warn("ledger", "%s: those of the control plane begin at 0 with each start", err.text);
        free(l->path);
        l->path = NULL;
    }
    l->file = in_memory();
}

void ledger_fini(struct ledger *l)
{
    if (l->file)
        munmap(l->file, sizeof(*l->file));
    free(l->path);
    memset(l, 0, sizeof(*l));
}

ledger_count *ledger_find(struct ledger *l, const char *name)
{
    size_t len = strlen(name);
    assert(len > 0 && len < LEDGER_NAME_BYTES);
    for (size_t i = 0; i < LEDGER_MAX; i++) {
        struct ledger_entry *e = &l->file->entries[i];
        if (strcmp(e->name, name) == 0)
            return &e->count;
        if (e->name[0] != '\0')
            continue;
        memset(e->name, 0, sizeof(e->name));
        memcpy(e->name + 1, name + 1, len - 1);
        atomic_store(&e->count, 0);
        atomic_thread_fence(memory_order_release);
        e->name[0] = name[0];
        return &e->count;
    }
    log_error("ledger", "there is no room for the counter %s among %d", name, LEDGER_MAX);
    return &l->file->overflow;
}
