// SPDX-License-Identifier: Apache-2.0
// moe_push_stream_sm90.cu -- experts with some to some dozen tokens: 64 rows of W stand on the long
// side of a warpgroup's product, up to 64 tokens on the short one, so that W is read once and the
// products cost little beside it. Both products are one launch: a task is (group of an expert's
// tokens, tile of its rows), first gate and up, then down, which waits for its group's counter.
// One thread fetches W by the tensor engine, from before the picks are known (the shared expert's)
// and across the border between the products; four warps gather rows of x into the same ring.
#include "kernels/device/experts_stream.cuh"

#include "kernels/device/clock.cuh"
#include "kernels/device/expert_bits.cuh"
#include "kernels/device/stream_tasks.cuh"
#include "kernels/device/tensor_copy.cuh"
#include "kernels/device/wgmma_few.cuh"

enum {
    // Fewer go through experts_few.cuh no slower, more through moe_push_sm90.cu.
    STREAM_TOKENS_MIN = 65,
    STREAM_TOKENS_MAX = 512,
    STREAM_GROUP_TOKENS = 32,
    STREAM_LIST_MAX = 200 << 10, // shared memory of the block that sorts slots
    STREAM_STAGES_MAX = 24,
    STREAM_SHARED_MAX = 226 << 10,
    STREAM_TILE_BYTES = WGMMA_ROWS * WGMMA_ROW_BYTES,
    STREAM_LOOKS_PER_CLOCK = 1024,
};

// Every block must be resident, or one could wait for another that never starts (where the GPU is
// shared out by MPS, say). Far above any step, so that a worker ends instead of hanging.
static const uint64_t STREAM_WAIT_NS_MAX = 10000000000;

// Matrices of gate and up are pairs of matrices.
struct stream_maps {
    CUtensorMap up, shared_up, down, shared_down;
};

// ---- rows of x ----

// Until `count` warps have said by done_add that they are done; what they stored is seen then. Not
// for threads that copy: it waits for their copies too. Ends the kernel with a fault after
// STREAM_WAIT_NS_MAX.
static __device__ __forceinline__ void done_wait(const int32_t *done, int count)
{
    uint64_t begun = 0;
    for (uint32_t looks = 1;; looks++) {
        int value;
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(done) : "memory");
        if (value >= count)
            return;
        if (looks % STREAM_LOOKS_PER_CLOCK != 0)
            continue;
        uint64_t now = clock_ns();
        begun = begun == 0 ? now : begun;
        if (now - begun > STREAM_WAIT_NS_MAX)
            __trap();
    }
}

static __device__ __forceinline__ void done_add(int32_t *done)
{
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(done) : "memory");
}

// One thread runs ahead and tells the block which of its tasks have their x.
template <typename SHAPE>
static __device__ __forceinline__ void stream_watch(const stream_arguments &a,
                                                    const stream_work &work)
{
    stream_task task;
    for (int n = 0; stream_find<SHAPE>(&task, a, work, n); n++) {
        if (!task.down)
            continue;
        done_wait(a.list.done + task.group, (task.shared ? a.shared_width : a.width) /
                                                stream_outputs<SHAPE>(false) * 4 * SHAPE::GROUPS);
        asm volatile("st.release.cta.shared.s32 [%0], %1;" ::"r"(shared_address(work.ready)),
                     "r"(n + 1)
                     : "memory");
    }
}

static __device__ __forceinline__ void ready_wait(const int *ready, int count)
{
    int value;
    do {
        asm volatile("ld.acquire.cta.shared.s32 %0, [%1];"
                     : "=r"(value)
                     : "r"(shared_address(ready))
                     : "memory");
    } while (value < count);
}

// What a thread copies of a task: piece thread % 8 of rows thread / 8 + 16 i.
template <typename SHAPE> struct stream_rows {
    const bf16 *x[SHAPE::X_LOADS];
    unsigned present; // bit i: there is such a row
};

