// SPDX-License-Identifier: Apache-2.0
// slots.cu -- the rules of kernels/slots.h, a thread or a block per opening, page list or row:
// latency only.
#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/slots.h"
}

enum { SLOT_THREADS = 128, PAGE_TOKENS = 64 };

static unsigned blocks_for(int count)
{
    return static_cast<unsigned>((count + SLOT_THREADS - 1) / SLOT_THREADS);
}

static __device__ int thread_index()
{
    return static_cast<int>(blockIdx.x) * SLOT_THREADS + static_cast<int>(threadIdx.x);
}

static __device__ void clear_drafts(struct slot *slot)
{
    for (int i = 0; i < ROW_VERIFY_MAX - 1; i++)
        slot->drafts[i] = -1;
}

static __global__ void open_kernel(struct slots slots, const struct slot_opening *openings,
                                   int count)
{
    int i = thread_index();
    if (i >= count)
        return;
    struct slot *slot = &slots.slots[openings[i].slot];
    slot->position = openings[i].position;
    slot->pending = 0;
    slot->parity = 0;
    slot->token_next = -1;
    slot->page_tokens = 0;
    slot->end = SLOT_RUNS;
    slot->sampling = openings[i].sampling;
    clear_drafts(slot);
}

extern "C" void slots_open(struct stream *stream, const struct slots *slots,
                           const struct slot_opening *openings, int openings_count)
{
    if (openings_count == 0)
        return;
    open_kernel<<<blocks_for(openings_count), SLOT_THREADS, 0, stream->handle>>>(*slots, openings,
                                                                                 openings_count);
    LAUNCH_CHECK();
}

// grid pages_count: a block copies one list.
static __global__ void pages_kernel(struct slots slots, const struct slot_pages *pages,
                                    const int32_t *ids)
{
    const struct slot_pages list = pages[blockIdx.x];
    int32_t *row =
        slots.block_table + static_cast<int64_t>(list.slot) * slots.pages_per_sequence + list.first;
    for (int i = static_cast<int>(threadIdx.x); i < list.count; i += SLOT_THREADS)
        row[i] = ids[list.ids_first + i];
    if (threadIdx.x == 0)
        slots.slots[list.slot].page_tokens = (list.first + list.count) * PAGE_TOKENS;
}

extern "C" void slots_set_pages(struct stream *stream, const struct slots *slots,
                                const struct slot_pages *pages, int pages_count, const int32_t *ids)
{
    if (pages_count == 0)
        return;
    pages_kernel<<<static_cast<unsigned>(pages_count), SLOT_THREADS, 0, stream->handle>>>(
        *slots, pages, ids);
    LAUNCH_CHECK();
}

// ---- begin ----

static __device__ int decode_tokens(const struct slot &slot, const struct step_row &row)
{
    int tokens = 1;
    if (slot.end != SLOT_RUNS || slot.token_next < 0)
        return 0;
    while (tokens < row.token_count && slot.drafts[tokens - 1] >= 0)
        tokens++;
    tokens = min(tokens, slot.page_tokens - slot.position);
    // The last token of the output is never run: it only has to be drawn.
    tokens = min(tokens, slot.sampling.tokens_end - 1 - slot.position);
    if (slot.position < row.pause_at)
        tokens = min(tokens, row.pause_at - slot.position);
    return max(tokens, 0);
}

// Of kind none, which looks like a decode row whose tokens do not run. One thread.
static __device__ int begin_none(const struct step_tables &tables, const struct step_row &row)
{
    for (int i = 0; i < row.token_count; i++) {
        int token = row.token_first + i, sample = row.sample_first + i;
        tables.token_ids[token] = tables.token_positions[token] = -1;
        if (row.sample_first < 0)
            continue;
        tables.sample_tokens[sample] = token;
        tables.sample_positions[sample] = tables.sample_slots[sample] = -1;
    }
    return 0;
}

// One thread.
static __device__ int begin_decode(const struct step_tables &tables, const struct step_row &row,
                                   const struct slot &slot)
{
    int active = decode_tokens(slot, row);
    for (int i = 0; i < row.token_count; i++) {
        int token = row.token_first + i, sample = row.sample_first + i;
        int id = i == 0 ? slot.token_next : slot.drafts[i - 1];
        tables.token_ids[token] = i < active ? id : -1;
        tables.token_positions[token] = i < active ? slot.position + i : -1;
        tables.sample_tokens[sample] = token;
        tables.sample_positions[sample] = i < active ? slot.position + i + 1 : -1;
        tables.sample_slots[sample] = row.slot;
    }
    return active;
}

