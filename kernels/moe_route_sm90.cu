// SPDX-License-Identifier: Apache-2.0
// moe_route_sm90.cu -- the router of few to a thousand tokens in one kernel. A cluster of eight
// blocks has up to 64 tokens and all experts; each block has an eighth of the columns. It holds its
// part of W in registers, on the way from before the wait on; pulls and normalises its columns,
// for which the blocks exchange sums of squares; and sends its part of a token's logits to the
// block that adds them up, in the order of blocks, and picks. Whatever the number of tokens, a
// token's bits are the same.
#include "kernels/device/route_cluster.cuh"

#include "kernels/device/cluster.cuh"
#include "kernels/device/load.cuh"
#include "kernels/device/route.cuh"
#include "kernels/device/tile.cuh"

enum {
    CLUSTER_BLOCKS = 8,
    CLUSTER_WARPS = 8,
    CLUSTER_THREADS = CLUSTER_WARPS * WARP_THREADS,
    CLUSTER_TOKENS = 16,   // of a product; a cluster has one, two or four
    CLUSTER_TILES_MAX = 4, // of them
    CLUSTER_EXPERTS = 256,
    CLUSTER_COLUMNS = WARP_THREADS * BF16_VECTOR, // of a block: a vector a lane
    CLUSTER_HIDDEN = CLUSTER_BLOCKS * CLUSTER_COLUMNS,
    CLUSTER_DEPTH = 32, // columns that four lanes' vectors take
    CLUSTER_STEPS = CLUSTER_COLUMNS / CLUSTER_DEPTH,
    CLUSTER_WIDE = CLUSTER_EXPERTS / CLUSTER_WARPS / 8, // products of a warp side by side
    CLUSTER_ROW_BYTES = CLUSTER_COLUMNS * 2 + 64,       // two rows of a quarter warp hit all banks
    CLUSTER_PART = CLUSTER_EXPERTS + 4,                 // values of a token's part of the logits
    CLUSTER_BATCH = 4,                                  // rows of a warp on their way
    CLUSTER_TOKENS_MIN = 17,   // fewer are faster apart: a cluster waits for a free GPC
    CLUSTER_TOKENS_MAX = 1024, // 16 clusters' at once
};

struct cluster_arguments {
    const bf16 *w;    // [CLUSTER_EXPERTS + 1, CLUSTER_HIDDEN]
    bf16 *x;          // [tokens, CLUSTER_HIDDEN] normalised rows; read where norm is NULL
    bf16 *residual;   // [tokens, CLUSTER_HIDDEN]
    const bf16 *lane; // or NULL: nothing to pull
    const float *norm;
    float eps;
    int tokens, picks;
    float *logits; // [tokens, CLUSTER_EXPERTS + 1]
    int32_t *expert_ids;
    float *expert_weights, *shared_weights;
};

// A block's shared memory for TOKENS tokens. Block r adds up and picks for tokens r, r + 8, ..
template <int TOKENS> struct cluster_memory {
    uint8_t rows[TOKENS][CLUSTER_ROW_BYTES];
    float parts[CLUSTER_BLOCKS][TOKENS / CLUSTER_BLOCKS][CLUSTER_PART];
    float squares[TOKENS][CLUSTER_BLOCKS];
    uint64_t squares_there, parts_there;
};

// ---- W ----

// Products are [tokens] x [experts]: which columns a lane multiplies is free, as in tile.cuh, and
// so is which expert stands where. Column g of product n, so that a lane's sums are of neighbours:
static __device__ __forceinline__ int cluster_expert(int n, int g)
{
    return n / 2 * 16 + g / 2 * 4 + n % 2 * 2 + g % 2;
}

// What a lane holds of the weights.
struct cluster_weights {
    uint4 experts[CLUSTER_STEPS][CLUSTER_WIDE];
    bf16x8 shared; // of the gate's row, this lane's columns
    uint4 norm[2]; // of these columns, f32
};

static __device__ __forceinline__ void cluster_take(cluster_weights *weights,
                                                    const cluster_arguments &a, int column)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
#pragma unroll
    for (int n = 0; n < CLUSTER_WIDE; n++) {
        int expert = warp * CLUSTER_WIDE * 8 + cluster_expert(n, lane / 4);
        const bf16 *row = a.w + expert * CLUSTER_HIDDEN + column + lane % 4 * BF16_VECTOR;
#pragma unroll
        for (int step = 0; step < CLUSTER_STEPS; step++)
            weights->experts[step][n] = load_here(row + step * CLUSTER_DEPTH);
    }
    column += lane * BF16_VECTOR;
    weights->shared.bits = load_here(a.w + CLUSTER_EXPERTS * CLUSTER_HIDDEN + column);
    weights->norm[0] = weights->norm[1] = make_uint4(0, 0, 0, 0);
    if (a.norm == NULL)
        return;
    weights->norm[0] = load_here(a.norm + column);
    weights->norm[1] = load_here(a.norm + column + BF16_VECTOR / 2);
}

