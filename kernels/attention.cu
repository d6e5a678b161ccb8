// SPDX-License-Identifier: Apache-2.0
// attention.cu -- which kernels serve a step, and the general ones, for heads that are not of 256:
// keys and values are appended first; then a block per (token, query head) walks the pages, a warp
// per key, and merges its warps' softmaxes in order.
#include "kernels/device/attention.cuh"

enum {
    ATTENTION_WARPS = 4,
    ATTENTION_THREADS = ATTENTION_WARPS * WARP_THREADS,
    HEAD_DIM_MAX = 256,
    LANE_DIMS = HEAD_DIM_MAX / WARP_THREADS, // of a key, a value and a sum, in registers
};

// Zero-centred norm and rotation of one head into `out` (shared, f32). All threads of the block.
static __device__ void norm_rotate(float *out, const bf16 *x, const float *norm,
                                   const struct attention &op, int position, float *shared)
{
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS) {
        float value = bf16_to_float(x[i]);
        squares += value * value;
    }
    float scale = rsqrtf(
        block_sum<ATTENTION_THREADS>(squares, shared) / static_cast<float>(op.head_dim) + op.eps);
    int half = op.rotary_dim / 2;
    for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS) {
        float value = bf16_to_float(x[i]) * scale * (1.0f + norm[i]);
        if (i < op.rotary_dim) {
            int pair = i < half ? i : i - half, other = i < half ? i + half : i - half;
            float angle = static_cast<float>(position) * op.inverse_frequencies[pair];
            float cosine = cosf(angle) * op.rotary_scale, sine = sinf(angle) * op.rotary_scale;
            float second = bf16_to_float(x[other]) * scale * (1.0f + norm[other]);
            value = i < half ? value * cosine - second * sine : value * cosine + second * sine;
        }
        out[i] = value;
    }
    __syncthreads();
}

// Where a position of a slot lies in the pages, for one KV head.
static __device__ int64_t key_at(const struct attention &op, int slot, int position, int kv_head)
{
    int64_t page = op.slots.block_table[static_cast<int64_t>(slot) * op.slots.pages_per_sequence +
                                        position / ATTENTION_PAGE_TOKENS];
    int64_t row =
        (page * op.kv_heads + kv_head) * ATTENTION_PAGE_TOKENS + position % ATTENTION_PAGE_TOKENS;
    return row * op.head_dim;
}

// grid (tokens, kv heads): only x takes as many tokens as a step may have.
static __global__ void append_kernel(struct attention op, int keys_first)
{
    __shared__ float k[HEAD_DIM_MAX], shared[ATTENTION_WARPS];
    int token = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
    int position = op.tables.token_positions[token];
    if (position < 0)
        return;
    int slot = op.tables.rows[op.tables.token_rows[token]].slot;
    const bf16 *keys = op.projected + static_cast<int64_t>(token) * op.projected_stride +
                       keys_first + head * op.head_dim;
    const bf16 *values = keys + op.kv_heads * op.head_dim;
    int64_t at = key_at(op, slot, position, head);
    norm_rotate(k, keys, op.k_norm, op, position, shared);
    for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS) {
        op.k_pages[at + i] = bf16_from_float(k[i]);
        op.v_pages[at + i] = values[i];
    }
}

// A softmax under way: the largest score, the sum of weights and of weighted values.
struct running {
    float largest, weight, sum[LANE_DIMS];
};

static __device__ void take_key(running *r, const struct attention &op, const float *q, int64_t at)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float score = 0;
#pragma unroll
    for (int j = 0; j < LANE_DIMS; j++) {
        int i = lane + j * WARP_THREADS;
        if (i < op.head_dim)
            score += q[i] * bf16_to_float(op.k_pages[at + i]);
    }
    score = warp_sum(score) * rsqrtf(static_cast<float>(op.head_dim));
    float largest = fmaxf(r->largest, score);
    float keep = expf(r->largest - largest), weight = expf(score - largest);
    r->largest = largest;
    r->weight = r->weight * keep + weight;
#pragma unroll
    for (int j = 0; j < LANE_DIMS; j++) {
        int i = lane + j * WARP_THREADS;
        float value = i < op.head_dim ? bf16_to_float(op.v_pages[at + i]) : 0.0f;
        r->sum[j] = r->sum[j] * keep + weight * value;
    }
}

