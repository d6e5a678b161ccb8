// SPDX-License-Identifier: Apache-2.0
// affinity_test.c -- lists of processors, right and wrong; a device whose processors are some of
// ours, all of ours, none of ours, and unknown.
#include "worker/affinity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_lists(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        int count, first, last;
    } good[] = {{"0\n", 1, 0, 0},
                {"0-15,32-47\n", 32, 0, 47},
                {"3", 1, 3, 3},
                {"1,5-5,9\n", 3, 1, 9},
                {"1023", 1, 1023, 1023}};
    static const char *const bad[] = {
        "",      "\n",    "a",  "1-",    "-1", "1,",  "3-2",  "1;2",
        "1024",  "1-2-3", "1 ", "1\n\n", ",1", "0x1", "1--2", "99999999999999999999",
        "0-1024"};
    cpu_set_t set;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(affinity_parse(&set, good[i].list));
        assert_int_equal(CPU_COUNT(&set), good[i].count);
        assert_true(CPU_ISSET((size_t)good[i].first, &set) &&
                    CPU_ISSET((size_t)good[i].last, &set));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (affinity_parse(&set, bad[i]))
            fail_msg("\"%s\" was taken", bad[i]);
    }
}

// A folder with the file that Linux has of one device.
static void write_list(const char *root, const char *list)
{
    static const char *const folders[] = {"bus", "bus/pci", "bus/pci/devices",
                                          "bus/pci/devices/0000:3b:00.0"};
    char path[512];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", root, folders[i]);
        (void)mkdir(path, 0700);
    }
    snprintf(path, sizeof path, "%s/bus/pci/devices/0000:3b:00.0/local_cpulist", root);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(list, file);
    assert_int_equal(fclose(file), 0);
}

static void remove_list(const char *root)
{
    static const char *const paths[] = {"bus/pci/devices/0000:3b:00.0/local_cpulist",
                                        "bus/pci/devices/0000:3b:00.0", "bus/pci/devices",
                                        "bus/pci", "bus"};
    char path[512];
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", root, paths[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(root), 0);
}

static void test_near(void **state)
{
    (void)state;
    char root[] = "/tmp/affinity_test.XXXXXX", list[64];
    cpu_set_t before, now;
    size_t first = 0;
    assert_non_null(mkdtemp(root));
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    assert_int_equal(affinity_near("", root, 1), 0);             // the CPU backend
    assert_int_equal(affinity_near("0000:3b:00.0", root, 1), 0); // not told
    write_list(root, "nonsense\n");
    assert_int_equal(affinity_near("0000:3b:00.0", root, 1), 0);
    write_list(root, "0-1023\n"); // all of ours: nothing to change
    assert_int_equal(affinity_near("0000:3b:00.0", root, 1), 0);
    write_list(root, "1023\n"); // none of ours
    assert_int_equal(affinity_near("0000:3b:00.0", root, 1), 0);
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_EQUAL(&now, &before));
    if (CPU_COUNT(&before) > 1) {
        snprintf(list, sizeof list, "%zu,1023\n", first);
        write_list(root, list);
        assert_int_equal(affinity_near("0000:3b:00.0", root, 2), 0); // too few
        assert_int_equal(affinity_near("0000:3b:00.0", root, 1), 1);
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_true(CPU_COUNT(&now) == 1 && CPU_ISSET(first, &now));
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    }
    remove_list(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