template <typename SHAPE>
static __device__ __forceinline__ void stream_seek(stream_rows<SHAPE> *rows,
                                                   const stream_arguments &a,
                                                   const stream_work &work, const stream_task &at)
{
    int row = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    rows->present = 0;
#pragma unroll
    for (int i = 0; i < SHAPE::X_LOADS; i++) {
        int index = row + i * STREAM_COPY_ROWS;
        int64_t pick = 0, token = 0;
        if (index < at.count) {
            token = stream_slot(a, work, at, index, &pick);
            rows->present |= 1u << i;
        }
        rows->x[i] =
            at.down ? a.middle + token * middle_stride(a) + pick * a.width : a.x + token * a.hidden;
        rows->x[i] += piece * BF16_VECTOR;
    }
}

// The first four warps. Rows of no token keep what they hold: the sums of such columns are not
// stored.
template <typename SHAPE>
static __device__ __forceinline__ void stream_gather(const stream_arguments &a,
                                                     const stream_work &work)
{
    int row = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
    stream_task task;
    stream_rows<SHAPE> rows;
    stream_stage stage = {0, 1};
    for (int n = 0; stream_find<SHAPE>(&task, a, work, n); n++) {
        stream_seek<SHAPE>(&rows, a, work, task);
        if (task.down)
            ready_wait(work.ready, n + 1);
        for (int column = 0; column < task.columns; column += CHUNK) {
            uint32_t to = work.ring +
                          static_cast<uint32_t>(stage.index * SHAPE::STAGE_BYTES + SHAPE::W_BYTES) +
                          wgmma_swizzled(row, piece); // rows 16 apart swizzle alike
            box_barrier_wait(work.empty + stage.index, stage.parity);
#pragma unroll
            for (int i = 0; i < SHAPE::X_LOADS; i++) {
                if (rows.present >> i & 1)
                    copy_async(to + i * STREAM_COPY_ROWS * WGMMA_ROW_BYTES, rows.x[i] + column);
            }
            box_barrier_arrive_copied(work.full + stage.index);
            stream_step(&stage, a.stages);
        }
    }
}

// ---- rows of W ----

// In one thread. Fetches the rows of W of the block's tasks; `early`: of the first one, as far as
// the ring goes. fetched: stages that were filled so before.
template <typename SHAPE>
static __device__ __forceinline__ void
stream_fetch(const stream_arguments &a, const stream_work &work, const stream_maps &maps,
             int fetched, bool early)
{
    stream_task task;
    stream_stage stage = {0, 1};
    int count = 0;
    for (int n = 0; stream_find<SHAPE>(&task, a, work, n) && !(early && n > 0); n++) {
        for (int column = 0; column < task.columns; column += CHUNK) {
            if (early && count == a.stages)
                return;
            if (count++ >= fetched) {
                uint32_t to = work.ring + static_cast<uint32_t>(stage.index * SHAPE::STAGE_BYTES);
                uint64_t *full = work.full + stage.index;
                box_barrier_wait(work.empty + stage.index, stage.parity);
                box_barrier_expect(full, SHAPE::W_BYTES);
                if (task.down)
                    box_copy(to, task.shared ? &maps.shared_down : &maps.down, column,
                             task.expert * a.hidden + task.row, full);
                else
                    box_copy_pair(to, task.shared ? &maps.shared_up : &maps.up, column, task.row,
                                  task.expert, full);
            }
            stream_step(&stage, a.stages);
        }
    }
}

// ---- products ----

template <typename SHAPE> using stream_sums = float[SHAPE::HALVES][SHAPE::TOKENS / 2];

static __device__ __forceinline__ float stream_silu(float x)
{
    return x / (1.0f + expf(-x));
}

static __device__ __forceinline__ uint32_t stream_pack(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

// An 8 x 8 matrix of 16-bit values, transposed across the warp.
static __device__ __forceinline__ uint32_t stream_transpose(uint32_t from)
{
    uint32_t to;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(to) : "r"(from));
    return to;
}

