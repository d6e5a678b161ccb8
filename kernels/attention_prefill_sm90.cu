// SPDX-License-Identifier: Apache-2.0
// attention_prefill_sm90.cu -- prefill rows with heads of 256 by Hopper's warp-group products. A
// block a multiprocessor takes tile after tile: one warp finds them and has pages copied into a
// ring, two warp groups of 64 queries each read queries and keys from shared memory and keep
// weights and sums in registers. The product of the next page's scores and the weighted sum of this
// page's values run under the softmax; the groups wait for pages only, never for one another.
#include <cuda.h>

#include "kernels/device/attention_queries.cuh"
#include "kernels/device/barrier.cuh"

enum {
    PAGE_PANEL_BYTES = PAGE_TOKENS * PANEL_ROW_BYTES,
    GROUP_THREADS = 128, // of a warp group
    GROUP_QUERIES = 64,
    SM90_THREADS = 3 * GROUP_THREADS, // one group to find and copy, two to multiply
    RING_PAGES = 5,                   // keys and values by turns
    TOLD = 3,                         // tiles that are known at once
};

struct sm90_shared {
    uint64_t full[RING_PAGES], empty[RING_PAGES]; // pages
    uint64_t told[TOLD], done[TOLD];              // tiles
    work items[TOLD];
    struct finder finder;
};

enum {
    RING_BYTES = RING_PAGES * PAGE_BYTES,
    SM90_BYTES = QUERY_BYTES + RING_BYTES + static_cast<int>(sizeof(sm90_shared)),
};

// What a product needs to know of a swizzled operand: its address, and the distances between its
// panels and between groups of eight rows (PTX ISA, matrix descriptor of wgmma).
static __device__ __forceinline__ uint64_t describe(uint32_t address, int panel_bytes)
{
    const uint64_t swizzle_128 = 1ull << 62, rows = 8 * PANEL_ROW_BYTES / 16;
    return swizzle_128 | rows << 32 | static_cast<uint64_t>(panel_bytes / 16) << 16 |
           (address & 0x3ffff) >> 4;
}

// The compiler knows nothing of work under way: what a product reads or writes is tied to the place
// where it has been waited for, else uses move up, or registers get a second tenant too early.
template <int COUNT> static __device__ __forceinline__ void hold(float (&values)[COUNT][4])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile(""
                     : "+f"(values[i][0]), "+f"(values[i][1]), "+f"(values[i][2]),
                       "+f"(values[i][3])::"memory");
}

template <int COUNT> static __device__ __forceinline__ void hold(uint32_t (&values)[COUNT][4])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile(""
                     : "+r"(values[i][0]), "+r"(values[i][1]), "+r"(values[i][2]),
                       "+r"(values[i][3])::"memory");
}

#define RESULTS_4(d, i) "=f"(d[i][0]), "=f"(d[i][1]), "=f"(d[i][2]), "=f"(d[i][3])

// d [64, 64] = a [64, 16] b [64, 16]^T, both in shared memory.
static __device__ __forceinline__ void multiply(float (&d)[8][4], uint64_t a, uint64_t b)
{
    ASM_SM90("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "}, %32, %33, 0, 1, 1, 0, 0;\n"
             : RESULTS_4(d, 0), RESULTS_4(d, 1), RESULTS_4(d, 2), RESULTS_4(d, 3), RESULTS_4(d, 4),
               RESULTS_4(d, 5), RESULTS_4(d, 6), RESULTS_4(d, 7)
             : "l"(a), "l"(b));
}

// The same, added to d.
static __device__ __forceinline__ void multiply_add(float (&d)[8][4], uint64_t a, uint64_t b)
{
    ASM_SM90("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "}, %32, %33, 1, 1, 1, 0, 0;\n"
             : WGMMA_SUMS_32(d, 0)
             : "l"(a), "l"(b));
}

