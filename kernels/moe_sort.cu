// SPDX-License-Identifier: Apache-2.0
// moe_sort.cu -- slots by expert, in the order of slots: up to some thousand by one block
// (expert_bits.cuh); more by a counting sort, where blocks count their shares, then every block
// adds up what lies before its own slots and places them.
#include "kernels/device/expert_bits.cuh"
#include "kernels/device/experts_sort.cuh"
#include "kernels/device/reduce.cuh"

enum {
    SORT_WARPS = 32,
    SORT_THREADS = SORT_WARPS * WARP_THREADS,
    SORT_BLOCKS = 64,          // as long as a warp's slots do not take more than
    SORT_TURNS = 8,            // of WARP_THREADS slots
    SORT_BITS_MAX = 200 << 10, // shared memory of the block that sorts by bits
};

struct sort_arguments {
    struct experts_sort sort;
    int share; // slots of a block, a multiple of SORT_THREADS
};

// One block; shared expert_bits_bytes.
static __global__ void __launch_bounds__(BITS_THREADS)
    sort_bits_kernel(const struct experts_sort sort, const expert_bits bits)
{
    extern __shared__ uint32_t words[];
    int thread = static_cast<int>(threadIdx.x);
    expert_bits_clear(bits, words);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    expert_bits_range own = expert_bits_sort<BITS_THREADS, BITS_TURNS>(sort.slots, bits, words);
    if (thread >= bits.experts)
        return;
    sort.offsets[thread] = own.first;
    sort.tiles[thread] = own.tile;
    if (thread == bits.experts - 1) {
        sort.offsets[bits.experts] = own.first + own.count;
        sort.tiles[bits.experts] = own.tile + own.tiles;
    }
}

// False when there are too many slots for one block.
static bool sort_bits(cudaStream_t stream, const struct experts_sort &sort)
{
    static bool prepared = false;
    int tokens = sort.slots_count / sort.picks;
    expert_bits bits = {sort.ids,     tokens,           sort.picks,
                        sort.experts, sort.tile_tokens, expert_bits_stride(tokens)};
    if (!expert_bits_serves(tokens, sort.picks, sort.experts, BITS_THREADS, BITS_TURNS,
                            SORT_BITS_MAX))
        return false;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(
            sort_bits_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SORT_BITS_MAX));
    prepared = true;
    launch_chained(sort_bits_kernel, dim3(1), dim3(BITS_THREADS),
                   expert_bits_bytes(tokens, sort.experts), stream, sort, bits);
    return true;
}

// grid blocks of the sort; shared [experts]: counts of this block's slots.
static __global__ void __launch_bounds__(SORT_THREADS) sort_count_kernel(const sort_arguments a)
{
    extern __shared__ int32_t counts[];
    int thread = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
    if (thread < a.sort.experts)
        counts[thread] = 0;
    pdl_wait();
    pdl_trigger();
    __syncthreads();
    int to = min((block + 1) * a.share, a.sort.slots_count);
    for (int i = block * a.share + thread; i < to; i += SORT_THREADS)
        atomicAdd(counts + a.sort.ids[i], 1);
    __syncthreads();
    if (thread < a.sort.experts)
        a.sort.counts[block * a.sort.experts + thread] = counts[thread];
}

// Which experts a lane's slots have, and how many slots of its warp's share come before them there.
struct sort_own {
    int id[SORT_TURNS], before[SORT_TURNS];
};

// Counts this warp's slots from `from` to `to`; counts [experts] are zeros.
static __device__ __forceinline__ void sort_walk(sort_own *own, const struct experts_sort &sort,
                                                 int32_t *counts, int from, int to)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int turn = 0; turn < SORT_TURNS; turn++) {
        int i = from + turn * WARP_THREADS + lane;
        own->id[turn] = i < to ? sort.ids[i] : -1;
    }
#pragma unroll
    for (int turn = 0; turn < SORT_TURNS; turn++) {
        if (from + turn * WARP_THREADS >= to)
            break;
        int id = own->id[turn];
        unsigned same = __match_any_sync(0xffffffffu, id);
        int before = __popc(same & ((1u << lane) - 1)), earlier = id >= 0 ? counts[id] : 0;
        own->before[turn] = earlier + before;
        __syncwarp();
        if (id >= 0 && before == 0)
            counts[id] = earlier + __popc(same);
        __syncwarp();
    }
}

// The sum over threads before this one; all threads of the block, in order.
static __device__ int2 sort_scan(int2 own, int2 *shared)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int2 sum = own;
#pragma unroll
    for (int offset = 1; offset < WARP_THREADS; offset *= 2) {
        int x = __shfl_up_sync(0xffffffffu, sum.x, offset);
        int y = __shfl_up_sync(0xffffffffu, sum.y, offset);
        if (lane >= offset)
            sum = make_int2(sum.x + x, sum.y + y);
    }
    if (lane == WARP_THREADS - 1)
        shared[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; w++)
        sum = make_int2(sum.x + shared[w].x, sum.y + shared[w].y);
    return make_int2(sum.x - own.x, sum.y - own.y);
}

