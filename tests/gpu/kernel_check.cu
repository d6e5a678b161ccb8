// SPDX-License-Identifier: Apache-2.0
// kernel_check.cu -- the program: kernel_check check|small|bench [op..] runs the checks, the small
// suites once (for sanitizers), or the benchmarks, all or those named; one line a check, one JSON
// line a benchmark. kernel_check suites names the small ones and needs no GPU. Exit code 1: a check
// failed; 2: no such op, or no GPU.
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

static int print_suites()
{
    for (struct check_entry *entry = check_entries(); entry != NULL; entry = entry->next) {
        if (entry->kind == CHECK_SMALL)
            printf("%s\n", entry->op);
    }
    return 0;
}

// False: no such mode.
static bool kind_of(enum check_kind *kind, const char *mode)
{
    static const char *const modes[] = {"check", "small", "bench"};
    for (int i = 0; i < 3; i++) {
        *kind = static_cast<enum check_kind>(i);
        if (strcmp(mode, modes[i]) == 0)
            return true;
    }
    return false;
}

int main(int count, char **arguments)
{
    struct error error;
    enum check_kind kind;
    int runs = 0;
    if (count == 2 && strcmp(arguments[1], "suites") == 0)
        return print_suites();
    if (count < 2 || !kind_of(&kind, arguments[1])) {
        fprintf(stderr, "usage: kernel_check check|small|bench [op..], kernel_check suites\n");
        return 2;
    }
    if (kind == CHECK_SMALL)
        check_once();
    if (runtime_open(0, &error) != OK) {
        fprintf(stderr, "%s\n", error.text);
        return 2;
    }
    for (struct check_entry *entry = check_entries(); entry != NULL; entry = entry->next) {
        if (entry->kind != kind || !wanted(entry, count - 2, arguments + 2))
            continue;
        entry->run();
        bench_clear();
        runs++;
    }
    if (runs == 0) {
        fprintf(stderr, "no op of these names has a %s\n", arguments[1]);
        return 2;
    }
    if (kind != CHECK_BENCH)
        printf("%s: %d failed\n", check_failures() == 0 ? "all checks passed" : "FAILED",
               check_failures());
    return check_failures() == 0 ? 0 : 1;
}
