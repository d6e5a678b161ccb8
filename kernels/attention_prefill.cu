// SPDX-License-Identifier: Apache-2.0
// attention_prefill.cu -- prefill rows with heads of 256: keys and values are appended first, then
// a block per 128 queries of a KV head walks the pages up to its last token, softmax in registers.
// A block finds its row and tile on the device: the grid is a bound that the host knows.
#include "kernels/device/attention_prefill.cuh"

// Which tile a block has; -1: none.
struct prefill_share {
    int row, tile;
};

enum {
    PREFILL_STAGES = 2,
    PREFILL_STAGE_BYTES = 2 * PAGE_BYTES,
    PREFILL_BYTES = QUERY_BYTES + PREFILL_STAGES * PREFILL_STAGE_BYTES +
                    static_cast<int>(sizeof(prefill_share)),
    APPEND_WARPS = 4,
};

// A warp per token and KV head. Tokens that do not run are cleared. Chained: before its wait it
// reads the step's tables and the block table.
static __global__ void __launch_bounds__(APPEND_WARPS *WARP_THREADS)
    append_rows_kernel(struct attention op)
{
    __shared__ float2 rotation[APPEND_WARPS][ROTARY_PAIRS_MAX];
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int index = static_cast<int>(blockIdx.x) * APPEND_WARPS + warp;
    int token = index / op.kv_heads, kv_head = index % op.kv_heads;
    int position = -1, row = -1;
    if (token < op.tables.tokens_count) {
        position = op.tables.token_positions[token];
        row = op.tables.token_rows[token];
    }
    bool runs = position >= 0 && row >= op.tables.decode_rows;
    int64_t to = 0;
    float scale[BF16_VECTOR];
    load_norm(scale, op.k_norm);
    if (runs) {
        int64_t page = op.slots.block_table[static_cast<int64_t>(op.tables.rows[row].slot) *
                                                op.slots.pages_per_sequence +
                                            position / PAGE_TOKENS];
        to = ((page * op.kv_heads + kv_head) * PAGE_TOKENS + position % PAGE_TOKENS) *
                 (HEAD_DIM / BF16_VECTOR) +
             lane;
        if (lane < op.rotary_dim / 2)
            rotation[warp][lane] = rotation_of(op, position, lane);
    }
    __syncwarp();
    pdl_wait();
    pdl_trigger();
    if (token >= op.tables.tokens_count)
        return;
    if (position < 0)
        for (int head = kv_head; head < op.heads; head += op.kv_heads)
            clear_head(op, token, head);
    if (!runs)
        return;
    bf16x8 value = projected_head(op, token, 2 * op.heads + op.kv_heads + kv_head);
    bf16x8 key = norm_rotate_head(projected_head(op, token, 2 * op.heads + kv_head), scale, op.eps,
                                  rotation[warp], op.rotary_dim);
    reinterpret_cast<uint4 *>(op.k_pages)[to] = key.bits;
    reinterpret_cast<uint4 *>(op.v_pages)[to] = value.bits;
}

// Tiles of a row, for one KV head.
static __device__ __forceinline__ int row_tiles(const struct attention &op, int row)
{
    int queries = op.tables.active_count[row] * (op.heads / op.kv_heads);
    return (queries + PREFILL_QUERIES - 1) / PREFILL_QUERIES;
}

// The last tiles first: they have the longest way. One warp.
static __device__ void find_tile(prefill_share *s, const struct attention &op)
{
    int first = op.tables.decode_rows, rows = op.tables.rows_count - first;
    int lane = static_cast<int>(threadIdx.x), sum = 0;
    int each = (rows + WARP_THREADS - 1) / WARP_THREADS;
    int low = min(lane * each, rows), high = min(low + each, rows);
    for (int row = low; row < high; row++)
        sum += row_tiles(op, first + row);
    int before = sum;
    for (int step = 1; step < WARP_THREADS; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, before, step);
        before += lane >= step ? other : 0;
    }
    int wanted =
        __shfl_sync(0xffffffffu, before, WARP_THREADS - 1) - 1 - static_cast<int>(blockIdx.x);
    before -= sum;
    if (lane == 0)
        s->tile = -1;
    __syncwarp();
    if (wanted >= before && wanted < before + sum) {
        int row = low;
        for (; wanted >= before + row_tiles(op, first + row); row++)
            before += row_tiles(op, first + row);
        s->row = first + row;
        s->tile = wanted - before;
    }
}

// Norm, rotation and rounding of a tile's queries. rotation: scratch for the tile's tokens.
static __device__ void load_tile(char *queries, float2 *rotation, const struct attention &op,
                                 const row_view &view, int first, int kv_head)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int group = op.heads / op.kv_heads, pairs = op.rotary_dim / 2, last = view.active * group - 1;
    int token_first = first / group, token_last = min(first + PREFILL_QUERIES - 1, last) / group;
    float scale[BF16_VECTOR];
    bf16x8 raw[PREFILL_QUERIES / PREFILL_WARPS]; // all under way while the rotations are made
