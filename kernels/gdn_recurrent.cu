// SPDX-License-Identifier: Apache-2.0
// gdn_recurrent.cu -- decode, verify and short prefill rows, token by token. A block has 32 * ROWS
// rows of a head's state (value dimensions) in registers: eight threads per row, 16 key dimensions
// each, so that a warp's 16-byte loads cover four rows of 512 bytes. State, pending rows and
// convolution history were written a step ago: they are loaded and folded before pdl_wait().
// What depends on this step's projection (conv, norm, gates) every block computes for itself.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/reduce.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    THREADS = 2 * DIM,
    WARPS = THREADS / WARP_THREADS,
    LANES = 8,                // of one row of the state
    GROUPS = THREADS / LANES, // rows of the state side by side
    OWN = DIM / LANES,        // key dimensions of a thread: 4 float4, LANES float4 apart
};

// What a block's threads hand to one another, for up to TOKENS tokens. q and k are not normalised:
// their sums of squares are not known when they are written.
template <int TOKENS> struct gdn_tile {
    float qk[TOKENS][2][DIM], v[TOKENS][DIM];
    float g[TOKENS], beta[TOKENS];
    float squares[TOKENS][WARPS]; // of q in the lower half of the warps, of k in the upper
};

// Where a block and a thread stand.
struct gdn_place {
    int head, key_head, group_heads; // group_heads: value heads of a key head
    int row_first, rows;             // value dimensions of the block
    int group, lane;                 // of the thread
    int qk_at, v_at;                 // channels that the thread convolves; v_at -1: none
    bool leads;                      // this block writes what its key head's blocks share
};

struct gdn_walk {
    gdn_row row;
    gdn_place place;
    gdn_save save; // of a prefill row
};

template <int ROWS> static __device__ gdn_place place_of(const struct gdn &op)
{
    enum { TILES = DIM / (GROUPS * ROWS) };
    gdn_place place;
    int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    place.head = block / TILES;
    place.group_heads = op.value_heads / op.key_heads;
    place.key_head = place.head / place.group_heads;
    place.rows = GROUPS * ROWS;
    place.row_first = block % TILES * place.rows;
    place.group = thread / LANES;
    place.lane = thread % LANES;
    place.qk_at = (thread / DIM * op.key_heads + place.key_head) * DIM + thread % DIM;
    place.v_at = -1;
    if (thread < place.rows)
        place.v_at = (2 * op.key_heads + place.head) * DIM + place.row_first + thread;
    place.leads = block % TILES == 0 && place.head % place.group_heads == 0;
    return place;
}

// The block's first row of the state at place `at`, of a slot or a checkpoint, of `states`.
static __device__ __forceinline__ float *state_of(float *states, int64_t at, const struct gdn &op,
                                                  const gdn_place &place)
{
    return states + ((at * op.value_heads + place.head) * DIM + place.row_first) * DIM;
}

static __device__ __forceinline__ float sum_of_lanes(float value)
{
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2)
        value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}

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

// from: the block's first row. Loads past the first cache, stores that do not stay: of the four
// combinations the fastest at 1 and at 256 rows.
template <int ROWS>
static __device__ __forceinline__ void load_state(float s[ROWS][OWN], const float *from,
                                                  const gdn_place &place)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const float *row = from + (r * GROUPS + place.group) * DIM;
#pragma unroll
        for (int i = 0; i < OWN; i += 4) {
            const float4 x =
                __ldcg(reinterpret_cast<const float4 *>(row) + i / 4 * LANES + place.lane);
            s[r][i] = x.x;
            s[r][i + 1] = x.y;
            s[r][i + 2] = x.z;
            s[r][i + 3] = x.w;
        }
    }
}

template <int ROWS>
static __device__ __forceinline__ void store_state(float *to, const float s[ROWS][OWN],
                                                   const gdn_place &place)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float *row = to + (r * GROUPS + place.group) * DIM;
#pragma unroll
        for (int i = 0; i < OWN; i += 4)
            __stcs(reinterpret_cast<float4 *>(row) + i / 4 * LANES + place.lane,
                   make_float4(s[r][i], s[r][i + 1], s[r][i + 2], s[r][i + 3]));
    }
}

