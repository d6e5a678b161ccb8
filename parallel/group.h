// SPDX-License-Identifier: Apache-2.0
// group.h -- the ranks of one group seen from one of them: who I am, the exchange that the model's
// ops push through, and the collectives beside it. Implemented by group_host.c (POSIX shared
// memory) and group_nccl.c. Everything queued on a stream; every wait is bounded.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exchange.h"
#include "kernels/runtime.h"
#include "parallel/plan.h"

enum {
    GROUP_ID_BYTES = 128, // as large as an ncclUniqueId
    // Of one rank, a multiple of 8: what a recorded step may gather. More goes through NCCL on
    // CUDA, whose calls the host waits for.
    GROUP_GATHER_GRAPH_BYTES_MAX = 1 << 18,
};

struct group; // opaque

struct group_options {
    struct place place;
    uint8_t id[GROUP_ID_BYTES]; // the same on all ranks, new for every epoch
    size_t exchange_bytes;      // largest push: step tokens * hidden * 2
    size_t gather_bytes;        // largest contribution of one rank to an all_gather
    uint64_t wait_ns_max;       // bound of any wait for a peer while serving
    uint64_t join_ns_max;       // bound of the meeting at start
};

// Meets the other ranks; all must call with the same numbers. E_TIMEOUT names the ranks that did
// not come; E_MISMATCH when sizes differ; E_SYSTEM carries the system's words.
enum status group_open(struct group **out, const struct group_options *options,
                       struct error *error) MUST_CHECK;

// After the streams that used the group have been synchronised. NULL is allowed.
void group_close(struct group *group);

// The place that the group was opened with.
struct place group_place(const struct group *group);

// The exchange for push and pull ops. Owned by the group.
struct exchange *group_exchange(struct group *group);

// out[r * bytes ..] = rank r's in, for all r. Queued; bytes <= gather_bytes. Zeroes when the group
// has failed, so that nothing later indexes with garbage; the same for broadcast.
void group_all_gather(struct group *group, struct stream *stream, void *out_dev, const void *in_dev,
                      size_t bytes);

// data of rank `root` to all. Queued; bytes <= gather_bytes.
void group_broadcast(struct group *group, struct stream *stream, void *data_dev, size_t bytes,
                     int root);

// No rank's stream passes before every rank's stream has arrived.
void group_barrier(struct group *group, struct stream *stream);

// While on, steps are recorded to be thrown away: sums too large for packets are left out, and what
// is recorded must not run.
void group_load_only(struct group *group, bool on);

// True when a wait failed or someone aborted: results since then mean nothing. Any thread.
int group_failed(const struct group *group);

// Bit r: rank r did not come within wait_ns_max; 0 when nothing failed, or when another rank ran
// out of time or aborted first. Any thread.
uint32_t group_missing(const struct group *group);

// Ends all waits of all ranks, at once. Any thread.
void group_abort(struct group *group);

// Counter for the heartbeat: pushes of any kind done by this rank so far. Any thread.
uint64_t group_epoch(const struct group *group);
