// SPDX-License-Identifier: Apache-2.0
// runtime_cpu_test.c -- the CPU stream is a queue: order, run-ahead, back pressure, events, hooks.
#include "kernels/runtime_cpu.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "parallel/base/clock.h"

static struct stream *open_stream(void)
{
    struct error error;
    struct stream *stream = NULL;
    assert_int_equal(stream_open(&stream, &error), OK);
    return stream;
}

static struct event *open_event(void)
{
    struct error error;
    struct event *event = NULL;
    assert_int_equal(event_open(&event, &error), OK);
    return event;
}

// ---------------------------------------------------------------- ops for the tests

struct append_op {
    uint32_t *list;
    uint32_t *count;
    uint32_t value;
};

static void run_append(const void *arguments)
{
    const struct append_op *op = arguments;
    op->list[(*op->count)++] = op->value;
}

// Holds the stream until the gate opens.
static void run_gate(const void *arguments)
{
    atomic_int *gate = *(atomic_int *const *)arguments;
    while (atomic_load(gate) == 0)
        clock_sleep_ns(50 * CLOCK_NS_PER_US);
}

static void queue_gate(struct stream *stream, atomic_int *gate)
{
    stream_run(stream, run_gate, &gate, sizeof gate);
}

static void run_count(const void *arguments)
{
    atomic_fetch_add(*(atomic_int *const *)arguments, 1);
}

struct sum_op { // as large as arguments may be
    uint64_t *sum;
    uint64_t values[STREAM_ARGUMENTS_BYTES_MAX / 8 - 1];
};

static void run_sum(const void *arguments)
{
    const struct sum_op *op = arguments;
    for (size_t i = 0; i < STREAM_ARGUMENTS_BYTES_MAX / 8 - 1; i++)
        *op->sum += op->values[i];
}

// ---------------------------------------------------------------- order and back pressure

static void check_order(struct stream *stream, uint32_t ops)
{
    uint32_t *list = calloc(ops, sizeof *list);
    uint32_t count = 0;
    for (uint32_t i = 0; i < ops; i++) {
        struct append_op op = {.list = list, .count = &count, .value = i * 7};
        stream_run(stream, run_append, &op, sizeof op);
        memset(&op, 0xff, sizeof op); // the queue has its own copy
    }
    stream_synchronize(stream);
    assert_int_equal(count, ops);
    for (uint32_t i = 0; i < ops; i++)
        assert_int_equal(list[i], i * 7);
    free(list);
}

static void runs_in_order(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    check_order(stream, 1);
    check_order(stream, 5 * STREAM_QUEUE_MAX + 3);
    stream_close(stream);
}

static void runs_in_order_with_jitter(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    stream_set_jitter(stream, 7, 200);
    check_order(stream, 300);
    stream_set_jitter(stream, 0, 0);
    uint64_t before_ns = clock_now_ns();
    check_order(stream, 300);
    assert_true(clock_now_ns() - before_ns < 5u * CLOCK_NS_PER_S);
    stream_close(stream);
}

static void jitter_delays(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    stream_set_jitter(stream, 3, 2000);
    uint64_t before_ns = clock_now_ns();
    check_order(stream, 100); // half of them sleep 1 ms on average
    assert_true(clock_now_ns() - before_ns > 20u * CLOCK_NS_PER_MS);
    stream_close(stream);
}

static void copies_whole_argument_struct(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    uint64_t sum = 0;
    struct sum_op op = {.sum = &sum};
    uint64_t expected = 0;
    for (size_t i = 0; i < STREAM_ARGUMENTS_BYTES_MAX / 8 - 1; i++) {
        op.values[i] = i * i + 1;
        expected += op.values[i];
    }
    assert_int_equal(sizeof op, STREAM_ARGUMENTS_BYTES_MAX);
    stream_run(stream, run_sum, &op, sizeof op);
    memset(&op, 0, sizeof op);
    stream_synchronize(stream);
    assert_int_equal(sum, expected);
    stream_close(stream);
}

