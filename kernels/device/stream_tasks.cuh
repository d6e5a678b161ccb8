// SPDX-License-Identifier: Apache-2.0
// stream_tasks.cuh -- what the blocks of moe_push_stream_sm90.cu do and in which order: a task is
// (group of an expert's tokens, tile of its rows), of gate and up or of down.
#pragma once

#include "kernels/device/expert_list.cuh"
#include "kernels/device/tile.cuh"
#include "kernels/device/wgmma.cuh"

extern "C" {
#include "kernels/types.h"
}

enum {
    STREAM_GROUP = 4 * WARP_THREADS, // threads that copy x, and of a group that multiplies
    STREAM_COPY_ROWS = STREAM_GROUP / 8,
};

// What the first kernel leaves: the slots of an expert, in groups, and a counter for each group,
// then one for each group of the shared expert: warps that have stored their part of its middle.
struct stream_list {
    expert_group *groups;
    uint16_t *slots;
    int32_t *count; // of groups
    int32_t *done;  // [groups + shared groups]
};

struct stream_arguments {
    const bf16 *x;  // [tokens, hidden]
    bf16 *middle;   // [tokens, picks * width + shared_width]
    void *products; // [tokens, picks + 1, hidden]
    int tokens, picks, hidden, width, shared_width;
    stream_list list; // in memory
    int slots_bytes, groups_bytes;
    int stages;
};

// How a block is shaped. HALVES: tiles of 64 rows that a group multiplies; GROUPS: groups that
// multiply; TOKENS: of a task.
template <int HALVES_, int GROUPS_, int TOKENS_> struct stream_shape {
    static constexpr int HALVES = HALVES_, GROUPS = GROUPS_, TOKENS = TOKENS_;
    static constexpr int ROWS = WGMMA_ROWS * HALVES * GROUPS;   // of W in a task
    static constexpr int FETCHER = STREAM_GROUP * (GROUPS + 1); // the thread that fetches W
    static constexpr int WATCHER = FETCHER + WARP_THREADS;      // the one that waits for counters
    static constexpr int THREADS = WATCHER + WARP_THREADS;
    static constexpr int W_BYTES = ROWS * WGMMA_ROW_BYTES;
    static constexpr int STAGE_BYTES = W_BYTES + TOKENS * WGMMA_ROW_BYTES;
    static constexpr int X_LOADS = (TOKENS + STREAM_COPY_ROWS - 1) / STREAM_COPY_ROWS;
};

// What all threads of a block work on.
struct stream_work {
    int shared_groups, groups;
    int up_tasks, down_tasks;
    const uint16_t *slots; // in shared memory, as groups
    const expert_group *group_of;
    uint32_t ring;
    uint64_t *full, *empty; // [stages]
    int *ready;             // of this block's tasks
};

// The same in all threads.
struct stream_task {
    bool down, shared;
    int group;                // whose counter it is; shared ones stand behind the others
    int expert, first, count; // slots[first ..]; tokens when shared
    int row, columns;         // first output; of W
};

// Outputs of a task.
template <typename SHAPE> static __device__ __forceinline__ constexpr int stream_outputs(bool down)
{
    return down ? SHAPE::ROWS : SHAPE::ROWS / 2; // gate and up make one
}

// How many groups and tasks there are, with so many groups of routed experts.
template <typename SHAPE>
static __device__ __forceinline__ void stream_count(stream_work *work, const stream_arguments &a,
                                                    int groups)
{
    work->groups = groups;
    work->shared_groups = (a.tokens + SHAPE::TOKENS - 1) / SHAPE::TOKENS;
    work->up_tasks = work->shared_groups * (a.shared_width / stream_outputs<SHAPE>(false)) +
                     groups * (a.width / stream_outputs<SHAPE>(false));
    work->down_tasks = (work->shared_groups + groups) * (a.hidden / stream_outputs<SHAPE>(true));
}

// The n-th task of this block; past the last one from up_tasks + down_tasks on. Tasks of the first
// product go round; blocks that got one less of them then get so many more of the second product
// as that is worth.
static __device__ __forceinline__ int stream_turn(const stream_work &work, int n, int worth)
{
    int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    int rest = work.up_tasks % blocks, own = work.up_tasks / blocks + (block < rest ? 1 : 0);
    int behind = rest > 0 ? blocks - rest : 0; // blocks that got one less
    if (n < own)
        return n * blocks + block;
    n -= own;
    if (behind > 0 && block >= rest) {
        if (n < worth)
            return work.up_tasks + n * behind + block - rest;
        n -= worth;
    }
    return work.up_tasks + worth * behind + n * blocks + block;
}

// The n-th task of this block; false past the last one.
template <typename SHAPE>
static __device__ __forceinline__ bool stream_find(stream_task *at, const stream_arguments &a,
                                                   const stream_work &work, int n)
{
    int task = stream_turn(work, n, a.hidden > a.width ? a.hidden / a.width : 1);
    if (task >= work.up_tasks + work.down_tasks)
        return false;
    at->down = task >= work.up_tasks;
    task -= at->down ? work.up_tasks : 0;
    int outputs = stream_outputs<SHAPE>(at->down);
    int tiles = (at->down ? a.hidden : a.width) / outputs;
    int shared_tasks = work.shared_groups * ((at->down ? a.hidden : a.shared_width) / outputs);
    at->shared = task < shared_tasks;
    at->columns = !at->down ? a.hidden : at->shared ? a.shared_width : a.width;
    if (at->shared) {
        int group = task % work.shared_groups; // inside: W is read once from memory
        at->group = work.groups + group;
        at->expert = 0;
        at->first = group * SHAPE::TOKENS;
        at->count = a.tokens - at->first < SHAPE::TOKENS ? a.tokens - at->first : SHAPE::TOKENS;
        at->row = task / work.shared_groups * outputs;
        return true;
    }
    task -= shared_tasks;
    at->group = task / tiles;
    expert_group group = work.group_of[at->group];
    at->expert = group.expert;
    at->first = group.first;
    at->count = group.count;
    at->row = task % tiles * outputs;
    return true;
}

// The token and pick of a task's n-th row of x.
static __device__ __forceinline__ int64_t stream_slot(const stream_arguments &a,
                                                      const stream_work &work,
                                                      const stream_task &at, int n, int64_t *pick)
{
    if (at.shared) {
        *pick = a.picks;
        return at.first + n;
    }
    int slot = work.slots[at.first + n];
    *pick = slot % a.picks;
    return slot / a.picks;
}

// Values from a token's middle to the next.
static __device__ __forceinline__ int64_t middle_stride(const stream_arguments &a)
{
    return static_cast<int64_t>(a.picks) * a.width + a.shared_width;
}

// A place in the ring.
struct stream_stage {
    int index;
    uint32_t parity;
};

// To the next one.
static __device__ __forceinline__ void stream_step(stream_stage *stage, int stages)
{
    if (++stage->index == stages) {
        stage->index = 0;
        stage->parity ^= 1;
    }
}
