// SPDX-License-Identifier: Apache-2.0
// experts_few.cuh -- products of a mixture of experts while an expert has few tokens: its weights
// are read once and stream through the rings of tile.cuh together with the rows of its tokens. A
// task is (group of an expert's tokens, tile of its rows); `split` warps share a task's columns.
// The shared expert's tasks come first: their weights are known before the router has picked.
#pragma once

#include "kernels/device/expert_bits.cuh"
#include "kernels/device/expert_list.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/tile.cuh"

enum {
    EXPERTS_SHARED_MAX = 226 << 10,
    EXPERTS_BITS_TURNS = 2,        // slots of a thread that are sorted by bits
    EXPERTS_BITS_BYTES = 12 << 10, // most, of what else is the parts'
};

enum experts_kind {
    EXPERTS_GATED,    // silu(gate) * up, to middle
    EXPERTS_PRODUCTS, // to products
    EXPERTS_DENSE,    // one matrix for all tokens, the shared one: to y or y_float
};

struct experts_arguments {
    const bf16 *x; // row of a slot at x + token * token_stride + pick * pick_stride
    int64_t token_stride, pick_stride;
    const bf16 *w, *shared_w; // [experts, matrix rows, columns]
    const int32_t *ids;       // [tokens, picks]
    int tokens, picks, experts;
    int columns, shared_columns; // of W
    int rows, shared_rows;       // outputs of an expert; a gated matrix has twice as many rows
    bool sorted;                 // group an expert's tokens
    bool bits;                   // by bits
    int split;
    bf16 *middle; // gated: silu(gate) * up at token * middle_stride + pick * rows
    int64_t middle_stride;
    float *products;       // [tokens, picks + 1, rows]
    const int32_t *gather; // dense: the row of x of a token, or NULL
    bf16 *y;               // dense [tokens, shared_rows], or NULL
    float *y_float;        // or NULL
};

// One expert's rows and tokens, as a lane sees them.
template <int N_TILES> struct experts_task {
    int chunks, chunk;          // of the warp; chunks 0 past the last task
    const bf16 *w;              // this lane's piece of row lane / 8 of the tile
    int64_t four, high, tile;   // values to the fourth row on, to row 8 + .., and to the next tile
    const bf16 *x[2 * N_TILES]; // pieces of the rows of tokens lane / 8 + 4 i
    bool present[2 * N_TILES];  // there is such a token
};

// What a task is, the same for all lanes.
struct experts_place {
    int expert, first, count, row; // expert == experts: the shared one, slots are tokens then
};

// False past the last task; list and groups are read for routed tasks alone.
template <experts_kind KIND, int M_TILES, int N_TILES>
static __device__ __forceinline__ bool experts_find(experts_place *place,
                                                    const experts_arguments &a,
                                                    const expert_list &list, int groups, int task)
{
    constexpr int TOKENS = N_TILES * TILE_TOKENS,
                  ROWS = M_TILES * (KIND == EXPERTS_GATED ? 8 : TILE_ROWS);
    int shared_tiles = (a.shared_rows + ROWS - 1) / ROWS, tiles = a.rows / ROWS;
    int shared_groups = (a.tokens + TOKENS - 1) / TOKENS;
    int shared_tasks = shared_groups * shared_tiles;
    if (task < shared_tasks) {
        place->expert = a.experts;
        place->first = task % shared_groups * TOKENS;
        place->count = a.tokens - place->first < TOKENS ? a.tokens - place->first : TOKENS;
        place->row = task / shared_groups * ROWS; // groups inside: W is read once from memory
        if (KIND == EXPERTS_DENSE && place->row > a.shared_rows - ROWS)
            place->row = a.shared_rows - ROWS; // the last tile repeats rows: same bits
        return true;
    }
    task -= shared_tasks;
    if (task >= groups * tiles)
        return false;
    expert_group group = list.groups[task / tiles];
    place->expert = group.expert;
    place->first = group.first;
    place->count = group.count;
    place->row = task % tiles * ROWS;
    return true;
}

