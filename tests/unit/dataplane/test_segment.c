#include <criterion/criterion.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/state/segment.h"

static struct segment made(size_t bytes)
{
    struct segment s;
    struct err err;
    cr_assert_eq(segment_create(&s, "test", 7, bytes, &err), 0, "%s", err.text);
    return s;
}

Test(segment, says_what_it_is)
{
    struct segment s = made(1 << 20);
    cr_assert_eq(s.head->layout, 7);
    cr_assert_eq(s.head->bytes, 1 << 20);
    cr_assert_neq(atomic_load(&s.head->lineage), 0);
    segment_close(&s);
    cr_assert_eq(s.head, NULL);
}

Test(segment, cannot_be_resized_under_us)
{
    struct segment s = made(1 << 20);
    cr_assert_eq(ftruncate(s.fd, 4096), -1);
    cr_assert_eq(errno, EPERM);
    cr_assert_eq(ftruncate(s.fd, 2 << 20), -1);
    segment_close(&s);
}

Test(segment, costs_what_is_touched)
{
    struct stat st;
    struct segment s = made(64 << 20);
    cr_assert_eq(fstat(s.fd, &st), 0);
    cr_assert_leq(st.st_blocks * 512, 64 * 1024);
    segment_close(&s);
}

Test(segment, its_descriptor_shows_the_same_memory_elsewhere)
{
    struct segment s = made(1 << 20);
    char *other = mmap(NULL, s.bytes, PROT_READ, MAP_SHARED, s.fd, 0);
    cr_assert_neq(other, MAP_FAILED);
    ((char *)s.head)[5000] = 42;
    cr_assert_eq(other[5000], 42);
    munmap(other, s.bytes);
    segment_close(&s);
}

Test(segment, lineages_differ)
{
    cr_assert_neq(segment_new_lineage(), segment_new_lineage());
}