// Applies the accepted rows of the last step.
template <int ROWS>
static __device__ __forceinline__ void fold(float s[ROWS][OWN], const struct gdn &op,
                                            const gdn_walk &walk)
{
    const gdn_place &place = walk.place;
    for (int i = 0; i < walk.row.pending; i++) {
        int64_t of_key = gdn_pending(walk.row.pending_from, i, op.key_heads, place.key_head);
        int64_t of_value = gdn_pending(walk.row.pending_from, i, op.value_heads, place.head);
        const float *u = op.state.pending_u + of_value * DIM + place.row_first + place.group;
        float k[OWN], alpha = expf(op.state.pending_g[of_value]);
        load_vector(k, op.state.pending_k + of_key * DIM, place.lane);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float own = u[r * GROUPS];
#pragma unroll
            for (int j = 0; j < OWN; j++)
                s[r][j] = gdn_advance(s[r][j], alpha, k[j], own);
        }
    }
}

// A decode row leaves what the next step needs of column `at` in the other parity.
static __device__ __forceinline__ void keep_columns(const struct gdn &op, const gdn_walk &walk,
                                                    int at, float qk, float v)
{
    bf16 *column = op.state.pending_conv +
                   (walk.row.pending_to * GDN_PENDING_COLUMNS + at) * walk.row.channels;
    if (walk.place.leads)
        column[walk.place.qk_at] = bf16_from_float(qk);
    if (walk.place.v_at >= 0)
        column[walk.place.v_at] = bf16_from_float(v);
}

// The thread's columns of up to TOKENS tokens as the projection has them.
template <int TOKENS> struct gdn_raw {
    bf16 qk[TOKENS], v[TOKENS];
};

template <int TOKENS>
static __device__ __forceinline__ void load_raw(gdn_raw<TOKENS> *raw, const struct gdn &op,
                                                const gdn_place &place, const bf16 *token,
                                                int count)
{
#pragma unroll
    for (int t = 0; t < TOKENS; t++, token += op.projected_stride) {
        raw->qk[t] = t < count ? token[place.qk_at] : bf16{0};
        raw->v[t] = t < count && place.v_at >= 0 ? token[place.v_at] : bf16{0};
    }
}

// Gates of token `thread` of the tile, by the last warp, which has no v to convolve.
template <int TOKENS>
static __device__ __forceinline__ void load_gates(gdn_tile<TOKENS> *tile, const struct gdn &op,
                                                  const gdn_walk &walk, const bf16 *token,
                                                  int count)
{
    int own = static_cast<int>(threadIdx.x) - (THREADS - WARP_THREADS);
    if (own < 0 || own >= count)
        return;
    const bf16 *b = token + static_cast<int64_t>(own) * op.projected_stride + walk.row.channels +
                    op.value_heads * DIM + walk.place.head;
    tile->g[own] = gdn_log_decay(op, walk.place.head, b[op.value_heads]);
    tile->beta[own] = gdn_beta(b[0]);
}

template <int TOKENS>
static __device__ __forceinline__ void convolve(gdn_tile<TOKENS> *tile, const gdn_raw<TOKENS> &raw,
                                                gdn_channel channels[2], const gdn_place &place,
                                                int count)
{
    int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
        if (t >= count)
            break;
        float x = gdn_convolve(&channels[0], bf16_to_float(raw.qk[t]));
        float squares = warp_sum(__fmul_rn(x, x));
        tile->qk[t][thread / DIM][thread % DIM] = x;
        if (place.v_at >= 0)
            tile->v[t][thread] = gdn_convolve(&channels[1], bf16_to_float(raw.v[t]));
        if (thread % WARP_THREADS == 0)
            tile->squares[t][thread / WARP_THREADS] = squares;
    }
}

static __device__ __forceinline__ float inverse_norm(const float squares[WARPS / 2])
{
    float sum = __fadd_rn(__fadd_rn(squares[0], squares[1]), __fadd_rn(squares[2], squares[3]));
    return rsqrtf(__fadd_rn(sum, 1e-6f));
}

// What a token leaves pending beside u.
static __device__ __forceinline__ void keep_key(const struct gdn &op, const gdn_walk &walk,
                                                int token, float g, float k)
{
    const gdn_place &place = walk.place;
    int64_t buffer = walk.row.pending_to;
    if (place.row_first == 0 && threadIdx.x == 0)
        op.state.pending_g[gdn_pending(buffer, token, op.value_heads, place.head)] = g;
    if (place.leads && threadIdx.x < DIM)
        op.state.pending_k[gdn_pending(buffer, token, op.key_heads, place.key_head) * DIM +
                           threadIdx.x] = k;
}

