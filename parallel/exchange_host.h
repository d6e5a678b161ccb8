// SPDX-License-Identifier: Apache-2.0
// exchange_host.h -- sets up exchanges between the ranks of one host over POSIX shared memory: the
// ranks meet at a name made from an id, and the name is removed as soon as all have come. The ops
// that use an exchange are kernels/exchange.h; the group that owns one is group_host.c.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/exchange.h"
#include "parallel/base/status.h"
#include "parallel/plan.h"

enum {
    EXCHANGE_HOST_COUNT_MAX = 2,   // exchanges of one meeting
    EXCHANGE_HOST_ID_BYTES = 128,  // of a meeting's id
    EXCHANGE_HOST_NAME_BYTES = 64, // of its name, NUL included
};

struct exchange_host_options {
    struct place place;
    uint8_t id[EXCHANGE_HOST_ID_BYTES];         // random, the same on all ranks, used once
    int count;                                  // of exchanges, 1..EXCHANGE_HOST_COUNT_MAX
    size_t lane_bytes[EXCHANGE_HOST_COUNT_MAX]; // largest push of each
    uint64_t wait_ns_max;                       // bound of one wait of a pull
    uint64_t join_ns_max;                       // bound of the meeting
};

// Caller owns the storage and does not move it while a stream uses an exchange. All exchanges of
// a meeting share one abort word.
struct exchange_host {
    struct exchange exchanges[EXCHANGE_HOST_COUNT_MAX];
    void *memory; // the shared segment
    size_t bytes;
};

// Meets the other ranks. E_TIMEOUT names the ranks that did not come (to whoever waited: as soon as
// one rank gives up, all do), E_MISMATCH the sizes that differ or a rank that is there twice,
// E_SYSTEM carries the system's words, E_INPUT an impossible place. A group of one rank needs no
// name and no /dev/shm.
enum status exchange_host_open(struct exchange_host *host,
                               const struct exchange_host_options *options,
                               struct error *error) MUST_CHECK;
void exchange_host_close(struct exchange_host *host);

// Bytes of shared memory that such a meeting takes, for all its ranks together:
// about 2 * ranks^2 * (sum of lane_bytes).
size_t exchange_host_bytes(const struct exchange_host_options *options);

// The name in /dev/shm (with a leading slash) at which ranks with this id meet.
void exchange_host_name(char name[EXCHANGE_HOST_NAME_BYTES],
                        const uint8_t id[EXCHANGE_HOST_ID_BYTES]);
