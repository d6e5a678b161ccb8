// SPDX-License-Identifier: Apache-2.0
// gdn.cuh -- what the Gated DeltaNet kernels share: a row's place in memory, the convolution's
// history, the gates and one token's update of the state. Rounding is spelled out (no contraction
// by the compiler), so that every kernel that computes one of these gets the same bits.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/gdn.h"
}

#include <type_traits>

enum { GDN_HISTORY = GDN_CONV_WIDTH - 1 };

// Kernels that load or store the state are templates of its type in memory, float or bf16.
template <typename State>
static constexpr bool gdn_rounds = std::is_same<State, bf16>::value; // bf16_state
template <typename State>
static constexpr int gdn_waiting_max = gdn_rounds<State> ? GDN_BF16_WAITING_MAX : GDN_WAITING_MAX;

// What a block knows of its row.
struct gdn_row {
    int64_t slot;
    int parity;                   // of the columns that are read
    int token_first, token_count; // of the step's tokens
    int tokens;                   // of them, run
    int channels;
    int accepted;             // of the last step's rows
    struct gdn_waiting waits; // rows to fold, those of the last step among them
    int decode;
    int folds; // f32 state: into memory; bf16 state: gdn_phase
};

// The row `index` of the step.
template <typename State = float>
static __device__ __forceinline__ gdn_row gdn_load_row(const struct gdn &op, int index)
{
    const struct step_row &step = op.tables.rows[index];
    const struct slot &slot = op.slots.slots[step.slot];
    gdn_row row;
    row.slot = step.slot;
    row.parity = slot.parity;
    row.token_first = step.token_first;
    row.token_count = step.token_count;
    row.tokens = op.tables.active_count[index];
    row.channels = (2 * op.key_heads + op.value_heads) * GDN_HEAD_DIM;
    row.accepted = slot.pending;
    row.waits = op.state.waiting[2 * row.slot + row.parity];
    row.waits.count += slot.pending;
    row.decode = step.kind == ROW_DECODE;
    if constexpr (gdn_rounds<State>)
        row.folds = slot.position % GDN_ROUND_TOKENS;
    else
        row.folds = row.waits.count > 0 && (row.waits.count + row.tokens > GDN_WAITING_MAX ||
                                            slot.position == step.pause_at);
    return row;
}

// ---- a bf16 state ----

// Position of the row's first token % GDN_ROUND_TOKENS.
static __device__ __forceinline__ int gdn_phase(const gdn_row &row)
{
    return row.folds;
}

// Of the rows that wait, those before the last place of rounding: they go to memory.
static __device__ __forceinline__ int gdn_folded(const gdn_row &row)
{
    return max(0, row.waits.count - gdn_phase(row));
}

// The row's own token behind the last place of rounding: from it on a prefill row's tokens go to
// the ring, as all of a decode row's do. With none of its own before it, 0.
static __device__ __forceinline__ int gdn_own_first(const gdn_row &row)
{
    return row.decode ? 0 : max(0, row.tokens - (gdn_phase(row) + row.tokens) % GDN_ROUND_TOKENS);
}

// Whether the state is rounded behind the row's token.
static __device__ __forceinline__ bool gdn_rounds_behind(const gdn_row &row, int token)
{
    return (gdn_phase(row) + token + 1) % GDN_ROUND_TOKENS == 0;
}

// Two f32 as bf16, to nearest, the first one in the lower half; and back.
static __device__ __forceinline__ uint32_t gdn_pack(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

static __device__ __forceinline__ float2 gdn_unpack(uint32_t packed)
{
    return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u));
}

// As memory would keep them.
template <int COUNT> static __device__ __forceinline__ void gdn_round(float s[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i += 2) {
        const float2 rounded = gdn_unpack(gdn_pack(s[i], s[i + 1]));
        s[i] = rounded.x;
        s[i + 1] = rounded.y;
    }
}

// Where the row's slot has its columns of this parity.
static __device__ __forceinline__ bf16 *gdn_columns_of(const struct gdn &op, const gdn_row &row,
                                                       int parity)
{
    const int first = (2 * static_cast<int>(row.slot) + parity) * op.state.pending_columns;
    return op.state.pending_conv + static_cast<int64_t>(first) * row.channels;
}

// The three columns before the row's first token, oldest first, `channels` apart: behind the
// accepted pending rows, or where the last prefill left them.
static __device__ __forceinline__ const bf16 *gdn_history(const struct gdn &op, const gdn_row &row)
{
    if (row.accepted > 0)
        return gdn_columns_of(op, row, row.parity) +
               static_cast<int64_t>(row.accepted) * row.channels;
    return op.state.conv + row.slot * GDN_HISTORY * row.channels;
}

// Where a prefill row's next checkpoint goes.
struct gdn_save {
    int index;  // in tables.saves
    int tokens; // of the row, then it is due; 0: there is none
    int64_t checkpoint;
};

