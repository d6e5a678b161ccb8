// SPDX-License-Identifier: Apache-2.0
// gdn_token.cuh -- one token of a row through a part of a head's state in the registers of 256
// threads: eight threads per row of the state (value dimension), 16 key dimensions each, so that a
// warp's 16-byte accesses cover four rows of 512 bytes. Also what a token needs before it
// (convolution, norms, gates, rows that wait) and what it leaves behind.
#pragma once

#include "kernels/device/gdn.cuh"
#include "kernels/device/reduce.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    THREADS = 2 * DIM,
    WARPS = THREADS / WARP_THREADS,
    LANES = 8,                // of one row of the state
    GROUPS = THREADS / LANES, // rows of the state side by side
    OWN = DIM / LANES,        // key dimensions of a thread: 4 float4, LANES float4 apart
};

// What a block's threads hand to one another, for up to TOKENS tokens: q and k normalised, 1 /
// sqrt(128) in q.
template <int TOKENS> struct gdn_tile {
    alignas(16) float q[TOKENS][DIM], k[TOKENS][DIM], v[TOKENS][DIM];
    float qk[TOKENS]; // q . k
    float alpha[TOKENS], beta[TOKENS];
};

// Where a block and a thread stand.
struct gdn_place {
    int head, key_head;
    int row_first;           // of the block's value dimensions
    int thread, group, lane; // thread: of the 256
    bool leads;              // this block writes what its key head's blocks share
};

// A block on its way through a row, whose state is f32 or bf16 in memory; which may prefill.
template <typename State, bool PREFILLS> struct gdn_walk {
    using state = State;
    static constexpr bool prefills = PREFILLS;
    const gdn_row &row;
    gdn_place place;
};

// Whether the row's token goes to the ring.
template <typename Walk>
static __device__ __forceinline__ bool gdn_keeps(const gdn_row &row, int token)
{
    if constexpr (!gdn_rounds<typename Walk::state>)
        return row.decode;
    else
        return !Walk::prefills || token >= gdn_own_first(row);
}

// Behind how many rows there, those that wait included.
template <typename Walk>
static __device__ __forceinline__ int gdn_behind(const gdn_row &row, int token)
{
    if constexpr (gdn_rounds<typename Walk::state> && Walk::prefills)
        return row.waits.count + token - gdn_own_first(row);
    else
        return row.waits.count + token;
}

enum gdn_kind { GDN_Q, GDN_K, GDN_V, GDN_KINDS };

// First channel of a head's q, k or v.
static __device__ __forceinline__ int gdn_channel_of(const struct gdn &op, const gdn_place &place,
                                                     int kind)
{
    int head = kind == GDN_Q ? place.key_head : op.key_heads + place.key_head;
    return (kind == GDN_V ? 2 * op.key_heads + place.head : head) * DIM;
}

// The sums over the lanes of a row of COUNT values: lane / (LANES / COUNT) says which of them a
// lane gets. Each step adds across half the distance of the one before, and halves what a lane has
// in hand; the order is the same for any COUNT.
template <int COUNT> static __device__ __forceinline__ float sums_of_lanes(float value[COUNT])
{
    const unsigned lane = threadIdx.x % LANES;
    int left = COUNT;
#pragma unroll
    for (unsigned offset = LANES / 2; offset > 0; offset /= 2) {
        if (left == 1) {
            value[0] = __fadd_rn(value[0], __shfl_xor_sync(0xffffffffu, value[0], offset));
            continue;
        }
        left /= 2;
#pragma unroll
        for (int i = 0; i < left; i++) {
            bool upper = (lane & offset) != 0;
            float kept = upper ? value[i + left] : value[i];
            float given = upper ? value[i] : value[i + left];
            value[i] = __fadd_rn(kept, __shfl_xor_sync(0xffffffffu, given, offset));
        }
    }
    return value[0];
}