// Stores a warp's products. A lane has rows lane / 4 (+ 8) of the warp's 16 in each tile, tokens
// 8 n + lane % 4 * 2 (+ 1). output: the warp's first.
template <typename SHAPE>
static __device__ __forceinline__ void
stream_store_float(const stream_arguments &a, const stream_work &work, const stream_task &at,
                   const stream_sums<SHAPE> &sums, int output)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < SHAPE::TOKENS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int index = n * 8 + lane % 4 * 2 + i;
            if (index >= at.count)
                continue;
            int64_t pick, token = stream_slot(a, work, at, index, &pick);
            float *to = static_cast<float *>(a.products) +
                        (token * (a.picks + 1) + pick) * a.hidden + output + lane / 4;
#pragma unroll
            for (int half = 0; half < SHAPE::HALVES; half++) {
                to[half * 64] = sums[half][n * 4 + i];
                to[half * 64 + 8] = sums[half][n * 4 + 2 + i];
            }
        }
    }
}

// The same rounded, silu(gate) * up or the products: transposed first, so that a lane has
// neighbouring outputs of token 8 n + lane / 4.
template <bool DOWN, typename SHAPE>
static __device__ __forceinline__ void
stream_store_bf16(const stream_arguments &a, const stream_work &work, const stream_task &at,
                  const stream_sums<SHAPE> &sums, int output)
{
    constexpr int WORDS = DOWN ? 2 : 1; // of a tile
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < SHAPE::TOKENS / 8; n++) {
        if (n * 8 >= at.count)
            break;
        uint32_t words[SHAPE::HALVES][WORDS];
        __syncwarp();
#pragma unroll
        for (int half = 0; half < SHAPE::HALVES; half++) {
            const float *own = sums[half] + n * 4;
            if (DOWN) {
                words[half][0] = stream_transpose(stream_pack(own[0], own[1]));
                words[half][WORDS - 1] = stream_transpose(stream_pack(own[2], own[3]));
            } else {
                words[half][0] = stream_transpose(
                    stream_pack(stream_silu(own[0]) * own[2], stream_silu(own[1]) * own[3]));
            }
        }
        int index = n * 8 + lane / 4;
        if (index >= at.count)
            continue;
        int64_t pick, token = stream_slot(a, work, at, index, &pick);
        bf16 *to = DOWN
                       ? static_cast<bf16 *>(a.products) + (token * (a.picks + 1) + pick) * a.hidden
                       : a.middle + token * middle_stride(a) + pick * a.width;
        to += output + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < SHAPE::HALVES; half++) {
#pragma unroll
            for (int i = 0; i < WORDS; i++)
                *reinterpret_cast<uint32_t *>(to + (half * 4 * WORDS + i) * 8) = words[half][i];
        }
    }
}

// All products of a task; the ring's stages are given back. group: of the warp.
template <typename SHAPE>
static __device__ __forceinline__ void
stream_multiply(stream_sums<SHAPE> &sums, const stream_arguments &a, const stream_work &work,
                int columns, int group, stream_stage *stage)
{
    bool leader = threadIdx.x % WARP_THREADS == 0;
    int last = 0;
    for (int column = 0; column < columns; column += CHUNK) {
        uint32_t from = work.ring + static_cast<uint32_t>(stage->index * SHAPE::STAGE_BYTES);
        box_barrier_wait(work.full + stage->index, stage->parity);
        wgmma_publish(); // the rows of x, which other threads have copied
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < CHUNK / WGMMA_DEPTH; k++) {
            uint64_t x = wgmma_descriptor(from + SHAPE::W_BYTES) + k * 2;
#pragma unroll
            for (int half = 0; half < SHAPE::HALVES; half++) {
                uint32_t tile = from + (group * SHAPE::HALVES + half) * STREAM_TILE_BYTES;
                wgmma_few(sums[half], wgmma_descriptor(tile) + k * 2, x, column > 0 || k > 0);
            }
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (column > 0 && leader)
            box_barrier_arrive(work.empty + last);
        last = stage->index;
        stream_step(stage, a.stages);
    }
    wgmma_wait<0>();
#pragma unroll
    for (int half = 0; half < SHAPE::HALVES; half++) {
#pragma unroll
        for (int i = 0; i < SHAPE::TOKENS / 2; i++)
            ASM_SM90("" : "+f"(sums[half][i])::"memory");
    }
    if (leader)
        box_barrier_arrive(work.empty + last);
}