static void host_runs_ahead(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int gate = 0, count = 0;
    queue_gate(stream, &gate);
    atomic_int *counter = &count;
    // One place is the gate's; more than this many would have to wait.
    for (int i = 0; i < STREAM_QUEUE_MAX - 1; i++)
        stream_run(stream, run_count, &counter, sizeof counter);
    assert_int_equal(atomic_load(&count), 0);
    atomic_store(&gate, 1);
    stream_synchronize(stream);
    assert_int_equal(atomic_load(&count), STREAM_QUEUE_MAX - 1);
    stream_close(stream);
}

struct feeder {
    struct stream *stream;
    atomic_int *queued, *count;
};

static void *feed(void *argument)
{
    struct feeder *feeder = argument;
    for (int i = 0; i < STREAM_QUEUE_MAX + 10; i++) {
        stream_run(feeder->stream, run_count, &feeder->count, sizeof feeder->count);
        atomic_fetch_add(feeder->queued, 1);
    }
    return NULL;
}

static void full_queue_holds_the_host_back(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int gate = 0, count = 0, queued = 0;
    queue_gate(stream, &gate);
    struct feeder feeder = {.stream = stream, .queued = &queued, .count = &count};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, feed, &feeder), 0);
    uint64_t until_ns = clock_now_ns() + 10u * CLOCK_NS_PER_S;
    while (atomic_load(&queued) < STREAM_QUEUE_MAX - 1 && clock_now_ns() < until_ns)
        clock_sleep_ns(CLOCK_NS_PER_MS);
    clock_sleep_ns(20u * CLOCK_NS_PER_MS);
    assert_int_equal(atomic_load(&queued), STREAM_QUEUE_MAX - 1);
    atomic_store(&gate, 1);
    pthread_join(thread, NULL);
    stream_synchronize(stream);
    assert_int_equal(atomic_load(&count), STREAM_QUEUE_MAX + 10);
    stream_close(stream);
}

static void close_runs_what_is_queued(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int count = 0;
    atomic_int *counter = &count;
    stream_set_jitter(stream, 11, 300);
    for (int i = 0; i < 100; i++)
        stream_run(stream, run_count, &counter, sizeof counter);
    stream_close(stream);
    assert_int_equal(atomic_load(&count), 100);
}

// ---------------------------------------------------------------- copies, events, notification

static void copies_are_queued(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int gate = 0;
    unsigned char *staging = runtime_alloc_host(4096), *back = runtime_alloc_host(4096);
    unsigned char *device = runtime_alloc(4096);
    memset(staging, 1, 4096);
    memset(back, 0, 4096);
    memset(device, 9, 4096);
    queue_gate(stream, &gate);
    stream_copy_to_device(stream, device, staging, 4096);
    stream_zero(stream, device + 100, 50);
    stream_copy_to_host(stream, back, device, 4096);
    assert_int_equal(device[0], 9); // nothing has run yet
    atomic_store(&gate, 1);
    stream_synchronize(stream);
    for (int i = 0; i < 4096; i++)
        assert_int_equal(back[i], i >= 100 && i < 150 ? 0 : 1);
    stream_copy_to_device(stream, NULL, NULL, 0);
    stream_copy_to_host(stream, NULL, NULL, 0);
    stream_zero(stream, NULL, 0);
    stream_close(stream);
    runtime_free(device);
    runtime_free_host(back);
    runtime_free_host(staging);
}

