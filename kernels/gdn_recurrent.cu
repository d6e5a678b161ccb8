// SPDX-License-Identifier: Apache-2.0
// gdn_recurrent.cu -- decode, verify and short prefill rows, token by token. A block has 32 * ROWS
// rows of a head's state (value dimensions) in registers: eight threads per row, 16 key dimensions
// each, so that a warp's 16-byte loads cover four rows of 512 bytes. State, pending rows and
// convolution history were written a step ago: they are loaded and folded before pdl_wait().
// What depends on this step's projection (conv, norm, gates) every block computes for itself.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/gdn_token.cuh"

template <int ROWS> static __device__ gdn_place place_of(const struct gdn &op)
{
    enum { TILES = DIM / (GROUPS * ROWS) };
    gdn_place place;
    int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    int group_heads = op.value_heads / op.key_heads;
    place.head = block / TILES;
    place.key_head = place.head / group_heads;
    place.row_first = block % TILES * GROUPS * ROWS;
    place.thread = thread;
    place.group = thread / LANES;
    place.lane = thread % LANES;
    place.leads = block % TILES == 0 && place.head % group_heads == 0;
    return place;
}

// The block's first row of the state at place `at`, of a slot or a checkpoint, of `states`.
template <typename State>
static __device__ __forceinline__ State *state_of(void *states, int64_t at, const struct gdn &op,
                                                  const gdn_place &place)
{
    return static_cast<State *>(states) +
           ((at * op.value_heads + place.head) * DIM + place.row_first) * DIM;
}

// from: the block's first row. Loads past the first cache, stores that do not stay: of the four
// combinations the fastest at 1 and at 256 rows.
template <int ROWS>
static __device__ __forceinline__ void load_state(float s[ROWS][OWN], const bf16 *from,
                                                  const gdn_place &place)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const bf16 *row = from + (r * GROUPS + place.group) * DIM;
#pragma unroll
        for (int i = 0; i < OWN; i += 4)
            gdn_spread(s[r] + i,
                       __ldcg(reinterpret_cast<const uint2 *>(row) + i / 4 * LANES + place.lane));
    }
}

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

// The columns of a row's tokens from `first` on, as they lie in memory.
struct gdn_columns {
    const bf16 *history, *projected; // of the row's first token
    int channels, stride, first, gates;
    int kinds[GDN_KINDS]; // first channels
    int value_heads;
    enum { WIDTH = 4 }; // of a store

    __device__ __forceinline__ uint2 load(int column, int kind, int at) const
    {
        const int token = first + column - GDN_HISTORY;
        const bf16 *from = token < 0
                               ? history + static_cast<int64_t>(GDN_HISTORY + token) * channels
                               : projected + static_cast<int64_t>(token) * stride;
        from += (kind == GDN_Q ? kinds[GDN_Q] : kind == GDN_K ? kinds[GDN_K] : kinds[GDN_V]) + at;
        if (stride % 4 == 0)
            return *reinterpret_cast<const uint2 *>(from);
        return make_uint2(from[0].bits | static_cast<uint32_t>(from[1].bits) << 16,
                          from[2].bits | static_cast<uint32_t>(from[3].bits) << 16);
    }

    __device__ __forceinline__ void store(bf16 *to, int column, int kind, int at) const
    {
        *reinterpret_cast<uint2 *>(to) = load(column, kind, at);
    }

    __device__ __forceinline__ bf16 gate(int t, int which) const
    {
        return projected[static_cast<int64_t>(first + t) * stride + gates + which * value_heads];
    }
};

// Of the row's first tokens; what lies there already is on its way to the second cache, and the
// taps to the first.
template <typename Walk>
static __device__ __forceinline__ gdn_columns columns_of(const struct gdn &op, const Walk &walk)
{
    const gdn_row &row = walk.row;
    gdn_columns columns;
    columns.history = gdn_history(op, row);
    columns.projected = op.projected + static_cast<int64_t>(row.token_first) * op.projected_stride;
    columns.channels = row.channels;
    columns.stride = op.projected_stride;
    columns.first = 0;
    columns.gates = row.channels + op.value_heads * DIM + walk.place.head;
    columns.value_heads = op.value_heads;
    for (int kind = 0; kind < GDN_KINDS; kind++)
        columns.kinds[kind] = gdn_channel_of(op, walk.place, kind);
    const int thread = walk.place.thread;
    if (thread < GDN_HISTORY * GDN_KINDS * 2) {
        const bf16 *from = columns.history +
                           static_cast<int64_t>(thread / 2 / GDN_KINDS) * row.channels +
                           gdn_channel_of(op, walk.place, thread / 2 % GDN_KINDS) + thread % 2 * 64;
        asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
    } else if (thread >= THREADS - 16 * GDN_KINDS) {
        const int line = thread - (THREADS - 16 * GDN_KINDS);
        const float *from =
            op.conv_weight + 4 * gdn_channel_of(op, walk.place, line / 16) + line % 16 * 32;
        asm volatile("prefetch.global.L1 [%0];" ::"l"(from));
    }
    return columns;
}

