// SPDX-License-Identifier: Apache-2.0
// group_multi.c -- a group of several GPUs, one process each: sums and gathers against plain ones,
// the same bits on all ranks, what an exchange costs within a graph, and a rank that dies. Prints
// one line per check, a JSON line per size; exit code 1 if anything is wrong.
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/exchange_cuda.h"
#include "parallel/base/clock.h"
#include "parallel/group.h"

enum {
    BYTES_MAX = 8 << 20,
    GATHER_BYTES_MAX = 256 << 10,
    ROUNDS = 8, // both parities, several times
    GRAPH_CALLS = 50,
    LAUNCHES = 21,
    LATE_NS = 1000 * CLOCK_NS_PER_US, // of one rank before a chain
};

struct rank {
    int rank, ranks;
    struct group *group;
    struct stream *stream;
    bf16 *lane_dev, *host; // [BYTES_MAX / 2]
    uint64_t *hashes_dev, *hashes;
    int failures;
};

static void check(struct rank *r, bool good, const char *what, size_t bytes)
{
    if (!good)
        r->failures++;
    if (!good || r->rank == 0)
        printf("%s %s %zu bytes, rank %d of %d\n", good ? "ok  " : "FAIL", what, bytes, r->rank,
               r->ranks);
    fflush(stdout);
}

// Rank `rank`'s value number i of a round.
static bf16 value_of(int rank, int round, size_t i)
{
    uint64_t z = ((uint64_t)rank << 56) ^ ((uint64_t)round << 48) ^ i;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return bf16_from_float(((float)(z & 0xffffff) / (float)0x800000 - 1) * 3);
}

// NCCL above a megabyte adds bf16 in its own order: every step rounds.
static bool is_sum(const struct rank *r, const bf16 *got, size_t i, int round, bool exact)
{
    float sum = 0, magnitude = 0;
    for (int rank = 0; rank < r->ranks; rank++) {
        float value = bf16_to_float(value_of(rank, round, i));
        sum += value;
        magnitude += fabsf(value);
    }
    if (exact)
        return got[i].bits == bf16_from_float(sum).bits;
    return fabsf(bf16_to_float(got[i]) - sum) <= magnitude * (float)r->ranks / 256;
}

static bool same_everywhere(struct rank *r, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes / 2; i++)
        hash = (hash ^ r->host[i].bits) * 0x100000001b3u;
    r->hashes[0] = hash;
    stream_copy_to_device(r->stream, r->hashes_dev, r->hashes, sizeof hash);
    group_all_gather(r->group, r->stream, r->hashes_dev + 1, r->hashes_dev, sizeof hash);
    stream_copy_to_host(r->stream, r->hashes, r->hashes_dev + 1, (size_t)r->ranks * sizeof hash);
    stream_synchronize(r->stream);
    for (int rank = 0; rank < r->ranks; rank++) {
        if (r->hashes[rank] != hash)
            return false;
    }
    return true;
}

static void check_sum(struct rank *r, size_t bytes)
{
    bool right = true, same = true;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < bytes / 2; i++)
            r->host[i] = value_of(r->rank, round, i);
        stream_copy_to_device(r->stream, r->lane_dev, r->host, bytes);
        exchange_cuda_add(r->stream, group_exchange(r->group)->cuda, r->lane_dev, bytes);
        stream_copy_to_host(r->stream, r->host, r->lane_dev, bytes);
        stream_synchronize(r->stream);
        for (size_t i = 0; i < bytes / 2 && right; i++)
            right = is_sum(r, r->host, i, round, bytes <= EXCHANGE_CHUNKED_BYTES_MAX);
        same = same_everywhere(r, bytes) && same;
    }
    check(r, right, "sum of", bytes);
    check(r, same, "the same bits of", bytes);
}

static void check_gather(struct rank *r, size_t bytes)
{
    bool right = true;
    bf16 *out_dev = r->lane_dev + BYTES_MAX / 4;
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < bytes / 2; i++)
            r->host[i] = value_of(r->rank, round, i);
        stream_copy_to_device(r->stream, r->lane_dev, r->host, bytes);
        group_all_gather(r->group, r->stream, out_dev, r->lane_dev, bytes);
        stream_copy_to_host(r->stream, r->host, out_dev, bytes * (size_t)r->ranks);
        stream_synchronize(r->stream);
        for (int rank = 0; rank < r->ranks; rank++) {
            for (size_t i = 0; i < bytes / 2; i++)
                right = right &&
                        r->host[(size_t)rank * bytes / 2 + i].bits == value_of(rank, round, i).bits;
        }
    }
    check(r, right, "gather of", bytes);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Times one exchange of a chain of GRAPH_CALLS that another rank may begin late; sorted.
static void time_chain(struct rank *r, struct graph *graph, bool late, double us[LAUNCHES])
{
    for (int i = 0; i < LAUNCHES; i++) {
        group_barrier(r->group, r->stream);
        stream_synchronize(r->stream);
        if (late && r->rank == i % r->ranks)
            clock_sleep_ns(LATE_NS);
        uint64_t start_ns = clock_now_ns();
        graph_launch(graph, r->stream);
        stream_synchronize(r->stream);
        us[i] = (double)(clock_now_ns() - start_ns) * 1e-3 / GRAPH_CALLS;
    }
    qsort(us, LAUNCHES, sizeof *us, by_size);
}

