// SPDX-License-Identifier: Apache-2.0
// gdn.cu -- token by token, a block per (row of the step, value head) with the state in shared
// memory; prefill runs the recurrence, too. What the chunked form and registers gain comes later.
#include "kernels/device/launch.cuh"
#include "kernels/device/reduce.cuh"

extern "C" {
#include "kernels/gdn.h"
}

enum {
    DIM = GDN_HEAD_DIM,
    HISTORY = GDN_CONV_WIDTH - 1,
    STATE_STRIDE = DIM + 1, // words: threads of a warp then hit different banks
};

// What a block knows of its row.
struct gdn_row {
    int64_t slot, pending_from, pending_to;
    int token_first, tokens, pending, channels;
    bool decode;
};

static __device__ bool load_row(gdn_row *row, const struct gdn &op, int index)
{
    const struct step_row &step = op.tables.rows[index];
    const struct slot &slot = op.slots.slots[step.slot];
    row->slot = step.slot;
    row->pending_from = 2 * row->slot + slot.parity;
    row->pending_to = 2 * row->slot + 1 - slot.parity;
    row->token_first = step.token_first;
    row->tokens = op.tables.active_count[index];
    row->pending = slot.pending;
    row->channels = (2 * op.key_heads + op.value_heads) * DIM;
    row->decode = step.kind == ROW_DECODE;
    return row->tokens > 0;
}

// The raw projection of `token` of the row at `channel`; before token 0 lie the accepted pending
// rows, before those the slot's history.
static __device__ float column(const struct gdn &op, const gdn_row &row, int token, int channel)
{
    if (token >= 0)
        return bf16_to_float(
            op.projected[static_cast<int64_t>(row.token_first + token) * op.projected_stride +
                         channel]);
    int at = HISTORY + row.pending + token; // in history followed by pending rows
    if (at >= HISTORY) {
        int64_t pending = row.pending_from * ROW_VERIFY_MAX + at - HISTORY;
        return bf16_to_float(op.state.pending_conv[pending * row.channels + channel]);
    }
    return bf16_to_float(op.state.conv[(row.slot * HISTORY + at) * row.channels + channel]);
}

static __device__ float convolve(const struct gdn &op, const gdn_row &row, int token, int channel)
{
    const float *taps = op.conv_weight + static_cast<int64_t>(channel) * GDN_CONV_WIDTH;
    float sum = 0;
    for (int tap = 0; tap < GDN_CONV_WIDTH; tap++)
        sum += taps[tap] * column(op, row, token - HISTORY + tap, channel);
    return bf16_to_float(bf16_from_float(sum / (1.0f + expf(-sum))));
}

static __device__ float normalised(float value, float *shared)
{
    return value * rsqrtf(block_sum<DIM>(value * value, shared) + 1e-6f);
}

static __device__ int64_t pending_head(int64_t buffer, int row, int heads, int head)
{
    return (buffer * ROW_VERIFY_MAX + row) * heads + head;
}

// Thread v holds state row v. state <- alpha state + k u, rounded at every token.
static __device__ void apply(float *state, const float *k, float alpha, float u)
{
    for (int i = 0; i < DIM; i++)
        state[i] = alpha * state[i] + k[i] * u;
}