// A thread's part of 128 values in shared memory.
static __device__ __forceinline__ void load_vector(float to[OWN], const float *from, int lane)
{
#pragma unroll
    for (int i = 0; i < OWN; i += 4) {
        const float4 x = reinterpret_cast<const float4 *>(from)[i / 4 * LANES + lane];
        to[i] = x.x;
        to[i + 1] = x.y;
        to[i + 2] = x.z;
        to[i + 3] = x.w;
    }
}

// Four channels of a column, or values of a bf16 state.
static __device__ __forceinline__ void gdn_spread(float to[4], uint2 bits)
{
    to[0] = __uint_as_float(bits.x << 16);
    to[1] = __uint_as_float(bits.x & 0xffff0000u);
    to[2] = __uint_as_float(bits.y << 16);
    to[3] = __uint_as_float(bits.y & 0xffff0000u);
}

// The same of a bf16 state.
static __device__ __forceinline__ void load_vector(float to[OWN], const bf16 *from, int lane)
{
#pragma unroll
    for (int i = 0; i < OWN; i += 4)
        gdn_spread(to + i, reinterpret_cast<const uint2 *>(from)[i / 4 * LANES + lane]);
}

// to: the block's first row. Stores that do not stay in the caches.
template <int ROWS, typename State>
static __device__ __forceinline__ void store_state(State *to, const float s[ROWS][OWN],
                                                   const gdn_place &place)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        State *row = to + (r * GROUPS + place.group) * DIM;
#pragma unroll
        for (int i = 0; i < OWN; i += 4)
            if constexpr (gdn_rounds<State>)
                __stcs(
                    reinterpret_cast<uint2 *>(row) + i / 4 * LANES + place.lane,
                    make_uint2(gdn_pack(s[r][i], s[r][i + 1]), gdn_pack(s[r][i + 2], s[r][i + 3])));
            else
                __stcs(reinterpret_cast<float4 *>(row) + i / 4 * LANES + place.lane,
                       make_float4(s[r][i], s[r][i + 1], s[r][i + 2], s[r][i + 3]));
    }
}

// Starts a copy of 16 or 4 bytes to shared memory.
template <int BYTES> static __device__ __forceinline__ void copy_async(void *to, const void *from)
{
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                     "l"(from)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                         static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                     "l"(from)
                     : "memory");
}

// Ends a group of this thread's copies.
static __device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most LEFT groups of this thread are on their way.
template <int LEFT> static __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// The rows that wait, in shared memory.
template <typename State> struct gdn_waiting_rows {
    alignas(16) float of[gdn_waiting_max<State>][2][DIM]; // k, u
    float g[gdn_waiting_max<State>];
};

// Starts the copies of a row's; all threads.
template <typename State>
static __device__ __forceinline__ void copy_waiting(gdn_waiting_rows<State> *to,
                                                    const struct gdn &op, const gdn_row &row,
                                                    const gdn_place &place)
{
    enum { PIECES = DIM / 4, SIDE_BY_SIDE = THREADS / (2 * PIECES) };
    const int thread = place.thread, at = thread % PIECES * 4;
    const bool of_u = thread / PIECES % 2 != 0;
    const float *from = (of_u ? op.state.pending_u : op.state.pending_k) + at;
    const int heads = of_u ? op.value_heads : op.key_heads;
    const int head = of_u ? place.head : place.key_head;
#pragma unroll 1
    for (int i = thread / (2 * PIECES); i < row.waits.count; i += SIDE_BY_SIDE)
        copy_async<16>(to->of[i][of_u] + at, from + gdn_pending(op, row, i, heads, head) * DIM);
    const int own = THREADS - 1 - thread; // the upper warps have fewer other copies
    if (own < row.waits.count)
        copy_async<4>(to->g + own,
                      op.state.pending_g + gdn_pending(op, row, own, op.value_heads, place.head));
}

