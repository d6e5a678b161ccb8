// SPDX-License-Identifier: Apache-2.0
// clock.h -- the monotonic clock and sleeping. Never called from pure files: they get the time as
// a number.
#pragma once

#include <stdint.h>

enum { CLOCK_NS_PER_US = 1000, CLOCK_NS_PER_MS = 1000000, CLOCK_NS_PER_S = 1000000000 };

// Nanoseconds since some fixed point of this boot; never goes back, the same for all processes of
// one host.
uint64_t clock_now_ns(void);

// Sleeps at least duration_ns, also when signals arrive.
void clock_sleep_ns(uint64_t duration_ns);