// The first of row `index`. Called by whole warps.
static __device__ __forceinline__ gdn_save gdn_first_save(const struct step_tables &tables,
                                                          int index)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int first = 0; first < tables.saves_count; first += 32) {
        bool own = first + lane < tables.saves_count && tables.saves[first + lane].row == index;
        unsigned found = __ballot_sync(0xffffffffu, own);
        if (found != 0) {
            int at = first + __ffs(static_cast<int>(found)) - 1;
            return {at, tables.saves[at].tokens, tables.saves[at].checkpoint};
        }
    }
    return {0, 0, 0};
}

// The one behind, of the same row.
static __device__ __forceinline__ gdn_save gdn_next_save(const struct step_tables &tables,
                                                         const gdn_save &save)
{
    int at = save.index + 1;
    if (at == tables.saves_count || tables.saves[at].row != tables.saves[save.index].row)
        return {at, 0, 0};
    return {at, tables.saves[at].tokens, tables.saves[at].checkpoint};
}

// x sigmoid(x), a few units of 2^-24 off; an overflowing exponential gives 0.
static __device__ __forceinline__ float gdn_silu(float x)
{
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(__fmul_rn(x, -1.4426950408889634f)));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(__fadd_rn(1.0f, e)));
    return __fmul_rn(x, r);
}

// One channel on its way through the tokens of a row.
struct gdn_channel {
    float taps[GDN_CONV_WIDTH];
    float before[GDN_HISTORY]; // raw columns before the next token, oldest first
};

// Channel `at`; history as from gdn_history, `channels` apart.
static __device__ __forceinline__ void gdn_open_channel(gdn_channel *channel, const struct gdn &op,
                                                        const bf16 *history, int channels, int at)
{
    const float4 taps = __ldg(reinterpret_cast<const float4 *>(op.conv_weight) + at);
    channel->taps[0] = taps.x;
    channel->taps[1] = taps.y;
    channel->taps[2] = taps.z;
    channel->taps[3] = taps.w;
#pragma unroll
    for (int i = 0; i < GDN_HISTORY; i++)
        channel->before[i] = bf16_to_float(history[static_cast<int64_t>(i) * channels + at]);
}

// bf16(silu(convolution)) at the token whose raw column is x.
static __device__ __forceinline__ float gdn_convolve(gdn_channel *channel, float x)
{
    float sum = __fmul_rn(channel->taps[0], channel->before[0]);
    sum = __fmaf_rn(channel->taps[1], channel->before[1], sum);
    sum = __fmaf_rn(channel->taps[2], channel->before[2], sum);
    sum = __fmaf_rn(channel->taps[3], x, sum);
    channel->before[0] = channel->before[1];
    channel->before[1] = channel->before[2];
    channel->before[2] = x;
    return bf16_to_float(bf16_from_float(gdn_silu(sum)));
}

// log alpha of a token and value head, from the projection's column a.
static __device__ __forceinline__ float gdn_log_decay(const struct gdn &op, int head, bf16 a)
{
    float x = __fadd_rn(bf16_to_float(a), op.dt_bias[head]);
    float softplus = x > 20.0f ? x : log1pf(expf(x));
    return __fmul_rn(-expf(op.a_log[head]), softplus);
}

// From the projection's column b.
static __device__ __forceinline__ float gdn_beta(bf16 b)
{
    return __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-bf16_to_float(b))));
}

// One element of the state through one token, in a step that runs it and in one that folds it.
static __device__ __forceinline__ float gdn_advance(float state, float alpha, float k, float u)
{
    return __fmaf_rn(k, u, __fmul_rn(alpha, state));
}

// The place i behind the first of those that wait; less than twice around.
static __device__ __forceinline__ int gdn_ring_place(const struct gdn &op, const gdn_row &row,
                                                     int i)
{
    const int place = row.waits.first + i;
    return place < op.state.pending_rows ? place : place - op.state.pending_rows;
}

// Index of a head in pending_k (key heads), pending_u and pending_g (value heads): of the waiting
// row i, or behind them of the row's own tokens.
static __device__ __forceinline__ int64_t gdn_pending(const struct gdn &op, const gdn_row &row,
                                                      int i, int heads, int head)
{
    const int first = static_cast<int>(row.slot) * op.state.pending_rows;
    return static_cast<int64_t>(first + gdn_ring_place(op, row, i)) * heads + head;
}

// What the slot's next row finds waiting beside the tokens of this decode row.
template <typename State>
static __device__ __forceinline__ void gdn_keep_waiting(const struct gdn &op, const gdn_row &row)
{
    struct gdn_waiting waits = row.waits;
    if constexpr (gdn_rounds<State>) {
        waits.first = gdn_ring_place(op, row, gdn_folded(row));
        waits.count -= gdn_folded(row);
    } else if (row.folds) {
        waits.first = gdn_ring_place(op, row, waits.count);
        waits.count = 0;
    }
    op.state.waiting[2 * row.slot + 1 - row.parity] = waits;
}