// Applies those from `first` on and before `end` to a bf16 state; four key dimensions at a time,
// which takes fewer registers: there are two such loops in a kernel.
template <int ROWS>
static __device__ __forceinline__ void fold_rows(float s[ROWS][OWN],
                                                 const gdn_waiting_rows<bf16> &waiting,
                                                 const gdn_place &place, int first, int end)
{
#pragma unroll 1
    for (int i = first; i < end; i++) {
        const float alpha = expf(waiting.g[i]);
#pragma unroll
        for (int part = 0; part < OWN; part += 4) {
            const float4 k =
                reinterpret_cast<const float4 *>(waiting.of[i][0])[part / 4 * LANES + place.lane];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float own = waiting.of[i][1][place.row_first + r * GROUPS + place.group];
                s[r][part] = gdn_advance(s[r][part], alpha, k.x, own);
                s[r][part + 1] = gdn_advance(s[r][part + 1], alpha, k.y, own);
                s[r][part + 2] = gdn_advance(s[r][part + 2], alpha, k.z, own);
                s[r][part + 3] = gdn_advance(s[r][part + 3], alpha, k.w, own);
            }
        }
    }
}

// As memory would keep it.
template <int ROWS> static __device__ __forceinline__ void round_state(float s[ROWS][OWN])
{
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        gdn_round<OWN>(s[r]);
}

// Applies the rows that wait.
template <int ROWS, bool PREFILLS>
static __device__ __forceinline__ void fold_waiting(float s[ROWS][OWN],
                                                    const gdn_waiting_rows<float> &waiting,
                                                    const gdn_walk<float, PREFILLS> &walk)
{
    const gdn_place &place = walk.place;
#pragma unroll 1
    for (int i = 0; i < walk.row.waits.count; i++) {
        float k[OWN], alpha = expf(waiting.g[i]);
        load_vector(k, waiting.of[i][0], place.lane);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float own = waiting.of[i][1][place.row_first + r * GROUPS + place.group];
#pragma unroll
            for (int j = 0; j < OWN; j++)
                s[r][j] = gdn_advance(s[r][j], alpha, k[j], own);
        }
    }
}

// To a bf16 state only those before the last place of rounding, where there is one: then s is what
// goes to memory.
template <int ROWS, bool PREFILLS>
static __device__ __forceinline__ void fold_waiting(float s[ROWS][OWN],
                                                    const gdn_waiting_rows<bf16> &waiting,
                                                    const gdn_walk<bf16, PREFILLS> &walk)
{
    const int folded = gdn_folded(walk.row), all = walk.row.waits.count;
    fold_rows<ROWS>(s, waiting, walk.place, 0, folded > 0 ? folded : all);
    if (folded > 0)
        round_state<ROWS>(s);
}

// A bf16 state to memory, if fold_waiting has left it for that, and the fold of the rest; behind
// pdl_wait().
template <int ROWS, bool PREFILLS>
static __device__ __forceinline__ void store_folded(bf16 *to, float s[ROWS][OWN],
                                                    const gdn_waiting_rows<bf16> &waiting,
                                                    const gdn_walk<bf16, PREFILLS> &walk)
{
    const int folded = gdn_folded(walk.row);
    if (folded == 0)
        return;
    store_state<ROWS>(to, s, walk.place);
    fold_rows<ROWS>(s, waiting, walk.place, folded, walk.row.waits.count);
}

// The convolution of token t, four channels a lane. columns.load(c, kind, at) has channels at ..
// at + 3 of a head in column c, of which 0 .. 2 lie before token 0.
template <typename Columns>
static __device__ __forceinline__ void convolve(float y[4], const struct gdn &op,
                                                const gdn_place &place, const Columns &columns,
                                                int t, int kind)
{
    const int at = 4 * (place.thread % WARP_THREADS);
    const float4 *taps =
        reinterpret_cast<const float4 *>(op.conv_weight) + gdn_channel_of(op, place, kind) + at;
    float x[GDN_CONV_WIDTH][4];
#pragma unroll
    for (int c = 0; c < GDN_CONV_WIDTH; c++)
        gdn_spread(x[c], columns.load(t + c, kind, at));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float4 tap = __ldg(taps + i);
        gdn_channel channel = {{tap.x, tap.y, tap.z, tap.w}, {x[0][i], x[1][i], x[2][i]}};
        y[i] = gdn_convolve(&channel, x[3][i]);
    }
}