// Zeroes o of tokens that do not run: the block's part of its row's, and whole tokens of no row,
// of which each warp of the step looks at 32 at a time.
template <int ROWS>
static __device__ __forceinline__ void zero_rest(const struct gdn &op, const gdn_place &place,
                                                 int index, int tokens)
{
    const struct step_row &step = op.tables.rows[index];
    const int thread = static_cast<int>(threadIdx.x), lane = thread % WARP_THREADS;
    const int64_t width = static_cast<int64_t>(op.value_heads) * DIM;
    for (int t = tokens; t < step.token_count && thread < GROUPS * ROWS; t++)
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

// The tokens of a row through the state s, of which `stored` is the place in memory; `save`: the
// first checkpoint that a prefill row leaves.
template <int ROWS, int TOKENS, bool SAVES, typename State, typename Walk>
static __device__ __forceinline__ void run_row(float s[ROWS][OWN], const struct gdn &op,
                                               const Walk &walk, gdn_columns &columns,
                                               gdn_save save, State *stored)
{
    __shared__ gdn_tile<TOKENS> tile;
    const gdn_row &row = walk.row;
    for (int first = 0; first < row.tokens; first += TOKENS) {
        const int count = min(TOKENS, row.tokens - first);
        columns.first = first;
        if (first > 0)
            __syncthreads(); // the tile before has been read
        prepare(&tile, op, walk, columns, first, count);
        if (row.decode) {
            keep_columns(op, walk, columns);
            if (walk.place.leads && walk.place.head == 0 && threadIdx.x == 0)
                gdn_keep_waiting<State>(op, row);
            if (!gdn_rounds<State> && row.folds)
                store_state<ROWS>(stored, s, walk.place);
        }
        __syncthreads();
        for (int t = 0; t < count; t++) {
            run_token<ROWS, TOKENS>(s, tile, op, walk, first + t, t + 1 < count || !row.decode);
            if (SAVES && save.tokens == first + t + 1) {
                store_state<ROWS>(
                    state_of<State>(op.checkpoints.state, save.checkpoint, op, walk.place), s,
                    walk.place);
                save = gdn_next_save(op.tables, save);
            }
            if constexpr (gdn_rounds<State>) {
                if (!row.decode && first + t + 1 == gdn_own_first(row))
                    store_state<ROWS>(stored, s, walk.place);
            }
        }
    }
    if (!gdn_rounds<State> && !row.decode)
        store_state<ROWS>(stored, s, walk.place);
}

// grid (value heads * tiles of the state, rows). A decode row has at most TOKENS tokens; without
// SAVES no row leaves checkpoints.
template <int ROWS, int TOKENS, bool SAVES, typename State>
static __global__ void __launch_bounds__(THREADS, 2) gdn_recurrent_kernel(struct gdn op)
{
    __shared__ gdn_waiting_rows<State> waiting;
    float s[ROWS][OWN];
    gdn_columns columns;
    const int index = static_cast<int>(blockIdx.y);
    const gdn_row row = gdn_load_row<State>(op, index);
    const gdn_save save = SAVES ? gdn_first_save(op.tables, index) : gdn_save{};
    const gdn_walk<State, (TOKENS > 1)> walk = {row, place_of<ROWS>(op)};
    const gdn_place &place = walk.place;
    const bool runs = row.tokens > 0 && (row.decode || gdn_first_chunk(op, index) < 0);
    State *stored = state_of<State>(op.state.state, row.slot, op, place);
    if (runs) {
        load_state<ROWS>(s, stored, place);
        copy_waiting(&waiting, op, row, place);
        copy_commit();
        columns = columns_of(op, walk);
        copy_wait<0>();
        __syncthreads();
        fold_waiting<ROWS>(s, waiting, walk);
    }
    pdl_wait();
    pdl_trigger();
    if (runs) {
        if constexpr (gdn_rounds<State>)
            store_folded<ROWS>(stored, s, waiting, walk);
        run_row<ROWS, TOKENS, SAVES>(s, op, walk, columns, save, stored);
    }
    zero_rest<ROWS>(op, place, index, row.tokens);
}

template <int ROWS, int TOKENS, bool SAVES, typename State>
static void launch(struct stream *stream, const struct gdn *op)
{
    dim3 grid(static_cast<unsigned>(op->value_heads * DIM / (GROUPS * ROWS)),
              static_cast<unsigned>(op->tables.rows_count));
    launch_chained(gdn_recurrent_kernel<ROWS, TOKENS, SAVES, State>, grid, dim3(THREADS), 0,
                   stream->handle, *op);
}

template <int ROWS, typename State>
static void launch_rows(struct stream *stream, const struct gdn *op)
{
    bool prefills = op->tables.decode_rows < op->tables.rows_count;
    if (op->tables.verify <= 1 && !prefills)
        launch<ROWS, 1, false, State>(stream, op);
    else if (op->tables.saves_count == 0)
        launch<ROWS, ROW_VERIFY_MAX, false, State>(stream, op);
    else
        launch<ROWS, ROW_VERIFY_MAX, true, State>(stream, op);
}

void gdn_launch_recurrent(struct stream *stream, const struct gdn *op, int rows)
{
    ASSERT(rows == 2 || rows == 4);
    if (rows == 2)
        op->bf16_state ? launch_rows<2, bf16>(stream, op) : launch_rows<2, float>(stream, op);
    else
        op->bf16_state ? launch_rows<4, bf16>(stream, op) : launch_rows<4, float>(stream, op);
}