// A rank that begins late is waited for once; its lateness must not go on.
static void measure(struct rank *r, size_t bytes)
{
    struct error error = {.status = OK};
    struct graph *graph;
    double us[LAUNCHES], late_us[LAUNCHES];
    stream_zero(r->stream, r->lane_dev, bytes);
    stream_capture_begin(r->stream);
    for (int i = 0; i < GRAPH_CALLS; i++)
        exchange_cuda_add(r->stream, group_exchange(r->group)->cuda, r->lane_dev, bytes);
    if (stream_capture_end(r->stream, &graph, &error) != OK) {
        fprintf(stderr, "%s\n", error.text);
        r->failures++;
        return;
    }
    time_chain(r, graph, false, us);
    time_chain(r, graph, true, late_us);
    graph_close(graph);
    if (r->rank == 0)
        printf("{\"op\": \"exchange\", \"ranks\": %d, \"bytes\": %zu, \"us\": %.2f, \"min\": %.2f, "
               "\"us_after_a_late_rank\": %.2f}\n",
               r->ranks, bytes, us[LAUNCHES / 2], us[0], late_us[LAUNCHES / 2]);
    fflush(stdout);
    double late_share_us = 1.5 * LATE_NS * 1e-3 / GRAPH_CALLS;
    check(r, late_us[LAUNCHES - 1] < 2 * us[LAUNCHES - 1] + late_share_us + 10,
          "a late rank is waited for once, with", bytes);
}

// The last rank dies without a word; the others must know within twice the bound of a wait.
static void check_death(struct rank *r, uint64_t wait_ns_max)
{
    if (r->rank == r->ranks - 1)
        raise(SIGKILL);
    uint64_t start_ns = clock_now_ns();
    exchange_cuda_add(r->stream, group_exchange(r->group)->cuda, r->lane_dev, 4096);
    stream_synchronize(r->stream);
    check(r, group_failed(r->group) && clock_now_ns() - start_ns < 2 * wait_ns_max,
          "a dead rank is noticed in time, by a push of", 4096);
    printf("%s rank %d: missing %x after %.2f s\n", "ok  ", r->rank, group_missing(r->group),
           (double)(clock_now_ns() - start_ns) * 1e-9);
}

static int run(int rank, int ranks, const uint8_t id[GROUP_ID_BYTES])
{
    struct rank r = {.rank = rank, .ranks = ranks};
    struct error error = {.status = OK};
    struct group_options options = {.place = {.rank = rank, .ranks = ranks},
                                    .exchange_bytes = BYTES_MAX,
                                    .gather_bytes = GATHER_BYTES_MAX,
                                    .wait_ns_max = (uint64_t)3000 * CLOCK_NS_PER_MS,
                                    .join_ns_max = (uint64_t)60000 * CLOCK_NS_PER_MS};
    static const size_t sums[] = {8,      24,          4096,    16384,         65536,    262144,
                                  262152, 1000 * 1000, 1 << 20, (1 << 20) + 8, BYTES_MAX};
    static const size_t gathers[] = {8, 24, 4096, 24 * 256, GATHER_BYTES_MAX};
    static const size_t times[] = {4096, 16384, 65536, 262144, 1 << 20};
    memcpy(options.id, id, sizeof options.id);
    uint64_t start_ns = clock_now_ns();
    if (runtime_open(rank, &error) != OK || stream_open(&r.stream, &error) != OK ||
        group_open(&r.group, &options, &error) != OK) {
        fprintf(stderr, "FAIL rank %d: %s\n", rank, error.text);
        return 1;
    }
    printf("ok   rank %d of %d joined in %.2f s\n", rank, ranks,
           (double)(clock_now_ns() - start_ns) * 1e-9);
    r.lane_dev = runtime_alloc(BYTES_MAX);
    r.host = runtime_alloc_host(BYTES_MAX);
    r.hashes_dev = runtime_alloc(1024);
    r.hashes = runtime_alloc_host(1024);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        check_sum(&r, sums[i]);
    for (size_t i = 0; i < sizeof gathers / sizeof *gathers; i++)
        check_gather(&r, gathers[i]);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        measure(&r, times[i]);
    check_death(&r, options.wait_ns_max);
    start_ns = clock_now_ns();
    group_abort(r.group);
    group_close(r.group);
    check(&r, clock_now_ns() - start_ns < (uint64_t)10000 * CLOCK_NS_PER_MS,
          "leaving a broken group", 0);
    return r.failures != 0;
}

int main(int argc, char **argv)
{
    int ranks = argc > 1 ? atoi(argv[1]) : 2, failed = 0;
    uint8_t id[GROUP_ID_BYTES] = {0};
    uint64_t now = clock_now_ns() ^ (uint64_t)getpid() << 32;
    memcpy(id, &now, sizeof now);
    if (ranks < 2 || ranks > RANKS_MAX) {
        fprintf(stderr, "usage: group_multi RANKS, 2 to %d\n", RANKS_MAX);
        return 2;
    }
    for (int rank = 0; rank < ranks; rank++) {
        pid_t child = fork();
        if (child == 0)
            _exit(run(rank, ranks, id));
        if (child < 0)
            return 2;
    }
    for (int rank = 0; rank < ranks; rank++) {
        int status;
        wait(&status);
        // The one that kills itself on purpose does not count.
        if (!WIFEXITED(status) ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status) != 0)
            failed++;
    }
    printf("%s: %d of %d ranks failed\n", failed == 0 ? "ok" : "FAIL", failed, ranks);
    return failed != 0;
}