static void event_marks_a_point(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    struct event *first = open_event(), *second = open_event();
    atomic_int gate = 0, gate_2 = 0, count = 0;
    atomic_int *counter = &count;
    assert_true(event_query(first)); // never recorded
    event_synchronize(first);
    queue_gate(stream, &gate);
    stream_run(stream, run_count, &counter, sizeof counter);
    event_record(first, stream);
    queue_gate(stream, &gate_2);
    stream_run(stream, run_count, &counter, sizeof counter);
    event_record(second, stream);
    assert_false(event_query(first));
    atomic_store(&gate, 1);
    event_synchronize(first);
    assert_int_equal(atomic_load(&count), 1);
    assert_true(event_query(first));
    assert_false(event_query(second));
    event_record(first, stream); // a new point replaces the old one
    assert_false(event_query(first));
    atomic_store(&gate_2, 1);
    event_synchronize(first);
    assert_true(event_query(second));
    assert_int_equal(atomic_load(&count), 2);
    stream_close(stream);
    event_close(first);
    event_close(second);
}

static void event_closes_after_its_record_ran(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    stream_set_jitter(stream, 5, 3000);
    for (int i = 0; i < 20; i++) {
        struct event *event = open_event();
        event_record(event, stream);
        event_close(event);
    }
    stream_close(stream);
}

static void stream_waits_for_another(void **state)
{
    (void)state;
    atomic_int gate = 0, count = 0, *counter = &count;
    struct stream *first = open_stream(), *second = open_stream();
    struct event *event = open_event();
    stream_wait(second, event); // never recorded: nothing to wait for
    stream_synchronize(second);
    queue_gate(first, &gate);
    event_record(event, first);
    stream_wait(second, event);
    stream_run(second, run_count, &counter, sizeof counter);
    clock_sleep_ns(5 * CLOCK_NS_PER_MS);
    assert_int_equal(atomic_load(&count), 0);
    atomic_store(&gate, 1);
    stream_synchronize(second);
    assert_int_equal(atomic_load(&count), 1);
    stream_close(first);
    stream_close(second);
    event_close(event);
}

static void notifies_an_eventfd(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int gate = 0;
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(fd >= 0);
    queue_gate(stream, &gate);
    stream_notify(stream, fd);
    stream_notify(stream, fd);
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 20), 0);
    atomic_store(&gate, 1);
    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    stream_synchronize(stream);
    uint64_t count = 0;
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_int_equal(count, 2);
    // A full counter does not block the stream or end the process.
    uint64_t most = UINT64_MAX - 1;
    assert_int_equal(write(fd, &most, sizeof most), sizeof most);
    stream_notify(stream, fd);
    stream_close(stream);
    close(fd);
}

// ---------------------------------------------------------------- poison

static void poison_spoils_staging(void **state)
{
    (void)state;
    struct stream *stream = open_stream();
    atomic_int gate = 0;
    static const unsigned char constant[16] = {1, 2, 3}; // not staging: must not be written to
    unsigned char *staging = runtime_alloc_host(64), *back = runtime_alloc_host(64);
    unsigned char *device = runtime_alloc(64);
    memset(staging, 1, 64);
    memset(back, 2, 64);
    stream_set_poison(stream, true);
    queue_gate(stream, &gate);
    stream_copy_to_device(stream, device, staging + 16, 32);
    stream_copy_to_device(stream, device + 32, constant, sizeof constant);
    stream_copy_to_host(stream, back, device, 32);
    for (int i = 0; i < 64; i++) // read too early
        assert_int_equal(back[i], i < 32 ? STREAM_POISON_BYTE : 2);
    atomic_store(&gate, 1);
    stream_synchronize(stream);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(staging[i], i >= 16 && i < 48 ? STREAM_POISON_BYTE : 1);
        assert_int_equal(back[i], i < 32 ? 1 : 2);
    }
    assert_memory_equal(device + 32, constant, sizeof constant);
    stream_set_poison(stream, false);
    memset(staging, 3, 64);
    stream_copy_to_device(stream, device, staging, 64);
    stream_synchronize(stream);
    assert_int_equal(staging[0], 3);
    stream_close(stream);
    runtime_free(device);
    runtime_free_host(back);
    runtime_free_host(staging);
}

// ---------------------------------------------------------------- graphs