// The sum of products over a warp's lanes, four values each.
static __device__ __forceinline__ float dot4(const float a[4], const float b[4])
{
    float sum = __fmul_rn(a[0], b[0]);
#pragma unroll
    for (int i = 1; i < 4; i++)
        sum = __fmaf_rn(a[i], b[i], sum);
    return warp_sum(sum);
}

// q and k of token t of the tile, `token` of the row; a warp.
template <int TOKENS, typename Walk, typename Columns>
static __device__ __forceinline__ void prepare_qk(gdn_tile<TOKENS> *tile, const struct gdn &op,
                                                  const Walk &walk, const Columns &columns, int t,
                                                  int token)
{
    const int lane = walk.place.thread % WARP_THREADS;
    float q[4], k[4];
    convolve(q, op, walk.place, columns, t, GDN_Q);
    convolve(k, op, walk.place, columns, t, GDN_K);
    // 1 / sqrt(128) is part of q's norm.
    const float of_q = dot4(q, q), of_k = dot4(k, k), of_both = dot4(q, k);
    const float q_scale = __fmul_rn(rsqrtf(__fadd_rn(of_q, 1e-6f)), 0.08838834764831845f);
    const float k_scale = rsqrtf(__fadd_rn(of_k, 1e-6f));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        q[i] = __fmul_rn(q[i], q_scale);
        k[i] = __fmul_rn(k[i], k_scale);
    }
    const float4 own = make_float4(k[0], k[1], k[2], k[3]);
    reinterpret_cast<float4 *>(tile->q[t])[lane] = make_float4(q[0], q[1], q[2], q[3]);
    reinterpret_cast<float4 *>(tile->k[t])[lane] = own;
    if (lane == 0)
        tile->qk[t] = __fmul_rn(__fmul_rn(of_both, q_scale), k_scale);
    if (walk.place.leads && gdn_keeps<Walk>(walk.row, token)) {
        int64_t at = gdn_pending(op, walk.row, gdn_behind<Walk>(walk.row, token), op.key_heads,
                                 walk.place.key_head);
        reinterpret_cast<float4 *>(op.state.pending_k + at * DIM)[lane] = own;
    }
}

// v and the gates.
template <int TOKENS, typename Walk, typename Columns>
static __device__ __forceinline__ void prepare_v(gdn_tile<TOKENS> *tile, const struct gdn &op,
                                                 const Walk &walk, const Columns &columns, int t,
                                                 int token)
{
    const int lane = walk.place.thread % WARP_THREADS, head = walk.place.head;
    float v[4];
    if (lane == 0) {
        float g = gdn_log_decay(op, head, columns.gate(t, 1));
        tile->alpha[t] = expf(g);
        tile->beta[t] = gdn_beta(columns.gate(t, 0));
        if (walk.place.row_first == 0 && gdn_keeps<Walk>(walk.row, token))
            op.state.pending_g[gdn_pending(op, walk.row, gdn_behind<Walk>(walk.row, token),
                                           op.value_heads, head)] = g;
    }
    __syncwarp();
    convolve(v, op, walk.place, columns, t, GDN_V);
    reinterpret_cast<float4 *>(tile->v[t])[lane] = make_float4(v[0], v[1], v[2], v[3]);
}

// The tile of `count` tokens from `first` of the row on, of which the warps take their share.
template <int TOKENS, typename Walk, typename Columns>
static __device__ __forceinline__ void prepare(gdn_tile<TOKENS> *tile, const struct gdn &op,
                                               const Walk &walk, const Columns &columns, int first,
                                               int count)
{
#pragma unroll 1
    for (int part = walk.place.thread / WARP_THREADS; part < 2 * count; part += WARPS) {
        if (part < count)
            prepare_qk(tile, op, walk, columns, part, first + part);
        else
            prepare_v(tile, op, walk, columns, part - count, first + part - count);
    }
}

