// SPDX-License-Identifier: Apache-2.0
// group_host_test.c -- a whole group: collectives and pushes queued on streams, ranks as threads of
// one process and as processes, a rank killed in the middle, abort.
#include "parallel/group.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/runtime_cpu.h"
#include "parallel/base/clock.h"
#include "parallel/exchange_host.h"

enum { VALUES = 96, STEPS = 60, PUSHES_OF_STEP = 8 };

static const uint64_t wait_ns_long = 20ull * CLOCK_NS_PER_S;

static struct group_options make_options(int ranks)
{
    struct group_options options = {
        .place = {.group = 0, .rank = 0, .ranks = ranks},
        .exchange_bytes = VALUES * sizeof(float),
        .gather_bytes = VALUES * sizeof(float),
        .wait_ns_max = wait_ns_long,
        .join_ns_max = wait_ns_long,
    };
    assert_int_equal(getrandom(options.id, sizeof options.id, 0), sizeof options.id);
    return options;
}

static void assert_name_is_gone(const struct group_options *options)
{
    char name[EXCHANGE_HOST_NAME_BYTES], path[128];
    exchange_host_name(name, options->id);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(errno, ENOENT);
}

// ---------------------------------------------------------------- one rank's work

// What a rank does and finds; also lives in shared memory when ranks are processes.
struct rank_run {
    struct group_options options;
    uint64_t jitter_seed; // 0 = none
    int steps;
    int steps_done;  // whose results the host has checked
    int wrong;       // results that were not as expected
    uint64_t hash;   // of all results
    uint64_t epochs; // group_epoch at the end
    uint32_t missing;
    enum status opened;
    bool failed;
};

struct reduce_op { // what a pull op of the model does, in little
    struct exchange *exchange;
    const float *partial;
    float *sum;
};

static void run_push(const void *arguments)
{
    const struct reduce_op *op = arguments;
    exchange_push(op->exchange, op->partial, VALUES * sizeof(float));
}

static void run_pull(const void *arguments)
{
    const struct reduce_op *op = arguments;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    if (!exchange_pull(op->exchange, lanes))
        return;
    for (int i = 0; i < VALUES; i++) {
        float sum = 0;
        for (int r = 0; r < op->exchange->ranks; r++) {
            float value;
            memcpy(&value, lanes[r] + (size_t)i * sizeof value, sizeof value);
            sum += value;
        }
        op->sum[i] = sum;
    }
}

static float value_of(int rank, int step, int i) // small whole numbers: exact sums
{
    return (float)((rank * 13 + step * 7 + i * 3) % 101 - 50);
}

struct device {
    float *partial, *sum, *gathered, *news;
    float *staging, *back; // host
};

static struct device open_device(int ranks)
{
    size_t bytes = VALUES * sizeof(float);
    return (struct device){
        .partial = runtime_alloc(bytes),
        .sum = runtime_alloc(bytes),
        .gathered = runtime_alloc(bytes * (size_t)ranks),
        .news = runtime_alloc(bytes),
        .staging = runtime_alloc_host(bytes),
        .back = runtime_alloc_host(bytes * ((size_t)ranks + 2)),
    };
}

static void close_device(struct device *device)
{
    runtime_free(device->partial);
    runtime_free(device->sum);
    runtime_free(device->gathered);
    runtime_free(device->news);
    runtime_free_host(device->staging);
    runtime_free_host(device->back);
}