static void graph_runs_what_was_recorded(void **state)
{
    (void)state;
    enum { OPS = 700, LAUNCHES = 3 };
    static uint32_t list[OPS * LAUNCHES];
    uint32_t count = 0, values[2] = {5, 0}, copies[2] = {0, 0};
    struct error error;
    struct graph *graph = NULL;
    struct stream *stream = open_stream();
    stream_capture_begin(stream);
    for (uint32_t i = 0; i < OPS; i++) {
        struct append_op op = {.list = list, .count = &count, .value = i};
        stream_run(stream, run_append, &op, sizeof op);
    }
    stream_copy_on_device(stream, copies, values, sizeof copies);
    assert_int_equal(stream_capture_end(stream, &graph, &error), OK);
    stream_synchronize(stream);
    assert_int_equal(count, 0); // recorded, not run
    for (uint32_t i = 0; i < LAUNCHES; i++) {
        graph_launch(graph, stream);
        stream_synchronize(stream);
        assert_int_equal(count, OPS * (i + 1));
        assert_int_equal(copies[0], values[0]); // reads what is there when it runs
        values[0]++;
    }
    for (uint32_t i = 0; i < OPS * LAUNCHES; i++)
        assert_int_equal(list[i], i % OPS);
    stream_close(stream);
    graph_close(graph);
    graph_close(NULL);
}

// ---------------------------------------------------------------- memory and device

static void memory_is_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 255, 256, 257, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *device = runtime_alloc(sizes[i]), *host = runtime_alloc_host(sizes[i]);
        assert_non_null(device);
        assert_non_null(host);
        assert_int_equal((uintptr_t)device % 256, 0);
        assert_int_equal((uintptr_t)host % 256, 0);
        memset(device, 1, sizes[i]);
        memset(host, 1, sizes[i]);
        runtime_free(device);
        runtime_free_host(host);
    }
    runtime_free(NULL);
    runtime_free_host(NULL);
    assert_null(runtime_alloc(SIZE_MAX - 100));
    assert_null(runtime_alloc_host(SIZE_MAX - 100));
}

static void device_is_known(void **state)
{
    (void)state;
    struct error error;
    assert_int_equal(runtime_open(0, &error), OK);
    assert_string_equal(runtime_backend(), "cpu");
    assert_true(strlen(runtime_device_name()) > 0);
    assert_ptr_equal(strchr(runtime_device_name(), '\n'), NULL);
    assert_true(runtime_bytes_free() > 1u << 20);
    runtime_close();
}

static void buckets_hold_their_tokens(void **state)
{
    (void)state;
    const int buckets[] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 12, 14,  16,
                           20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128};
    int at = 0;
    for (int tokens = 1; tokens <= 128; tokens++) {
        while (buckets[at] < tokens)
            at++;
        assert_int_equal(runtime_tokens_bucket(tokens), buckets[at]);
    }
    for (int tokens = 129; tokens <= 70000; tokens++) { // never a quarter too many
        int bucket = runtime_tokens_bucket(tokens);
        assert_true(bucket >= tokens && 4 * bucket < 5 * tokens);
        assert_int_equal(runtime_tokens_bucket(bucket), bucket);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_in_order),
        cmocka_unit_test(runs_in_order_with_jitter),
        cmocka_unit_test(jitter_delays),
        cmocka_unit_test(copies_whole_argument_struct),
        cmocka_unit_test(host_runs_ahead),
        cmocka_unit_test(full_queue_holds_the_host_back),
        cmocka_unit_test(close_runs_what_is_queued),
        cmocka_unit_test(copies_are_queued),
        cmocka_unit_test(event_marks_a_point),
        cmocka_unit_test(event_closes_after_its_record_ran),
        cmocka_unit_test(notifies_an_eventfd),
        cmocka_unit_test(poison_spoils_staging),
        cmocka_unit_test(graph_runs_what_was_recorded),
        cmocka_unit_test(stream_waits_for_another),
        cmocka_unit_test(memory_is_aligned),
        cmocka_unit_test(device_is_known),
        cmocka_unit_test(buckets_hold_their_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
