// SPDX-License-Identifier: Apache-2.0
// exchange_cpu.c -- push and pull over memory that the ranks share. Runs on a stream's thread;
// the fields that other threads look at (epoch, failed, missing, abort word) are atomic accesses.
// The struct's fields are plain because kernels use them too.
#include "kernels/exchange.h"

#include <sched.h>
#include <string.h>

#include "parallel/base/clock.h"
#include "parallel/base/status.h"

// A wait first pauses (a peer on another core is at most microseconds away), then gives the core
// to whoever can use it (more ranks than cores), then sleeps (a peer with much more work).
enum {
    WAIT_PAUSES = 64,
    WAIT_YIELDS = 4000,
    WAIT_SLEEP_NS = 50 * CLOCK_NS_PER_US,
    WAIT_LOOKS_PER_CLOCK = 16, // looks at the marks between two looks at the clock
};

static void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static size_t lane_index(const struct exchange *exchange, uint64_t epoch, int source)
{
#ifdef PLANT_exchange_one_parity
    epoch = 0; // a quick rank overwrites what a slow one has not read
#endif
    return (size_t)(epoch & 1) * (size_t)exchange->ranks + (size_t)source;
}

void exchange_push(struct exchange *exchange, const void *data, size_t bytes)
{
    ASSERT(bytes <= exchange->lane_bytes);
    if (exchange_failed(exchange))
        return;
    ASSERT(exchange->pulled == exchange->epoch); // else a peer's lane could be overwritten unread
    uint64_t epoch = exchange->epoch + 1;
    size_t lane = lane_index(exchange, epoch, exchange->rank);
    // The next rank first: not all ranks write to the same inbox at once.
    for (int i = 1; i <= exchange->ranks; i++) {
        int to = (exchange->rank + i) % exchange->ranks;
        if (bytes != 0)
            memcpy(exchange->inboxes[to] + lane * exchange->lane_bytes, data, bytes);
        __atomic_store_n(&exchange->marks[to][lane].epoch, epoch, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&exchange->epoch, epoch, __ATOMIC_RELAXED);
}

static bool has_come(const struct exchange *exchange, uint64_t epoch, int source)
{
    const struct exchange_mark *marks = exchange->marks[exchange->rank];
    size_t lane = lane_index(exchange, epoch, source);
#ifdef PLANT_exchange_stale_lane
    return __atomic_load_n(&marks[lane].epoch, __ATOMIC_ACQUIRE) != 0; // takes the lane of e - 2
#else
    return __atomic_load_n(&marks[lane].epoch, __ATOMIC_ACQUIRE) == epoch;
#endif
}

static void fail(struct exchange *exchange, uint32_t missing)
{
    __atomic_store_n(&exchange->missing, missing, __ATOMIC_RELAXED);
    __atomic_store_n(&exchange->failed, 1, __ATOMIC_RELEASE);
}

static void fail_by_time(struct exchange *exchange)
{
    uint32_t missing = 0;
    for (int source = 0; source < exchange->ranks; source++) {
        if (!has_come(exchange, exchange->epoch, source))
            missing |= 1u << source;
    }
    fail(exchange, missing);
    exchange_abort(exchange);
}

// Waits for one source. *deadline_ns is 0 until a wait of this pull first looked at the clock.
static bool wait_for(struct exchange *exchange, int source, uint64_t *deadline_ns)
{
    for (uint32_t looks = 0;; looks++) {
        if (has_come(exchange, exchange->epoch, source))
            return true;
        if (__atomic_load_n(exchange->abort_word, __ATOMIC_ACQUIRE) != 0) {
            fail(exchange, 0);
            return false;
        }
        if (looks < WAIT_PAUSES) {
            pause_core();
            continue;
        }
        if (looks % WAIT_LOOKS_PER_CLOCK == 0) {
            uint64_t now_ns = clock_now_ns();
            if (*deadline_ns == 0)
                *deadline_ns = now_ns + exchange->wait_ns_max;
            if (now_ns >= *deadline_ns) {
                fail_by_time(exchange);
                return false;
            }
        }
        if (looks < WAIT_PAUSES + WAIT_YIELDS)
            sched_yield();
        else
            clock_sleep_ns(WAIT_SLEEP_NS);
    }
}

bool exchange_pull(struct exchange *exchange, const uint8_t *lanes[EXCHANGE_RANKS_MAX])
{
    if (exchange_failed(exchange))
        return false;
    ASSERT(exchange->epoch != 0); // nothing was pushed yet
    uint64_t deadline_ns = 0;
    for (int source = 0; source < exchange->ranks; source++) {
        if (!wait_for(exchange, source, &deadline_ns))
            return false;
    }
    const uint8_t *inbox = exchange->inboxes[exchange->rank];
    for (int source = 0; source < exchange->ranks; source++)
        lanes[source] =
            inbox + lane_index(exchange, exchange->epoch, source) * exchange->lane_bytes;
    exchange->pulled = exchange->epoch;
    return true;
}

bool exchange_failed(const struct exchange *exchange)
{
    return __atomic_load_n(&exchange->failed, __ATOMIC_ACQUIRE) != 0 ||
           __atomic_load_n(exchange->abort_word, __ATOMIC_ACQUIRE) != 0;
}

void exchange_abort(struct exchange *exchange)
{
    __atomic_store_n(exchange->abort_word, 1, __ATOMIC_RELEASE);
}