// token * (picks + 1) + pick of the n-th token of a task.
static __device__ __forceinline__ int experts_slot(const experts_arguments &a,
                                                   const expert_list &list,
                                                   const experts_place &place, int n, int *pick)
{
    if (place.expert == a.experts) {
        *pick = a.picks;
        return place.first + n;
    }
    int slot = list.slots[place.first + n];
    *pick = slot % a.picks;
    return slot / a.picks;
}

// Puts a lane at the first chunk of a task.
template <experts_kind KIND, int M_TILES, int N_TILES>
static __device__ __forceinline__ void experts_seek(experts_task<N_TILES> *at,
                                                    const experts_arguments &a,
                                                    const expert_list &list, int groups, int task)
{
    experts_place place;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int part = static_cast<int>(threadIdx.x) / WARP_THREADS % a.split;
    at->chunk = at->chunks = 0;
    if (!experts_find<KIND, M_TILES, N_TILES>(&place, a, list, groups, task))
        return;
    bool shared = place.expert == a.experts;
    int columns = shared ? a.shared_columns : a.columns, rows = shared ? a.shared_rows : a.rows;
    at->chunks = columns / CHUNK / a.split;
    int64_t column = part * at->chunks * CHUNK + lane % 8 * BF16_VECTOR;
    int64_t row = place.row + lane / 8;
    if (!shared)
        row += static_cast<int64_t>(place.expert) * rows * (KIND == EXPERTS_GATED ? 2 : 1);
    at->w = (shared ? a.shared_w : a.w) + row * columns + column;
    at->four = 4 * static_cast<int64_t>(columns);
    at->high = static_cast<int64_t>(KIND == EXPERTS_GATED ? rows : 8) * columns;
    at->tile = static_cast<int64_t>(KIND == EXPERTS_GATED ? 8 : TILE_ROWS) * columns;
#pragma unroll
    for (int n = 0; n < 2 * N_TILES; n++) {
        int index = n * 4 + lane / 8, pick = 0, token = 0;
        at->present[n] = index < place.count;
        if (at->present[n])
            token = experts_slot(a, list, place, index, &pick);
        if (KIND == EXPERTS_DENSE && a.gather != NULL)
            token = a.gather[token];
        at->x[n] = a.x + token * a.token_stride + pick * a.pick_stride + column;
    }
}

// Start the copies of a chunk into a ring's slot: weights first, then tokens.
template <int M_TILES, int N_TILES>
static __device__ __forceinline__ void experts_copy_weights(const experts_task<N_TILES> &at,
                                                            uint32_t to)
{
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        const bf16 *low = at.w + m * at.tile + at.chunk * CHUNK;
        tile_copy(to + m * WEIGHTS_BYTES, low, low + at.high, at.four);
    }
}

// The tokens of the same chunk; zeros where there is no token.
template <int M_TILES, int N_TILES>
static __device__ __forceinline__ void experts_copy_inputs(const experts_task<N_TILES> &at,
                                                           uint32_t to)
{
    to += M_TILES * WEIGHTS_BYTES;
#pragma unroll
    for (int n = 0; n < 2 * N_TILES; n++)
        copy_async(to + n * 4 * LINE_BYTES, at.x[n] + at.chunk * CHUNK, at.present[n]);
}

// x * sigmoid(x).
static __device__ __forceinline__ float silu(float x)
{
    return x / (1.0f + expf(-x));
}

// One lane's sums of a product: rows g and g + 8, tokens 2c and 2c + 1.
template <experts_kind KIND>
static __device__ __forceinline__ void
experts_store(const experts_arguments &a, const expert_list &list, const experts_place &place,
              int m, int n, float4 sum)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int row = place.row + m * (KIND == EXPERTS_GATED ? 8 : TILE_ROWS) + lane / 4;
    const float low[2] = {sum.x, sum.y}, high[2] = {sum.z, sum.w};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int index = n * TILE_TOKENS + lane % 4 * 2 + i, pick;
        if (index >= place.count)
            continue;
        int64_t token = experts_slot(a, list, place, index, &pick);
        if (KIND == EXPERTS_GATED) {
            a.middle[token * a.middle_stride + static_cast<int64_t>(pick) * a.rows + row] =
                bf16_from_float(silu(low[i]) * high[i]);
        } else if (KIND == EXPERTS_PRODUCTS) {
            float *to = a.products + (token * (a.picks + 1) + pick) * a.rows + row;
            to[0] = low[i];
            to[8] = high[i];
        } else if (a.y != NULL) {
            bf16 *to = a.y + token * a.shared_rows + row;
            to[0] = bf16_from_float(low[i]);
            to[8] = bf16_from_float(high[i]);
        } else {
            float *to = a.y_float + token * a.shared_rows + row;
            to[0] = low[i];
            to[8] = high[i];
        }
    }
}

