#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/cpus.h"

static char root[] = "/tmp/gwp-cpus-XXXXXX";

static void put(const char *path, const char *text)
{
    char command[512];
    snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s/%s)\" && printf -- '%s' > %s/%s",
             root, path, text, root, path);
    cr_assert_eq(system(command), 0);
}

static void setup(void)
{
    cr_assert(mkdtemp(root));
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(cpus, .init = setup, .fini = teardown);

Test(cpus, there_is_always_one)
{
    cr_assert_geq(cpus_allowed(), 1);
}

Test(cpus, without_groups_all_are_allowed)
{
    cr_assert_eq(cpus_of_quota(root, 8), 8);
}

Test(cpus, a_quota_is_rounded_up)
{
    put("proc/self/cgroup", "0::/app\\n");
    put("sys/fs/cgroup/app/cpu.max", "150000 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 2);
    put("sys/fs/cgroup/app/cpu.max", "20000 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 1);
    put("sys/fs/cgroup/app/cpu.max", "max 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 8);
    put("sys/fs/cgroup/app/cpu.max", "1600000 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 8, "no more than there are");
}

Test(cpus, a_group_above_limits_too)
{
    put("proc/self/cgroup", "0::/pod/app\\n");
    put("sys/fs/cgroup/pod/app/cpu.max", "400000 100000\\n");
    put("sys/fs/cgroup/pod/cpu.max", "300000 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 3);
}

Test(cpus, a_container_sees_its_group_as_the_root)
{
    put("proc/self/cgroup", "0::/\\n");
    put("sys/fs/cgroup/cpu.max", "200000 100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 2);
}

Test(cpus, the_first_version_is_understood)
{
    put("proc/self/cgroup", "7:memory:/docker/x\\n4:cpu,cpuacct:/docker/x\\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 3, "its own group is not to be seen: the mount's counts");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\\n");
    cr_assert_eq(cpus_of_quota(root, 8), 8);
}