// The groups that multiply.
template <bool FLOAT, typename SHAPE>
static __device__ __forceinline__ void stream_produce(const stream_arguments &a,
                                                      const stream_work &work)
{
    // By a shuffle, so that the compiler sees that a warp agrees: products may not diverge.
    int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / STREAM_GROUP - 1, 0);
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS % 4;
    stream_task task;
    stream_stage stage = {0, 0};
    for (int n = 0; stream_find<SHAPE>(&task, a, work, n); n++) {
        stream_sums<SHAPE> sums;
        stream_multiply<SHAPE>(sums, a, work, task.columns, group, &stage);
        int output = task.row + (group * SHAPE::HALVES * 4 + warp) * (task.down ? 16 : 8);
        if (!task.down) {
            stream_store_bf16<false, SHAPE>(a, work, task, sums, output);
            __syncwarp();
            if (threadIdx.x % WARP_THREADS == 0)
                done_add(a.list.done + task.group);
        } else if (FLOAT) {
            stream_store_float<SHAPE>(a, work, task, sums, output);
        } else {
            stream_store_bf16<true, SHAPE>(a, work, task, sums, output);
        }
        __syncwarp();
    }
}

// ---- kernels ----

// Whole vectors, as stream_place counts them: all groups, of which the list writes those that there
// are, behind a barrier of the block, and slots behind the last one. By all threads.
static __device__ __forceinline__ void stream_clear(const stream_list &to, int slots, int groups)
{
    int thread = static_cast<int>(threadIdx.x);
    for (int i = thread; i < (groups + 1) / 2; i += static_cast<int>(blockDim.x))
        reinterpret_cast<uint4 *>(to.groups)[i] = make_uint4(0, 0, 0, 0);
    if (thread < (slots + 7) / 8 * 8 - slots)
        to.slots[slots + thread] = 0;
}

// One block; shared expert_bits_bytes. Slots in groups, and `counters` counters at zero. The rest
// of what stream_take reads is zeros.
static __global__ void __launch_bounds__(BITS_THREADS)
    stream_list_kernel(const stream_list to, const expert_bits bits, int counters)
{
    extern __shared__ uint32_t words[];
    expert_bits_clear(bits, words);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    for (int i = static_cast<int>(threadIdx.x); i < counters; i += BITS_THREADS)
        to.done[i] = 0;
    stream_clear(to, bits.tokens * bits.picks,
                 expert_groups_max(bits.tokens * bits.picks, bits.experts, bits.tile_tokens));
    expert_bits_range own = expert_bits_sort<BITS_THREADS, BITS_TURNS>(to.slots, bits, words);
    expert_bits_groups(to.groups, bits, own);
    if (threadIdx.x == 0)
        *to.count = own.tiles_all;
}

// A multiple of 16 bytes into shared memory, by all threads.
static __device__ __forceinline__ void stream_take(void *to, const void *from, int bytes)
{
    for (int i = static_cast<int>(threadIdx.x); i < bytes / VECTOR_BYTES;
         i += static_cast<int>(blockDim.x))
        static_cast<uint4 *>(to)[i] = static_cast<const uint4 *>(from)[i];
}

