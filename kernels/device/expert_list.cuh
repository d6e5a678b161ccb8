// SPDX-License-Identifier: Apache-2.0
// expert_list.cuh -- which (token, pick) slots each expert serves, built by a block in its shared
// memory: a counting sort that keeps the order of slots, so every block builds the same list.
// Groups are runs of at most `group_tokens` slots of one expert.
#pragma once

#include "kernels/device/reduce.cuh"

enum {
    EXPERTS_MAX = 1024,
    EXPERT_SLOTS_MAX = 8192, // slots of a list in shared memory
};

struct expert_group {
    uint16_t expert, first, count, unused; // slots[first .. first + count)
};

struct expert_list {
    uint16_t *slots;      // [slots_count] by expert, then by slot
    expert_group *groups; // [expert_groups_max]
    uint16_t *counts;     // [warps, experts] while it is built
    uint32_t *totals;     // [warps]
};

// Most groups that a list can have.
static inline ON_BOTH_SIDES int expert_groups_max(int slots_count, int experts, int group_tokens)
{
    return (slots_count < experts ? slots_count : experts) + slots_count / group_tokens;
}

// Inclusive sum over the lanes up to this one.
static __device__ __forceinline__ uint32_t warp_scan(uint32_t value)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int offset = 1; offset < WARP_THREADS; offset *= 2) {
        uint32_t other = __shfl_up_sync(0xffffffffu, value, offset);
        value += lane >= offset ? other : 0;
    }
    return value;
}

// This warp's part of the slots: each gets its place from counts, which moves on. BATCH: loads of a
// lane on their way.
template <bool PLACE, int BATCH>
static __device__ __forceinline__ void expert_list_walk(const expert_list &list, uint16_t *counts,
                                                        const int32_t *ids, int from, int to)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    for (int batch = from; batch < to; batch += WARP_THREADS * BATCH) {
        unsigned ids_of[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            int i = batch + j * WARP_THREADS + lane;
            ids_of[j] = i < to ? static_cast<unsigned>(__ldcg(ids + i)) : 0xffffffffu;
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            int i = batch + j * WARP_THREADS;
            if (i >= to)
                break;
            bool there = i + lane < to;
            unsigned id = ids_of[j], same = __match_any_sync(0xffffffffu, id);
            int before = __popc(same & ((1u << lane) - 1));
            unsigned place = there ? counts[id] + static_cast<unsigned>(before) : 0;
            __syncwarp();
            if (PLACE && there)
                list.slots[place] = static_cast<uint16_t>(i + lane);
            if (there && before == 0)
                counts[id] = static_cast<uint16_t>(place + static_cast<unsigned>(__popc(same)));
            __syncwarp();
        }
    }
}

// In all threads of a block of WARPS warps; ids [slots_count] valid. Returns the groups' number.
template <int WARPS, int BATCH = 1>
static __device__ int expert_list_build(const expert_list &list, const int32_t *ids,
                                        int slots_count, int experts, int group_tokens)
{
    constexpr int THREADS = WARPS * WARP_THREADS;
    constexpr int PER_THREAD = (EXPERTS_MAX + THREADS - 1) / THREADS;
    int thread = static_cast<int>(threadIdx.x), warp = thread / WARP_THREADS;
    int share = (slots_count + THREADS - 1) / THREADS * WARP_THREADS; // of a warp
    int from = warp * share, to = from + share < slots_count ? from + share : slots_count;
    uint16_t *counts = list.counts + warp * experts;
    for (int i = thread; i < WARPS * experts; i += THREADS)
        list.counts[i] = 0;
    __syncthreads();
    expert_list_walk<false, BATCH>(list, counts, ids, from, to);
    __syncthreads();
    // Each thread takes some neighbouring experts; slots in the low half, groups in the high one.
    uint32_t own[PER_THREAD], sum = 0;
    int per_thread = (experts + THREADS - 1) / THREADS;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int expert = thread * per_thread + i;
        uint32_t slots = 0;
        for (int w = 0; i < per_thread && expert < experts && w < WARPS; w++)
            slots += list.counts[w * experts + expert];
        own[i] =
            slots |
            (slots + static_cast<uint32_t>(group_tokens) - 1) / static_cast<uint32_t>(group_tokens)
                << 16;
        sum += own[i];
    }
    uint32_t before = warp_scan(sum);
    if (thread % WARP_THREADS == WARP_THREADS - 1)
        list.totals[warp] = before;
    __syncthreads();
    uint32_t all = 0;
    before -= sum;
    for (int w = 0; w < WARPS; w++) {
        before += w < warp ? list.totals[w] : 0;
        all += list.totals[w];
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int expert = thread * per_thread + i;
        if (i >= per_thread || expert >= experts)
            continue;
        uint32_t first = before & 0xffffu, slots = own[i] & 0xffffu, at = first;
        for (int w = 0; w < WARPS; w++) {
            uint32_t count = list.counts[w * experts + expert];
            list.counts[w * experts + expert] = static_cast<uint16_t>(at);
            at += count;
        }
        expert_group *group = list.groups + (before >> 16);
        for (uint32_t done = 0; done < slots; done += static_cast<uint32_t>(group_tokens)) {
            uint32_t left = slots - done, most = static_cast<uint32_t>(group_tokens);
            *group++ = {static_cast<uint16_t>(expert), static_cast<uint16_t>(first + done),
                        static_cast<uint16_t>(left < most ? left : most), 0};
        }
        before += own[i];
    }
    __syncthreads();
    expert_list_walk<true, BATCH>(list, counts, ids, from, to);
    __syncthreads();
    return static_cast<int>(all >> 16);
}

// The same without sorting: a group per slot. For so few slots that an expert rarely has two.
static __device__ int expert_list_plain(const expert_list &list, const int32_t *ids,
                                        int slots_count)
{
    for (int i = static_cast<int>(threadIdx.x); i < slots_count;
         i += static_cast<int>(blockDim.x)) {
        list.slots[i] = static_cast<uint16_t>(i);
        list.groups[i] = {static_cast<uint16_t>(__ldcg(ids + i)), static_cast<uint16_t>(i), 1, 0};
    }
    __syncthreads();
    return slots_count;
}
