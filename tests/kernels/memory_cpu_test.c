// SPDX-License-Identifier: Apache-2.0
// memory_cpu_test.c -- free memory under made-up /proc and control group trees.
#include "kernels/memory_cpu.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const uint64_t meminfo_bytes = 8000ull * 1024;
static char root[64];

// Writes a file of the tree, with the folders above it.
static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int make_tree(void **state)
{
    (void)state;
    strcpy(root, "/tmp/memory_cpu_test_XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    put("/proc/meminfo", "MemTotal:       16000 kB\nMemFree:          100 kB\n"
                         "MemAvailable:    8000 kB\nBuffers:            1 kB\n");
    return 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static int remove_tree(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void without_groups_it_is_mem_available(void **state)
{
    (void)state;
    assert_int_equal(memory_cpu_bytes_free(root), meminfo_bytes);
}

static void without_meminfo_it_is_zero(void **state)
{
    (void)state;
    assert_int_equal(memory_cpu_bytes_free("/nowhere"), 0);
}

static void version_2_limits(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a.slice/b.service\n");
    put("/sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
    put("/sys/fs/cgroup/a.slice/b.service/memory.current", "100000\n");
    assert_int_equal(memory_cpu_bytes_free(root), meminfo_bytes); // no limit, no limit above
    put("/sys/fs/cgroup/a.slice/memory.max", "5000000\n");
    put("/sys/fs/cgroup/a.slice/memory.current", "2000000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 3000000); // the parent's
    put("/sys/fs/cgroup/a.slice/memory.stat", "anon 1\nactive_file 5\ninactive_file 500000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 3500000); // page cache can be dropped
    put("/sys/fs/cgroup/a.slice/b.service/memory.max", "1000000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 900000);
    put("/sys/fs/cgroup/a.slice/b.service/memory.current", "1000001\n");
    assert_int_equal(memory_cpu_bytes_free(root), 0);
}

static void version_1_limits(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/job/step\n0::/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
    assert_int_equal(memory_cpu_bytes_free(root), meminfo_bytes);
    put("/sys/fs/cgroup/memory/job/step/memory.limit_in_bytes", "2000000\n");
    put("/sys/fs/cgroup/memory/job/step/memory.usage_in_bytes", "1500000\n");
    put("/sys/fs/cgroup/memory/job/step/memory.stat",
        "inactive_file 7\ntotal_inactive_file 300000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 800000);
}

// In a container the path names a folder of the host; the mount point is the container's group.
static void container_limits(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/docker/0123456789abcdef\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 3000000);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "3000000\n");
    put("/sys/fs/cgroup/memory.current", "1000000\n");
    assert_int_equal(memory_cpu_bytes_free(root), 2000000);
}

static void garbage_limits_nothing(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "\n::\nmemory\n4:memory\n0::/a\n");
    put("/sys/fs/cgroup/a/memory.max", "");
    put("/sys/fs/cgroup/memory.max", "none\n");
    assert_int_equal(memory_cpu_bytes_free(root), meminfo_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_groups_it_is_mem_available, make_tree, remove_tree),
        cmocka_unit_test(without_meminfo_it_is_zero),
        cmocka_unit_test_setup_teardown(version_2_limits, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(version_1_limits, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(container_limits, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(garbage_limits_nothing, make_tree, remove_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
