// SPDX-License-Identifier: Apache-2.0
// exchange_cpu_test.c -- the exchange's protocol between threads over plain memory, where the
// thread sanitizer sees every access: exact sums, reuse of lanes, bounded waits, abort. Over shared
// memory and between processes: tests/parallel/.
#include "kernels/exchange.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parallel/base/clock.h"
#include "parallel/base/status.h"

#ifdef DELTAMESH_SANITIZED
enum { EPOCHS = 1500 };
#else
enum { EPOCHS = 6000 };
#endif

enum { VALUES_MAX = 640, LANE_BYTES = VALUES_MAX * 2 };

static const uint64_t wait_ns_long = 20ull * CLOCK_NS_PER_S;

// ---------------------------------------------------------------- fixture: ranks in one process

struct ranks {
    int count;
    struct exchange exchanges[EXCHANGE_RANKS_MAX];
    uint32_t abort_word;
};

static struct ranks *open_ranks(int count, uint64_t wait_ns_max)
{
    struct ranks *ranks = calloc(1, sizeof *ranks);
    ranks->count = count;
    uint8_t *inboxes[EXCHANGE_RANKS_MAX];
    struct exchange_mark *marks[EXCHANGE_RANKS_MAX];
    for (int r = 0; r < count; r++) {
        inboxes[r] = aligned_alloc(256, 2 * (size_t)count * LANE_BYTES);
        memset(inboxes[r], 0xff, 2 * (size_t)count * LANE_BYTES); // NaN
        marks[r] = aligned_alloc(64, 2 * (size_t)count * sizeof *marks[r]);
        memset(marks[r], 0, 2 * (size_t)count * sizeof *marks[r]);
    }
    for (int r = 0; r < count; r++) {
        struct exchange *exchange = &ranks->exchanges[r];
        *exchange = (struct exchange){.rank = r, .ranks = count, .lane_bytes = LANE_BYTES};
        memcpy(exchange->inboxes, inboxes, (size_t)count * sizeof *inboxes);
        memcpy(exchange->marks, marks, (size_t)count * sizeof *marks);
        exchange->abort_word = &ranks->abort_word;
        exchange->wait_ns_max = wait_ns_max;
    }
    return ranks;
}

