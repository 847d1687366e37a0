#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
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

/* ---- those of other processes ---- */

static struct err why;

Test(segment, is_the_same_memory_for_who_adopts_it)
{
    struct segment s = made(1 << 20), other;
    ((char *)s.head)[5000] = 'x';
    cr_assert_eq(segment_adopt(&other, dup(s.fd), "test", 7, 1 << 20, &why), 0, "%s", why.text);
    cr_assert_eq(((char *)other.head)[5000], 'x');
    cr_assert_eq(segment_lineage(&other), segment_lineage(&s));
    segment_close(&s);
    ((char *)other.head)[5000] = 'y';
    segment_close(&other);
}

Test(segment, is_refused_when_it_is_another)
{
    struct segment s = made(1 << 20), other;
    cr_assert_eq(segment_adopt(&other, dup(s.fd), "test", 8, 1 << 20, &why), -1);
    cr_assert(strstr(why.text, "layout that this release does not know (7, not 8)"), "%s",
              why.text);
    cr_assert_eq(segment_adopt(&other, dup(s.fd), "test", 7, 1 << 19, &why), -1);
    s.head->bytes = 17;
    cr_assert_eq(segment_adopt(&other, dup(s.fd), "test", 7, 0, &why), -1);
    segment_close(&s);
}

/* Whoever could shrink it could end us. */
Test(segment, is_refused_unless_it_is_sealed)
{
    struct segment other;
    int ends[2], fd = memfd_create("test", MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    cr_assert_eq(segment_adopt(&other, fd, "test", 7, 1 << 20, &why), -1);
    cr_assert(strstr(why.text, "not sealed"), "%s", why.text);
    cr_assert_eq(fcntl(fd, F_GETFD), -1, "it was closed");
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(segment_adopt(&other, ends[0], "test", 7, 0, &why), -1);
    cr_assert_eq(segment_adopt(&other, open("/dev/null", O_RDWR), "test", 7, 0, &why), -1);
    cr_assert_eq(segment_adopt(&other, open("/etc/passwd", O_RDONLY), "test", 7, 0, &why), -1);
    int empty = memfd_create("test", MFD_ALLOW_SEALING);
    cr_assert_eq(fcntl(empty, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    cr_assert_eq(segment_adopt(&other, empty, "test", 7, 0, &why), -1);
}