static void queue_step(struct group *group, struct stream *stream, struct device *device, int step)
{
    struct place place = group_place(group);
    size_t bytes = VALUES * sizeof(float);
    struct reduce_op op = {
        .exchange = group_exchange(group), .partial = device->partial, .sum = device->sum};
    for (int i = 0; i < VALUES; i++)
        device->staging[i] = value_of(place.rank, step, i);
    stream_copy_to_device(stream, device->partial, device->staging, bytes);
    for (int i = 0; i < PUSHES_OF_STEP; i++) {
        stream_run(stream, run_push, &op, sizeof op);
        if (i == 1) // a collective may lie between the model's push and its pull
            group_all_gather(group, stream, device->gathered, device->partial, bytes);
        stream_run(stream, run_pull, &op, sizeof op);
    }
    stream_copy_to_device(stream, device->news, device->partial, bytes);
    group_broadcast(group, stream, device->news, bytes, step % place.ranks);
    group_barrier(group, stream);
    stream_copy_to_host(stream, device->back, device->sum, bytes);
    stream_copy_to_host(stream, device->back + VALUES, device->news, bytes);
    stream_copy_to_host(stream, device->back + 2 * VALUES, device->gathered,
                        bytes * (size_t)place.ranks);
}

static void check_step(struct rank_run *run, const struct device *device, int step)
{
    int ranks = run->options.place.ranks;
    for (int i = 0; i < VALUES; i++) {
        float expected = 0;
        for (int r = 0; r < ranks; r++) {
            expected += value_of(r, step, i);
            run->wrong += device->back[(2 + r) * VALUES + i] != value_of(r, step, i);
        }
        run->wrong += device->back[i] != expected;
        run->wrong += device->back[VALUES + i] != value_of(step % ranks, step, i);
    }
    const uint8_t *bytes = (const uint8_t *)device->back;
    for (size_t i = 0; i < VALUES * sizeof(float) * ((size_t)ranks + 2); i++)
        run->hash = (run->hash ^ bytes[i]) * 0x100000001b3u;
}

static void *run_rank(void *argument)
{
    struct rank_run *run = argument;
    struct error error;
    struct group *group;
    struct stream *stream;
    run->opened = group_open(&group, &run->options, &error);
    if (run->opened != OK || stream_open(&stream, &error) != OK)
        return NULL;
    struct device device = open_device(run->options.place.ranks);
    stream_set_poison(stream, true);
    if (run->jitter_seed != 0)
        stream_set_jitter(stream, run->jitter_seed + (uint64_t)run->options.place.rank, 100);
    for (int step = 0; step < run->steps; step++) {
        queue_step(group, stream, &device, step);
        stream_synchronize(stream);
        if (group_failed(group))
            break;
        check_step(run, &device, step);
        __atomic_store_n(&run->steps_done, step + 1, __ATOMIC_RELEASE);
    }
    run->failed = group_failed(group);
    run->missing = group_missing(group);
    run->epochs = group_epoch(group);
    stream_close(stream);
    group_close(group);
    close_device(&device);
    return NULL;
}

static void check_run(const struct rank_run *runs, int ranks, int steps)
{
    for (int r = 0; r < ranks; r++) {
        assert_int_equal(runs[r].opened, OK);
        assert_false(runs[r].failed);
        assert_int_equal(runs[r].missing, 0);
        assert_int_equal(runs[r].steps_done, steps);
        assert_int_equal(runs[r].wrong, 0);
        assert_int_equal(runs[r].hash, runs[0].hash);
        // Each step: the model's pushes, a gather, a broadcast, a barrier.
        assert_int_equal(runs[r].epochs, (uint64_t)steps * (PUSHES_OF_STEP + 3));
    }
    assert_name_is_gone(&runs[0].options);
}

// ---------------------------------------------------------------- threads of one process