static void close_ranks(struct ranks *ranks)
{
    for (int r = 0; r < ranks->count; r++) {
        free(ranks->exchanges[0].inboxes[r]);
        free(ranks->exchanges[0].marks[r]);
    }
    free(ranks);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

// Small whole numbers: exact in bf16, and their sums are exact in f32 in any order.
static float value_of(int rank, uint64_t epoch, size_t i)
{
    return (float)((int)(((uint64_t)rank * 31 + epoch * 17 + i * 7) % 251) - 125);
}

static size_t values_of(uint64_t epoch)
{
    uint64_t state = epoch;
    return epoch % 10 == 0 ? VALUES_MAX : 1 + next_random(&state) % VALUES_MAX;
}

// ---------------------------------------------------------------- many epochs

struct rank_run {
    struct exchange *exchange;
    uint64_t delay_seed; // 0 = no delays
    uint64_t wrong;      // values that were not the exact sum
    uint64_t hash;       // of all sums in order
    bool pulled_all;
};

static void check_sums(struct rank_run *run, const uint8_t *const *lanes, uint64_t epoch)
{
    int ranks = run->exchange->ranks;
    for (size_t i = 0; i < values_of(epoch); i++) {
        float sum = 0, expected = 0;
        for (int r = 0; r < ranks; r++) {
            bf16 value;
            memcpy(&value, lanes[r] + i * sizeof value, sizeof value);
            sum += bf16_to_float(value);
            expected += value_of(r, epoch, i);
        }
        uint32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        run->wrong += sum != expected;
        run->hash = (run->hash ^ bits) * 0x100000001b3u;
    }
}

static void *run_rank(void *argument)
{
    struct rank_run *run = argument;
    uint64_t state = run->delay_seed + (uint64_t)run->exchange->rank;
    bf16 values[VALUES_MAX];
    for (uint64_t epoch = 1; epoch <= EPOCHS; epoch++) {
        for (size_t i = 0; i < values_of(epoch); i++)
            values[i] = bf16_from_float(value_of(run->exchange->rank, epoch, i));
        if (run->delay_seed != 0 && next_random(&state) % 64 == 0)
            clock_sleep_ns(next_random(&state) % 300 * CLOCK_NS_PER_US);
        exchange_push(run->exchange, values, values_of(epoch) * sizeof *values);
        const uint8_t *lanes[EXCHANGE_RANKS_MAX];
        if (!exchange_pull(run->exchange, lanes))
            return NULL;
        // Slow readers are what the two parities are for.
        if (run->delay_seed != 0 && next_random(&state) % 64 == 0)
            clock_sleep_ns(next_random(&state) % 300 * CLOCK_NS_PER_US);
        check_sums(run, lanes, epoch);
    }
    run->pulled_all = true;
    return NULL;
}

static void check_many_epochs(int count, uint64_t delay_seed)
{
    struct ranks *ranks = open_ranks(count, wait_ns_long);
    struct rank_run runs[EXCHANGE_RANKS_MAX] = {0};
    pthread_t threads[EXCHANGE_RANKS_MAX];
    for (int r = 0; r < count; r++) {
        runs[r].exchange = &ranks->exchanges[r];
        runs[r].delay_seed = delay_seed;
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &runs[r]), 0);
    }
    for (int r = 0; r < count; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < count; r++) {
        assert_true(runs[r].pulled_all);
        assert_int_equal(runs[r].wrong, 0);
        assert_int_equal(runs[r].hash, runs[0].hash); // the same bits on all ranks
        assert_int_equal(ranks->exchanges[r].epoch, EPOCHS);
        assert_int_equal(ranks->exchanges[r].pulled, EPOCHS);
        assert_false(exchange_failed(&ranks->exchanges[r]));
    }
    close_ranks(ranks);
}

static void sums_are_exact_on_all_ranks(void **state)
{
    (void)state;
    check_many_epochs(1, 0);
    check_many_epochs(2, 0);
    check_many_epochs(4, 0);
    check_many_epochs(8, 0);
}

static void sums_are_exact_with_delays(void **state)
{
    (void)state;
    check_many_epochs(2, 11);
    check_many_epochs(3, 12);
    check_many_epochs(8, 13);
}

// ---------------------------------------------------------------- one rank, step by step

static void pull_may_be_repeated(void **state)
{
    (void)state;
    struct ranks *ranks = open_ranks(2, wait_ns_long);
    const uint8_t *lanes[EXCHANGE_RANKS_MAX], *again[EXCHANGE_RANKS_MAX];
    exchange_push(&ranks->exchanges[0], "zero", 5);
    exchange_push(&ranks->exchanges[1], "one", 4);
    assert_true(exchange_pull(&ranks->exchanges[0], lanes));
    assert_true(exchange_pull(&ranks->exchanges[0], again));
    assert_ptr_equal(lanes[0], again[0]);
    assert_ptr_equal(lanes[1], again[1]);
    assert_string_equal((const char *)lanes[0], "zero");
    assert_string_equal((const char *)lanes[1], "one");
    // Rank 0 goes on; rank 1 has not pulled yet and must still find both.
    exchange_push(&ranks->exchanges[0], "ZERO", 5);
    assert_true(exchange_pull(&ranks->exchanges[1], lanes));
    assert_string_equal((const char *)lanes[0], "zero");
    assert_string_equal((const char *)lanes[1], "one");
    close_ranks(ranks);
}

