// SPDX-License-Identifier: Apache-2.0
// attention_decode.cu -- decode rows with heads of 256: split-KV on tensor cores. The work of all
// rows is one list of units (row, KV head, block of queries, page); a block takes an even share of
// it, wherever its borders fall. Pages stream through a ring in shared memory. attention_merge
// merges the parts of whatever lay across a border.
//
// The queries of a KV head (group x tokens) are the rows of the product, so every key and value is
// read once for all of them. Lengths are read on the device: the grid is the same for all steps.
#include "kernels/device/attention_share.cuh"

enum {
    DECODE_WARPS = 8,
    DECODE_THREADS = DECODE_WARPS * WARP_THREADS,
    DECODE_STAGES = 3,
    KEYS_BYTES = DECODE_STAGES * PAGE_BYTES, // of the ring; as many for values
    WARP_DIMS = HEAD_DIM / DECODE_WARPS,     // of the output that a warp holds
    WEIGHT_PITCH = PAGE_TOKENS + 8,          // bf16; 8 more keep rows in different banks
};

// In dynamic shared memory, after the ring.
template <int M_TILES> struct decode_shared {
    uint4 queries[M_TILES * 16 * HEAD_BYTES / 16]; // tile
    bf16 weights[M_TILES * 16 * WEIGHT_PITCH];
    float exchange[DECODE_WARPS][M_TILES * 16]; // of maxima, then of sums
    float2 rotation[ROW_VERIFY_MAX][ROTARY_PAIRS_MAX];
    struct share share;
};

template <int M_TILES> static constexpr size_t decode_shared_bytes()
{
    return 2 * KEYS_BYTES + sizeof(decode_shared<M_TILES>);
}

// Where a page of one KV head lies in k_pages and v_pages, in bytes, and how many of its tokens lie
// before the row's new ones.
struct source {
    int64_t from;
    int known;
};

static __device__ __forceinline__ source source_of(const struct attention &op, const cursor &at)
{
    int64_t page = static_cast<int64_t>(at.page) * op.kv_heads + at.item % op.kv_heads;
    return {page * PAGE_BYTES, at.view.position - at.unit * PAGE_TOKENS};
}

// Queues the copy of a page's known keys or values; zeros after them.
static __device__ __forceinline__ void fetch(uint32_t to, const bf16 *pages, const source &source)
{
    int thread = static_cast<int>(threadIdx.x), row = thread / 32;
    const char *from = reinterpret_cast<const char *>(pages) + source.from + thread * 16;
    to += tile_at(row, thread % 32);
#pragma unroll
    for (int i = 0; i < PAGE_TOKENS; i += DECODE_WARPS)
        copy_async(to + i * HEAD_BYTES, from + i * HEAD_BYTES, row + i < source.known ? 16 : 0);
}

// Norm, rotation and rounding of the item's queries into shared memory. All threads.
template <int M_TILES>
static __device__ void load_queries(decode_shared<M_TILES> *s, const struct attention &op,
                                    const cursor &at)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int group = op.heads / op.kv_heads, pairs = op.rotary_dim / 2;
    int first = at.item / op.kv_heads * M_TILES * 16, kv_head = at.item % op.kv_heads;
    float scale[BF16_VECTOR];
    bf16x8 raw[M_TILES * 16 / DECODE_WARPS];
    load_norm(scale, op.q_norm);
#pragma unroll
    for (int i = 0; i < M_TILES * 16 / DECODE_WARPS; i++) {
        int query = first + warp + i * DECODE_WARPS;
        raw[i].bits = make_uint4(0, 0, 0, 0);
        if (query < at.view.active * group)
            raw[i] = projected_head(op, at.view.token_first + query / group,
                                    kv_head * group + query % group);
    }
    for (int i = static_cast<int>(threadIdx.x); i < at.view.active * pairs; i += DECODE_THREADS)
        s->rotation[i / pairs][i % pairs] =
            rotation_of(op, at.view.position + i / pairs, i % pairs);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < M_TILES * 16 / DECODE_WARPS; i++) {
        int row = warp + i * DECODE_WARPS, token = min((first + row) / group, at.view.active - 1);
        bf16x8 q = norm_rotate_head(raw[i], scale, op.eps, s->rotation[token], op.rotary_dim);
        *reinterpret_cast<uint4 *>(reinterpret_cast<char *>(s->queries) + tile_at(row, lane)) =
            q.bits;
    }
    __syncthreads();
}

