#include "dataplane/state/segment.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
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
    if (ftruncate(s->fd, (off_t)bytes) < 0 ||
        fcntl(s->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -1;
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
    if (map(s, bytes) < 0) {
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

void segment_close(struct segment *s)
{
    munmap(s->head, s->bytes);
    close(s->fd);
    s->head = NULL;
}
