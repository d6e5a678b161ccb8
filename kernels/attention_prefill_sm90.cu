// SPDX-License-Identifier: Apache-2.0
// attention_prefill_sm90.cu -- prefill rows with heads of 256 by Hopper's warp-group products: two
// warp groups of 64 queries each, which read queries and keys from shared memory and keep weights
// and sums in registers. The product of the next page's scores and the weighted sum of this page's
// values run under the softmax.
//
// Tiles lie in shared memory as panels of 64 dimensions (128 bytes a row), chunk c of row r at
// place c ^ (r % 8): the layout that the products call swizzle 128.
#include "kernels/device/attention_prefill.cuh"
#include "kernels/device/wgmma.cuh"

enum {
    PANEL_DIMS = 64,
    PANEL_ROW_BYTES = PANEL_DIMS * 2,
    PAGE_PANEL_BYTES = PAGE_TOKENS * PANEL_ROW_BYTES,
    QUERY_PANEL_BYTES = PREFILL_QUERIES * PANEL_ROW_BYTES,
    GROUP_THREADS = 128, // of a warp group
    RING_BYTES = 4 * PAGE_BYTES,
    SM90_BYTES = QUERY_BYTES + RING_BYTES + static_cast<int>(sizeof(prefill_share)),
};

static __device__ __forceinline__ uint32_t panel_at(int row, int chunk, int panel_bytes)
{
    return static_cast<uint32_t>(chunk / 8 * panel_bytes + row * PANEL_ROW_BYTES +
                                 ((chunk % 8 ^ (row & 7)) << 4));
}

static __device__ __forceinline__ uint32_t query_at(int row, int chunk)
{
    return panel_at(row, chunk, QUERY_PANEL_BYTES);
}

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

// d [64, 64] (+)= a [64, 16] b [64, 16]^T, both in shared memory.
static __device__ __forceinline__ void multiply_shared(float (&d)[8][4], uint64_t a, uint64_t b,
                                                       int accumulate)
{
    ASM_SM90("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
             "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "}, %32, %33, p, 1, 1, 0, 0;\n}"
             : WGMMA_SUMS_32(d, 0)
             : "l"(a), "l"(b), "r"(accumulate));
}

// d[first ..] [64, 64] += a [64, 16] b [16, 64], a in registers.
template <int FIRST>
static __device__ __forceinline__ void multiply_registers(float (&d)[HEAD_DIM / 8][4],
                                                          const uint32_t (&a)[4], uint64_t b)
{
    ASM_SM90("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WGMMA_NAMES_0
             "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
             : WGMMA_SUMS_32(d, FIRST)
             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Queues scores = queries x keys^T of a warp group.
static __device__ __forceinline__ void queue_scores(float (&scores)[PAGE_TOKENS / 8][4],
                                                    uint32_t queries, uint32_t keys)
{
#pragma unroll
    for (int step = 0; step < HEAD_DIM / 16; step++) {
        uint32_t in_panel = step % 4 * 32;
        multiply_shared(scores, describe(queries + step / 4 * QUERY_PANEL_BYTES + in_panel, 16),
                        describe(keys + step / 4 * PAGE_PANEL_BYTES + in_panel, 16), step > 0);
    }
    wgmma_commit();
}

// Queues sum += weights x values.
static __device__ __forceinline__ void queue_values(prefill_state *r, uint32_t values,
                                                    const uint32_t (&weights)[PAGE_TOKENS / 16][4])
{
#pragma unroll
    for (int step = 0; step < PAGE_TOKENS / 16; step++) {
        uint32_t at = values + step * 16 * PANEL_ROW_BYTES;
        multiply_registers<0>(r->sum, weights[step], describe(at, PAGE_PANEL_BYTES));
        multiply_registers<8>(r->sum, weights[step],
                              describe(at + PAGE_PANEL_BYTES, PAGE_PANEL_BYTES));
        multiply_registers<16>(r->sum, weights[step],
                               describe(at + 2 * PAGE_PANEL_BYTES, PAGE_PANEL_BYTES));
        multiply_registers<24>(r->sum, weights[step],
                               describe(at + 3 * PAGE_PANEL_BYTES, PAGE_PANEL_BYTES));
    }
    wgmma_commit();
}

// Queues the copy of a page's keys or values; zeros from `known` on.
static __device__ __forceinline__ void fetch(uint32_t to, const bf16 *pages,
                                             const struct attention &op, int64_t page, int kv_head,
                                             int known)
{
    int thread = static_cast<int>(threadIdx.x), row = thread / 32;
    const char *from = reinterpret_cast<const char *>(pages) +
                       (page * op.kv_heads + kv_head) * PAGE_BYTES + thread * 16;
    to += panel_at(row, thread % 32, PAGE_PANEL_BYTES);
#pragma unroll
    for (int i = 0; i < PAGE_TOKENS; i += PREFILL_WARPS)
        copy_async(to + i * PANEL_ROW_BYTES, from + i * HEAD_BYTES, row + i < known ? 16 : 0);
}

// Scores -> weights relative to the largest so far; `keep` is what older sums are worth now.
static __device__ __forceinline__ void weigh(uint32_t (&weights)[PAGE_TOKENS / 16][4],
                                             float (&keep)[2], prefill_state *r,
                                             const float (&scores)[PAGE_TOKENS / 8][4])
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
        float w[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            w[k] = power_of_2(fmaf(scores[j][k], scale, -base[k / 2]));
        r->weight[0] += w[0] + w[1];
        r->weight[1] += w[2] + w[3];
        weights[j / 2][j % 2 * 2] = bf16_pair(w[0], w[1]);
        weights[j / 2][j % 2 * 2 + 1] = bf16_pair(w[2], w[3]);
    }
}

static __device__ __forceinline__ void scale_sums(prefill_state *r, const float (&keep)[2])
{
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; j++) {
        r->sum[j][0] *= keep[0];
        r->sum[j][1] *= keep[0];
        r->sum[j][2] *= keep[1];
        r->sum[j][3] *= keep[1];
    }
}