static __device__ float dot(const float *state, const float *x)
{
    float sums[4] = {0, 0, 0, 0};
    for (int i = 0; i < DIM; i += 4) {
        for (int j = 0; j < 4; j++)
            sums[j] += state[i + j] * x[i + j];
    }
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

static __device__ void fold(const struct gdn &op, const gdn_row &row, float *state, float *k,
                            int head)
{
    int v = static_cast<int>(threadIdx.x), key_head = head / (op.value_heads / op.key_heads);
    for (int i = 0; i < row.pending; i++) {
        int64_t of_key = pending_head(row.pending_from, i, op.key_heads, key_head);
        int64_t of_value = pending_head(row.pending_from, i, op.value_heads, head);
        __syncthreads();
        k[v] = op.state.pending_k[of_key * DIM + v];
        __syncthreads();
        apply(state, k, expf(op.state.pending_g[of_value]), op.state.pending_u[of_value * DIM + v]);
    }
}

// Shared memory of a block: this thread's row of the state, and vectors that all threads read.
struct gdn_shared {
    float *state; // [DIM] of this thread
    float *q, *k; // [DIM]
    float *sums;  // for block_sum
};

static __device__ void run_token(const struct gdn &op, const gdn_row &row, const gdn_shared &block,
                                 int head, int token)
{
    float *state = block.state, *q = block.q, *k = block.k, *shared = block.sums;
    int v = static_cast<int>(threadIdx.x), key_head = head / (op.value_heads / op.key_heads);
    int64_t projected = static_cast<int64_t>(row.token_first + token) * op.projected_stride;
    const bf16 *b = op.projected + projected + row.channels + op.value_heads * DIM + head;
    float a = bf16_to_float(b[op.value_heads]) + op.dt_bias[head];
    float g = -expf(op.a_log[head]) * (a > 20.0f ? a : log1pf(expf(a)));
    float alpha = expf(g), beta = 1.0f / (1.0f + expf(-bf16_to_float(b[0])));
    float own_q = normalised(convolve(op, row, token, key_head * DIM + v), shared);
    float own_k = normalised(convolve(op, row, token, (op.key_heads + key_head) * DIM + v), shared);
    float own_v = convolve(op, row, token, (2 * op.key_heads + head) * DIM + v);
    __syncthreads(); // the token before has been read
    q[v] = own_q;
    k[v] = own_k;
    __syncthreads();
    float u = beta * (own_v - alpha * dot(state, k));
    apply(state, k, alpha, u);
    float o = dot(state, q) * rsqrtf(static_cast<float>(DIM));
    int64_t at = (static_cast<int64_t>(row.token_first + token) * op.value_heads + head) * DIM + v;
    op.o[at] = bf16_from_float(o);
    if (!row.decode)
        return;
    int64_t of_value = pending_head(row.pending_to, token, op.value_heads, head);
    op.state.pending_u[of_value * DIM + v] = u;
    if (v == 0)
        op.state.pending_g[of_value] = g;
    if (head % (op.value_heads / op.key_heads) == 0)
        op.state.pending_k[pending_head(row.pending_to, token, op.key_heads, key_head) * DIM + v] =
            own_k;
}

// grid (value heads, rows), block DIM. Decode stores the state as folded, prefill with its tokens.
static __global__ void gdn_kernel(struct gdn op)
{
    extern __shared__ float memory[];
    __shared__ float q[DIM], k[DIM], shared[DIM / WARP_THREADS];
    int head = static_cast<int>(blockIdx.x), v = static_cast<int>(threadIdx.x);
    gdn_row row;
    if (!load_row(&row, op, static_cast<int>(blockIdx.y)))
        return;
    float *state = memory + v * STATE_STRIDE;
    float *stored = op.state.state + (row.slot * op.value_heads + head) * DIM * DIM;
    for (int i = 0; i < DIM; i++) // a row of DIM values at a time, coalesced
        memory[i * STATE_STRIDE + v] = stored[i * DIM + v];
    __syncthreads();
    fold(op, row, state, k, head);
    __syncthreads();
    for (int i = 0; i < DIM && row.decode && row.pending > 0; i++)
        stored[i * DIM + v] = memory[i * STATE_STRIDE + v];
    for (int token = 0; token < row.tokens; token++)
        run_token(op, row, {state, q, k, shared}, head, token);
    __syncthreads();
    for (int i = 0; i < DIM && !row.decode; i++)
        stored[i * DIM + v] = memory[i * STATE_STRIDE + v];
}

// grid (channels / DIM, rows): history and pending columns, after every head has read them. A
// thread reads its channel's three new columns before it writes any.
static __global__ void gdn_conv_kernel(struct gdn op)
{
    int channel = static_cast<int>(blockIdx.x) * DIM + static_cast<int>(threadIdx.x);
    gdn_row row;
    if (!load_row(&row, op, static_cast<int>(blockIdx.y)))
        return;
    float kept[HISTORY];
    for (int i = 0; i < HISTORY; i++)
        kept[i] = column(op, row, (row.decode ? 0 : row.tokens) - HISTORY + i, channel);
    for (int i = 0; i < HISTORY; i++)
        op.state.conv[(row.slot * HISTORY + i) * row.channels + channel] = bf16_from_float(kept[i]);
    for (int token = 0; row.decode && token < row.tokens; token++) {
        int64_t to = row.pending_to * ROW_VERIFY_MAX + token;
        op.state.pending_conv[to * row.channels + channel] =
            bf16_from_float(column(op, row, token, channel));
    }
}

extern "C" void gdn(struct stream *stream, const struct gdn *op)
{
    ASSERT(op->key_heads > 0 && op->value_heads % op->key_heads == 0);
    const int bytes = DIM * STATE_STRIDE * static_cast<int>(sizeof(float));
    unsigned rows = static_cast<unsigned>(op->tables.rows_count);
    size_t o_bytes = static_cast<size_t>(op->tables.tokens_count) *
                     static_cast<size_t>(op->value_heads) * DIM * sizeof(bf16);
    CUDA_CHECK(cudaMemsetAsync(op->o, 0, o_bytes, stream->handle)); // of tokens that do not run
    if (rows == 0)
        return;
    CUDA_CHECK(
        cudaFuncSetAttribute(gdn_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    dim3 heads(static_cast<unsigned>(op->value_heads), rows);
    dim3 channels(static_cast<unsigned>(2 * op->key_heads + op->value_heads), rows);
    gdn_kernel<<<heads, DIM, bytes, stream->handle>>>(*op);
    LAUNCH_CHECK();
    gdn_conv_kernel<<<channels, DIM, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}

// grid (blocks over the slot, openings).
static __global__ void gdn_open_kernel(struct gdn_state state, int key_heads, int value_heads,
                                       const struct slot_opening *openings)
{
    const struct slot_opening opening = openings[blockIdx.y];
    int64_t states = static_cast<int64_t>(value_heads) * DIM * DIM;
    int64_t columns = static_cast<int64_t>(2 * key_heads + value_heads) * DIM * HISTORY;
    int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    if (opening.position > 0)
        return; // a checkpoint's copy has filled the slot
    for (int64_t i = first; i < states; i += step)
        state.state[opening.slot * states + i] = 0;
    for (int64_t i = first; i < columns; i += step)
        state.conv[opening.slot * columns + i].bits = 0;
}

extern "C" void gdn_open(struct stream *stream, const struct gdn_state *state, int key_heads,
                         int value_heads, const struct slot_opening *openings, int openings_count)
{
    if (openings_count == 0)
        return;
    gdn_open_kernel<<<dim3(64, static_cast<unsigned>(openings_count)), 256, 0, stream->handle>>>(
        *state, key_heads, value_heads, openings);
    LAUNCH_CHECK();
}
