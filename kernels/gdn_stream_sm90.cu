// SPDX-License-Identifier: Apache-2.0
// gdn_stream_sm90.cu -- many decode rows: two blocks a processor stay, and the heads' states stream
// past them. A task is a head of a row; a block keeps to one head. While a task's state is in
// registers, the bulk engine brings the next one's to shared memory; columns, rows that wait and
// projections come by asynchronous copies two tasks ahead. Before pdl_wait() the first task runs as
// far as it needs no projections.
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/gdn_mma.cuh"
#include "kernels/device/gdn_token.cuh"
#include "kernels/device/sm90.cuh"

enum {
    ROWS = DIM / GROUPS,          // rows of the state of a thread
    DEPTH = 2,                    // tasks whose inputs have a place
    PARTS = 4,                    // copies of a state
    BATCH = 8,                    // tasks whose rows are loaded at once
    LOADER = WARPS - 1,           // the warp that loads them
    COLUMN_PIECES = DIM * 2 / 16, // 16 bytes each
};

// What a task needs beside the state.
template <int TOKENS, typename State> struct gdn_inputs {
    alignas(16) bf16 columns[GDN_HISTORY + TOKENS][GDN_KINDS][DIM];
    gdn_waiting_rows<State> waiting;
    bf16 gates[TOKENS][2][2]; // b, a, each with a neighbour
    int gate_at[2];           // which of the two
    enum { WIDTH = 8 };       // of a store

    __device__ __forceinline__ uint2 load(int column, int kind, int at) const
    {
        return *reinterpret_cast<const uint2 *>(columns[column][kind] + at);
    }

    __device__ __forceinline__ void store(bf16 *to, int column, int kind, int at) const
    {
        *reinterpret_cast<uint4 *>(to) =
            *reinterpret_cast<const uint4 *>(columns[column][kind] + at);
    }

    __device__ __forceinline__ bf16 gate(int t, int which) const
    {
        return gates[t][which][gate_at[which]];
    }
};

template <int TOKENS, typename State> struct gdn_shared {
    State state[DIM * DIM];
    gdn_inputs<TOKENS, State> inputs[DEPTH];
    gdn_tile<TOKENS> tile;
    gdn_row rows[2 * BATCH]; // of the tasks; tokens 0: nothing to do
    uint64_t state_full;
};

// ---- copies ----

// The state of a task; one thread.
template <int TOKENS, typename State>
static __device__ __forceinline__ void
copy_state(gdn_shared<TOKENS, State> *shared, const struct gdn &op, const gdn_row &row, int head)
{
    const int64_t at = (row.slot * op.value_heads + head) * DIM * DIM;
    if (row.tokens == 0) {
        barrier_arrive(&shared->state_full);
        return;
    }
    barrier_expect(&shared->state_full, DIM * DIM * static_cast<int>(sizeof(State)));
    for (int part = 0; part < PARTS; part++)
        copy_bulk(shared->state + part * DIM * DIM / PARTS,
                  static_cast<const State *>(op.state.state) + at + part * DIM * DIM / PARTS,
                  DIM * DIM * static_cast<int>(sizeof(State)) / PARTS, &shared->state_full);
}

// What was there before this step.
template <int TOKENS, typename State>
static __device__ __forceinline__ void copy_before(gdn_inputs<TOKENS, State> *inputs,
                                                   const struct gdn &op, const gdn_row &row,
                                                   const gdn_place &place)
{
    const int thread = place.thread;
    if (row.tokens == 0)
        return;
    if (thread < GDN_HISTORY * GDN_KINDS * COLUMN_PIECES) {
        const int column = thread / COLUMN_PIECES / GDN_KINDS,
                  kind = thread / COLUMN_PIECES % GDN_KINDS;
        const bf16 *from = gdn_history(op, row) + static_cast<int64_t>(column) * row.channels;
        copy_async<16>(reinterpret_cast<uint4 *>(inputs->columns) + thread,
                       from + gdn_channel_of(op, place, kind) + thread % COLUMN_PIECES * 8);
    }
    copy_waiting(&inputs->waiting, op, row, place);
}