static void check_threads(int ranks, uint64_t jitter_seed)
{
    struct rank_run runs[RANKS_MAX] = {0};
    pthread_t threads[RANKS_MAX];
    struct group_options options = make_options(ranks);
    for (int r = 0; r < ranks; r++) {
        runs[r] = (struct rank_run){.options = options, .jitter_seed = jitter_seed, .steps = STEPS};
        runs[r].options.place.rank = r;
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (int r = 0; r < ranks; r++)
        pthread_join(threads[r], NULL);
    check_run(runs, ranks, STEPS);
}

static void threads_make_a_group(void **state)
{
    (void)state;
    check_threads(1, 0);
    check_threads(2, 0);
    check_threads(4, 0);
    check_threads(8, 0);
}

static void threads_with_jitter_make_a_group(void **state)
{
    (void)state;
    check_threads(1, 1);
    check_threads(2, 2);
    check_threads(8, 3);
}

// ---------------------------------------------------------------- processes

struct processes {
    int ranks;
    struct rank_run *runs; // shared with the children
    pid_t pids[RANKS_MAX];
};

static struct processes start_processes(const struct rank_run *model, int ranks)
{
    struct processes processes = {.ranks = ranks};
    processes.runs = mmap(NULL, RANKS_MAX * sizeof *processes.runs, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(processes.runs, MAP_FAILED);
    fflush(NULL);
    for (int r = 0; r < ranks; r++) {
        processes.runs[r] = *model;
        processes.runs[r].options.place.rank = r;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); // a failed assertion leaves no rank behind
            run_rank(&processes.runs[r]);
            _exit(0);
        }
        processes.pids[r] = pid;
    }
    return processes;
}

// Waits for one child and returns its wait status.
static int wait_process(struct processes *processes, int rank)
{
    int wait_status = 0;
    assert_int_equal(waitpid(processes->pids[rank], &wait_status, 0), processes->pids[rank]);
    return wait_status;
}

static void processes_make_a_group(void **state)
{
    (void)state;
    static const int ranks_of[] = {2, 4, 8};
    for (size_t i = 0; i < sizeof ranks_of / sizeof ranks_of[0]; i++) {
        struct rank_run model = {.options = make_options(ranks_of[i]), .steps = STEPS};
        model.jitter_seed = i == 1 ? 5 : 0;
        struct processes processes = start_processes(&model, ranks_of[i]);
        for (int r = 0; r < ranks_of[i]; r++)
            assert_int_equal(wait_process(&processes, r), 0);
        check_run(processes.runs, ranks_of[i], STEPS);
        munmap(processes.runs, RANKS_MAX * sizeof *processes.runs);
    }
}

static void wait_for_steps(const struct rank_run *run, int steps)
{
    uint64_t until_ns = clock_now_ns() + 60ull * CLOCK_NS_PER_S;
    while (__atomic_load_n(&run->steps_done, __ATOMIC_ACQUIRE) < steps) {
        assert_true(clock_now_ns() < until_ns);
        clock_sleep_ns(CLOCK_NS_PER_MS);
    }
}

static void check_signal(int ranks, int victim, int signal_number)
{
    struct rank_run model = {.options = make_options(ranks), .steps = 1 << 30};
    model.options.wait_ns_max = 300u * CLOCK_NS_PER_MS;
    struct processes processes = start_processes(&model, ranks);
    wait_for_steps(&processes.runs[victim], 5);
    assert_int_equal(kill(processes.pids[victim], signal_number), 0);
    uint64_t before_ns = clock_now_ns();
    uint32_t missing = 0;
    for (int r = 0; r < ranks; r++) {
        if (r == victim)
            continue;
        assert_int_equal(wait_process(&processes, r), 0);
        assert_true(processes.runs[r].failed);
        assert_int_equal(processes.runs[r].wrong, 0);
        missing |= processes.runs[r].missing;
    }
    // The bound is 0.3 s; the rest is for a machine that is busy.
    assert_true(clock_now_ns() - before_ns < 20ull * CLOCK_NS_PER_S);
    // At least the first whose wait ran out names the victim.
    assert_int_equal(missing & 1u << victim, 1u << victim);
    kill(processes.pids[victim], SIGKILL);
    assert_true(WIFSIGNALED(wait_process(&processes, victim)));
    assert_name_is_gone(&model.options);
    munmap(processes.runs, RANKS_MAX * sizeof *processes.runs);
}

static void killed_rank_fails_the_others(void **state)
{
    (void)state;
    check_signal(2, 0, SIGKILL);
    check_signal(2, 1, SIGKILL);
    check_signal(8, 3, SIGKILL);
}

static void stopped_rank_fails_the_others(void **state)
{
    (void)state;
    check_signal(4, 2, SIGSTOP);
}

// ---------------------------------------------------------------- failures seen from one thread

