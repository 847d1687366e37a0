#include "dataplane/state/segment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = "GWPSEGM";

uint64_t segment_new_lineage(void)
{
    uint64_t lineage = 0;
    while (lineage == 0) /* 0 stands for none */
        if (getrandom(&lineage, sizeof(lineage), 0) != sizeof(lineage))
            lineage = 0;
    return lineage;
}

static int map(struct segment *s, size_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (base == MAP_FAILED)
        return -1;
    s->head = base;
    s->bytes = bytes;
    return 0;
}

int segment_create(struct segment *s, const char *name, uint32_t layout, size_t bytes,
                   struct err *err)
{
    memset(s, 0, sizeof(*s));
    s->fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd < 0)
        return err_set_errno(err, "memory segment %s could not be made", name);
    if (ftruncate(s->fd, (off_t)bytes) < 0 ||
        fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ||
        map(s, bytes) < 0) {
        err_set_errno(err, "memory segment %s of %zu bytes could not be mapped", name, bytes);
        close(s->fd);
        return -1;
    }
    memcpy(s->head->magic, magic, sizeof(magic));
    s->head->layout = layout;
    s->head->bytes = bytes;
    atomic_store(&s->head->lineage, segment_new_lineage());
    return 0;
}

/* Sealed before it is measured: nobody can make it smaller afterwards, and end us with SIGBUS. */
static int check(int fd, const char *name, size_t bytes, size_t *size, struct err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return err_set(err, "memory segment %s is not sealed", name);
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, "memory segment %s cannot be looked at", name);
    *size = (size_t)st.st_size;
    if (*size < sizeof(struct segment_head) || (bytes > 0 && *size != bytes))
        return err_set(err, "memory segment %s has %zu bytes, and %zu are expected", name, *size,
                       bytes);
    return 0;
}

int segment_adopt(struct segment *s, int fd, const char *name, uint32_t layout, size_t bytes,
                  struct err *err)
{
    size_t size = 0;
    memset(s, 0, sizeof(*s));
    s->fd = fd;
    if (check(fd, name, bytes, &size, err) < 0) {
        close(fd);
        return -1;
    }
    if (map(s, size) < 0) {
        err_set_errno(err, "memory segment %s of %zu bytes could not be mapped", name, size);
        close(fd);
        return -1;
    }
    const struct segment_head *h = s->head;
    if (memcmp(h->magic, magic, sizeof(magic)) == 0 && h->layout == layout && h->bytes == size)
        return 0;
    err_set(err, "memory segment %s has a layout that this release does not know (%u, not %u)",
            name, h->layout, layout);
    segment_close(s);
    return -1;
}

uint64_t segment_lineage(const struct segment *s)
{
    return atomic_load(&s->head->lineage);
}

void segment_close(struct segment *s)
{
    munmap(s->head, s->bytes);
    close(s->fd);
    s->head = NULL;
}