// Copies have come, are seen by the products, and all warps are here.
static __device__ __forceinline__ void tiles_ready()
{
    copy_async_wait<0>();
    wgmma_publish();
    __syncthreads();
}

// Grid and chaining as prefill_kernel of attention_prefill.cu. Ring: keys of even and odd pages,
// then values. The lines before the wait are that kernel's, too, and stand in both: as a function
// of attention_prefill.cuh, in three forms, they changed the instructions of both loops.
static __global__ void __launch_bounds__(PREFILL_THREADS, 1)
    prefill_sm90_kernel(struct attention op)
{
    extern __shared__ __align__(1024) char shared[];
    prefill_share *s = reinterpret_cast<prefill_share *>(shared + QUERY_BYTES + RING_BYTES);
    int kv_head = static_cast<int>(blockIdx.y), group = op.heads / op.kv_heads;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    if (warp == 0)
        find_tile(s, op);
    __syncthreads();
    int tile = s->tile;
    if (tile < 0) {
        pdl_wait(); // a kernel whose blocks all left before could end before its predecessor
        return;
    }
    row_view view = view_row(op, s->row);
    int first = tile * PREFILL_QUERIES, queries = view.active * group;
    int last = view.position + min(first + PREFILL_QUERIES - 1, queries - 1) / group;
    const int32_t *pages =
        op.slots.block_table + static_cast<int64_t>(view.slot) * op.slots.pages_per_sequence;
    int query = first + warp * 16 + lane / 4, units = last / PAGE_TOKENS + 1;
    const int position[2] = {view.position + min(query, queries - 1) / group,
                             view.position + min(query + 8, queries - 1) / group};
    uint32_t keys = shared_address(shared) + QUERY_BYTES, values = keys + 2 * PAGE_BYTES;
    uint32_t own = shared_address(shared) +
                   static_cast<uint32_t>(threadIdx.x / GROUP_THREADS) * 64 * PANEL_ROW_BYTES;
    prefill_state r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    float scores[PAGE_TOKENS / 8][4] = {}, keep[2];
    uint32_t weights[PAGE_TOKENS / 16][4] = {}, next[PAGE_TOKENS / 16][4];
    int64_t page = pages[0];
    pdl_wait();
    pdl_trigger();
    fetch(keys, op.k_pages, op, page, kv_head, last + 1);
    copy_async_commit();
    // The rotations lie where the second page's values will.
    load_tile<query_at>(shared, reinterpret_cast<float2 *>(shared + QUERY_BYTES + 3 * PAGE_BYTES),
                        op, view, first, kv_head);
    for (int unit = 0; unit < units; unit++) {
        uint32_t even = static_cast<uint32_t>(unit % 2) * PAGE_BYTES, odd = PAGE_BYTES - even;
        int known = last + 1 - unit * PAGE_TOKENS;
        tiles_ready(); // keys of this page, values of the one before it
        hold(r.sum);
        hold(weights);
        wgmma_begin();
        queue_scores(scores, own, keys + even);
        if (unit > 0)
            queue_values(&r, values + odd, weights);
        else
            wgmma_commit(); // an empty group: the waits count alike
        // Under way behind the products; what they overwrite was used a page ago.
        fetch(values + even, op.v_pages, op, page, kv_head, known);
        if (unit + 1 < units) {
            page = pages[unit + 1];
            fetch(keys + odd, op.k_pages, op, page, kv_head, known - PAGE_TOKENS);
        }
        copy_async_commit();
        wgmma_wait<1>();
        hold(scores);
        if ((unit + 1) * PAGE_TOKENS > view.position + first / group || unit == 0)
            hide(scores, unit * PAGE_TOKENS, position, op.position_first);
        weigh(next, keep, &r, scores);
        wgmma_wait<0>();
        hold(r.sum);
        hold(weights);
        scale_sums(&r, keep);
#pragma unroll
        for (int i = 0; i < PAGE_TOKENS / 16; i++) {
#pragma unroll
            for (int k = 0; k < 4; k++)
                weights[i][k] = next[i][k];
        }
    }
    tiles_ready();
    hold(r.sum);
    hold(weights);
    wgmma_begin();
    queue_values(&r, values + static_cast<uint32_t>((units - 1) % 2) * PAGE_BYTES, weights);
    wgmma_wait<0>();
    hold(r.sum);
    __syncthreads(); // all values are read
    store(&r, shared + QUERY_BYTES + warp * 16 * HEAD_DIM * 4, op, view, first + warp * 16,
          kv_head);
}

bool attention_prefill_sm90(struct stream *stream, const struct attention *op, dim3 grid)
{
    static const bool fits = [] {
        if (!device_is_sm90())
            return false;
        CUDA_CHECK(cudaFuncSetAttribute(prefill_sm90_kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, SM90_BYTES));
        return true;
    }();
    if (fits)
        launch_chained(prefill_sm90_kernel, grid, dim3(PREFILL_THREADS), SM90_BYTES, stream->handle,
                       *op);
    return fits;
}
