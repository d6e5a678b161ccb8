// SPDX-License-Identifier: Apache-2.0
// clock.c -- CLOCK_MONOTONIC as one number.
#include "parallel/base/clock.h"

#include <errno.h>
#include <time.h>

#include "parallel/base/status.h"

uint64_t clock_now_ns(void)
{
    struct timespec now;
    ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * CLOCK_NS_PER_S + (uint64_t)now.tv_nsec;
}

void clock_sleep_ns(uint64_t duration_ns)
{
    // An absolute end, so that signals do not lengthen the sleep.
    uint64_t end_ns = clock_now_ns() + duration_ns;
    struct timespec end = {
        .tv_sec = (time_t)(end_ns / CLOCK_NS_PER_S),
        .tv_nsec = (long)(end_ns % CLOCK_NS_PER_S),
    };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
        continue;
}