// This step's projections.
template <int TOKENS, typename State>
static __device__ __forceinline__ void copy_raw(gdn_inputs<TOKENS, State> *inputs,
                                                const struct gdn &op, const gdn_row &row,
                                                const gdn_place &place)
{
    const int thread = THREADS - 1 - place.thread; // the upper warps have fewer other copies
    const int gate = row.channels + op.value_heads * DIM + place.head;
    for (int i = thread; i < row.tokens * GDN_KINDS * COLUMN_PIECES; i += THREADS) {
        const int t = i / COLUMN_PIECES / GDN_KINDS, kind = i / COLUMN_PIECES % GDN_KINDS;
        const bf16 *token =
            op.projected + static_cast<int64_t>(row.token_first + t) * op.projected_stride;
        copy_async<16>(reinterpret_cast<uint4 *>(inputs->columns[GDN_HISTORY]) + i,
                       token + gdn_channel_of(op, place, kind) + i % COLUMN_PIECES * 8);
    }
    if (thread < 2 * row.tokens) {
        const int t = thread / 2, which = thread % 2;
        const bf16 *token =
            op.projected + static_cast<int64_t>(row.token_first + t) * op.projected_stride;
        copy_async<4>(inputs->gates[t][which], token + (gate + which * op.value_heads) / 2 * 2);
    }
}

// ---- a task ----

// Zeroes o of tokens that do not run: of the task's row and head, and whole tokens of no row.
static __device__ __forceinline__ void zero_rest(const struct gdn &op, const gdn_place &place,
                                                 const gdn_row &row)
{
    const int64_t width = static_cast<int64_t>(op.value_heads) * DIM;
    for (int t = row.tokens; t < row.token_count && place.thread < DIM; t++)
        op.o[(row.token_first + t) * width + place.head * DIM + place.thread].bits = 0;
}

static __device__ __forceinline__ void zero_of_none(const struct gdn &op)
{
    const int thread = static_cast<int>(threadIdx.x), lane = thread % WARP_THREADS;
    const int64_t width = static_cast<int64_t>(op.value_heads) * DIM;
    int warps = static_cast<int>(gridDim.x) * WARPS;
    int warp = static_cast<int>(blockIdx.x) * WARPS + thread / WARP_THREADS;
    for (int t = warp * WARP_THREADS; t < op.tables.tokens_count; t += warps * WARP_THREADS) {
        bool of_none = t + lane < op.tables.tokens_count && op.tables.token_rows[t + lane] < 0;
        for (unsigned left = __ballot_sync(0xffffffffu, of_none); left != 0; left &= left - 1) {
            uint2 *to = reinterpret_cast<uint2 *>(op.o + (t + __ffs(left) - 1) * width);
            for (int i = lane; i < width / 4; i += WARP_THREADS)
                to[i] = make_uint2(0, 0);
        }
    }
}

static __device__ __forceinline__ gdn_place place_of(const struct gdn &op)
{
    gdn_place place;
    const int group_heads = op.value_heads / op.key_heads;
    place.head = static_cast<int>(blockIdx.x) % op.value_heads;
    place.key_head = place.head / group_heads;
    place.row_first = 0;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(place.thread));
    place.group = place.thread / LANES;
    place.lane = place.thread % LANES;
    place.leads = place.head % group_heads == 0;
    return place;
}

// The rows of this block's tasks `first` .. + BATCH, none past the last; a warp.
template <int TOKENS, typename State>
static __device__ __forceinline__ void load_rows(gdn_shared<TOKENS, State> *shared,
                                                 const struct gdn &op, int ways, int first)
{
    const int task = first + static_cast<int>(threadIdx.x) % WARP_THREADS;
    const int index = static_cast<int>(blockIdx.x) / op.value_heads + task * ways;
    gdn_row row = {};
    if (task >= first + BATCH)
        return;
    if (index < op.tables.rows_count)
        row = gdn_load_row<State>(op, index);
    shared->rows[task % (2 * BATCH)] = row;
}

template <typename State>
static __device__ __forceinline__ State *state_of(const struct gdn &op, const gdn_row &row,
                                                  const gdn_place &place)
{
    return static_cast<State *>(op.state.state) +
           (row.slot * op.value_heads + place.head) * DIM * DIM;
}