// d [64, 256] += a [64, 16] b [16, 256], a in registers.
static __device__ __forceinline__ void multiply_add(float (&d)[HEAD_DIM / 8][4],
                                                    const uint32_t (&a)[4], uint64_t b)
{
    ASM_SM90("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "," WGMMA_NAMES_32 "," WGMMA_NAMES_64 "," WGMMA_NAMES_96
             "}, {%128,%129,%130,%131}, %132, 1, 1, 1, 1;\n"
             : WGMMA_SUMS_32(d, 0), WGMMA_SUMS_32(d, 8), WGMMA_SUMS_32(d, 16), WGMMA_SUMS_32(d, 24)
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Queues scores = queries x keys^T of a warp group.
static __device__ __forceinline__ void queue_scores(float (&scores)[PAGE_TOKENS / 8][4],
                                                    uint32_t queries, uint32_t keys)
{
    multiply(scores, describe(queries, 16), describe(keys, 16));
#pragma unroll
    for (int step = 1; step < HEAD_DIM / 16; step++) {
        uint32_t in_panel = step % 4 * 32;
        multiply_add(scores, describe(queries + step / 4 * QUERY_PANEL_BYTES + in_panel, 16),
                     describe(keys + step / 4 * PAGE_PANEL_BYTES + in_panel, 16));
    }
    wgmma_commit();
}

// Queues sum += weights x values.
static __device__ __forceinline__ void queue_values(prefill_state *r, uint32_t values,
                                                    const uint32_t (&weights)[PAGE_TOKENS / 16][4])
{
#pragma unroll
    for (int step = 0; step < PAGE_TOKENS / 16; step++)
        multiply_add(r->sum, weights[step],
                     describe(values + step * 16 * PANEL_ROW_BYTES, PAGE_PANEL_BYTES));
    wgmma_commit();
}

// Scores become weights relative to the largest so far; `keep` is what older sums are worth now.
static __device__ __forceinline__ void weigh(float (&keep)[2], prefill_state *r,
                                             float (&scores)[PAGE_TOKENS / 8][4])
{
    const float scale = 1.4426950408889634f / 16; // log2 e / sqrt(256)
    float base[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float top = r->largest[h];
#pragma unroll
        for (int j = 0; j < PAGE_TOKENS / 8; j++)
            top = fmaxf(top, fmaxf(scores[j][2 * h], scores[j][2 * h + 1]));
        top = quad_max(top);
        base[h] = top == -INFINITY ? 0.0f : top * scale; // nothing seen yet
        keep[h] = power_of_2(r->largest[h] * scale - base[h]);
        r->largest[h] = top;
        r->weight[h] *= keep[h];
    }
#pragma unroll
    for (int j = 0; j < PAGE_TOKENS / 8; j++) {
#pragma unroll
        for (int k = 0; k < 4; k++)
            scores[j][k] = power_of_2(fmaf(scores[j][k], scale, -base[k / 2]));
        r->weight[0] += scores[j][0] + scores[j][1];
        r->weight[1] += scores[j][2] + scores[j][3];
    }
}

// Rounded, as the left factor of the next product.
static __device__ __forceinline__ void pack(uint32_t (&weights)[PAGE_TOKENS / 16][4],
                                            const float (&scores)[PAGE_TOKENS / 8][4])
{
#pragma unroll
    for (int j = 0; j < PAGE_TOKENS / 8; j++) {
        weights[j / 2][j % 2 * 2] = bf16_pair(scores[j][0], scores[j][1]);
        weights[j / 2][j % 2 * 2 + 1] = bf16_pair(scores[j][2], scores[j][3]);
    }
}

// Once pages are many, mostly no query of a warp has met a larger score, and sums stay.
static __device__ __forceinline__ void scale_sums(prefill_state *r, const float (&keep)[2])
{
    if (!__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f))
        return;
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j++) {
        r->sum[j][0] *= keep[0];
        r->sum[j][1] *= keep[0];
        r->sum[j][2] *= keep[1];
        r->sum[j][3] *= keep[1];
    }
}

// ---- the warp that finds tiles and copies pages ----

