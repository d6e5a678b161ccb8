// SPDX-License-Identifier: Apache-2.0
// kernel_check.cu -- the program: kernel_check check|small|bench [op..] runs the checks, the small
// ones once (for sanitizers), or the benchmarks of all ops or of those named; one line a check, one
// JSON line a benchmark. Exit code 1: a check failed; 2: no such op, or no GPU.
#include <stdio.h>
#include <string.h>

#include "tests/gpu/check_state.cuh"

static bool wanted(const struct check_entry *entry, int count, char *const *names)
{
    bool named = count == 0;
    for (int i = 0; i < count; i++)
        named |= strcmp(names[i], entry->op) == 0;
    return named;
}

int main(int count, char **arguments)
{
    struct error error;
    bool bench = count > 1 && strcmp(arguments[1], "bench") == 0;
    int runs = 0;
    bool small = count > 1 && strcmp(arguments[1], "small") == 0;
    if (count < 2 || (!bench && !small && strcmp(arguments[1], "check") != 0)) {
        fprintf(stderr, "usage: kernel_check check|small|bench [op..]\n");
        return 2;
    }
    if (small)
        check_small_only();
    if (runtime_open(0, &error) != OK) {
        fprintf(stderr, "%s\n", error.text);
        return 2;
    }
    for (struct check_entry *entry = check_entries(); entry != NULL; entry = entry->next) {
        if (entry->bench != bench || !wanted(entry, count - 2, arguments + 2))
            continue;
        entry->run();
        bench_clear();
        runs++;
    }
    if (runs == 0) {
        fprintf(stderr, "no op of these names has a %s\n", arguments[1]);
        return 2;
    }
    if (!bench)
        printf("%s: %d failed\n", check_failures() == 0 ? "all checks passed" : "FAILED",
               check_failures());
    return check_failures() == 0 ? 0 : 1;
}