// ---- rows ----

// A warp's tokens of the cluster's are warp, warp + 8, ..; this lane's columns of them, summed, go
// to memory and to this block's rows, and the sum of their squares to all blocks.
template <int TOKENS>
static __device__ __forceinline__ void
cluster_pull(const cluster_arguments &a, cluster_memory<TOKENS> *memory, int first, int column)
{
    constexpr int OWN = TOKENS / CLUSTER_WARPS, BATCH = OWN < CLUSTER_BATCH ? OWN : CLUSTER_BATCH;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int rank = static_cast<int>(blockIdx.x) % CLUSTER_BLOCKS;
    column += lane * BF16_VECTOR;
    for (int from = 0; from < OWN; from += BATCH) {
        bf16x8 sums[BATCH], pulled[BATCH];
        float values[BF16_VECTOR], others[BF16_VECTOR];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int token = first + warp + (from + i) * CLUSTER_WARPS;
            int64_t at = static_cast<int64_t>(token) * CLUSTER_HIDDEN + column;
            sums[i].bits = pulled[i].bits = make_uint4(0, 0, 0, 0);
            if (token >= a.tokens)
                continue;
            sums[i].bits = load_here((a.norm ? a.residual : a.x) + at);
            if (a.lane != NULL)
                pulled[i].bits = load_here(a.lane + at);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int row = warp + (from + i) * CLUSTER_WARPS, token = first + row;
            float squares = 0;
            bf16x8_to_float(values, sums[i]);
            if (a.lane != NULL) {
                bf16x8_to_float(others, pulled[i]);
#pragma unroll
                for (int k = 0; k < BF16_VECTOR; k++)
                    values[k] += others[k];
                sums[i] = bf16x8_from_float(values);
                bf16x8_to_float(values, sums[i]);
                if (token < a.tokens)
                    *reinterpret_cast<uint4 *>(
                        a.residual + static_cast<int64_t>(token) * CLUSTER_HIDDEN + column) =
                        sums[i].bits;
            }
            reinterpret_cast<uint4 *>(memory->rows[row])[lane] = sums[i].bits;
            if (a.norm == NULL)
                continue;
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                squares += values[k] * values[k];
            squares = warp_sum(squares);
            uint32_t to = static_cast<uint32_t>(lane % CLUSTER_BLOCKS);
            if (lane < CLUSTER_BLOCKS)
                cluster_send(cluster_address(shared_address(&memory->squares[row][rank]), to),
                             squares, cluster_address(barrier_address(&memory->squares_there), to));
        }
    }
}

// The same columns normalised, in place and to memory; this block's part of the gate's logit.
template <int TOKENS>
static __device__ __forceinline__ void
cluster_norm(const cluster_arguments &a, cluster_memory<TOKENS> *memory,
             const cluster_weights &weights, int first, int column)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int rank = static_cast<int>(blockIdx.x) % CLUSTER_BLOCKS;
    const uint4 &low = weights.norm[0], &high = weights.norm[1];
    const uint32_t norm[BF16_VECTOR] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < TOKENS / CLUSTER_WARPS; i++) {
        int row = warp + i * CLUSTER_WARPS, token = first + row;
        float values[BF16_VECTOR], gate[BF16_VECTOR], sum = 0;
        bf16x8 vector;
        vector.bits = reinterpret_cast<const uint4 *>(memory->rows[row])[lane];
        bf16x8_to_float(values, vector);
        if (a.norm != NULL) {
            float squares = memory->squares[row][lane % CLUSTER_BLOCKS];
#pragma unroll
            for (int offset = CLUSTER_BLOCKS / 2; offset > 0; offset /= 2)
                squares += __shfl_xor_sync(0xffffffffu, squares, offset);
            float scale = rsqrtf(squares / CLUSTER_HIDDEN + a.eps);
#pragma unroll
            for (int k = 0; k < BF16_VECTOR; k++)
                values[k] = values[k] * scale * (1.0f + __uint_as_float(norm[k]));
            vector = bf16x8_from_float(values);
            bf16x8_to_float(values, vector);
            reinterpret_cast<uint4 *>(memory->rows[row])[lane] = vector.bits;
            if (token < a.tokens)
                *reinterpret_cast<uint4 *>(a.x + static_cast<int64_t>(token) * CLUSTER_HIDDEN +
                                           column + lane * BF16_VECTOR) = vector.bits;
        }
        bf16x8_to_float(gate, weights.shared);
#pragma unroll
        for (int k = 0; k < BF16_VECTOR; k++)
            sum += values[k] * gate[k];
        sum = warp_sum(sum);
        uint32_t to = static_cast<uint32_t>(warp); // row % CLUSTER_BLOCKS
        if (lane == 0)
            cluster_send(
                cluster_address(shared_address(&memory->parts[rank][i][CLUSTER_EXPERTS]), to), sum,
                cluster_address(barrier_address(&memory->parts_there), to));
    }
}