// Queues the copy of a page into the ring, as number `count` since the beginning.
static __device__ __forceinline__ void copy_page(sm90_shared *s, unsigned count,
                                                 const CUtensorMap *pages, int row)
{
    unsigned slot = count % RING_PAGES;
    barrier_wait(&s->empty[slot], count / RING_PAGES % 2 ^ 1);
    if (threadIdx.x % WARP_THREADS == 0) {
        barrier_expect(&s->full[slot], PAGE_BYTES);
        ASM_SM90("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(s) -
                                                         (RING_PAGES - slot) * PAGE_BYTES),
                 "l"(pages), "r"(0), "r"(row), "r"(0), "r"(shared_address(&s->full[slot]))
                 : "memory");
    }
    __syncwarp();
}

// Queries or gates of a token into L2.
static __device__ __forceinline__ void prefetch_heads(const bf16 *from, int heads)
{
    ASM_SM90("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(heads * HEAD_BYTES)
             : "memory");
}

// Finds the n-th tile, tells of it, and has its queries and gates brought nearer.
static __device__ __forceinline__ void tell_work(sm90_shared *s, const struct attention &op, int n)
{
    work *item = &s->items[n % TOLD];
    barrier_wait(&s->done[n % TOLD], static_cast<uint32_t>(n / TOLD % 2) ^ 1);
    find_work(item, &s->finder, op, n);
    if (threadIdx.x == 0)
        barrier_arrive(&s->told[n % TOLD]);
    if (item->units == 0)
        return;
    int group = item->group, last = item->view.active * group - 1;
    int token_last = min(item->first + PREFILL_QUERIES - 1, last) / group;
    for (int token = item->first / group + static_cast<int>(threadIdx.x); token <= token_last;
         token += WARP_THREADS) {
        const bf16 *from =
            op.projected +
            static_cast<int64_t>(item->view.token_first + token) * op.projected_stride +
            item->kv_head * group * HEAD_DIM;
        prefetch_heads(from, group);
        prefetch_heads(from + op.heads * HEAD_DIM, group);
    }
}

// Warp 0. The next tile is found behind the first pages of one, so that it costs no wait.
static __device__ __forceinline__ void produce(sm90_shared *s, const struct attention &op,
                                               const CUtensorMap *keys, const CUtensorMap *values)
{
    int lane = static_cast<int>(threadIdx.x);
    unsigned count = 0;
    finder_init(&s->finder, op);
#pragma unroll 1
    for (int n = -1;; n++) { // -1: only finds the first one
        const work *item = &s->items[(n + TOLD) % TOLD];
        int own = 0;
        if (n >= 0 && item->units == 0)
            break;
#pragma unroll 1
        for (int unit = 0; unit < (n < 0 ? 1 : item->units); unit++) {
            if (n >= 0) {
                if (unit % WARP_THREADS == 0 && unit + lane < item->units)
                    own = op.slots.block_table[static_cast<int64_t>(item->view.slot) *
                                                   op.slots.pages_per_sequence +
                                               unit + lane];
                int page = __shfl_sync(0xffffffffu, own, unit % WARP_THREADS);
                int row = (page * op.kv_heads + item->kv_head) * PAGE_TOKENS;
                copy_page(s, count, keys, row);
                copy_page(s, count + 1, values, row);
                count += 2;
            }
            if (unit == (n < 0 ? 0 : min(1, item->units - 1)))
                tell_work(s, op, n + 1);
        }
        if (n < 0)
            pdl_wait();
    }
}

// ---- the warp groups that multiply ----