// Shared memory of a block; parts and counts lie over one another.
struct experts_memory {
    size_t ring_bytes, parts_bytes, counts_bytes, slots_bytes, groups_bytes;
};

// Of a launch with these template arguments.
static inline experts_memory experts_memory_of(const experts_arguments &a, int m_tiles, int n_tiles,
                                               int stages, int warps)
{
    int slots = a.tokens * a.picks;
    int groups = a.sorted ? expert_groups_max(slots, a.experts, n_tiles * TILE_TOKENS) : slots;
    size_t vectors = static_cast<size_t>(m_tiles * TILE_WEIGHTS + n_tiles * TILE_INPUTS);
    size_t threads = static_cast<size_t>(warps * WARP_THREADS);
    experts_memory memory = {};
    memory.ring_bytes = static_cast<size_t>(stages) * vectors * threads * VECTOR_BYTES;
    memory.parts_bytes = static_cast<size_t>(m_tiles * n_tiles) * threads * sizeof(float4);
    memory.counts_bytes = a.sorted ? static_cast<size_t>(warps * a.experts) * 2 : 0;
    if (a.bits)
        memory.counts_bytes = expert_bits_bytes(a.tokens, a.experts);
    memory.slots_bytes = (static_cast<size_t>(slots) * 2 + 15) / 16 * 16;
    memory.groups_bytes = (static_cast<size_t>(groups) * sizeof(expert_group) + 15) / 16 * 16;
    return memory;
}

// The sum, with the overlay counted once.
static inline size_t experts_shared_bytes(const experts_memory &m)
{
    size_t overlay = m.parts_bytes > m.counts_bytes ? m.parts_bytes : m.counts_bytes;
    return m.ring_bytes + (overlay + 15) / 16 * 16 + m.slots_bytes + m.groups_bytes;
}

// Multiplies the chunk in a ring's slot; products of token tiles that are empty are left out.
template <int M_TILES, int N_TILES>
static __device__ __forceinline__ void experts_multiply(float4 (&sums)[M_TILES][N_TILES],
                                                        uint32_t slot, int count)
{
    uint4 inputs[N_TILES][TILE_INPUTS];
    uint32_t at = slot + M_TILES * WEIGHTS_BYTES;
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        if (n > 0 && n * TILE_TOKENS >= count)
            continue;
        inputs[n][0] = shared_load(at + n * INPUTS_BYTES);
        inputs[n][1] = shared_load((at ^ 64) + n * INPUTS_BYTES);
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        uint4 weights[TILE_WEIGHTS];
        tile_read_weights(weights, slot + m * WEIGHTS_BYTES);
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            if (n == 0 || n * TILE_TOKENS < count)
                tile_add(sums[m][n], weights, inputs[n]);
        }
    }
}

// Parts of a task, [warp of the group][m][n][lane], are added in the order of warps and stored.
template <experts_kind KIND, int M_TILES, int N_TILES>
static __device__ __forceinline__ void
experts_finish(const experts_arguments &a, const expert_list &list, const experts_place &place,
               const float4 *parts)
{
    constexpr int TILES = M_TILES * N_TILES;
    int part = static_cast<int>(threadIdx.x) / WARP_THREADS % a.split;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    for (int tile = part; tile < TILES; tile += a.split) {
        const float4 *from = parts + tile * WARP_THREADS + lane;
        float4 sum = from[0];
        for (int p = 1; p < a.split; p++) {
            float4 other = from[p * TILES * WARP_THREADS];
            sum.x += other.x;
            sum.y += other.y;
            sum.z += other.z;
            sum.w += other.w;
        }
        experts_store<KIND>(a, list, place, tile / N_TILES, tile % N_TILES, sum);
    }
}

