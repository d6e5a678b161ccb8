// SPDX-License-Identifier: Apache-2.0
// gdn.cu -- Gated DeltaNet: which kernel serves which row, the columns that a prefill row leaves,
// and the opening of slots.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/sm90.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    STREAM_TASKS = 640, // heads of decode rows from which blocks that stay are faster
    SMALL_GRID = 132,   // blocks of the decode kernel that fill the GPU once
    OPEN_BLOCKS = 16,   // of a slot and layer
    OPEN_THREADS = 256,
};

// The thread's channel of the three columns before the row's token `tokens` goes to `to`; the old
// ones, which may be the same memory, are read before any is written.
static __device__ __forceinline__ void keep_columns(bf16 *to, const struct gdn &op,
                                                    const gdn_row &row, int tokens, int channel)
{
    const bf16 *history = gdn_history(op, row) + channel;
    bf16 kept[GDN_HISTORY];
    for (int i = 0; i < GDN_HISTORY; i++) {
        int token = tokens - GDN_HISTORY + i;
        int64_t at = static_cast<int64_t>(row.token_first + token) * op.projected_stride + channel;
        kept[i] = token < 0 ? history[static_cast<int64_t>(GDN_HISTORY + token) * row.channels]
                            : op.projected[at];
    }
    for (int i = 0; i < GDN_HISTORY; i++)
        to[static_cast<int64_t>(i) * row.channels + channel] = kept[i];
}

// What waits behind a prefill row whose state is bf16: all that is behind the last place of
// rounding, unless chunks served it.
static __device__ __forceinline__ gdn_waiting waits_behind(const struct gdn &op, const gdn_row &row,
                                                           bool chunked)
{
    const int own = gdn_own_first(row), gone = own > 0 ? row.waits.count : gdn_folded(row);
    const int count = row.waits.count - gone + row.tokens - own;
    if (chunked || count == 0)
        return {0, 0};
    return {gdn_ring_place(op, row, gone), count};
}

// grid (channels / DIM, rows): the columns that prefill rows leave, after every block has read
// those before.
template <typename State> static __global__ void gdn_columns_kernel(struct gdn op)
{
    int channel = static_cast<int>(blockIdx.x) * DIM + static_cast<int>(threadIdx.x);
    pdl_wait();
    pdl_trigger();
    const int index = op.tables.decode_rows + static_cast<int>(blockIdx.y);
    const gdn_row row = gdn_load_row<State>(op, index);
    if (row.tokens == 0 || row.decode)
        return;
    for (gdn_save save = gdn_first_save(op.tables, index); save.tokens > 0;
         save = gdn_next_save(op.tables, save))
        keep_columns(op.checkpoints.conv + save.checkpoint * GDN_HISTORY * row.channels, op, row,
                     save.tokens, channel);
    keep_columns(op.state.conv + row.slot * GDN_HISTORY * row.channels, op, row, row.tokens,
                 channel);
    if constexpr (gdn_rounds<State>) {
        const bool chunked = gdn_first_chunk(op, index) >= 0; // all threads: it has a ballot
        if (channel == 0)
            op.state.waiting[2 * row.slot + row.parity] = waits_behind(op, row, chunked);
    } else if (channel == 0) {
        op.state.waiting[2 * row.slot + row.parity] = {0, 0};
    }
}

// Blocks of few value dimensions while those do not fill the GPU.
static int recurrent_rows(const struct gdn *op)
{
    return op->tables.rows_count * op->value_heads * 4 <= SMALL_GRID ? 2 : 4;
}

// Whether blocks that stay serve the step's rows: they copy 16 bytes of the projections at once.
static bool streams(const struct gdn *op)
{
    return op->tables.decode_rows == op->tables.rows_count && device_is_sm90() &&
           op->projected_stride % 8 == 0 && op->tables.rows_count * op->value_heads >= STREAM_TASKS;
}

// The most chunks that prefill rows can take: one each, and as many as the other tokens fill.
static int chunks_most(const struct gdn *op, int prefill_rows)
{
    int tokens = op->tables.tokens_count - op->tables.decode_rows;
    int chunks =
        prefill_rows + (tokens > prefill_rows ? tokens - prefill_rows : 0) / GDN_CHUNK_TOKENS;
    if (tokens < GDN_CHUNKED_TOKENS_MIN)
        return 0;
    return chunks < op->workspace.chunks ? chunks : op->workspace.chunks;
}

extern "C" void gdn(struct stream *stream, const struct gdn *arguments)
{
    struct gdn op = *arguments;
    ASSERT(op.key_heads > 0 && op.value_heads % op.key_heads == 0);
    ASSERT(op.tables.decode_rows == 0 ||
           gdn_pending_columns(op.tables.verify) <= op.state.pending_columns);
    int rows = op.tables.rows_count, prefill_rows = rows - op.tables.decode_rows;
    if (rows == 0)
        return;
    // What the chunks' kernels need: Hopper, 8-byte loads, and a thread per token of a key head's
    // group.
    if (!device_is_sm90() || op.projected_stride % 4 != 0 || op.value_heads / op.key_heads > 4)
        op.workspace.chunks = 0;
    if (streams(&op))
        gdn_launch_stream(stream, &op);
    else
        gdn_launch_recurrent(stream, &op, recurrent_rows(&op));
    if (prefill_rows == 0)
        return;
    int chunks = chunks_most(&op, prefill_rows);
    if (chunks > 0) {
        gdn_launch_chunks(stream, &op, chunks);
        gdn_launch_scan(stream, &op, prefill_rows);
    }
    dim3 grid(static_cast<unsigned>(2 * op.key_heads + op.value_heads),
              static_cast<unsigned>(prefill_rows));
    launch_chained(op.bf16_state ? gdn_columns_kernel<bf16> : gdn_columns_kernel<float>, grid,
                   dim3(DIM), 0, stream->handle, op);
}

static __device__ void zero(void *memory, int64_t bytes)
{
    uint4 *to = static_cast<uint4 *>(memory);
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < bytes / 16;
         i += step)
        to[i] = make_uint4(0, 0, 0, 0);
}

// grid (blocks over the slot, layers, openings).
template <typename State> static __global__ void gdn_open_kernel(struct gdn_open op)
{
    const struct slot_opening &opening = op.openings[blockIdx.z];
    const struct gdn_state &layer = op.layers[blockIdx.y];
    const int64_t states = static_cast<int64_t>(op.value_heads) * DIM * DIM;
    const int64_t columns =
        static_cast<int64_t>(2 * op.key_heads + op.value_heads) * DIM * GDN_HISTORY;
    if (blockIdx.x == 0 && threadIdx.x < 2)
        layer.waiting[2 * opening.slot + threadIdx.x] = {0, 0};
    if (opening.position > 0)
        return; // a checkpoint's copy has filled the slot
    zero(static_cast<State *>(layer.state) + opening.slot * states,
         states * static_cast<int64_t>(sizeof(State)));
    zero(layer.conv + opening.slot * columns, columns * 2);
}

extern "C" void gdn_open(struct stream *stream, const struct gdn_open *op)
{
    if (op->layers_count == 0 || op->openings_count == 0)
        return;
    dim3 grid(OPEN_BLOCKS, static_cast<unsigned>(op->layers_count),
              static_cast<unsigned>(op->openings_count));
    auto kernel = op->bf16_state ? gdn_open_kernel<bf16> : gdn_open_kernel<float>;
    kernel<<<grid, OPEN_THREADS, 0, stream->handle>>>(*op);
    LAUNCH_CHECK();
}