static __device__ __forceinline__ void group_barrier(int group)
{
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

// Where the ring is read: every page is of one parity of its slot.
struct place {
    int slot;
    uint32_t parity;
};

static __device__ __forceinline__ void step(place *at)
{
    if (++at->slot == RING_PAGES) {
        at->slot = 0;
        at->parity ^= 1;
    }
}

// Values of a page from `known` on are zeros: nobody wrote what lies there. A warp group.
static __device__ __forceinline__ void clear_values(char *values, int known)
{
    for (int i = fresh_thread() % GROUP_THREADS + known * 32; i < PAGE_TOKENS * 32;
         i += GROUP_THREADS)
        *reinterpret_cast<uint4 *>(values + i % 32 / 8 * PAGE_PANEL_BYTES +
                                   wgmma_swizzled(i / 32, i % 8)) = make_uint4(0, 0, 0, 0);
    wgmma_publish();
}

// A slot is read by this warp. Lane 0 arrives.
static __device__ __forceinline__ void release(uint64_t *empty)
{
    if (fresh_thread() % WARP_THREADS == 0)
        barrier_arrive(empty);
}

// The first scores of a tile become weights: nothing runs beside them.
static __device__ __forceinline__ void begin_tile(prefill_state *r,
                                                  uint32_t (&weights)[PAGE_TOKENS / 16][4],
                                                  uint32_t queries, uint32_t keys,
                                                  const int (&position)[2], int position_first)
{
    float scores[PAGE_TOKENS / 8][4], keep[2];
    wgmma_begin();
    queue_scores(scores, queries, keys);
    wgmma_wait<0>();
    hold(scores);
    hide(scores, 0, position, position_first);
    weigh(keep, r, scores);
    pack(weights, scores);
}

// One tile by a warp group. The place of the ring goes on from tile to tile.
static __device__ __forceinline__ void consume_tile(char *shared, sm90_shared *s, place *at,
                                                    const struct attention &op, const work &item)
{
    int thread = fresh_thread() - GROUP_THREADS, warp = thread / WARP_THREADS;
    int lane = thread % WARP_THREADS, half = thread / GROUP_THREADS;
    uint32_t ring = shared_address(shared) + QUERY_BYTES;
    uint32_t own =
        shared_address(shared) + static_cast<uint32_t>(half) * GROUP_QUERIES * PANEL_ROW_BYTES;
    load_queries(shared, op, item, warp);
    wgmma_publish();
    group_barrier(half);
    int last = item.view.active * item.group - 1, query = item.first + warp * 16 + lane / 4;
    const int position[2] = {item.view.position + min(query, last) / item.group,
                             item.view.position + min(query + 8, last) / item.group};
    int hidden_from = // keys from here on are hidden from some query of the group
        item.view.position + (item.first + half * GROUP_QUERIES) / item.group;
    int units = item.units;
    prefill_state r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    uint32_t weights[PAGE_TOKENS / 16][4];
    barrier_wait(&s->full[at->slot], at->parity);
    begin_tile(&r, weights, own, ring + static_cast<uint32_t>(at->slot) * PAGE_BYTES, position,
               op.position_first);
    release(&s->empty[at->slot]);
    step(at);
    for (int unit = 1; unit < units; unit++) {
        float scores[PAGE_TOKENS / 8][4], keep[2];
        asm volatile("" : "+r"(own)); // what descriptors are made of it are not kept
        place values = *at, keys = *at;
        step(&keys);
        *at = keys;
        step(at);
        barrier_wait(&s->full[values.slot], values.parity);
        barrier_wait(&s->full[keys.slot], keys.parity);
        hold(r.sum);
        hold(weights);
        wgmma_begin();
        queue_scores(scores, own, ring + static_cast<uint32_t>(keys.slot) * PAGE_BYTES);
        queue_values(&r, ring + static_cast<uint32_t>(values.slot) * PAGE_BYTES, weights);
        wgmma_wait<1>();
        hold(scores);
        release(&s->empty[keys.slot]);
        if ((unit + 1) * PAGE_TOKENS > hidden_from)
            hide(scores, unit * PAGE_TOKENS, position, op.position_first);
        weigh(keep, &r, scores);
        wgmma_wait<0>();
        hold(r.sum);
        hold(weights);
        release(&s->empty[values.slot]);
        scale_sums(&r, keep);
        pack(weights, scores);
    }
    uint4 gates[ROUNDS][PANELS];
    load_gates(gates, op, item, warp); // they come while the last values are added
    barrier_wait(&s->full[at->slot], at->parity);
    clear_values(shared + QUERY_BYTES + at->slot * PAGE_BYTES, item.known);
    group_barrier(half);
    hold(r.sum);
    hold(weights);
    wgmma_begin();
    queue_values(&r, ring + static_cast<uint32_t>(at->slot) * PAGE_BYTES, weights);
    wgmma_wait<0>();
    hold(r.sum);
    release(&s->empty[at->slot]);
    step(at);
    group_barrier(half); // all queries are read
    store_sums(&r, gates, shared + warp * 16 * PANEL_ROW_BYTES, op, item, item.first + warp * 16);
}

// Grid: a block a multiprocessor. Chained after append_rows_kernel: the tables are older than that,
// so the first tile is found before the wait. keys, values: of pages, copied whole.
static __global__ void __launch_bounds__(SM90_THREADS, 1)
    prefill_sm90_kernel(struct attention op, const __grid_constant__ CUtensorMap keys,
                        const __grid_constant__ CUtensorMap values)
{
    extern __shared__ __align__(1024) char shared[];
    sm90_shared *s = reinterpret_cast<sm90_shared *>(shared + QUERY_BYTES + RING_BYTES);
    if (threadIdx.x == 0) {
        for (int i = 0; i < RING_PAGES; i++) {
            barrier_init(&s->full[i], 1);
            barrier_init(&s->empty[i], PREFILL_WARPS);
        }
        for (int i = 0; i < TOLD; i++) {
            barrier_init(&s->told[i], 1);
            barrier_init(&s->done[i], PREFILL_WARPS);
        }
        wgmma_publish();
    }
    __syncthreads();
    if (threadIdx.x < GROUP_THREADS) { // registers go to those who multiply
        ASM_SM90("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x < WARP_THREADS)
            produce(s, op, &keys, &values);
        else
            pdl_wait();
    } else {
        ASM_SM90("setmaxnreg.inc.sync.aligned.u32 232;");
        place at = {0, 0};
        pdl_wait();
        for (int n = 0;; n++) {
            barrier_wait(&s->told[n % TOLD], static_cast<uint32_t>(n / TOLD % 2));
            const work *item = &s->items[n % TOLD];
            if (item->units == 0)
                break;
            consume_tile(shared, s, &at, op, *item);
            __syncwarp();
            release(&s->done[n % TOLD]);
        }
    }
    pdl_trigger();
}

// Pages of one head as [token, dimension] are copied by panels. How many pages there are is not
// said: the block tables name those that are.
static CUtensorMap describe_pages(const bf16 *pages)
{
    typedef CUresult encode(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                            const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                            const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static encode *const function = [] { // of the driver, which nobody links
        void *found = NULL;
        cudaDriverEntryPointQueryResult result;
        CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                    cudaEnableDefault, &result));
        return reinterpret_cast<encode *>(found);
    }();
    const cuuint64_t sizes[3] = {PANEL_DIMS, 1ull << 31, PANELS};
    const cuuint64_t strides[2] = {HEAD_BYTES, PANEL_ROW_BYTES};
    const cuuint32_t box[3] = {PANEL_DIMS, PAGE_TOKENS, PANELS}, every[3] = {1, 1, 1};
    CUtensorMap map;
    ASSERT(function != NULL);
    CUresult result =
        function(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<bf16 *>(pages), sizes,
                 strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    ASSERT(result == CUDA_SUCCESS);
    return map;
}

bool attention_prefill_sm90(struct stream *stream, const struct attention *op)
{
    static const bool fits = [] {
        if (!device_is_sm90())
            return false;
        CUDA_CHECK(cudaFuncSetAttribute(prefill_sm90_kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, SM90_BYTES));
        return true;
    }();
    if (fits)
        launch_chained(prefill_sm90_kernel, dim3(static_cast<unsigned>(multiprocessors())),
                       dim3(SM90_THREADS), SM90_BYTES, stream->handle, *op,
                       describe_pages(op->k_pages), describe_pages(op->v_pages));
    return fits;
}