template <int TOKENS, typename State>
static __device__ __forceinline__ void run_task(gdn_shared<TOKENS, State> *shared,
                                                const struct gdn &op,
                                                const gdn_walk<State, false> &walk, int task)
{
    const gdn_row &row = walk.row;
    const gdn_place &place = walk.place;
    const gdn_row &next = shared->rows[(task + 1) % (2 * BATCH)];
    gdn_inputs<TOKENS, State> *inputs = &shared->inputs[task % DEPTH];
    float s[ROWS][OWN];
    barrier_wait(&shared->state_full, task & 1);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        load_vector(s[r], shared->state + (r * GROUPS + place.group) * DIM, place.lane);
    if (task == 0)
        copy_wait<0>();
    else
        copy_wait<1>();
    __syncthreads(); // state and the tile before have been read, inputs are there
    if (place.thread == LOADER * WARP_THREADS)
        copy_state(shared, op, next, place.head);
    if (row.tokens > 0)
        fold_waiting<ROWS>(s, inputs->waiting, walk);
    if (task == 0) {
        pdl_wait();
        pdl_trigger();
        copy_raw(inputs, op, row, place);
        copy_commit();
        copy_wait<0>();
        __syncthreads();
    }
    if (row.tokens > 0) {
        constexpr bool late = TOKENS == 1; // of a bf16 state: spills the other way round
        if constexpr (!gdn_rounds<State>) {
            if (row.folds)
                store_state<ROWS>(state_of<State>(op, row, place), s, place);
        } else if constexpr (!late) {
            store_folded<ROWS>(state_of<State>(op, row, place), s, inputs->waiting, walk);
        }
        prepare(&shared->tile, op, walk, *inputs, 0, row.tokens);
        keep_columns(op, walk, *inputs);
        if constexpr (gdn_rounds<State> && late)
            store_folded<ROWS>(state_of<State>(op, row, place), s, inputs->waiting, walk);
    }
    __syncthreads();
#pragma unroll 1
    for (int t = 0; t < row.tokens; t++)
        run_token<ROWS, TOKENS>(s, shared->tile, op, walk, t, TOKENS > 1 && t + 1 < row.tokens);
    if (task == 0) {
        copy_raw(&shared->inputs[1], op, next, place);
        copy_commit();
    }
    copy_before(inputs, op, shared->rows[(task + DEPTH) % (2 * BATCH)], place);
    copy_raw(inputs, op, shared->rows[(task + DEPTH) % (2 * BATCH)], place);
    copy_commit();
}

// grid (value heads * ways): block b has head b % value heads of every ways-th row.
template <int TOKENS, typename State>
static __global__ void __launch_bounds__(THREADS, 2) gdn_stream_kernel(struct gdn op, int ways)
{
    extern __shared__ __align__(128) uint8_t bytes[];
    gdn_shared<TOKENS, State> *shared = reinterpret_cast<gdn_shared<TOKENS, State> *>(bytes);
    const gdn_place place = place_of(op);
    const bool loader = place.thread / WARP_THREADS == LOADER;
    const int way = static_cast<int>(blockIdx.x) / op.value_heads;
    const int tasks = (op.tables.rows_count - way + ways - 1) / ways;
    if (loader) {
        load_rows(shared, op, ways, 0);
        __syncwarp();
    }
    if (place.thread == LOADER * WARP_THREADS) {
        barrier_init(&shared->state_full, 1);
        ASM_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
        copy_state(shared, op, shared->rows[0], place.head);
    }
    if (place.thread < 2 * DEPTH)
        shared->inputs[place.thread / 2].gate_at[place.thread % 2] =
            (GDN_HEAD_DIM + place.head + place.thread % 2 * op.value_heads) % 2;
    __syncthreads();
    for (int task = 0; task < DEPTH; task++)
        copy_before(&shared->inputs[task], op, shared->rows[task], place);
    copy_commit();
    for (int task = 0; task < tasks; task++) {
        const gdn_walk<State, false> walk = {shared->rows[task % (2 * BATCH)], place_of(op)};
        run_task(shared, op, walk, task);
        if (walk.row.tokens > 0 && walk.row.decode && place.leads && place.head == 0 &&
            place.thread == 0)
            gdn_keep_waiting<State>(op, walk.row);
        zero_rest(op, place, walk.row);
        if (loader && task % BATCH == 0)
            load_rows(shared, op, ways, task + BATCH);
    }
    zero_of_none(op);
}

template <int TOKENS, typename State>
static void launch(struct stream *stream, const struct gdn *op)
{
    static bool prepared = false;
    const int shared_bytes = static_cast<int>(sizeof(gdn_shared<TOKENS, State>));
    auto kernel = gdn_stream_kernel<TOKENS, State>;
    if (!prepared)
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        shared_bytes));
    prepared = true;
    int rows = op->tables.rows_count, ways = 2 * multiprocessors() / op->value_heads;
    ways = ways < 1 ? 1 : ways < rows ? ways : rows;
    launch_chained(kernel, dim3(static_cast<unsigned>(ways * op->value_heads)), dim3(THREADS),
                   shared_bytes, stream->handle, *op, ways);
}

template <typename State> static void launch_tokens(struct stream *stream, const struct gdn *op)
{
    if (op->tables.verify <= 1)
        launch<1, State>(stream, op);
    else if (op->tables.verify <= 4)
        launch<4, State>(stream, op);
    else
        launch<ROW_VERIFY_MAX, State>(stream, op);
}

void gdn_launch_stream(struct stream *stream, const struct gdn *op)
{
    op->bf16_state ? launch_tokens<bf16>(stream, op) : launch_tokens<float>(stream, op);
}