struct opener {
    struct group_options options;
    struct group *group;
};

static void *open_in_thread(void *argument)
{
    struct opener *opener = argument;
    struct error error;
    if (group_open(&opener->group, &opener->options, &error) != OK)
        opener->group = NULL;
    return NULL;
}

static void open_pair(struct group *groups[2], uint64_t wait_ns_max)
{
    struct opener opener = {.options = make_options(2)};
    opener.options.wait_ns_max = wait_ns_max;
    struct group_options other = opener.options;
    other.place.rank = 1;
    pthread_t thread;
    struct error error;
    assert_int_equal(pthread_create(&thread, NULL, open_in_thread, &opener), 0);
    assert_int_equal(group_open(&groups[1], &other, &error), OK);
    pthread_join(thread, NULL);
    assert_non_null(opener.group);
    groups[0] = opener.group;
}

static void abort_ends_waits_and_zeroes_results(void **state)
{
    (void)state;
    struct group *groups[2];
    struct stream *stream;
    struct error error;
    open_pair(groups, wait_ns_long);
    assert_int_equal(stream_open(&stream, &error), OK);
    uint8_t in[8], out[16], news[8];
    memset(in, 1, sizeof in);
    memset(out, 2, sizeof out);
    memset(news, 3, sizeof news);
    group_all_gather(groups[0], stream, out, in, sizeof in);
    group_broadcast(groups[0], stream, news, sizeof news, 1);
    group_barrier(groups[0], stream);
    uint64_t limit_ns = clock_now_ns() + 30u * (uint64_t)CLOCK_NS_PER_S;
    while (group_epoch(groups[0]) < 1 && clock_now_ns() < limit_ns) // pushes, then waits for rank 1
        clock_sleep_ns(CLOCK_NS_PER_MS);
    assert_int_equal(group_epoch(groups[0]), 1);
    assert_false(group_failed(groups[0]));
    group_abort(groups[1]);
    stream_synchronize(stream);
    assert_true(group_failed(groups[0]));
    assert_true(group_failed(groups[1]));
    assert_int_equal(group_missing(groups[0]), 0);
    static const uint8_t zeroes[16];
    assert_memory_equal(out, zeroes, sizeof out);
    assert_memory_equal(news, zeroes, sizeof news);
    assert_true(exchange_failed(group_exchange(groups[0]))); // the model's ops stop too
    stream_close(stream);
    group_close(groups[0]);
    group_close(groups[1]);
    group_close(NULL);
}

static void absent_push_is_named(void **state)
{
    (void)state;
    struct group *groups[2];
    struct stream *stream;
    struct error error;
    open_pair(groups, 50u * CLOCK_NS_PER_MS);
    assert_int_equal(stream_open(&stream, &error), OK);
    group_barrier(groups[1], stream);
    stream_synchronize(stream);
    assert_true(group_failed(groups[1]));
    assert_int_equal(group_missing(groups[1]), 1u << 0);
    assert_true(group_failed(groups[0])); // told by the abort word
    stream_close(stream);
    group_close(groups[0]);
    group_close(groups[1]);
}

static void impossible_place_is_refused(void **state)
{
    (void)state;
    struct group *group = NULL;
    struct error error;
    struct group_options options = make_options(2);
    options.place.rank = 2;
    assert_int_equal(group_open(&group, &options, &error), E_INPUT);
    assert_non_null(strstr(error.text, "rank 2 of 2"));
    assert_null(group);
}

int main(void)
{
    // Processes first: the thread sanitizer does not start threads in a child of a threaded parent.
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_make_a_group),
        cmocka_unit_test(killed_rank_fails_the_others),
        cmocka_unit_test(stopped_rank_fails_the_others),
        cmocka_unit_test(threads_make_a_group),
        cmocka_unit_test(threads_with_jitter_make_a_group),
        cmocka_unit_test(abort_ends_waits_and_zeroes_results),
        cmocka_unit_test(absent_push_is_named),
        cmocka_unit_test(impossible_place_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