// All threads of the block.
static __device__ int begin_prefill(const struct step_tables &tables, const struct step_row &row,
                                    const struct slot &slot)
{
    int active = slot.end == SLOT_RUNS ? row.token_count : 0;
    for (int i = static_cast<int>(threadIdx.x); i < row.token_count; i += SLOT_THREADS) {
        int token = row.token_first + i;
        tables.token_positions[token] = active > 0 ? slot.position + i : -1;
        if (active == 0)
            tables.token_ids[token] = -1;
    }
    if (row.sample != 0 && threadIdx.x == 0) {
        tables.sample_tokens[row.sample_first] = row.token_first + row.token_count - 1;
        tables.sample_positions[row.sample_first] = active > 0 ? slot.position + active : -1;
        tables.sample_slots[row.sample_first] = row.slot;
    }
    return active;
}

// grid rows_count: a prompt has thousands of tokens.
static __global__ void begin_kernel(const struct slots slots, const struct step_tables tables)
{
    int i = static_cast<int>(blockIdx.x), active = 0;
    pdl_wait();
    pdl_trigger();
    const struct step_row row = tables.rows[i];
    const struct slot &slot = slots.slots[row.slot];
    for (int token = static_cast<int>(threadIdx.x); token < row.token_count; token += SLOT_THREADS)
        tables.token_rows[row.token_first + token] = i;
    if (row.kind == ROW_PREFILL)
        active = begin_prefill(tables, row, slot);
    else if (threadIdx.x == 0)
        active = row.kind == ROW_NONE ? begin_none(tables, row) : begin_decode(tables, row, slot);
    if (threadIdx.x == 0)
        tables.active_count[i] = active;
}

extern "C" void slots_begin(struct stream *stream, const struct slots *slots,
                            const struct step_tables *tables)
{
    if (tables->rows_count == 0)
        return;
    launch_chained(begin_kernel, dim3(static_cast<unsigned>(tables->rows_count)),
                   dim3(SLOT_THREADS), 0, stream->handle, *slots, *tables);
}

// ---- end ----

static __device__ bool is_stop(const struct slot_sampling &sampling, int32_t id)
{
    bool stop = false;
    for (int i = 0; i < sampling.stop_count; i++)
        stop |= sampling.stop_ids[i] == id;
    return stop;
}

static __device__ void take_token(struct slot *slot, struct row_result *result, int32_t id)
{
    if (id < 0) {
        slot->token_next = -1;
        slot->end = SLOT_BROKEN;
        return;
    }
    result->tokens[result->count++] = id;
    slot->token_next = id;
    if (is_stop(slot->sampling, id))
        slot->end = SLOT_STOP;
    else if (slot->position + 1 >= slot->sampling.tokens_end)
        slot->end = SLOT_LENGTH;
}

static __device__ void end_decode(struct slot *slot, struct row_result *result,
                                  const int32_t *token_ids, const int32_t *sampled, int active)
{
    slot->pending = 0;
    for (int i = 0; i < active && slot->end == SLOT_RUNS; i++) {
        if (i > 0 && token_ids[i] != sampled[i - 1])
            break; // the draft was not what came
        slot->position += sampled[i] >= 0;
        slot->pending += sampled[i] >= 0;
        take_token(slot, result, sampled[i]);
    }
    slot->parity = 1 - slot->parity;
}

static __global__ void end_kernel(const struct slots slots, const struct step_tables tables,
                                  const int32_t *sampled, struct row_result *results)
{
    int i = thread_index();
    pdl_wait();
    pdl_trigger();
    if (i >= tables.rows_count)
        return;
    const struct step_row row = tables.rows[i];
    struct slot *slot = &slots.slots[row.slot];
    struct row_result result;
    int active = tables.active_count[i];
    result.slot = row.slot;
    result.count = 0;
    result.end = SLOT_RUNS;
    for (int j = 0; j < ROW_VERIFY_MAX; j++)
        result.tokens[j] = -1;
    if (active > 0 && row.kind == ROW_DECODE) {
        end_decode(slot, &result, tables.token_ids + row.token_first, sampled + row.sample_first,
                   active);
    } else if (active > 0) {
        slot->position += row.token_count;
        slot->pending = 0;
        slot->token_next = row.token_next;
        if (row.sample != 0)
            take_token(slot, &result, sampled[row.sample_first]);
    }
    if (active > 0) {
        clear_drafts(slot);
        result.end = slot->end;
    }
    results[i] = result;
}

extern "C" void slots_end(struct stream *stream, const struct slots *slots,
                          const struct step_tables *tables, const int32_t *sampled,
                          struct row_result *results)
{
    if (tables->rows_count == 0)
        return;
    launch_chained(end_kernel, dim3(blocks_for(tables->rows_count)), dim3(SLOT_THREADS), 0,
                   stream->handle, *slots, *tables, sampled, results);
}