// Keys and values of the row's new tokens in this page: into the tile, and to the page itself by
// the first block of queries. A warp per token.
template <int M_TILES>
static __device__ void append(char *keys, char *values, decode_shared<M_TILES> *s,
                              const struct attention &op, const cursor &at)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int row = at.view.position + warp - at.unit * PAGE_TOKENS, kv_head = at.item % op.kv_heads;
    if (warp >= at.view.active || row < 0 || row >= PAGE_TOKENS)
        return;
    float scale[BF16_VECTOR];
    int token = at.view.token_first + warp;
    load_norm(scale, op.k_norm);
    bf16x8 value = projected_head(op, token, 2 * op.heads + op.kv_heads + kv_head);
    bf16x8 key = norm_rotate_head(projected_head(op, token, 2 * op.heads + kv_head), scale, op.eps,
                                  s->rotation[warp], op.rotary_dim);
    *reinterpret_cast<uint4 *>(keys + tile_at(row, lane)) = key.bits;
    *reinterpret_cast<uint4 *>(values + tile_at(row, lane)) = value.bits;
    if (at.item < op.kv_heads) {
        int64_t to = ((static_cast<int64_t>(at.page) * op.kv_heads + kv_head) * PAGE_TOKENS + row) *
                         (HEAD_DIM / BF16_VECTOR) +
                     lane;
        reinterpret_cast<uint4 *>(op.k_pages)[to] = key.bits;
        reinterpret_cast<uint4 *>(op.v_pages)[to] = value.bits;
    }
}

// A softmax under way for the rows of a product that a thread holds: lane / 4 and 8 more.
template <int M_TILES> struct running {
    float largest[M_TILES][2], weight[M_TILES][2]; // weight: of this thread's keys only
    float sum[M_TILES][WARP_DIMS / 8][4];
};

template <int M_TILES> static __device__ __forceinline__ void begin(running<M_TILES> *r)
{
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        for (int h = 0; h < 2; h++) {
            r->largest[m][h] = -INFINITY;
            r->weight[m][h] = 0;
        }
        for (int j = 0; j < WARP_DIMS / 8; j++) {
            for (int k = 0; k < 4; k++)
                r->sum[m][j][k] = 0;
        }
    }
}

// Scores of eight keys a warp, in units of log2, -inf where a query may not see the key.
template <int M_TILES, int HELD>
static __device__ __forceinline__ void
score(float (&scores)[M_TILES][4], uint32_t stage, const uint32_t (&held)[HEAD_DIM / 16][4],
      uint32_t queries, const struct attention &op, const cursor &at)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float sums[2][M_TILES][4] = {};
#pragma unroll
    for (int step = 0; step < HEAD_DIM / 32; step++) {
        uint32_t keys[4];
        load_matrices(keys, stage + tile_at(warp * 8 + lane % 8, step * 4 + lane / 8));
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                if (m < HELD) {
                    multiply_add(sums[half][m], held[step * 2 + half], keys[2 * half],
                                 keys[2 * half + 1]);
                } else {
                    uint32_t q[4];
                    load_matrices(q, queries + tile_at(m * 16 + lane % 16,
                                                       (step * 2 + half) * 2 + lane / 16));
                    multiply_add(sums[half][m], q, keys[2 * half], keys[2 * half + 1]);
                }
            }
        }
    }
    const float scale = 1.4426950408889634f / 16; // log2 e / sqrt(256)
    int group = op.heads / op.kv_heads, first = at.item / op.kv_heads * M_TILES * 16;
    int key = at.unit * PAGE_TOKENS + warp * 8 + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int query = first + m * 16 + lane / 4 + k / 2 * 8;
            int position = at.view.position + min(query / group, at.view.active - 1);
            bool seen = key + k % 2 <= position && key + k % 2 >= op.position_first;
            scores[m][k] = seen ? (sums[0][m][k] + sums[1][m][k]) * scale : -INFINITY;
        }
    }
}