static void largest_push_touches_no_other_lane(void **state)
{
    (void)state;
    struct ranks *ranks = open_ranks(3, wait_ns_long);
    uint8_t data[LANE_BYTES];
    for (int epoch = 1; epoch <= 4; epoch++) {
        for (int r = 0; r < 3; r++) {
            memset(data, r * 16 + epoch, sizeof data);
            exchange_push(&ranks->exchanges[r], data, r == 1 ? 0 : sizeof data);
        }
        for (int r = 0; r < 3; r++) {
            const uint8_t *lanes[EXCHANGE_RANKS_MAX];
            assert_true(exchange_pull(&ranks->exchanges[r], lanes));
            for (int i = 0; i < LANE_BYTES; i++) {
                assert_int_equal(lanes[0][i], epoch);
                assert_int_equal(lanes[1][i], 0xff); // nothing was ever pushed there
                assert_int_equal(lanes[2][i], 32 + epoch);
            }
        }
    }
    close_ranks(ranks);
}

// ---------------------------------------------------------------- waits that end without data

static void absent_rank_ends_the_wait(void **state)
{
    (void)state;
    struct ranks *ranks = open_ranks(4, 60u * CLOCK_NS_PER_MS);
    const uint8_t *lanes[EXCHANGE_RANKS_MAX] = {NULL};
    exchange_push(&ranks->exchanges[0], "a", 1);
    exchange_push(&ranks->exchanges[2], "c", 1);
    uint64_t before_ns = clock_now_ns();
    assert_false(exchange_pull(&ranks->exchanges[0], lanes));
    uint64_t waited_ns = clock_now_ns() - before_ns;
    assert_true(waited_ns >= 60u * CLOCK_NS_PER_MS);
    assert_true(waited_ns < 10ull * CLOCK_NS_PER_S);
    assert_null(lanes[0]);
    assert_int_equal(ranks->exchanges[0].missing, 1u << 1 | 1u << 3);
    assert_true(exchange_failed(&ranks->exchanges[0]));
    // The other waiting rank is told at once, and late data do not heal anything.
    before_ns = clock_now_ns();
    ranks->exchanges[2].wait_ns_max = wait_ns_long;
    assert_false(exchange_pull(&ranks->exchanges[2], lanes));
    assert_true(clock_now_ns() - before_ns < 10ull * CLOCK_NS_PER_S);
    assert_int_equal(ranks->exchanges[2].missing, 0);
    exchange_push(&ranks->exchanges[1], "b", 1);
    exchange_push(&ranks->exchanges[3], "d", 1);
    exchange_push(&ranks->exchanges[0], "a", 1); // no assertion although nothing was pulled
    assert_int_equal(ranks->exchanges[0].epoch, 1);
    assert_false(exchange_pull(&ranks->exchanges[0], lanes));
    close_ranks(ranks);
}

struct waiter {
    struct exchange *exchange;
    bool pulled;
};

static void *wait_forever(void *argument)
{
    struct waiter *waiter = argument;
    const uint8_t *lanes[EXCHANGE_RANKS_MAX];
    exchange_push(waiter->exchange, "a", 1);
    waiter->pulled = exchange_pull(waiter->exchange, lanes);
    return NULL;
}

static void abort_ends_a_wait(void **state)
{
    (void)state;
    struct ranks *ranks = open_ranks(2, wait_ns_long);
    struct waiter waiter = {.exchange = &ranks->exchanges[0], .pulled = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_forever, &waiter), 0);
    clock_sleep_ns(30u * CLOCK_NS_PER_MS);
    assert_false(exchange_failed(&ranks->exchanges[1]));
    exchange_abort(&ranks->exchanges[1]);
    pthread_join(thread, NULL);
    assert_false(waiter.pulled);
    assert_true(exchange_failed(&ranks->exchanges[0]));
    assert_true(exchange_failed(&ranks->exchanges[1]));
    assert_int_equal(ranks->exchanges[0].missing, 0);
    close_ranks(ranks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_exact_on_all_ranks),
        cmocka_unit_test(sums_are_exact_with_delays),
        cmocka_unit_test(pull_may_be_repeated),
        cmocka_unit_test(largest_push_touches_no_other_lane),
        cmocka_unit_test(absent_rank_ends_the_wait),
        cmocka_unit_test(abort_ends_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