// A token of the row, its inputs in the tile: u and o from the state before it, in one pass over
// the state: S_new^T q = alpha S^T q + u (k . q). The state moves on when `advances`.
template <int ROWS, int TOKENS>
static __device__ __forceinline__ void run_token(float s[ROWS][OWN], const gdn_tile<TOKENS> &tile,
                                                 const struct gdn &op, const gdn_walk &walk,
                                                 int token, bool advances)
{
    const gdn_place &place = walk.place;
    float q[OWN], k[OWN], reads[ROWS][2], own_u = 0, own_o = 0, qk = 0;
    const int t = token % TOKENS;
    // 1 / sqrt(128) is part of q's norm.
    float q_scale = __fmul_rn(inverse_norm(tile.squares[t]), 0.08838834764831845f);
    float k_scale = inverse_norm(tile.squares[t] + WARPS / 2);
    float alpha = expf(tile.g[t]), beta = tile.beta[t];
    load_vector(q, tile.qk[t][0], place.lane);
    load_vector(k, tile.qk[t][1], place.lane);
#pragma unroll
    for (int j = 0; j < OWN; j++) {
        k[j] = __fmul_rn(k[j], k_scale);
        qk = __fmaf_rn(q[j], k[j], qk);
    }
    qk = sum_of_lanes(qk);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float of_k[2] = {0, 0}, of_q[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            of_k[j % 2] = __fmaf_rn(s[r][j], k[j], of_k[j % 2]);
            of_q[j % 2] = __fmaf_rn(s[r][j], q[j], of_q[j % 2]);
        }
        reads[r][0] = sum_of_lanes(__fadd_rn(of_k[0], of_k[1]));
        reads[r][1] = sum_of_lanes(__fadd_rn(of_q[0], of_q[1]));
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float v = tile.v[t][r * GROUPS + place.group];
        float u = __fmul_rn(beta, __fmaf_rn(-alpha, reads[r][0], v));
        float o = __fmul_rn(q_scale, __fmaf_rn(alpha, reads[r][1], __fmul_rn(u, qk)));
        own_u = place.lane == r ? u : own_u;
        own_o = place.lane == r ? o : own_o;
        if (!advances)
            continue;
#pragma unroll
        for (int j = 0; j < OWN; j++)
            s[r][j] = gdn_advance(s[r][j], alpha, k[j], u);
    }
    if (place.lane < ROWS) { // lane r writes row r of its group
        int at = place.row_first + place.lane * GROUPS + place.group;
        int64_t of_token = static_cast<int64_t>(walk.row.token_first + token) * op.value_heads;
        op.o[(of_token + place.head) * DIM + at] = bf16_from_float(own_o);
        int64_t pending = gdn_pending(walk.row.pending_to, token, op.value_heads, place.head);
        if (walk.row.decode)
            op.state.pending_u[pending * DIM + at] = own_u;
    }
    if (walk.row.decode)
        keep_key(op, walk, token, tile.g[t], __fmul_rn(tile.qk[t][1][threadIdx.x % DIM], k_scale));
}

// Zeroes o of tokens that do not run: the block's part of its row's, and whole tokens of no row,
// of which each warp of the step looks at 32 at a time.
static __device__ __forceinline__ void zero_rest(const struct gdn &op, const gdn_place &place,
                                                 int index, int tokens)
{
    const struct step_row &step = op.tables.rows[index];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % WARP_THREADS;
    const int64_t width = static_cast<int64_t>(op.value_heads) * DIM;
    for (int t = tokens; t < step.token_count && thread < place.rows; t++)
        op.o[(step.token_first + t) * width + place.head * DIM + place.row_first + thread].bits = 0;
    int warps = static_cast<int>(gridDim.x * gridDim.y) * WARPS;
    int warp =
        static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x) * WARPS + thread / WARP_THREADS;
    for (int t = warp * WARP_THREADS; t < op.tables.tokens_count; t += warps * WARP_THREADS) {
        bool of_none = t + lane < op.tables.tokens_count && op.tables.token_rows[t + lane] < 0;
        for (unsigned left = __ballot_sync(0xffffffffu, of_none); left != 0; left &= left - 1) {
            uint2 *to = reinterpret_cast<uint2 *>(op.o + (t + __ffs(left) - 1) * width);
            for (int i = lane; i < width / 4; i += WARP_THREADS)
                to[i] = make_uint2(0, 0);
        }
    }
}

