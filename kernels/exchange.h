// SPDX-License-Identifier: Apache-2.0
// exchange.h -- the all-reduce's seam: ops end in a push of bf16 partial sums into every rank's
// inbox and begin with a pull that adds them in rank order. Not an op. parallel/exchange_* sets
// one up; ops advance it. The same protocol runs over shared memory and over NVLink.
//
// Protocol. Every push has an epoch, counted from 1 on the device. Rank r's inbox holds two
// parities x one lane per source rank; push number e of source s writes lane s of parity e & 1 in
// every inbox and then marks it with e (release). The pull of e waits until all lanes carry e
// (acquire). Between two pushes of a rank lies its pull, so a lane of parity p may be
// overwritten by push e + 2: whoever pushed e + 1, which this rank has waited for, had pulled e.
// As soon as this rank has pushed e + 1, others may push e + 2 over the lanes of e: what a pull
// returned is read before this rank's next push.
// A wait is bounded and watches the abort word; when either ends it, the exchange is broken for
// good (`failed`), later pushes and pulls return at once, and the numbers mean nothing: whoever
// drives the stream checks exchange_failed before it believes a step. A wait that ran out of time
// sets the abort word, so that the other ranks need not run out of theirs.
#pragma once

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/types.h"

enum {
    EXCHANGE_RANKS_MAX = 8,
    EXCHANGE_LANE_ALIGN_BYTES = 256,
};

// One lane's mark, on a cache line of its own.
struct exchange_mark {
    alignas(64) uint64_t epoch; // of the last push that is complete in this lane
};

struct exchange_cuda; // kernels/exchange_cuda.h

struct exchange {
    int rank, ranks;
    size_t lane_bytes;                               // capacity of one push
    uint64_t epoch;                                  // of this rank's last push
    uint64_t pulled;                                 // of this rank's last pull
    uint8_t *inboxes[EXCHANGE_RANKS_MAX];            // [parity][source][lane_bytes] of each rank
    struct exchange_mark *marks[EXCHANGE_RANKS_MAX]; // [parity][source] of each rank
    uint32_t *abort_word;                            // shared by all ranks; non-zero = give up
    uint64_t wait_ns_max;                            // bound of one wait
    uint32_t failed;                                 // sticky: a wait ended without the data
    uint32_t missing; // bit r: rank r's data had not come when this rank's wait ran out of time
    // CUDA: inboxes[0] is the lane of this rank, nothing above but ranks and sizes is used, and
    // this is what a push adds the lanes of several ranks with; NULL in a group of one.
    const struct exchange_cuda *cuda;
};

// This rank's push e + 1: copies bytes (0..lane_bytes) into lane `rank` of every inbox and marks
// them. Never waits. The push before it must have been pulled. Runs on the device's thread (a twin
// calls it, or a kernel's epilogue).
void exchange_push(struct exchange *exchange, const void *data, size_t bytes);

// Waits for all lanes of the newest push and returns where they lie: lanes[source], each
// lane_bytes long, valid until this rank's next push. False when the wait failed; then lanes are
// not written. Pulling twice without a push between is allowed (same lanes).
bool exchange_pull(struct exchange *exchange, const uint8_t *lanes[EXCHANGE_RANKS_MAX]);

// Safe from any thread, also while the device waits.
bool exchange_failed(const struct exchange *exchange);
void exchange_abort(struct exchange *exchange);