// Adds up the blocks' counts: [0, experts) of shared those of blocks before this one, then all.
static __device__ __forceinline__ void sort_totals(const struct experts_sort &sort, int32_t *shared)
{
    int parts = SORT_THREADS / sort.experts, blocks = static_cast<int>(gridDim.x);
    int part = static_cast<int>(threadIdx.x) / sort.experts;
    int expert = static_cast<int>(threadIdx.x) % sort.experts;
    int before = 0, all = 0;
    if (part >= parts)
        return;
#pragma unroll 8
    for (int b = part; b < blocks; b += parts) {
        int count = sort.counts[b * sort.experts + expert];
        all += count;
        before += b < static_cast<int>(blockIdx.x) ? count : 0;
    }
    atomicAdd(shared + expert, before);
    atomicAdd(shared + sort.experts + expert, all);
}

// grid as sort_count_kernel's, or one block without it; shared counts [SORT_WARPS, experts], then
// [2, experts].
static __global__ void __launch_bounds__(SORT_THREADS) sort_place_kernel(const sort_arguments a)
{
    extern __shared__ int32_t counts[];
    __shared__ int2 totals[SORT_WARPS];
    const struct experts_sort &sort = a.sort;
    int thread = static_cast<int>(threadIdx.x), warp = thread / WARP_THREADS;
    int part = a.share / SORT_WARPS;
    int from = static_cast<int>(blockIdx.x) * a.share + warp * part;
    int to = min(from + part, sort.slots_count);
    int32_t *blocks = counts + SORT_WARPS * sort.experts;
    for (int i = thread; i < (SORT_WARPS + 2) * sort.experts; i += SORT_THREADS)
        counts[i] = 0;
    pdl_wait();
    pdl_trigger();
    __syncthreads();
    if (gridDim.x > 1)
        sort_totals(sort, blocks);
    sort_own slots;
    sort_walk(&slots, sort, counts + warp * sort.experts, from, to);
    __syncthreads();
    int own = 0;
    if (thread < sort.experts && gridDim.x > 1)
        own = blocks[sort.experts + thread];
    for (int w = 0; w < SORT_WARPS && thread < sort.experts && gridDim.x == 1; w++)
        own += counts[w * sort.experts + thread];
    int own_tiles = (own + sort.tile_tokens - 1) / sort.tile_tokens;
    int2 before = sort_scan(make_int2(own, own_tiles), totals);
    if (thread < sort.experts) {
        if (blockIdx.x == 0) {
            sort.offsets[thread] = before.x;
            sort.tiles[thread] = before.y;
        }
        if (blockIdx.x == 0 && thread == sort.experts - 1) {
            sort.offsets[sort.experts] = before.x + own;
            sort.tiles[sort.experts] = before.y + own_tiles;
        }
        int at = before.x + blocks[thread], count[SORT_WARPS / 4];
        for (int first = 0; first < SORT_WARPS; first += SORT_WARPS / 4) {
            int32_t *own_counts = counts + first * sort.experts + thread;
#pragma unroll
            for (int w = 0; w < SORT_WARPS / 4; w++)
                count[w] = own_counts[w * sort.experts];
#pragma unroll
            for (int w = 0; w < SORT_WARPS / 4; w++) {
                own_counts[w * sort.experts] = at;
                at += count[w];
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < SORT_TURNS; turn++) {
        int i = from + turn * WARP_THREADS + thread % WARP_THREADS;
        if (i < to)
            sort.slots[counts[warp * sort.experts + slots.id[turn]] + slots.before[turn]] = i;
    }
}

// Slots of a block.
static int sort_share(int slots_count)
{
    int turns = (slots_count - 1) / (SORT_THREADS * SORT_BLOCKS) + 1;
    return (turns < SORT_TURNS ? turns : SORT_TURNS) * SORT_THREADS;
}

static int sort_blocks(int slots_count)
{
    int share = sort_share(slots_count);
    return (slots_count + share - 1) / share;
}

int64_t experts_sort_counts(int slots_count, int experts)
{
    int blocks = sort_blocks(slots_count);
    return blocks > 1 ? static_cast<int64_t>(blocks) * experts : 0;
}

void experts_sort(cudaStream_t stream, const struct experts_sort &sort)
{
    static bool prepared = false;
    sort_arguments a = {sort, sort_share(sort.slots_count)};
    dim3 grid(static_cast<unsigned>(sort_blocks(sort.slots_count)));
    size_t row = static_cast<size_t>(sort.experts) * sizeof(int32_t);
    ASSERT(sort.experts <= SORT_EXPERTS_MAX && sort.slots_count > 0);
    if (sort_bits(stream, sort))
        return;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(sort_place_kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (SORT_WARPS + 2) * SORT_EXPERTS_MAX * 4));
    prepared = true;
    if (grid.x > 1)
        launch_chained(sort_count_kernel, grid, dim3(SORT_THREADS), row, stream, a);
    launch_chained(sort_place_kernel, grid, dim3(SORT_THREADS), (SORT_WARPS + 2) * row, stream, a);
}