// A decode row leaves what the next step needs of its columns in the other parity.
template <typename Walk, typename Columns>
static __device__ __forceinline__ void keep_columns(const struct gdn &op, const Walk &walk,
                                                    const Columns &columns)
{
    enum { WIDTH = Columns::WIDTH, PIECES = DIM / WIDTH };
    const gdn_row &row = walk.row;
    bf16 *to = gdn_columns_of(op, row, 1 - row.parity);
    const int pieces = (GDN_HISTORY + row.tokens) * GDN_KINDS * PIECES;
#pragma unroll 1
    for (int i = walk.place.thread; i < pieces; i += THREADS) {
        const int column = i / (GDN_KINDS * PIECES), kind = i / PIECES % GDN_KINDS;
        const int at = i % PIECES * WIDTH;
        if (kind == GDN_V ? walk.place.row_first == 0 : walk.place.leads)
            columns.store(to + static_cast<int64_t>(column) * row.channels +
                              gdn_channel_of(op, walk.place, kind) + at,
                          column, kind, at);
    }
}

// A token of the row, its inputs in the tile: u and o from the state before it, in one pass over
// the state: S_new^T q = alpha S^T q + u (k . q). The state moves on when `advances`. Of the sums
// over a row's eight lanes each lane finishes one, S^T k or S^T q of one of its ROWS rows.
template <int ROWS, int TOKENS, typename Walk>
static __device__ __forceinline__ void run_token(float s[ROWS][OWN], const gdn_tile<TOKENS> &tile,
                                                 const struct gdn &op, const Walk &walk, int token,
                                                 bool advances)
{
    enum { SHARE = LANES / (2 * ROWS) }; // lanes with the same sum
    const gdn_place &place = walk.place;
    float k[OWN], reads[2 * ROWS], of_k[ROWS][2] = {}, of_q[ROWS][2] = {};
    const int t = token % TOKENS;
    const float alpha = tile.alpha[t];
    load_vector(k, tile.k[t], place.lane);
#pragma unroll
    for (int i = 0; i < OWN; i += 4) {
        const float4 four = reinterpret_cast<const float4 *>(tile.q[t])[i / 4 * LANES + place.lane];
        const float q[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                of_k[r][j % 2] = __fmaf_rn(s[r][i + j], k[i + j], of_k[r][j % 2]);
                of_q[r][j % 2] = __fmaf_rn(s[r][i + j], q[j], of_q[r][j % 2]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        reads[2 * r] = __fadd_rn(of_k[r][0], of_k[r][1]);
        reads[2 * r + 1] = __fadd_rn(of_q[r][0], of_q[r][1]);
    }
    const bool has_q = place.lane / SHARE % 2 != 0;
    const int at = place.row_first + place.lane / SHARE / 2 * GROUPS + place.group;
    float own = sums_of_lanes<2 * ROWS>(reads);
    float other = __shfl_xor_sync(0xffffffffu, own, SHARE);
    float u = __fmul_rn(tile.beta[t], __fmaf_rn(-alpha, has_q ? other : own, tile.v[t][at]));
    float o = __fmaf_rn(alpha, has_q ? own : other, __fmul_rn(u, tile.qk[t]));
    if (advances) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float of_row = __shfl_sync(0xffffffffu, u, 2 * r * SHARE, LANES);
#pragma unroll
            for (int j = 0; j < OWN; j++)
                s[r][j] = gdn_advance(s[r][j], alpha, k[j], of_row);
        }
        if constexpr (gdn_rounds<typename Walk::state>) {
            if (gdn_rounds_behind(walk.row, token))
                round_state<ROWS>(s);
        }
    }
    if (place.lane % SHARE != 0)
        return;
    if (has_q) {
        int64_t of_token = static_cast<int64_t>(walk.row.token_first + token) * op.value_heads;
        op.o[(of_token + place.head) * DIM + at] = bf16_from_float(o);
    } else if (gdn_keeps<Walk>(walk.row, token)) {
        int64_t pending = gdn_pending(op, walk.row, gdn_behind<Walk>(walk.row, token),
                                      op.value_heads, place.head);
        op.state.pending_u[pending * DIM + at] = u;
    }
}