// The tokens of a row through the state s, of which `stored` is the place in memory.
template <int ROWS, int TOKENS, bool SAVES>
static __device__ __forceinline__ void run_row(float s[ROWS][OWN], gdn_channel channels[2],
                                               const struct gdn &op, const gdn_walk &walk,
                                               float *stored)
{
    __shared__ gdn_tile<TOKENS> tile;
    const gdn_row &row = walk.row;
    gdn_save save = walk.save;
    for (int first = 0; first < row.tokens; first += TOKENS) {
        const int count = min(TOKENS, row.tokens - first);
        const bf16 *token =
            op.projected + static_cast<int64_t>(row.token_first + first) * op.projected_stride;
        gdn_raw<TOKENS> raw;
        load_raw(&raw, op, walk.place, token, count);
        if (first > 0)
            __syncthreads(); // the tile before has been read
        load_gates(&tile, op, walk, token, count);
        if (row.decode) {
#pragma unroll
            for (int i = 0; i < GDN_HISTORY; i++)
                keep_columns(op, walk, i, channels[0].before[i], channels[1].before[i]);
#pragma unroll
            for (int t = 0; t < TOKENS; t++) {
                if (t < count)
                    keep_columns(op, walk, GDN_HISTORY + t, bf16_to_float(raw.qk[t]),
                                 bf16_to_float(raw.v[t]));
            }
        }
        convolve(&tile, raw, channels, walk.place, count);
        if (row.decode && row.pending > 0)
            store_state<ROWS>(stored, s, walk.place);
        __syncthreads();
        for (int t = 0; t < count; t++) {
            run_token<ROWS, TOKENS>(s, tile, op, walk, first + t, t + 1 < count || !row.decode);
            if (SAVES && save.tokens == first + t + 1) {
                store_state<ROWS>(state_of(op.checkpoints.state, save.checkpoint, op, walk.place),
                                  s, walk.place);
                save = gdn_next_save(op.tables, save);
            }
        }
    }
    if (!row.decode)
        store_state<ROWS>(stored, s, walk.place);
}

// grid (value heads * tiles of the state, rows). A decode row has at most TOKENS tokens; without
// SAVES no row leaves checkpoints.
template <int ROWS, int TOKENS, bool SAVES>
static __global__ void __launch_bounds__(THREADS, 2) gdn_recurrent_kernel(struct gdn op)
{
    float s[ROWS][OWN];
    gdn_channel channels[2];
    const int index = static_cast<int>(blockIdx.y);
    gdn_walk walk = {gdn_load_row(op, index), place_of<ROWS>(op)};
    if constexpr (SAVES)
        walk.save = gdn_first_save(op.tables, index);
    const gdn_row &row = walk.row;
    const gdn_place &place = walk.place;
    const bool runs = row.tokens > 0 && (row.decode || gdn_first_chunk(op, index) < 0);
    float *stored = state_of(op.state.state, row.slot, op, place);
    if (runs) {
        const bf16 *history = gdn_history(op, row);
        load_state<ROWS>(s, stored, place);
        gdn_open_channel(&channels[0], op, history, row.channels, place.qk_at);
        gdn_open_channel(&channels[1], op, history, row.channels,
                         place.v_at >= 0 ? place.v_at : place.qk_at);
        fold<ROWS>(s, op, walk);
    }
    pdl_wait();
    pdl_trigger();
    if (runs)
        run_row<ROWS, TOKENS, SAVES>(s, channels, op, walk, stored);
    zero_rest(op, place, index, row.tokens);
}

template <int ROWS, int TOKENS, bool SAVES>
static void launch(struct stream *stream, const struct gdn *op)
{
    dim3 grid(static_cast<unsigned>(op->value_heads * DIM / (GROUPS * ROWS)),
              static_cast<unsigned>(op->tables.rows_count));
    launch_chained(gdn_recurrent_kernel<ROWS, TOKENS, SAVES>, grid, dim3(THREADS), 0,
                   stream->handle, *op);
}

template <int ROWS> static void launch_rows(struct stream *stream, const struct gdn *op)
{
    bool prefills = op->tables.decode_rows < op->tables.rows_count;
    if (op->tables.verify <= 1 && !prefills)
        launch<ROWS, 1, false>(stream, op);
    else if (op->tables.saves_count == 0)
        launch<ROWS, ROW_VERIFY_MAX, false>(stream, op);
    else
        launch<ROWS, ROW_VERIFY_MAX, true>(stream, op);
}

void gdn_launch_recurrent(struct stream *stream, const struct gdn *op, int rows)
{
    ASSERT(rows == 2 || rows == 4);
    if (rows == 2)
        launch_rows<2>(stream, op);
    else
        launch_rows<4>(stream, op);
}
