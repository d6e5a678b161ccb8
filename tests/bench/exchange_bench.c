// SPDX-License-Identifier: Apache-2.0
// exchange_bench.c -- time of one push and pull between processes of this host, against the time
// that the copies alone need on this machine's cores. Not a test.
//
// usage: exchange_bench [RANKS [EPOCHS]]     without RANKS: 1, 2, 4, 8
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parallel/base/clock.h"
#include "parallel/exchange_host.h"

enum { REPEATS = 9, ROUNDS_MIN = 20, COPIED_BYTES = 64 << 20 };

static const size_t sizes_bytes[] = {4096, 65536, 1048576};
enum { SIZES = sizeof sizes_bytes / sizeof sizes_bytes[0] };

struct results { // shared with the children; rank 0 writes
    double us[SIZES][REPEATS];
    bool failed;
};

static int compare_doubles(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

// Nanoseconds of one core's memcpy of this size between buffers that it has just used, the best
// of five.
static double measure_copy_ns(size_t bytes)
{
    uint8_t *from = malloc(bytes), *to = malloc(bytes);
    if (from == NULL || to == NULL)
        DIE("no memory for %zu bytes twice", bytes);
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    int copies = (int)(COPIED_BYTES / bytes);
    double best = 0;
    for (int i = 0; i < 5; i++) {
        uint64_t before_ns = clock_now_ns();
        for (int copy = 0; copy < copies; copy++) {
            from[0] = (uint8_t)copy;
            memcpy(to, from, bytes);
            __asm__ volatile("" : : "r"(to) : "memory"); // the copy is not to be left out
        }
        double ns = (double)(clock_now_ns() - before_ns) / copies;
        best = i == 0 || ns < best ? ns : best;
    }
    free(from);
    free(to);
    return best;
}

static void run_rank(struct results *results, const struct exchange_host_options *options,
                     int epochs)
{
    struct exchange_host host;
    struct error error;
    if (exchange_host_open(&host, options, &error) != OK)
        DIE("%s", error.text);
    struct exchange *exchange = &host.exchanges[0];
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    uint8_t *data = malloc(exchange->lane_bytes);
    if (data == NULL)
        DIE("no memory for %zu bytes", exchange->lane_bytes);
    memset(data, options->place.rank + 1, exchange->lane_bytes); // else one page of zeroes
    for (int size = 0; size < SIZES; size++) {
        int rounds = (int)((size_t)epochs * sizes_bytes[0] / sizes_bytes[size]);
        rounds = rounds < ROUNDS_MIN ? ROUNDS_MIN : rounds;
        for (int repeat = -1; repeat < REPEATS; repeat++) { // the first one warms up
            uint64_t before_ns = clock_now_ns();
            for (int i = 0; i < rounds; i++) {
                exchange_push(exchange, data, sizes_bytes[size]);
                results->failed |= !exchange_pull(exchange, lanes);
            }
            double us = (double)(clock_now_ns() - before_ns) / CLOCK_NS_PER_US / rounds;
            if (repeat >= 0 && options->place.rank == 0)
                results->us[size][repeat] = us;
        }
    }
    free(data);
    exchange_host_close(&host);
}

static void bench_ranks(int ranks, int epochs, const double *copy_ns, int cores)
{
    struct exchange_host_options options = {
        .place = {.ranks = ranks},
        .count = 1,
        .lane_bytes = {sizes_bytes[SIZES - 1]},
        .wait_ns_max = 30ull * CLOCK_NS_PER_S,
        .join_ns_max = 30ull * CLOCK_NS_PER_S,
    };
    if (getrandom(options.id, sizeof options.id, 0) != (ssize_t)sizeof options.id)
        DIE("getrandom failed");
    struct results *results =
        mmap(NULL, sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED)
        DIE("mmap failed");
    for (int rank = 0; rank < ranks; rank++) {
        options.place.rank = rank;
        pid_t pid = fork();
        if (pid == 0) {
            run_rank(results, &options, epochs);
            _exit(0);
        }
        if (pid < 0)
            DIE("fork failed");
    }
    int wait_status = 0;
    for (int rank = 0; rank < ranks; rank++) {
        wait(&wait_status);
        results->failed |= wait_status != 0;
    }
    for (int size = 0; size < SIZES; size++) {
        double *us = results->us[size];
        qsort(us, REPEATS, sizeof *us, compare_doubles);
        // Every rank copies its bytes to every inbox; ranks share the cores.
        int turns = (ranks + cores - 1) / cores;
        double limit_us = copy_ns[size] * ranks * turns / CLOCK_NS_PER_US;
        printf("ranks %d  bytes %8zu  median %9.2f us  spread %8.2f..%-9.2f  moved %8.3f MB  "
               "limit %8.2f us  %5.1f %%%s\n",
               ranks, sizes_bytes[size], us[REPEATS / 2], us[0], us[REPEATS - 1],
               (double)sizes_bytes[size] * ranks * ranks / 1e6, limit_us,
               100 * limit_us / us[REPEATS / 2], results->failed ? "  FAILED" : "");
    }
    fflush(stdout);
    munmap(results, sizeof *results);
}

int main(int count, char **arguments)
{
    int only = count > 1 ? atoi(arguments[1]) : 0;
    int epochs = count > 2 ? atoi(arguments[2]) : 2000;
    if (only < 0 || only > EXCHANGE_RANKS_MAX || epochs < 1) {
        fprintf(stderr, "usage: exchange_bench [RANKS 1..%d [EPOCHS]]\n", EXCHANGE_RANKS_MAX);
        return 1;
    }
    double copy_ns[SIZES];
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int size = 0; size < SIZES; size++)
        copy_ns[size] = measure_copy_ns(sizes_bytes[size]);
    printf("cores %d; limit: the copies alone, at one core's memcpy of the same size\n", cores);
    fflush(stdout);
    for (int ranks = 1; ranks <= EXCHANGE_RANKS_MAX; ranks *= 2) {
        if (only == 0)
            bench_ranks(ranks, epochs, copy_ns, cores);
    }
    if (only != 0)
        bench_ranks(only, epochs, copy_ns, cores);
    return 0;
}