#pragma unroll
    for (int i = 0; i < PREFILL_QUERIES / PREFILL_WARPS; i++) {
        int query = min(first + warp + i * PREFILL_WARPS, last);
        raw[i] =
            projected_head(op, view.token_first + query / group, kv_head * group + query % group);
    }
    load_norm(scale, op.q_norm);
    for (int i = static_cast<int>(threadIdx.x); i < (token_last - token_first + 1) * pairs;
         i += PREFILL_THREADS)
        rotation[i] = rotation_of(op, view.position + token_first + i / pairs, i % pairs);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PREFILL_QUERIES / PREFILL_WARPS; i++) {
        int row = warp + i * PREFILL_WARPS, token = min(first + row, last) / group;
        bf16x8 q = norm_rotate_head(raw[i], scale, op.eps, rotation + (token - token_first) * pairs,
                                    op.rotary_dim);
        *reinterpret_cast<uint4 *>(queries + tile_at(row, lane)) = q.bits;
    }
    __syncthreads();
}

// Queues the copies of a page's keys and values; zeros from `known` on.
static __device__ __forceinline__ void fetch(uint32_t stage, const struct attention &op,
                                             int64_t page, int kv_head, int known)
{
    int thread = static_cast<int>(threadIdx.x), row = thread / 32;
    int64_t from = (page * op.kv_heads + kv_head) * PAGE_BYTES + thread * 16;
    const char *keys = reinterpret_cast<const char *>(op.k_pages) + from;
    const char *values = reinterpret_cast<const char *>(op.v_pages) + from;
    uint32_t to = stage + tile_at(row, thread % 32);
#pragma unroll
    for (int i = 0; i < PAGE_TOKENS; i += PREFILL_WARPS)
        copy_async(to + i * HEAD_BYTES, keys + i * HEAD_BYTES, row + i < known ? 16 : 0);
#pragma unroll
    for (int i = 0; i < PAGE_TOKENS; i += PREFILL_WARPS)
        copy_async(to + PAGE_BYTES + i * HEAD_BYTES, values + i * HEAD_BYTES,
                   row + i < known ? 16 : 0);
}

static __device__ __forceinline__ void score(float (&scores)[PAGE_TOKENS / 8][4], uint32_t keys,
                                             uint32_t queries)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int j = 0; j < PAGE_TOKENS / 8; j++) {
        for (int k = 0; k < 4; k++)
            scores[j][k] = 0;
    }
#pragma unroll 8 // all 16 spill
    for (int step = 0; step < HEAD_DIM / 16; step++) {
        uint32_t q[4], k[4];
        load_matrices(q, queries + tile_at(warp * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < PAGE_TOKENS / 16; j++) {
            load_matrices(
                k, keys + tile_at(j * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
            multiply_add(scores[2 * j], q, k[0], k[1]);
            multiply_add(scores[2 * j + 1], q, k[2], k[3]);
        }
    }
}

// Scores -> weights relative to the largest so far, as the left factor of the next product.
static __device__ __forceinline__ void weigh(uint32_t (&weights)[PAGE_TOKENS / 16][4],
                                             prefill_state *r,
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
        float keep = power_of_2(r->largest[h] * scale - base[h]);
        r->largest[h] = top;
        r->weight[h] *= keep;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++) {
            r->sum[j][2 * h] *= keep;
            r->sum[j][2 * h + 1] *= keep;
        }
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

static __device__ __forceinline__ void add_values(prefill_state *r, uint32_t values,
                                                  const uint32_t (&weights)[PAGE_TOKENS / 16][4])
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int step = 0; step < PAGE_TOKENS / 16; step++) {
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 16; j++) {
            uint32_t v[4];
            load_matrices_turned(v, values + tile_at(step * 16 + lane % 16, j * 2 + lane / 16));
            multiply_add(r->sum[2 * j], weights[step], v[0], v[1]);
            multiply_add(r->sum[2 * j + 1], weights[step], v[2], v[3]);
        }
    }
}

