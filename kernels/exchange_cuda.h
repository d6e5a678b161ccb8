// SPDX-License-Identifier: Apache-2.0
// exchange_cuda.h -- the exchange between the GPUs of one host. Not an op. A push leaves this
// rank's partial sums in a lane of its own memory; then kernels, or NCCL for what is large, put the
// sum over all ranks in their place, and the pull reads one lane. So the sum is rounded to bf16
// once before the residual is added; the CPU's exchange rounds only after. Set up by
// parallel/exchange_cuda.c.
//
// Protocol, for up to 256 KB at a time. A packet is 16 bytes: {value, flag, value, flag} of 32 bits
// each; the flag is that of the epoch, so data and its mark come together and no fence is needed.
// Rank r's inbox holds two parities x one lane of packets per source. Every rank writes its packets
// into every other inbox, then waits for those of its own inbox and adds in f32 in rank order,
// rounding to bf16 once: all ranks hold the same bits. A gather is the same without the sum. A lane
// of parity p is written again by the push after the next; whoever pushed the next one had got all
// of this one, as in kernels/exchange.h. Waits are bounded and watch the abort word; after one that
// failed, lanes mean nothing.
// Source: the LL protocol of NCCL.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exchange.h"
#include "kernels/runtime.h"

enum {
    EXCHANGE_PACKET_BYTES = 16,           // for 8 of data
    EXCHANGE_PACKETS_BYTES_MAX = 1 << 18, // of data in one exchange
    EXCHANGE_CHUNKED_BYTES_MAX = 1 << 20, // in several; above, NCCL is quicker. In a graph packets
                                          // serve any size: NCCL would call from another thread
};

// Host memory that the device writes.
struct exchange_report {
    uint64_t epoch;   // exchanges by packets so far, now and then
    uint32_t failed;  // a wait ended without its data
    uint32_t missing; // bit r: rank r's packets had not come in time
};

struct exchange_cuda {
    int rank, ranks;
    uint8_t *inboxes_dev[EXCHANGE_RANKS_MAX]; // of each rank: [parity][source][2 * data bytes max]
    uint64_t *epoch_dev;                      // exchanges so far, zero at first
    uint32_t *ticket_dev;                     // blocks that are done, zero at first
    uint32_t *failed_dev;                     // sticky: a wait of this rank failed
    uint64_t *look_dev;                       // when to ask the abort word next, zero at first
    uint32_t *abort_word_dev;                 // host memory of all ranks, mapped
    struct exchange_report *report_dev;       // host memory of this rank, mapped
    uint64_t wait_ns_max;
    // Adds the bf16 lanes of all ranks in place: for what is too large for packets. Queued.
    void (*add_large)(void *context, void *lane_dev, size_t bytes, struct stream *stream);
    void *context;
    bool load_only; // what is recorded now is thrown away: sums above EXCHANGE_CHUNKED_BYTES_MAX,
                    // thousands of packets' kernels, are left out
};

// Bytes of one rank's inbox.
size_t exchange_cuda_inbox_bytes(int ranks);

// Queued after the kernels that filled `lane_dev`: the sum over all ranks takes its place. bytes is
// a multiple of 8, the same on all ranks.
void exchange_cuda_add(struct stream *stream, const struct exchange_cuda *exchange, void *lane_dev,
                       size_t bytes);

// out_dev[r * bytes ..] = rank r's in_dev. Queued; bytes is a multiple of 8 and at most
// EXCHANGE_PACKETS_BYTES_MAX. Zeros for what did not come.
void exchange_cuda_gather(struct stream *stream, const struct exchange_cuda *exchange,
                          void *out_dev, const void *in_dev, size_t bytes);

// The addresses at which this rank sees offset 0 of a symmetric window at each rank. window: an
// ncclWindow_t. Waits for the stream.
void exchange_cuda_addresses(struct stream *stream, void *window, int ranks,
                             uint8_t *addresses_dev[EXCHANGE_RANKS_MAX]);

// The cudaStream_t of a stream.
void *exchange_cuda_stream(struct stream *stream);