// Adds the warps' parts in order and applies the gate.
static __device__ void merge(const struct attention &op, const running &r, int token, int head)
{
    __shared__ float largest[ATTENTION_WARPS], weight[ATTENTION_WARPS];
    __shared__ float sums[ATTENTION_WARPS][HEAD_DIM_MAX];
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    if (lane == 0) {
        largest[warp] = r.largest;
        weight[warp] = r.weight;
    }
    for (int j = 0; j < LANE_DIMS; j++)
        sums[warp][lane + j * WARP_THREADS] = r.sum[j];
    __syncthreads();
    float top = -INFINITY, total = 0;
    for (int w = 0; w < ATTENTION_WARPS; w++)
        top = fmaxf(top, largest[w]);
    for (int w = 0; w < ATTENTION_WARPS; w++)
        total += weight[w] > 0 ? weight[w] * expf(largest[w] - top) : 0.0f;
    const bf16 *gate = op.projected + static_cast<int64_t>(token) * op.projected_stride +
                       (op.heads + head) * op.head_dim;
    bf16 *y = op.y + (static_cast<int64_t>(token) * op.heads + head) * op.head_dim;
    for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS) {
        float sum = 0;
        for (int w = 0; w < ATTENTION_WARPS; w++)
            sum += weight[w] > 0 ? sums[w][i] * expf(largest[w] - top) : 0.0f;
        float open = 1.0f / (1.0f + expf(-bf16_to_float(gate[i])));
        y[i] = bf16_from_float(total > 0 ? sum / total * open : 0.0f); // 0: no key is seen
    }
}

// grid (tokens, heads).
static __global__ void attention_kernel(struct attention op)
{
    __shared__ float q[HEAD_DIM_MAX], shared[ATTENTION_WARPS];
    int token = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
    int position = op.tables.token_positions[token];
    if (position < 0) {
        bf16 *y = op.y + (static_cast<int64_t>(token) * op.heads + head) * op.head_dim;
        for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS)
            y[i].bits = 0;
        return;
    }
    int slot = op.tables.rows[op.tables.token_rows[token]].slot;
    int kv_head = head / (op.heads / op.kv_heads);
    const bf16 *query =
        op.projected + static_cast<int64_t>(token) * op.projected_stride + head * op.head_dim;
    norm_rotate(q, query, op.q_norm, op, position, shared);
    for (int i = static_cast<int>(threadIdx.x); i < op.head_dim; i += ATTENTION_THREADS)
        q[i] = bf16_to_float(bf16_from_float(q[i]));
    __syncthreads();
    running r = {-INFINITY, 0, {0}};
    for (int key = op.position_first + static_cast<int>(threadIdx.x) / WARP_THREADS;
         key <= position; key += ATTENTION_WARPS)
        take_key(&r, op, q, key_at(op, slot, key, kv_head));
    merge(op, r, token, head);
}

static void attention_general(struct stream *stream, const struct attention *op)
{
    unsigned tokens = static_cast<unsigned>(op->tables.tokens_count);
    append_kernel<<<dim3(tokens, static_cast<unsigned>(op->kv_heads)), ATTENTION_THREADS, 0,
                    stream->handle>>>(*op, 2 * op->heads * op->head_dim);
    LAUNCH_CHECK();
    attention_kernel<<<dim3(tokens, static_cast<unsigned>(op->heads)), ATTENTION_THREADS, 0,
                       stream->handle>>>(*op);
    LAUNCH_CHECK();
}

extern "C" void attention(struct stream *stream, const struct attention *op)
{
    ASSERT(op->head_dim <= HEAD_DIM_MAX && op->heads % op->kv_heads == 0);
    ASSERT(op->position_first >= 0);
    if (op->tables.tokens_count == 0)
        return;
    bool tiled = op->head_dim == HEAD_DIM && op->rotary_dim % 16 == 0 &&
                 op->position_first < PAGE_TOKENS && op->rotary_dim <= 2 * ROTARY_PAIRS_MAX &&
                 op->projected_stride % BF16_VECTOR == 0;
    if (!tiled) {
        attention_general(stream, op);
        return;
    }
    if (op->tables.decode_rows > 0)
        attention_decode(stream, op);
    if (op->tables.decode_rows < op->tables.rows_count || op->tables.decode_rows == 0)
        attention_prefill(stream, op);
}

extern "C" void attention_append(struct stream *stream, const struct attention *op)
{
    ASSERT(op->head_dim <= HEAD_DIM_MAX);
    unsigned tokens = static_cast<unsigned>(op->tables.tokens_count);
    if (tokens == 0)
        return;
    append_kernel<<<dim3(tokens, static_cast<unsigned>(op->kv_heads)), ATTENTION_THREADS, 0,
                    stream->handle>>>(*op, 0);
    LAUNCH_CHECK();
}