// Divided, gated, rounded: by way of shared memory, so that a warp reads gates and writes y a head
// at a time. stage: 16 rows of f32 of this warp; query: of the warp's first row.
static __device__ void store(prefill_state *r, char *stage, const struct attention &op,
                             const row_view &view, int query, int kv_head)
{
    enum { ROW_BYTES = HEAD_DIM * 4, BATCH = 8 };
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, group = op.heads / op.kv_heads;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = lane / 4 + 8 * h;
        float weight = quad_sum(r->weight[h]), inverse = weight > 0 ? 1.0f / weight : 0.0f;
#pragma unroll
        for (int j = 0; j < HEAD_DIM / 8; j++) {
            int chunk = (2 * j + lane % 4 / 2) ^ (row & 7);
            *reinterpret_cast<float2 *>(stage + row * ROW_BYTES + chunk * 16 + lane % 2 * 8) =
                make_float2(r->sum[j][2 * h] * inverse, r->sum[j][2 * h + 1] * inverse);
        }
    }
    __syncwarp();
    int rows = min(16, view.active * group - query);
    for (int first = 0; first < rows; first += BATCH) {
        bf16x8 gates[BATCH];
        int64_t at[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int own = query + min(first + i, rows - 1), head = kv_head * group + own % group;
            int64_t token = view.token_first + own / group;
            gates[i] = projected_head(op, static_cast<int>(token), op.heads + head);
            at[i] = (token * op.heads + head) * (HEAD_DIM / BF16_VECTOR) + lane;
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int row = first + i;
            float gate[BF16_VECTOR], y[BF16_VECTOR];
            if (row >= rows)
                break;
            bf16x8_to_float(gate, gates[i]);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float4 sum = *reinterpret_cast<const float4 *>(
                    stage + row * ROW_BYTES + ((2 * lane + half) ^ (row & 7)) * 16);
                y[4 * half] = sum.x;
                y[4 * half + 1] = sum.y;
                y[4 * half + 2] = sum.z;
                y[4 * half + 3] = sum.w;
            }
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                y[k] *= sigmoid(gate[k]);
            reinterpret_cast<uint4 *>(op.y)[at[i]] = bf16x8_from_float(y).bits;
        }
    }
}

// grid (a bound of the tiles of a KV head, kv heads). Chained after append_rows_kernel: the tables
// are older than that, so the tile is found before the wait.
static __global__ void __launch_bounds__(PREFILL_THREADS, 1) prefill_kernel(struct attention op)
{
    extern __shared__ __align__(1024) char shared[];
    char *ring = shared + QUERY_BYTES;
    prefill_share *s =
        reinterpret_cast<prefill_share *>(ring + PREFILL_STAGES * PREFILL_STAGE_BYTES);
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
    uint32_t stages = shared_address(ring);
    prefill_state r = {{-INFINITY, -INFINITY}, {0, 0}, {}};
    pdl_wait();
    pdl_trigger();
    fetch(stages, op, pages[0], kv_head, last + 1);
    copy_async_commit();
    load_tile(shared, reinterpret_cast<float2 *>(ring + PREFILL_STAGE_BYTES), op, view, first,
              kv_head);
    for (int unit = 0; unit < units; unit++) {
        uint32_t stage = stages + static_cast<uint32_t>(unit % 2 * PREFILL_STAGE_BYTES);
        copy_async_wait<0>();
        __syncthreads(); // the page has come, and the other stage is free
        if (unit + 1 < units)
            fetch(stages + static_cast<uint32_t>((unit + 1) % 2 * PREFILL_STAGE_BYTES), op,
                  pages[unit + 1], kv_head, last + 1 - (unit + 1) * PAGE_TOKENS);
        copy_async_commit();
        float scores[PAGE_TOKENS / 8][4];
        uint32_t weights[PAGE_TOKENS / 16][4];
        score(scores, stage, shared_address(shared));
        if ((unit + 1) * PAGE_TOKENS > view.position + first / group || unit == 0)
            hide(scores, unit * PAGE_TOKENS, position, op.position_first);
        weigh(weights, &r, scores);
        add_values(&r, stage + PAGE_BYTES, weights);
    }
    __syncthreads(); // all values are read
    store(&r, ring + warp * 16 * HEAD_DIM * 4, op, view, first + warp * 16, kv_head);
}

void attention_prefill(struct stream *stream, const struct attention *op)
{
    const struct step_tables *tables = &op->tables;
    static const bool allowed = [] {
        CUDA_CHECK(cudaFuncSetAttribute(prefill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        PREFILL_BYTES));
        return true;
    }();
    ASSERT(allowed);
    int rows = tables->rows_count - tables->decode_rows;
    int64_t queries = static_cast<int64_t>(tables->tokens_count - tables->decode_rows) *
                      (op->heads / op->kv_heads);
    unsigned kv_heads = static_cast<unsigned>(op->kv_heads);
    unsigned heads = static_cast<unsigned>(tables->tokens_count) * kv_heads;
    launch_chained(append_rows_kernel, dim3((heads + APPEND_WARPS - 1) / APPEND_WARPS),
                   dim3(APPEND_WARPS * WARP_THREADS), 0, stream->handle, *op);
    if (rows == 0)
        return;
    if (attention_prefill_sm90(stream, op))
        return;
    // Every row rounds up to one tile more at most.
    unsigned tiles = static_cast<unsigned>(queries / PREFILL_QUERIES + rows);
    launch_chained(prefill_kernel, dim3(tiles, kv_heads), dim3(PREFILL_THREADS), PREFILL_BYTES,
                   stream->handle, *op);
}
