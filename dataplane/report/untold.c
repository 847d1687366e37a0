#include "dataplane/report/untold.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/base/log.h"
#include "proto/frame.h"

#define PREFIX "untold."
#define FORMAT 1
#define MOST_FILES 16
#define PATH_BYTES 4096

static const char magic[8] = "GWPUNTD";

/* As it stands on disk, before the parts: each its length and a packed StatsReport. The file is
 * read by the machine that wrote it. */
struct head {
    char magic[8];
    uint32_t format, zero;
    uint64_t length, hash; /* of the parts */
};

/* ---- keeping ---- */

static bool put_part(void *owner, const Gwp__StatsReport *part, struct err *err)
{
    FILE *out = owner;
    uint32_t len = (uint32_t)gwp__stats_report__get_packed_size(part);
    uint8_t *packed = malloc(len + 1);
    bool is_put = packed && gwp__stats_report__pack(part, packed) == len &&
                  fwrite(&len, sizeof(len), 1, out) == 1 && fwrite(packed, 1, len, out) == len;
    free(packed);
    if (!is_put)
        err_set(err, "no memory for what was counted");
    return is_put;
}

static int write_file(const char *path, const char *bytes, size_t len, struct err *err)
{
    char fresh[PATH_BYTES + 8];
    struct head head = {.format = FORMAT, .length = len, .hash = XXH3_64bits(bytes, len)};
    memcpy(head.magic, magic, sizeof(magic));
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    FILE *out = fopen(fresh, "we");
    if (!out)
        return err_set_errno(err, "%s could not be made", fresh);
    bool is_written = fwrite(&head, sizeof(head), 1, out) == 1 && fwrite(bytes, 1, len, out) == len;
    is_written = fclose(out) == 0 && is_written;
    if (is_written && rename(fresh, path) == 0)
        return 0;
    err_set_errno(err, "%s could not be written", path);
    unlink(fresh);
    return -1;
}

static size_t count_files(const char *state_dir)
{
    size_t count = 0;
    DIR *dir = opendir(state_dir);
    for (struct dirent *e; dir && (e = readdir(dir));)
        count += strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0;
    if (dir)
        closedir(dir);
    return count;
}

int untold_keep(const char *state_dir, const struct settlement *s, struct err *err)
{
    char path[PATH_BYTES], *bytes = NULL;
    size_t len = 0;
    if (count_files(state_dir) >= MOST_FILES)
        return err_set(err, "%d processes before this one could not tell theirs", MOST_FILES);
    if (snprintf(path, sizeof(path), "%s/" PREFIX "%016llx", state_dir,
                 (unsigned long long)stats_lineage(s->workers[0])) >= (int)sizeof(path))
        return err_set(err, "the state directory's path is too long");
    FILE *out = open_memstream(&bytes, &len);
    if (!out)
        return err_set_errno(err, "no memory for what was counted");
    struct settlement into = *s;
    into.emit = put_part;
    into.owner = out;
    enum report_status status = report_settle(&into, err);
    fclose(out);
    int result = status == REPORT_SENT ? write_file(path, bytes, len, err) : -1;
    if (status == REPORT_LATER)
        err_set(err, "its histograms were being changed");
    free(bytes);
    return result;
}

/* ---- telling ---- */

/* The whole file, or NULL. */
static char *read_file(const char *path, struct head *head)
{
    char *bytes = NULL;
    FILE *in = fopen(path, "re");
    if (in && fread(head, sizeof(*head), 1, in) == 1 &&
        memcmp(head->magic, magic, sizeof(magic)) == 0 && head->format == FORMAT &&
        head->length <= FRAME_MAX_BYTES && (bytes = malloc(head->length + 1)) &&
        (fread(bytes, 1, head->length, in) != head->length ||
         XXH3_64bits(bytes, head->length) != head->hash)) {
        free(bytes);
        bytes = NULL;
    }
    if (in)
        fclose(in);
    return bytes;
}

/* False when `emit` wants no more. What is no part ends the file. */
static bool tell_parts(const char *bytes, size_t length, report_emit_fn *emit, void *owner)
{
    uint32_t len;
    struct err err;
    for (size_t at = 0; length - at >= sizeof(len); at += sizeof(len) + len) {
        memcpy(&len, bytes + at, sizeof(len));
        if (len > length - at - sizeof(len))
            break;
        Gwp__StatsReport *part =
            gwp__stats_report__unpack(NULL, len, (const uint8_t *)bytes + at + sizeof(len));
        bool is_taken = !part || emit(owner, part, &err);
        if (part)
            gwp__stats_report__free_unpacked(part, NULL);
        if (!is_taken)
            return false;
    }
    return true;
}

static bool tell_file(const char *path, report_emit_fn *emit, void *owner)
{
    struct head head;
    char *bytes = read_file(path, &head);
    bool is_told = bytes && tell_parts(bytes, head.length, emit, owner);
    if (is_told)
        log_info("untold", "told what a data plane before this one had counted at its end");
    else if (!bytes)
        log_warn("untold", "%s is not whole: what was counted there is lost", path);
    if (is_told || !bytes)
        unlink(path);
    free(bytes);
    return is_told || !bytes;
}

void untold_tell(const char *state_dir, report_emit_fn *emit, void *owner)
{
    char path[PATH_BYTES];
    DIR *dir = opendir(state_dir);
    bool goes_on = true;
    for (struct dirent *e; dir && goes_on && (e = readdir(dir));)
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0 && !strstr(e->d_name, ".new") &&
            snprintf(path, sizeof(path), "%s/%s", state_dir, e->d_name) < (int)sizeof(path))
            goes_on = tell_file(path, emit, owner);
    if (dir)
        closedir(dir);
}
