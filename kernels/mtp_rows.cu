// SPDX-License-Identifier: Apache-2.0
// mtp_rows.cu -- a block per token or row copies its hidden row, 16 bytes a thread and turn; its
// first thread writes the tables.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/mtp_rows.h"
}

enum { ROWS_THREADS = 128, ROW_VECTOR = 8 };

// from NULL: zeros.
static __device__ __forceinline__ void copy_row(bf16 *to, const bf16 *from, int hidden)
{
    uint4 *target = reinterpret_cast<uint4 *>(to);
    const uint4 *source = reinterpret_cast<const uint4 *>(from);
    for (int i = static_cast<int>(threadIdx.x); i < hidden / ROW_VECTOR; i += ROWS_THREADS)
        target[i] = source != NULL ? source[i] : make_uint4(0, 0, 0, 0);
}

// grid tokens.
static __global__ void shift_kernel(struct mtp_rows op)
{
    pdl_wait();
    pdl_trigger();
    int token = static_cast<int>(blockIdx.x), r = op.tables.token_rows[token];
    bool runs = r >= 0 && op.tables.token_positions[token] >= 1;
    const bf16 *before = NULL;
    if (runs) {
        const struct step_row row = op.tables.rows[r];
        before = token == row.token_first
                     ? op.slot_hidden + static_cast<int64_t>(row.slot) * op.hidden
                     : op.hidden_rows + static_cast<int64_t>(token - 1) * op.hidden;
    }
    if (threadIdx.x == 0)
        op.ids[token] = runs ? op.tables.token_ids[token] : -1;
    copy_row(op.shifted + static_cast<int64_t>(token) * op.hidden, before, op.hidden);
}

extern "C" void mtp_rows_shift(struct stream *stream, const struct mtp_rows *op)
{
    ASSERT(op->hidden % ROW_VECTOR == 0 && op->shifted != op->hidden_rows);
    if (op->tables.tokens_count == 0)
        return;
    launch_chained(shift_kernel, dim3(static_cast<unsigned>(op->tables.tokens_count)),
                   dim3(ROWS_THREADS), 0, stream->handle, *op);
}

// grid rows.
static __global__ void keep_kernel(struct mtp_rows op, const struct row_result *results)
{
    pdl_wait();
    pdl_trigger();
    int r = static_cast<int>(blockIdx.x), active = op.tables.active_count[r];
    const struct step_row row = op.tables.rows[r];
    int committed = row.kind == ROW_DECODE ? results[r].count : active;
    if (active == 0 || committed == 0)
        return;
    int64_t last = row.token_first + committed - 1;
    copy_row(op.slot_hidden + static_cast<int64_t>(row.slot) * op.hidden,
             op.hidden_rows + last * op.hidden, op.hidden);
}

extern "C" void mtp_rows_keep(struct stream *stream, const struct mtp_rows *op,
                              const struct row_result *results)
{
    ASSERT(op->hidden % ROW_VECTOR == 0);
    if (op->tables.rows_count == 0)
        return;
    launch_chained(keep_kernel, dim3(static_cast<unsigned>(op->tables.rows_count)),
                   dim3(ROWS_THREADS), 0, stream->handle, *op, results);
}

static __device__ __forceinline__ int32_t draft_token(const struct slot *slot, int pass)
{
    int32_t position = slot->position + pass;
    bool room = position < slot->page_tokens && position + 1 < slot->sampling.tokens_end;
    bool enough = slot->sampling.drafts > 0 && pass >= slot->sampling.drafts - 1;
    if (slot->end != SLOT_RUNS || slot->token_next < 0 || !room || enough)
        return -1;
    return pass == 0 ? slot->token_next : slot->drafts[pass - 1];
}

// grid rows.
static __global__ void draft_begin_kernel(struct mtp_rows op, int pass)
{
    pdl_wait();
    pdl_trigger();
    int r = static_cast<int>(blockIdx.x);
    const struct step_row of = op.tables.rows[r];
    int32_t slot_index = of.slot;
    if (pass == 0)
        copy_row(op.draft_hidden + static_cast<int64_t>(r) * op.hidden,
                 op.slot_hidden + static_cast<int64_t>(slot_index) * op.hidden, op.hidden);
    if (threadIdx.x != 0)
        return;
    const struct slot *slot = &op.slots.slots[slot_index];
    bool drew = op.tables.active_count[r] > 0 && (of.kind == ROW_DECODE || of.sample > 0);
    int32_t id = drew ? draft_token(slot, pass) : -1;
    int32_t position = slot->position + pass;
    struct step_row row = {slot_index, ROW_DECODE, r, 1, -1, 1, r};
    op.draft_rows[r] = row;
    op.drafts.active_count[r] = id >= 0;
    op.drafts.token_ids[r] = id;
    op.drafts.token_positions[r] = id >= 0 ? position : -1;
    op.drafts.token_rows[r] = r;
    op.drafts.sample_tokens[r] = r;
    op.drafts.sample_positions[r] = id >= 0 ? position + 1 : -1;
    op.drafts.sample_slots[r] = slot_index;
}

extern "C" void mtp_rows_draft_begin(struct stream *stream, const struct mtp_rows *op, int pass)
{
    ASSERT(pass >= 0 && pass < ROW_VERIFY_MAX - 1 && op->draft_rows == op->drafts.rows);
    ASSERT(op->drafts.rows_count == op->tables.rows_count && op->hidden % ROW_VECTOR == 0);
    if (op->drafts.rows_count == 0)
        return;
    launch_chained(draft_begin_kernel, dim3(static_cast<unsigned>(op->drafts.rows_count)),
                   dim3(ROWS_THREADS), 0, stream->handle, *op, pass);
}

// A thread per row.
static __global__ void draft_take_kernel(struct mtp_rows op, const int32_t *picks, int pass)
{
    pdl_wait();
    pdl_trigger();
    int r = static_cast<int>(blockIdx.x * ROWS_THREADS + threadIdx.x);
    if (r < op.drafts.rows_count && op.drafts.active_count[r] > 0)
        op.slots.slots[op.drafts.rows[r].slot].drafts[pass] = picks[r];
}

extern "C" void mtp_rows_draft_take(struct stream *stream, const struct mtp_rows *op,
                                    const int32_t *picks, int pass)
{
    ASSERT(pass >= 0 && pass < ROW_VERIFY_MAX - 1);
    if (op->drafts.rows_count == 0)
        return;
    unsigned blocks = static_cast<unsigned>((op->drafts.rows_count + ROWS_THREADS - 1)) /
                      static_cast<unsigned>(ROWS_THREADS);
    launch_chained(draft_take_kernel, dim3(blocks), dim3(ROWS_THREADS), 0, stream->handle, *op,
                   picks, pass);
}