// ---- logits ----

// All experts by this block's columns, 16 tokens at a time; a token's part goes to its block.
template <int TOKENS>
static __device__ __forceinline__ void cluster_multiply(cluster_memory<TOKENS> *memory,
                                                        const cluster_weights &weights, int tokens)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, g = lane / 4, c = lane % 4;
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int rank = static_cast<int>(blockIdx.x) % CLUSTER_BLOCKS;
    uint32_t from = shared_address(memory->rows[g]) + c * VECTOR_BYTES;
    uint32_t to =
        cluster_address(shared_address(&memory->parts[rank][0][warp * CLUSTER_WIDE * 8 + 4 * c]),
                        static_cast<uint32_t>(g)); // rows g and g + 8 are of block g
    uint32_t there =
        cluster_address(barrier_address(&memory->parts_there), static_cast<uint32_t>(g));
#pragma unroll
    for (int m = 0; m < TOKENS / CLUSTER_TOKENS; m++) {
        if (m * CLUSTER_TOKENS >= tokens)
            break;
        float4 sums[CLUSTER_WIDE] = {};
#pragma unroll
        for (int step = 0; step < CLUSTER_STEPS; step++) {
            uint32_t at = from + m * CLUSTER_TOKENS * CLUSTER_ROW_BYTES + step * CLUSTER_DEPTH * 2;
            uint4 low = shared_load(at), high = shared_load(at + 8 * CLUSTER_ROW_BYTES);
#pragma unroll
            for (int n = 0; n < CLUSTER_WIDE; n++) {
                const uint4 &w = weights.experts[step][n];
                mma_m16n8k16(sums[n], {low.x, high.x, low.y, high.y}, w.x, w.y);
                mma_m16n8k16(sums[n], {low.z, high.z, low.w, high.w}, w.z, w.w);
            }
        }
#pragma unroll
        for (int n = 0; n < CLUSTER_WIDE; n += 2) {
            uint32_t at = to + static_cast<uint32_t>(2 * m * CLUSTER_PART + n / 2 * 16) * 4;
            cluster_send(at, make_float4(sums[n].x, sums[n].y, sums[n + 1].x, sums[n + 1].y),
                         there);
            cluster_send(at + CLUSTER_PART * 4,
                         make_float4(sums[n].z, sums[n].w, sums[n + 1].z, sums[n + 1].w), there);
        }
    }
}

// A warp has one of the block's tokens: the parts of its logits in the order of blocks, and picks.
template <int TOKENS>
static __device__ __forceinline__ void cluster_pick(const cluster_arguments &a,
                                                    const cluster_memory<TOKENS> &memory, int first)
{
    constexpr int PER_LANE = CLUSTER_EXPERTS / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int own = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int64_t token = first + own * CLUSTER_BLOCKS + static_cast<int>(blockIdx.x) % CLUSTER_BLOCKS;
    if (own >= TOKENS / CLUSTER_BLOCKS || token >= a.tokens)
        return;
    float logits[PER_LANE] = {}, shared = 0;
#pragma unroll
    for (int block = 0; block < CLUSTER_BLOCKS; block++) {
        const float *part = memory.parts[block][own];
#pragma unroll
        for (int i = 0; i < PER_LANE; i++)
            logits[i] += part[i * WARP_THREADS + lane];
        shared += part[CLUSTER_EXPERTS];
    }
    float *to = a.logits + token * (CLUSTER_EXPERTS + 1);
    unsigned keys[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        to[i * WARP_THREADS + lane] = logits[i];
        keys[i] = route_key(logits[i]);
    }
    route_picked picked = route_pick(keys, shared, a.picks);
    if (lane < a.picks) {
        a.expert_ids[token * a.picks + lane] = picked.id;
        a.expert_weights[token * a.picks + lane] = picked.weight;
    }
    if (lane == 0) {
        to[CLUSTER_EXPERTS] = shared;
        a.shared_weights[token] = picked.shared;
    }
}

// One thread readies the barriers: each counts what the block is sent, squares where there is a
// norm.
template <int TOKENS>
static __device__ __forceinline__ void cluster_open(cluster_memory<TOKENS> *memory, int tokens)
{
    constexpr int VALUE = static_cast<int>(sizeof(float));
    int products = min((tokens + CLUSTER_TOKENS - 1) / CLUSTER_TOKENS, TOKENS / CLUSTER_TOKENS);
    barrier_init(&memory->squares_there, 1);
    barrier_init(&memory->parts_there, 1);
    cluster_barriers_ready();
    barrier_expect(&memory->squares_there, TOKENS * CLUSTER_BLOCKS * VALUE);
    barrier_expect(&memory->parts_there,
                   (products * CLUSTER_TOKENS * CLUSTER_EXPERTS + TOKENS) * VALUE);
}

