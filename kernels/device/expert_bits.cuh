// SPDX-License-Identifier: Apache-2.0
// expert_bits.cuh -- the (token, pick) slots of a step sorted by expert, by one block: a bit for
// each expert and token says who picked whom, so a slot's place is its expert's first one and the
// bits before its own. A token's picks are distinct. An expert's slots are in the order of tokens.
#pragma once

#include "kernels/device/launch.cuh"

#include "kernels/device/expert_list.cuh"

enum {
    BITS_THREADS = 1024, // of a block that does nothing else
    BITS_TURNS = 8,      // slots of each
    BITS_WORD = 32,      // tokens
};

// What a block sorts.
struct expert_bits {
    const int32_t *ids; // [tokens, picks]
    int tokens, picks, experts;
    int tile_tokens; // an expert's slots make tiles of at most so many
    int stride;      // expert_bits_stride
};

// Of thread t of the block: expert t's slots, nothing for t >= experts.
struct expert_bits_range {
    int first, count; // slots
    int tile, tiles;
    int tiles_all; // of all experts
};

// Words from one expert to the next: an odd number, so that threads that read one word of theirs
// each hit all banks.
static inline ON_BOTH_SIDES int expert_bits_stride(int tokens)
{
    return (tokens + BITS_WORD - 1) / BITS_WORD | 1;
}

// Shared memory of the block: words, slots before each of them, experts' first slots.
static inline ON_BOTH_SIDES size_t expert_bits_bytes(int tokens, int experts)
{
    return static_cast<size_t>(experts) *
           (static_cast<size_t>(expert_bits_stride(tokens)) * (4 + 2) + 4 + 2);
}

// Whether a block of so many threads with `turns` slots each and at most `bytes` takes so many.
static inline bool expert_bits_serves(int tokens, int picks, int experts, int threads, int turns,
                                      size_t bytes)
{
    return experts <= threads && tokens * picks <= threads * turns &&
           expert_bits_bytes(tokens, experts) <= bytes;
}

// By all threads, before expert_bits_sort; a block barrier follows.
static __device__ __forceinline__ void expert_bits_clear(const expert_bits &a, uint32_t *shared)
{
    for (int i = static_cast<int>(threadIdx.x); i < a.experts * a.stride;
         i += static_cast<int>(blockDim.x))
        shared[i] = 0;
}

// Slots before each word of thread t's expert t. Returns their number.
static __device__ __forceinline__ int expert_bits_count(const expert_bits &a, const uint32_t *words,
                                                        uint16_t *before)
{
    int expert = static_cast<int>(threadIdx.x), count = 0;
#pragma unroll 4
    for (int i = 0; i < a.stride && expert < a.experts; i++) {
        before[expert * a.stride + i] = static_cast<uint16_t>(count);
        count += __popc(words[expert * a.stride + i]);
    }
    return count;
}

// All threads of a block of THREADS; shared expert_bits_bytes, cleared. Fills slots [tokens *
// picks], at most TURNS a thread; a block barrier before they are read.
template <int THREADS, int TURNS, typename SLOT>
static __device__ __forceinline__ expert_bits_range expert_bits_sort(SLOT *slots,
                                                                     const expert_bits &a,
                                                                     uint32_t *shared)
{
    __shared__ uint32_t totals[THREADS / WARP_THREADS];
    int32_t *firsts = reinterpret_cast<int32_t *>(shared + a.experts * a.stride);
    uint16_t *before = reinterpret_cast<uint16_t *>(firsts + a.experts);
    int thread = static_cast<int>(threadIdx.x), slots_count = a.tokens * a.picks;
    int ids[TURNS], tokens[TURNS];
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        int slot = turn * THREADS + thread;
        tokens[turn] = slot / a.picks;
        ids[turn] = slot < slots_count ? __ldcg(a.ids + slot) : -1;
    }
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        if (ids[turn] >= 0)
            atomicOr(shared + ids[turn] * a.stride + tokens[turn] / BITS_WORD,
                     1u << tokens[turn] % BITS_WORD);
    }
    __syncthreads();
    expert_bits_range own = {};
    own.count = expert_bits_count(a, shared, before);
    own.tiles = (own.count + a.tile_tokens - 1) / a.tile_tokens;
    // Slots in the low half, tiles in the high one.
    uint32_t sum = warp_scan(static_cast<uint32_t>(own.count | own.tiles << 16));
    if (thread % WARP_THREADS == WARP_THREADS - 1)
        totals[thread / WARP_THREADS] = sum;
    __syncthreads();
    uint32_t all = 0;
    for (int warp = 0; warp * WARP_THREADS < a.experts; warp++) {
        sum += warp < thread / WARP_THREADS ? totals[warp] : 0;
        all += totals[warp];
    }
    own.first = static_cast<int>(sum & 0xffffu) - own.count;
    own.tile = static_cast<int>(sum >> 16) - own.tiles;
    own.tiles_all = static_cast<int>(all >> 16);
    if (thread < a.experts)
        firsts[thread] = own.first;
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < TURNS; turn++) {
        if (ids[turn] < 0)
            continue;
        int word = ids[turn] * a.stride + tokens[turn] / BITS_WORD;
        uint32_t lower = shared[word] & ((1u << tokens[turn] % BITS_WORD) - 1);
        slots[firsts[ids[turn]] + before[word] + __popc(lower)] =
            static_cast<SLOT>(turn * THREADS + thread);
    }
    return own;
}

// Thread t writes the groups of expert t: its tiles.
static __device__ __forceinline__ void
expert_bits_groups(expert_group *groups, const expert_bits &a, const expert_bits_range &own)
{
    for (int i = 0; i < own.tiles; i++) {
        int first = i * a.tile_tokens, count = min(own.count - first, a.tile_tokens);
        groups[own.tile + i] = {static_cast<uint16_t>(threadIdx.x),
                                static_cast<uint16_t>(own.first + first),
                                static_cast<uint16_t>(count), 0};
    }
}