// grid: one block per multiprocessor, all resident. The first four warps gather x, the last one's
// first thread fetches W. shared: ring, slots, groups. FLOAT: products stay unrounded.
template <bool FLOAT, typename SHAPE>
static __global__ void __launch_bounds__(SHAPE::THREADS, 1)
    experts_stream_kernel(const stream_arguments a, const __grid_constant__ stream_maps maps)
{
    extern __shared__ uint8_t dynamic[];
    __shared__ uint64_t barriers[2 * STREAM_STAGES_MAX];
    __shared__ int ready;
    stream_work work;
    work.ring = (shared_address(dynamic) + 1023) / 1024 * 1024;
    work.full = barriers;
    work.empty = barriers + STREAM_STAGES_MAX;
    work.ready = &ready;
    uint8_t *slots =
        dynamic + (work.ring - shared_address(dynamic)) + a.stages * SHAPE::STAGE_BYTES;
    uint8_t *groups = slots + a.slots_bytes;
    work.slots = reinterpret_cast<uint16_t *>(slots);
    work.group_of = reinterpret_cast<expert_group *>(groups);
    stream_count<SHAPE>(&work, a, 0);
    // Before the picks are known: the block's first task may be one of the shared expert.
    int fetched = static_cast<int>(blockIdx.x) < work.up_tasks ? a.hidden / CHUNK : 0;
    fetched = fetched < a.stages ? fetched : a.stages;
    if (threadIdx.x == SHAPE::FETCHER) {
        for (int i = 0; i < a.stages; i++) {
            box_barrier_init(work.full + i, STREAM_GROUP + 1);
            box_barrier_init(work.empty + i, 4 * SHAPE::GROUPS);
        }
        box_barriers_ready();
        ready = 0;
        if (fetched > 0)
            stream_fetch<SHAPE>(a, work, maps, 0, true);
    }
    pdl_wait();
    pdl_trigger();
    int count = *a.list.count;
    stream_take(slots, a.list.slots, a.slots_bytes);
    stream_take(groups, a.list.groups, a.groups_bytes);
    stream_count<SHAPE>(&work, a, count);
    __syncthreads();
    if (threadIdx.x < STREAM_GROUP)
        stream_gather<SHAPE>(a, work);
    else if (threadIdx.x < SHAPE::FETCHER)
        stream_produce<FLOAT, SHAPE>(a, work);
    else if (threadIdx.x == SHAPE::FETCHER)
        stream_fetch<SHAPE>(a, work, maps, fetched, false);
    else if (threadIdx.x == SHAPE::WATCHER)
        stream_watch<SHAPE>(a, work);
}

// ---- launches ----

// Where the list stands: groups, then slots in op->lists, their number and counters in op->partial.
// False when it does not fit.
static bool stream_place(stream_arguments *a, const struct moe_push *op, int group_tokens)
{
    int slots = op->tokens * op->picks;
    int groups = expert_groups_max(slots, op->experts, group_tokens);
    int counters = 1 + groups + (op->tokens + group_tokens - 1) / group_tokens;
    uint64_t lists_bytes = moe_lists_count(op->tokens, op->picks, op->experts) * 4;
    a->groups_bytes = (groups + 1) / 2 * VECTOR_BYTES;
    a->slots_bytes = (slots + 7) / 8 * VECTOR_BYTES;
    a->list.groups = reinterpret_cast<expert_group *>(op->lists);
    a->list.slots = reinterpret_cast<uint16_t *>(op->lists + a->groups_bytes / 4);
    a->list.count = reinterpret_cast<int32_t *>(op->partial);
    a->list.done = a->list.count + 1;
    return static_cast<uint64_t>(a->groups_bytes + a->slots_bytes) <= lists_bytes &&
           static_cast<int64_t>(counters) * 2 <= static_cast<int64_t>(op->tokens) * op->hidden;
}