// Scores -> weights in shared memory, relative to the largest so far of all warps.
template <int M_TILES>
static __device__ __forceinline__ void weigh(running<M_TILES> *r, decode_shared<M_TILES> *s,
                                             const float (&scores)[M_TILES][4])
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = quad_max(fmaxf(scores[m][2 * h], scores[m][2 * h + 1]));
            if (lane % 4 == 0)
                s->exchange[warp][m * 16 + h * 8 + lane / 4] = top;
        }
    }
    __syncthreads();
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = m * 16 + h * 8 + lane / 4;
            float top = r->largest[m][h];
#pragma unroll
            for (int w = 0; w < DECODE_WARPS; w++)
                top = fmaxf(top, s->exchange[w][row]);
            float base = top == -INFINITY ? 0.0f : top; // nothing seen yet
            float keep = power_of_2(r->largest[m][h] - base);
            float low = power_of_2(scores[m][2 * h] - base),
                  high = power_of_2(scores[m][2 * h + 1] - base);
            r->largest[m][h] = top;
            r->weight[m][h] = r->weight[m][h] * keep + (low + high);
#pragma unroll
            for (int j = 0; j < WARP_DIMS / 8; j++) {
                r->sum[m][j][2 * h] *= keep;
                r->sum[m][j][2 * h + 1] *= keep;
            }
            *reinterpret_cast<uint32_t *>(
                &s->weights[row * WEIGHT_PITCH + warp * 8 + lane % 4 * 2]) = bf16_pair(low, high);
        }
    }
    __syncthreads();
}

// sum += weights x values, 32 dimensions a warp.
template <int M_TILES>
static __device__ __forceinline__ void add_values(running<M_TILES> *r, uint32_t values,
                                                  uint32_t weights)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int step = 0; step < PAGE_TOKENS / 16; step++) {
        uint32_t v[WARP_DIMS / 16][4];
#pragma unroll
        for (int j = 0; j < WARP_DIMS / 16; j++)
            load_matrices_turned(v[j],
                                 values + tile_at(step * 16 + lane % 16,
                                                  warp * (WARP_DIMS / 8) + j * 2 + lane / 16));
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            uint32_t p[4];
            load_matrices(p, weights + static_cast<uint32_t>(((m * 16 + lane % 16) * WEIGHT_PITCH +
                                                              step * 16 + lane / 16 * 8) *
                                                             2));
#pragma unroll
            for (int j = 0; j < WARP_DIMS / 8; j++)
                multiply_add(r->sum[m][j], p, v[j / 2][j % 2 * 2], v[j / 2][j % 2 * 2 + 1]);
        }
    }
}

// The sum of weights of every row, in every thread that holds the row.
template <int M_TILES> static __device__ void total(running<M_TILES> *r, decode_shared<M_TILES> *s)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        float sum = quad_sum(r->weight[i / 2][i % 2]);
        if (lane % 4 == 0)
            s->exchange[warp][i * 8 + lane / 4] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        float sum = 0;
        for (int w = 0; w < DECODE_WARPS; w++)
            sum += s->exchange[w][i * 8 + lane / 4];
        r->weight[i / 2][i % 2] = sum;
    }
    __syncthreads();
}

// An item that lies in this block alone: divided, gated, rounded. All gates are read first: a store
// holds back the loads after it.
template <int M_TILES>
static __device__ void store_whole(const running<M_TILES> &r, const struct attention &op,
                                   const cursor &at)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int group = op.heads / op.kv_heads, first = at.item / op.kv_heads * M_TILES * 16;
    int last = at.view.active * group - 1, dim = warp * WARP_DIMS + lane % 4 * 2;
    uint32_t gates[2 * M_TILES][WARP_DIMS / 8];
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        int query = min(first + i * 8 + lane / 4, last);
        int head = at.item % op.kv_heads * group + query % group;
        const bf16 *gate =
            op.projected +
            static_cast<int64_t>(at.view.token_first + query / group) * op.projected_stride +
            (op.heads + head) * HEAD_DIM + dim;
