// SPDX-License-Identifier: Apache-2.0
// bench_load_test.c -- prompts that differ, arrival times that follow the exponential law, traces
// and what is wrong in them.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "deploy/cli/bench_load.h"

static struct bench_load load;
static struct error error;

static int tear_down(void **state)
{
    (void)state;
    bench_load_fini(&load);
    return 0;
}

static void open_load(int32_t input, int32_t vocab, uint64_t seed)
{
    bench_load_init(&load, (struct bench_lengths){input, 7}, vocab, seed);
}

static void prompts_are_distinct_and_in_range(void **state)
{
    (void)state;
    enum { VOCAB = 50, COUNT = VOCAB * VOCAB };
    static bool seen[VOCAB][VOCAB];
    int32_t ids[5];
    memset(seen, 0, sizeof seen);
    open_load(5, VOCAB, 3);
    for (int64_t i = 0; i < COUNT; i++) {
        bench_load_prompt(ids, &load, i);
        for (int k = 0; k < 5; k++)
            assert_in_range(ids[k], 0, VOCAB - 1);
        assert_false(seen[ids[0]][ids[1]]);
        seen[ids[0]][ids[1]] = true;
    }
}

static void neighbours_part_at_once(void **state)
{
    (void)state;
    bool seen[97] = {false};
    int32_t id;
    open_load(1, 97, 5);
    for (int64_t i = 1000; i < 1097; i++) {
        bench_load_prompt(&id, &load, i);
        assert_false(seen[id]);
        seen[id] = true;
    }
}

// Every id comes about equally often: each of 100 expects 500 and strays by less than 6 sigma.
static void ids_are_spread(void **state)
{
    (void)state;
    static int32_t ids[50002];
    int counts[100] = {0};
    open_load(50002, 100, 11);
    bench_load_prompt(ids, &load, 0);
    for (int i = 2; i < 50002; i++)
        counts[ids[i]]++;
    for (int i = 0; i < 100; i++)
        assert_true(fabs(counts[i] - 500.0) < 6 * sqrt(500 * 0.99));
}

static void all_follows_from_the_seed(void **state)
{
    (void)state;
    int32_t one[64], two[64], other[64];
    open_load(64, 248000, 1);
    bench_load_prompt(one, &load, 77);
    uint64_t seed = bench_load_seed(&load, 77), gap_ns = bench_load_gap_ns(&load, 77, 10);
    bench_load_prompt(other, &load, 5); // what came before does not matter
    bench_load_prompt(two, &load, 77);
    assert_memory_equal(one, two, sizeof one);
    assert_true(seed == bench_load_seed(&load, 77) && seed != bench_load_seed(&load, 78));
    assert_true(gap_ns == bench_load_gap_ns(&load, 77, 10));
    open_load(64, 248000, 2);
    bench_load_prompt(two, &load, 77);
    assert_memory_not_equal(one, two, sizeof one);
    assert_true(seed != bench_load_seed(&load, 77));
}

// Mean and spread of an exponential time are both 1 / rate; a share 1/e of them is longer.
static void arrivals_are_poisson(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    const double rate = 40, expected_s = 1 / rate;
    double sum = 0, squares = 0, longer = 0;
    open_load(1, 10, 9);
    for (int64_t i = 0; i < COUNT; i++) {
        double gap_s = (double)bench_load_gap_ns(&load, i, rate) * 1e-9;
        sum += gap_s;
        squares += gap_s * gap_s;
        longer += gap_s > expected_s;
    }
    double mean_s = sum / COUNT, deviation_s = sqrt(squares / COUNT - mean_s * mean_s);
    // Six sigma: 1 / sqrt(COUNT) of the mean, sqrt(2) times that (and more) of the deviation.
    assert_true(fabs(mean_s / expected_s - 1) < 0.019);
    assert_true(fabs(deviation_s / expected_s - 1) < 0.04);
    assert_true(fabs(longer / COUNT - exp(-1)) < 0.0092);
}

static void write_trace(char *path, const char *text)
{
    strcpy(path, "/tmp/deltamesh-trace-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static enum status read_trace(const char *text)
{
    char path[64];
    write_trace(path, text);
    open_load(0, 10, 0);
    enum status status = bench_load_read_trace(&load, path, &error);
    unlink(path);
    return status;
}

static void a_trace_repeats(void **state)
{
    (void)state;
    assert_int_equal(read_trace("{\"input_len\":5,\"output_len\":6}\r\n\n"
                                "{\"output_len\":1,\"input_len\":900,\"when\":3}"),
                     OK);
    assert_int_equal(load.trace_count, 2);
    for (int64_t i = 0; i < 6; i += 2) {
        assert_int_equal(bench_load_lengths(&load, i).input, 5);
        assert_int_equal(bench_load_lengths(&load, i).output, 6);
        assert_int_equal(bench_load_lengths(&load, i + 1).input, 900);
        assert_int_equal(bench_load_lengths(&load, i + 1).output, 1);
    }
    assert_int_equal(bench_load_longest_input(&load, 1), 5);
    assert_int_equal(bench_load_longest_input(&load, 100), 900);
}

static void bad_traces_are_named(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        {"{\"input_len\":5,\"output_len\":6}\n{\"input_len\":5}\n", "line 2: 'output_len'"},
        {"{\"input_len\":0,\"output_len\":6}\n", "line 1: 'input_len'"},
        {"{\"input_len\":1.5,\"output_len\":6}\n", "'input_len'"},
        {"{\"input_len\":1048577,\"output_len\":6}\n", "1048576"},
        {"[1]\n", "line 1"},
        {"nonsense\n", "line 1"},
        {"\n", "no line"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(read_trace(texts[i][0]), E_INPUT);
        if (strstr(error.text, texts[i][1]) == NULL)
            fail_msg("'%s' is not in '%s'", texts[i][1], error.text);
        bench_load_fini(&load);
    }
    assert_int_equal(bench_load_read_trace(&load, "/nonexistent.jsonl", &error), E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(prompts_are_distinct_and_in_range, tear_down),
        cmocka_unit_test_teardown(neighbours_part_at_once, tear_down),
        cmocka_unit_test_teardown(ids_are_spread, tear_down),
        cmocka_unit_test_teardown(all_follows_from_the_seed, tear_down),
        cmocka_unit_test_teardown(arrivals_are_poisson, tear_down),
        cmocka_unit_test_teardown(a_trace_repeats, tear_down),
        cmocka_unit_test_teardown(bad_traces_are_named, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