template <bool FLOAT, typename SHAPE>
static void stream_launch(cudaStream_t stream, const struct moe_push *op, stream_arguments a)
{
    static bool prepared = false;
    auto kernel = experts_stream_kernel<FLOAT, SHAPE>;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        STREAM_SHARED_MAX));
    prepared = true;
    stream_maps maps;
    box_map_pairs(&maps.up, op->gate_up.data, op->experts, op->width, op->hidden, SHAPE::ROWS);
    box_map_pairs(&maps.shared_up, op->shared_gate_up.data, 1, op->shared_width, op->hidden,
                  SHAPE::ROWS);
    box_map(&maps.down, op->down.data, static_cast<int64_t>(op->experts) * op->hidden, op->width,
            SHAPE::ROWS);
    box_map(&maps.shared_down, op->shared_down.data, op->hidden, op->shared_width, SHAPE::ROWS);
    int list_bytes = a.slots_bytes + a.groups_bytes;
    a.stages = (STREAM_SHARED_MAX - 1024 - list_bytes) / SHAPE::STAGE_BYTES;
    a.stages = a.stages < STREAM_STAGES_MAX ? a.stages : STREAM_STAGES_MAX;
    launch_chained(kernel, dim3(static_cast<unsigned>(multiprocessors())), dim3(SHAPE::THREADS),
                   static_cast<size_t>(1024 + a.stages * SHAPE::STAGE_BYTES + list_bytes), stream,
                   a, maps);
}

template <typename SHAPE> static void stream_queue(cudaStream_t stream, const struct moe_push *op)
{
    static bool prepared = false;
    int slots = op->tokens * op->picks;
    stream_arguments a = {};
    a.x = op->x;
    a.middle = op->middle;
    a.products = op->products;
    a.tokens = op->tokens;
    a.picks = op->picks;
    a.hidden = op->hidden;
    a.width = op->width;
    a.shared_width = op->shared_width;
    bool placed = stream_place(&a, op, SHAPE::TOKENS);
    ASSERT(placed);
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(
            stream_list_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, STREAM_LIST_MAX));
    prepared = true;
    int counters = expert_groups_max(slots, op->experts, SHAPE::TOKENS) +
                   (op->tokens + SHAPE::TOKENS - 1) / SHAPE::TOKENS;
    expert_bits bits = {op->expert_ids, op->tokens,    op->picks,
                        op->experts,    SHAPE::TOKENS, expert_bits_stride(op->tokens)};
    launch_chained(stream_list_kernel, dim3(1), dim3(BITS_THREADS),
                   expert_bits_bytes(op->tokens, op->experts), stream, a.list, bits, counters);
    if (op->tokens <= MOE_FLOAT_TOKENS_MAX)
        stream_launch<true, SHAPE>(stream, op, a);
    else
        stream_launch<false, SHAPE>(stream, op, a);
}

// Whether matrices are cut by tasks of that many rows of W.
static bool stream_divides(const struct moe_push *op, int rows)
{
    return op->hidden % rows == 0 && op->width % (rows / 2) == 0 &&
           op->shared_width % (rows / 2) == 0;
}

bool experts_stream_serves(const struct moe_push *op)
{
    stream_arguments a;
    return device_is_sm90() && op->tokens >= STREAM_TOKENS_MIN && op->tokens <= STREAM_TOKENS_MAX &&
           expert_bits_serves(op->tokens, op->picks, op->experts, BITS_THREADS, BITS_TURNS,
                              STREAM_LIST_MAX) &&
           op->width % CHUNK == 0 && op->shared_width > 0 && op->shared_width % CHUNK == 0 &&
           stream_divides(op, WGMMA_ROWS) && stream_place(&a, op, STREAM_GROUP_TOKENS);
}

void experts_stream(cudaStream_t stream, const struct moe_push *op)
{
    if (stream_divides(op, 4 * WGMMA_ROWS))
        stream_queue<stream_shape<2, 2, STREAM_GROUP_TOKENS>>(stream, op);
    else if (stream_divides(op, 2 * WGMMA_ROWS))
        stream_queue<stream_shape<2, 1, STREAM_GROUP_TOKENS>>(stream, op);
    else
        stream_queue<stream_shape<1, 1, STREAM_GROUP_TOKENS>>(stream, op);
}