// What is sorted by bits.
static __device__ __forceinline__ expert_bits experts_bits(const experts_arguments &a,
                                                           int group_tokens)
{
    return {a.ids, a.tokens, a.picks, a.experts, group_tokens, expert_bits_stride(a.tokens)};
}

// The list of a block of WARPS warps, its counts' memory cleared when it is sorted by bits. Returns
// the groups' number.
template <int WARPS, bool SORTED>
static __device__ __forceinline__ int experts_list(const experts_arguments &a,
                                                   const expert_list &list, int group_tokens)
{
    int slots = a.tokens * a.picks;
    if constexpr (!SORTED)
        return expert_list_plain(list, a.ids, slots);
    if (!a.bits)
        return expert_list_build<WARPS>(list, a.ids, slots, a.experts, group_tokens);
    expert_bits bits = experts_bits(a, group_tokens);
    expert_bits_range own = expert_bits_sort<WARPS * WARP_THREADS, EXPERTS_BITS_TURNS>(
        list.slots, bits, reinterpret_cast<uint32_t *>(list.counts));
    expert_bits_groups(list.groups, bits, own);
    __syncthreads();
    return own.tiles_all;
}

// grid: at most what is resident at once; block WARPS warps; shared experts_shared_bytes. SORTED:
// a.sorted, so that the kernel of the fewest tokens has no code that sorts.
template <experts_kind KIND, int M_TILES, int N_TILES, int STAGES, int WARPS, bool SORTED>
static __global__ void __launch_bounds__(WARPS *WARP_THREADS, 1)
    experts_kernel(const experts_arguments a, const experts_memory memory)
{
    extern __shared__ __align__(128) uint4 dynamic[];
    __shared__ uint32_t totals[WARPS];
    constexpr int STAGE_BYTES = M_TILES * WEIGHTS_BYTES + N_TILES * INPUTS_BYTES;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int group = warp / a.split, task_step = static_cast<int>(gridDim.x) * (WARPS / a.split);
    int task = static_cast<int>(blockIdx.x) * (WARPS / a.split) + group;
    uint8_t *base = reinterpret_cast<uint8_t *>(dynamic);
    expert_list list;
    list.slots = reinterpret_cast<uint16_t *>(base + memory.ring_bytes);
    list.groups = reinterpret_cast<expert_group *>(base + memory.ring_bytes + memory.slots_bytes);
    float4 *parts = reinterpret_cast<float4 *>(base + memory.ring_bytes + memory.slots_bytes +
                                               memory.groups_bytes);
    list.counts = reinterpret_cast<uint16_t *>(parts);
    list.totals = totals;
    uint32_t ring = shared_address(dynamic) + static_cast<uint32_t>(warp * STAGES * STAGE_BYTES);
    uint32_t copy_to = ring + tile_copy_offset(), read_from = ring + tile_read_offset();
    experts_task<N_TILES> next;
    int next_task = task, ahead = 0; // chunks whose weights are on their way before the list is
    if (KIND != EXPERTS_PRODUCTS) {
        experts_seek<KIND, M_TILES, N_TILES>(&next, a, list, 0, next_task);
        while (ahead < STAGES && next.chunk < next.chunks) {
            experts_copy_weights<M_TILES>(next, copy_to + ahead++ * STAGE_BYTES);
            next.chunk++;
        }
    }
    if (SORTED && a.bits) {
        expert_bits_clear(experts_bits(a, N_TILES * TILE_TOKENS),
                          reinterpret_cast<uint32_t *>(list.counts));
        __syncthreads();
    }
    if (KIND != EXPERTS_PRODUCTS) {
        pdl_wait();
        pdl_trigger();
    }
    // Second products: the picks were written two kernels ago.
    int groups = experts_list<WARPS, SORTED>(a, list, N_TILES * TILE_TOKENS);
    experts_seek<KIND, M_TILES, N_TILES>(&next, a, list, groups, next_task);
    if (KIND == EXPERTS_PRODUCTS) {
        for (; ahead < STAGES && ahead < next.chunks; ahead++) {
            next.chunk = ahead;
            experts_copy_weights<M_TILES>(next, copy_to + ahead * STAGE_BYTES);
        }
        next.chunk = 0;
        pdl_wait();
        pdl_trigger();
    }
    auto issue = [&](uint32_t to, bool weights) {
        if (next.chunk < next.chunks) {
            if (weights)
                experts_copy_weights<M_TILES>(next, to);
            experts_copy_inputs<M_TILES>(next, to);
            if (++next.chunk == next.chunks) {
                next_task += task_step;
                experts_seek<KIND, M_TILES, N_TILES>(&next, a, list, groups, next_task);
            }
        }
        copy_commit();
    };
#pragma unroll
    for (int stage = 0; stage < STAGES; stage++)
        issue(copy_to + stage * STAGE_BYTES, stage >= ahead);
    float4 *own = parts + group * a.split * M_TILES * N_TILES * WARP_THREADS;
    experts_place place;
    int stage = 0;
    for (; experts_find<KIND, M_TILES, N_TILES>(&place, a, list, groups, task); task += task_step) {
        int columns = place.expert == a.experts ? a.shared_columns : a.columns;
        float4 sums[M_TILES][N_TILES] = {};
        for (int chunk = 0; chunk < columns / CHUNK / a.split; chunk++) {
            copy_wait<STAGES - 1>();
            __syncwarp();
            experts_multiply<M_TILES, N_TILES>(sums, read_from + stage * STAGE_BYTES, place.count);
            __syncwarp();
            issue(copy_to + stage * STAGE_BYTES, true);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        barrier_sync(group, a.split * WARP_THREADS); // parts of the task before have been read
#pragma unroll
        for (int i = 0; i < M_TILES * N_TILES; i++)
            own[(warp % a.split * M_TILES * N_TILES + i) * WARP_THREADS + lane] =
                sums[i / N_TILES][i % N_TILES];
        barrier_sync(group, a.split * WARP_THREADS);
        experts_finish<KIND, M_TILES, N_TILES>(a, list, place, own);
    }
}

// Queues the tasks of all experts; shapes as experts_few_serves allows.
template <experts_kind KIND, int M_TILES, int N_TILES, int STAGES, int WARPS, bool SORTED>
static void experts_queue(cudaStream_t stream, experts_arguments a)
{
    static_assert((WARPS & (WARPS - 1)) == 0, "warps are shared out in powers of two");
    static bool prepared = false;
    auto kernel = experts_kernel<KIND, M_TILES, N_TILES, STAGES, WARPS, SORTED>;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        EXPERTS_SHARED_MAX));
    prepared = true;
    int split = KIND == EXPERTS_DENSE ? WARPS : tile_split(a.columns / CHUNK, WARPS);
    int shared_split = tile_split(a.shared_columns / CHUNK, WARPS);
    a.split = split < shared_split ? split : shared_split;
    if (KIND == EXPERTS_PRODUCTS && a.split > 1 && a.columns / CHUNK / a.split < 2)
        a.split /= 2; // two chunks a warp: half as many meetings
    a.bits = SORTED && expert_bits_serves(a.tokens, a.picks, a.experts, WARPS * WARP_THREADS,
                                          EXPERTS_BITS_TURNS, EXPERTS_BITS_BYTES);
    experts_memory memory = experts_memory_of(a, M_TILES, N_TILES, STAGES, WARPS);
    ASSERT(experts_shared_bytes(memory) <= EXPERTS_SHARED_MAX);
    launch_chained(kernel, dim3(static_cast<unsigned>(multiprocessors())),
                   dim3(WARPS * WARP_THREADS), experts_shared_bytes(memory), stream, a, memory);
}

// The same for either way of listing slots.
template <experts_kind KIND, int M_TILES, int N_TILES, int STAGES, int WARPS>
static void experts_launch(cudaStream_t stream, const experts_arguments &a)
{
    if (KIND != EXPERTS_DENSE && a.sorted)
        experts_queue<KIND, M_TILES, N_TILES, STAGES, WARPS, KIND != EXPERTS_DENSE>(stream, a);
    else
        experts_queue<KIND, M_TILES, N_TILES, STAGES, WARPS, false>(stream, a);
}