#pragma unroll
        for (int j = 0; j < WARP_DIMS / 8; j++)
            gates[i][j] = *reinterpret_cast<const uint32_t *>(gate + j * 8);
    }
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        int query = first + i * 8 + lane / 4;
        if (query > last)
            continue;
        int head = at.item % op.kv_heads * group + query % group;
        bf16 *y = op.y +
                  (static_cast<int64_t>(at.view.token_first + query / group) * op.heads + head) *
                      HEAD_DIM +
                  dim;
        float weight = r.weight[i / 2][i % 2], inverse = weight > 0 ? 1.0f / weight : 0.0f;
#pragma unroll
        for (int j = 0; j < WARP_DIMS / 8; j++) {
            const float *sum = &r.sum[i / 2][j][i % 2 * 2];
            *reinterpret_cast<uint32_t *>(y + j * 8) =
                bf16_pair(sum[0] * inverse * sigmoid(__uint_as_float(gates[i][j] << 16)),
                          sum[1] * inverse * sigmoid(__uint_as_float(gates[i][j] & 0xffff0000u)));
        }
    }
}

template <int M_TILES>
static __device__ void store_part(const running<M_TILES> &r, const struct attention_workspace &work,
                                  int64_t part)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int i = 0; i < 2 * M_TILES; i++) {
        int64_t row = part * ATTENTION_PART_ROWS + i * 8 + lane / 4;
        float *sums = work.sums + row * HEAD_DIM + warp * WARP_DIMS + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < WARP_DIMS / 8; j++)
            *reinterpret_cast<float2 *>(sums + j * 8) =
                make_float2(r.sum[i / 2][j][i % 2 * 2], r.sum[i / 2][j][i % 2 * 2 + 1]);
        if (warp == 0 && lane % 4 == 0)
            reinterpret_cast<float2 *>(work.scales)[row] =
                make_float2(r.largest[i / 2][i % 2], r.weight[i / 2][i % 2]);
    }
}

// Tokens that do not run: a warp per head.
static __device__ void clear_idle(const struct attention &op)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    for (int token = static_cast<int>(blockIdx.x); token < op.tables.tokens_count;
         token += static_cast<int>(gridDim.x)) {
        if (op.tables.token_positions[token] >= 0)
            continue;
        for (int head = warp; head < op.heads; head += DECODE_WARPS)
            clear_head(op, token, head);
    }
}

// The first 16 queries of the item as left factors of all products of scores.
static __device__ __forceinline__ void hold_queries(uint32_t (&held)[HEAD_DIM / 16][4],
                                                    uint32_t queries)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int step = 0; step < HEAD_DIM / 16; step++)
        load_matrices(held[step], queries + tile_at(lane % 16, step * 2 + lane / 16));
}