// grid: clusters of CLUSTER_BLOCKS, TOKENS tokens each; shared cluster_memory<TOKENS>.
template <int TOKENS>
static __global__ void __launch_bounds__(CLUSTER_THREADS, 1)
    route_cluster_kernel(const cluster_arguments a)
{
    extern __shared__ __align__(16) uint8_t dynamic[];
    cluster_memory<TOKENS> *memory = reinterpret_cast<cluster_memory<TOKENS> *>(dynamic);
    int first = static_cast<int>(blockIdx.x) / CLUSTER_BLOCKS * TOKENS;
    int column = static_cast<int>(blockIdx.x) % CLUSTER_BLOCKS * CLUSTER_COLUMNS;
    cluster_weights weights;
    if (threadIdx.x == 0)
        cluster_open(memory, a.tokens - first);
    __syncwarp();
    cluster_arrive();
    cluster_take(&weights, a, column);
    pdl_wait();
    pdl_trigger();
    cluster_ready();
    cluster_pull<TOKENS>(a, memory, first, column);
    if (a.norm != NULL)
        cluster_barrier_wait(&memory->squares_there, 0);
    cluster_norm<TOKENS>(a, memory, weights, first, column);
    __syncthreads();
    cluster_multiply<TOKENS>(memory, weights, a.tokens - first);
    cluster_barrier_wait(&memory->parts_there, 0); // in all threads: what comes needs the block
    cluster_pick<TOKENS>(a, *memory, first);
}

// ---- launches ----

// Clusters of most tokens that run at once; none on a part of a GPU that is too small for one, and
// where it cannot be told. Ranks of a group pick alike, as their GPUs are alike.
static int clusters_resident()
{
    constexpr int TOKENS = CLUSTER_TILES_MAX * CLUSTER_TOKENS;
    static int count = -1;
    cudaLaunchAttribute attribute = {};
    cudaLaunchConfig_t config = {};
    if (count >= 0)
        return count;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {CLUSTER_BLOCKS, 1, 1};
    config.gridDim = dim3(CLUSTER_BLOCKS);
    config.blockDim = dim3(CLUSTER_THREADS);
    config.dynamicSmemBytes = sizeof(cluster_memory<TOKENS>);
    config.attrs = &attribute;
    config.numAttrs = 1;
    CUDA_CHECK(cudaFuncSetAttribute(route_cluster_kernel<TOKENS>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(config.dynamicSmemBytes)));
    if (cudaOccupancyMaxActiveClusters(&count, route_cluster_kernel<TOKENS>, &config) !=
        cudaSuccess) {
        count = 0;
        (void)cudaGetLastError();
    }
    return count;
}

// With as few tokens a cluster as lets all clusters run at once.
template <int TILES = 1> static void cluster_launch(cudaStream_t stream, const cluster_arguments &a)
{
    constexpr int TOKENS = TILES * CLUSTER_TOKENS;
    static bool prepared = false;
    int clusters = (a.tokens + TOKENS - 1) / TOKENS;
    if constexpr (TILES < CLUSTER_TILES_MAX) {
        if (clusters > clusters_resident()) {
            cluster_launch<2 * TILES>(stream, a);
            return;
        }
    }
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(route_cluster_kernel<TOKENS>,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(sizeof(cluster_memory<TOKENS>))));
    prepared = true;
    launch_clustered(route_cluster_kernel<TOKENS>, CLUSTER_BLOCKS,
                     dim3(static_cast<unsigned>(clusters * CLUSTER_BLOCKS)), dim3(CLUSTER_THREADS),
                     sizeof(cluster_memory<TOKENS>), stream, a);
}

bool route_cluster_serves(const struct moe_route *op)
{
    return device_is_sm90() && op->hidden == CLUSTER_HIDDEN && op->experts == CLUSTER_EXPERTS &&
           op->tokens >= CLUSTER_TOKENS_MIN && op->tokens <= CLUSTER_TOKENS_MAX &&
           clusters_resident() > 0;
}

void route_cluster(cudaStream_t stream, const struct moe_route *op, const bf16 *lane)
{
    cluster_arguments a = {};
    a.w = weight_bf16(&op->router);
    a.x = op->x;
    a.residual = op->residual;
    a.lane = lane;
    a.norm = op->norm;
    a.eps = op->eps;
    a.tokens = op->tokens;
    a.picks = op->picks;
    a.logits = op->logits;
    a.expert_ids = op->expert_ids;
    a.expert_weights = op->expert_weights;
    a.shared_weights = op->shared_weights;
    cluster_launch(stream, a);
}
