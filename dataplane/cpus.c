#include "dataplane/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/str.h"

/* The first words of a small file; false if it cannot be read. */
static bool read_text(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(out, 1, cap - 1, f);
    fclose(f);
    out[n] = '\0';
    return n > 0;
}

static unsigned rounded_up(long long quota, long long period, unsigned most)
{
    if (quota <= 0 || period <= 0)
        return most;
    long long cpus = (quota + period - 1) / period;
    return cpus < most ? (unsigned)MAX(cpus, 1) : most;
}

/* "200000 100000" or "max 100000". */
static unsigned limit_v2(const char *dir, unsigned most)
{
    char path[PATH_MAX], text[64], *end;
    snprintf(path, sizeof(path), "%s/cpu.max", dir);
    if (!read_text(path, text, sizeof(text)) || text[0] < '0' || text[0] > '9')
        return most;
    long long quota = strtoll(text, &end, 10);
    return rounded_up(quota, strtoll(end, NULL, 10), most);
}

static unsigned limit_v1(const char *dir, unsigned most)
{
    char path[PATH_MAX], quota[64], period[64];
    snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", dir);
    if (!read_text(path, quota, sizeof(quota)))
        return most;
    snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", dir);
    if (!read_text(path, period, sizeof(period)))
        return most;
    return rounded_up(strtoll(quota, NULL, 10), strtoll(period, NULL, 10), most);
}

/* From the group itself up to the mount: each of them limits. A group that is not under the mount,
 * as seen from within some containers, leaves the mount's own. */
static unsigned walk_up(const char *mount, const char *group, unsigned most,
                        unsigned (*limit)(const char *dir, unsigned most))
{
    char dir[PATH_MAX];
    size_t floor = strlen(mount);
    if (snprintf(dir, sizeof(dir), "%s%s", mount, group) >= (int)sizeof(dir))
        return most;
    for (size_t len = strlen(dir); len >= floor; len--) {
        if (dir[len] != '/' && dir[len] != '\0')
            continue;
        dir[len] = '\0';
        most = limit(dir, most);
    }
    return most;
}

static bool has_controller(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p += len)
        if ((p == list || p[-1] == ',') && (p[len] == ',' || p[len] == '\0'))
            return true;
    return false;
}

/* One line of /proc/self/cgroup: "0::/group", "4:cpu,cpuacct:/group". */
static unsigned limit_of_line(const char *root, char *line, unsigned most)
{
    char mount[PATH_MAX];
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : 0;
    if (!group)
        return most;
    *group++ = '\0';
    controllers++;
    group[strcspn(group, "\n")] = '\0';
    if (strcmp(group, "/") == 0)
        group = (char *)"";
    if (controllers[0] == '\0') {
        snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup", root);
        return walk_up(mount, group, most, limit_v2);
    }
    if (!has_controller(controllers, "cpu"))
        return most;
    snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/%s", root, controllers);
    most = walk_up(mount, group, most, limit_v1);
    snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/cpu", root);
    return walk_up(mount, group, most, limit_v1);
}

unsigned cpus_of_quota(const char *root, unsigned most)
{
    char path[PATH_MAX], line[PATH_MAX];
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f)
        return most;
    while (fgets(line, sizeof(line), f))
        most = limit_of_line(root, line, most);
    fclose(f);
    return most;
}

unsigned cpus_allowed(void)
{
    cpu_set_t set;
    unsigned count = 1;
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        count = (unsigned)CPU_COUNT(&set);
    return cpus_of_quota("", count);
}