// grid: as many blocks as multiprocessors. Chained: before its wait it reads tables, block table
// and the keys and values of earlier steps, all older than the kernel before it. each: most items
// of a row.
template <int M_TILES>
static __global__ void __launch_bounds__(DECODE_THREADS, 1)
    decode_kernel(struct attention op, int each)
{
    extern __shared__ __align__(128) char ring[];
    constexpr int held_tiles = M_TILES <= 2 ? 1 : 0; // what registers suffice for
    decode_shared<M_TILES> *s = reinterpret_cast<decode_shared<M_TILES> *>(ring + 2 * KEYS_BYTES);
    uint32_t keys = shared_address(ring), values = keys + KEYS_BYTES, held[HEAD_DIM / 16][4];
    find_share<M_TILES, DECODE_THREADS>(&s->share, reinterpret_cast<int *>(ring), op);
    int count =
        share_begin(static_cast<int>(blockIdx.x) + 1, s->share.units, shares_of(s->share.units)) -
        s->share.first;
    cursor ahead = {}, at;
    struct border border = {};
    if (count > 0) {
        ahead.row = s->share.row;
        enter_row<M_TILES>(&ahead, op);
        ahead.item = s->share.offset / ahead.units;
        ahead.unit = s->share.offset % ahead.units;
        ahead.page = read_page(op, ahead);
    }
    at = ahead;
    if (threadIdx.x == 0)
        border = find_border<M_TILES>(s->share, reinterpret_cast<int *>(ring), op, at, each);
    __syncthreads(); // the scratch in the ring is read
    source source = {};
#pragma unroll
    for (int i = 0; i < DECODE_STAGES; i++) {
        if (i < count) {
            source = source_of(op, ahead);
            fetch(keys + i * PAGE_BYTES, op.k_pages, source);
        }
        copy_async_commit();
        if (i == DECODE_STAGES - 1)
            break;
        if (i < count)
            fetch(values + i * PAGE_BYTES, op.v_pages, source);
        copy_async_commit();
        if (i + 1 < count)
            advance<M_TILES>(&ahead, op);
    }
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x == 0)
        reinterpret_cast<struct border *>(op.workspace.borders)[blockIdx.x] = border;

    running<M_TILES> r;
    bool begun_here = at.unit == 0;
    for (int i = 0; i < count; i++) {
        uint32_t place = static_cast<uint32_t>(i % DECODE_STAGES * PAGE_BYTES);
        if (i == 0 || at.unit == 0) {
            begin(&r);
            load_queries<M_TILES>(s, op, at);
            if constexpr (held_tiles > 0)
                hold_queries(held, shared_address(s->queries));
        }
        copy_async_wait<2 * DECODE_STAGES - 3>();
        __syncthreads(); // keys and values have come, and the values before them are used
        if (i + DECODE_STAGES - 1 < count)
            fetch(values + (i + DECODE_STAGES - 1) % DECODE_STAGES * PAGE_BYTES, op.v_pages,
                  source);
        copy_async_commit();
        if (at.view.position + at.view.active > at.unit * PAGE_TOKENS &&
            at.view.position < (at.unit + 1) * PAGE_TOKENS) {
            append<M_TILES>(ring + place, ring + KEYS_BYTES + place, s, op, at);
            __syncthreads();
        }
        float scores[M_TILES][4];
        score<M_TILES, held_tiles>(scores, keys + place, held, shared_address(s->queries), op, at);
        weigh<M_TILES>(&r, s, scores);
        if (i + DECODE_STAGES < count) { // these keys are used
            advance<M_TILES>(&ahead, op);
            source = source_of(op, ahead);
            fetch(keys + place, op.k_pages, source);
        }
        copy_async_commit();
        add_values<M_TILES>(&r, values + place, shared_address(s->weights));
        bool ends = at.unit + 1 == at.units;
        if (ends || i + 1 == count) {
            total<M_TILES>(&r, s);
            if (ends && begun_here)
                store_whole<M_TILES>(r, op, at);
            else
                store_part<M_TILES>(r, op.workspace,
                                    part_of(static_cast<int>(blockIdx.x), begun_here));
            begun_here = true;
        }
        if (i + 1 < count)
            advance<M_TILES>(&at, op);
    }
    clear_idle(op);
}

template <int M_TILES> static void launch(struct stream *stream, const struct attention *op)
{
    static const int blocks = [] {
        int device, count;
        CUDA_CHECK(cudaGetDevice(&device));
        CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
        CUDA_CHECK(cudaFuncSetAttribute(decode_kernel<M_TILES>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(decode_shared_bytes<M_TILES>())));
        return count < ATTENTION_PARTS_MAX ? count : static_cast<int>(ATTENTION_PARTS_MAX);
    }();
    int queries = op->tables.verify * (op->heads / op->kv_heads);
    int each = (queries + M_TILES * 16 - 1) / (M_TILES * 16) * op->kv_heads;
    int items = op->tables.decode_rows * each;
    launch_chained(decode_kernel<M_TILES>, dim3(static_cast<unsigned>(blocks)),
                   dim3(DECODE_THREADS), decode_shared_bytes<M_TILES>(), stream->handle, *op, each);
    attention_merge(stream, op, items < blocks ? items : blocks,
                    queries < M_TILES * 16 ? queries : M_TILES * 16);
}

void attention_decode(struct stream *stream, const struct attention *op)
{
    int queries = op->tables.verify * (op->heads / op->kv_heads);
    ASSERT(op->tables.verify >= 1 && op->tables.verify <= ROW_VERIFY_MAX);
    if (queries <= 16)
        launch<1>(stream, op);
    else if (queries <= 32)
        launch<2>(stream, op);
    else
        launch<3>(stream, op);
}
