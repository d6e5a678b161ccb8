// SPDX-License-Identifier: Apache-2.0
// sample_cut.c -- histograms over the ordered bits of logits on the CPU. Owns nothing.
#include "kernels/sample_cut.h"

#include <math.h>
#include <string.h>

#include "kernels/runtime_cpu.h"

// Lowest bit and width of the bits that a level decides.
static const int level_shift[SAMPLE_CUT_LEVELS] = {21, 10, 0};
static const int level_bits[SAMPLE_CUT_LEVELS] = {11, 11, 10};

// Unsigned numbers in the order of the floats.
static uint32_t key_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

static float value_of(uint32_t key)
{
    uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool sample_cut_has(const struct slot_sampling *sampling, enum sample_cut_kind kind)
{
    if (!(sampling->temperature > 0))
        return false;
    return kind == SAMPLE_CUT_COUNT ? sampling->top_k > 0
                                    : sampling->top_p > 0 && sampling->top_p < 1;
}

bool sample_cut_needed(const struct slot_sampling *sampling)
{
    return sample_cut_has(sampling, SAMPLE_CUT_COUNT) ||
           sample_cut_has(sampling, SAMPLE_CUT_MASS) ||
           (sampling->temperature > 0 && sampling->min_p > 0);
}

// ---- clear ----

struct clear_arguments {
    float *cuts;
    int samples;
};

static void run_clear(const void *arguments)
{
    const struct clear_arguments *op = arguments;
    for (int i = 0; i < op->samples; i++)
        op->cuts[i] = -INFINITY;
}

void sample_cut_clear(struct stream *stream, float *cuts, int samples)
{
    ASSERT(cuts != NULL || samples == 0);
    struct clear_arguments arguments = {cuts, samples};
    stream_run(stream, run_clear, &arguments, sizeof arguments);
}

// ---- a turn of rows ----

// The parameters of a row, NULL when it is inert.
static const struct slot_sampling *sampling_of(const struct sample_cut *op, int row)
{
    int32_t sample = op->rows[row];
    ASSERT(sample >= 0 && sample < op->tables.samples_count);
    if (op->tables.sample_positions[sample] < 0)
        return NULL;
    return &op->slots.slots[op->tables.sample_slots[sample]].sampling;
}

static void run_begin(const void *arguments)
{
    const struct sample_cut *op = arguments;
    for (int i = 0; i < op->rows_count; i++) {
        struct sample_cut_state *state = &op->states[i];
        *state = (struct sample_cut_state){.maximum = -INFINITY, .cut = -INFINITY};
        for (int rank = 0; rank < op->ranks; rank++) {
            const struct sample_candidate *candidate =
                &op->candidates[(size_t)rank * (size_t)op->tables.samples_count +
                                (size_t)op->rows[i]];
            if (candidate->maximum > state->maximum)
                state->maximum = candidate->maximum;
        }
    }
}

struct level_arguments {
    struct sample_cut op;
    enum sample_cut_kind kind;
    int level;
};

static double weight_of(float logit, const struct sample_cut_state *state,
                        const struct slot_sampling *sampling, enum sample_cut_kind kind)
{
    if (kind == SAMPLE_CUT_COUNT)
        return 1;
    return exp(((double)logit - (double)state->maximum) / (double)sampling->temperature);
}

static void fill_bins(const struct level_arguments *arguments, int row,
                      const struct slot_sampling *sampling)
{
    const struct sample_cut *op = &arguments->op;
    const struct sample_cut_state *state = &op->states[row];
    const float *logits = op->logits + (size_t)op->rows[row] * (size_t)op->vocab_count;
    double *bins = op->bins + (size_t)row * SAMPLE_CUT_BINS;
    int shift = level_shift[arguments->level], bits = level_bits[arguments->level];
    int real = op->vocab_real - op->vocab_first;
    int count = real < op->vocab_count ? real : op->vocab_count;
    for (int i = 0; i < count; i++) {
        uint32_t key = key_of(logits[i]);
        // Of another branch than the one decided, already out, or no number.
        bool other =
            arguments->level > 0 && (key >> (shift + bits)) != state->key >> (shift + bits);
        if (other || !(logits[i] >= state->cut))
            continue;
        bins[(key >> shift) & ((1u << bits) - 1)] +=
            weight_of(logits[i], state, sampling, arguments->kind);
    }
}

static void run_histogram(const void *data)
{
    const struct level_arguments *arguments = data;
    const struct sample_cut *op = &arguments->op;
    memset(op->bins, 0, (size_t)op->rows_count * SAMPLE_CUT_BINS * sizeof(double));
    for (int row = 0; row < op->rows_count; row++) {
        const struct slot_sampling *sampling = sampling_of(op, row);
        struct sample_cut_state *state = &op->states[row];
        if (arguments->level == 0)
            state->active = sampling != NULL && sample_cut_has(sampling, arguments->kind);
        if (state->active)
            fill_bins(arguments, row, sampling);
    }
}

static double bin_of(const struct sample_cut *op, int row, int bin)
{
    double sum = 0;
    for (int rank = 0; rank < op->ranks; rank++) {
        size_t at = (size_t)rank * (size_t)op->rows_count + (size_t)row;
        sum += op->gathered[at * SAMPLE_CUT_BINS + (size_t)bin];
    }
    return sum;
}

// What has to be reached, from the first level's bins, which hold everything that competes.
static void set_target(const struct sample_cut *op, int row, enum sample_cut_kind kind)
{
    struct sample_cut_state *state = &op->states[row];
    const struct slot_sampling *sampling = sampling_of(op, row);
    double total = 0;
    for (int bin = SAMPLE_CUT_BINS - 1; bin >= 0; bin--)
        total += bin_of(op, row, bin);
    state->key = 0;
    state->above = 0;
    state->target =
        kind == SAMPLE_CUT_COUNT ? (double)sampling->top_k : (double)sampling->top_p * total;
    // Everything is kept; or nothing weighs anything, where no logit is finite.
    if (!(state->target < total))
        state->active = 0;
}

static void narrow_row(const struct level_arguments *arguments, int row)
{
    const struct sample_cut *op = &arguments->op;
    struct sample_cut_state *state = &op->states[row];
    int lowest = -1;
    double above_lowest = 0;
    if (arguments->level == 0)
        set_target(op, row, arguments->kind);
    if (!state->active)
        return;
    for (int bin = SAMPLE_CUT_BINS - 1; bin >= 0; bin--) {
        double weight = bin_of(op, row, bin);
        if (!(weight > 0))
            continue;
        lowest = bin;
        above_lowest = state->above;
        if (state->above + weight >= state->target)
            break;
        state->above += weight;
    }
    // Finer sums may miss the target by their rounding: then the lowest that is there completes it.
    ASSERT(lowest >= 0);
    state->above = above_lowest;
    state->key |= (uint32_t)lowest << level_shift[arguments->level];
    if (arguments->level == SAMPLE_CUT_LEVELS - 1)
        state->cut = value_of(state->key);
}

static void run_narrow(const void *data)
{
    const struct level_arguments *arguments = data;
    for (int row = 0; row < arguments->op.rows_count; row++) {
        if (arguments->op.states[row].active)
            narrow_row(arguments, row);
    }
}

static void run_end(const void *arguments)
{
    const struct sample_cut *op = arguments;
    for (int row = 0; row < op->rows_count; row++) {
        const struct slot_sampling *sampling = sampling_of(op, row);
        const struct sample_cut_state *state = &op->states[row];
        float cut = state->cut;
        if (sampling != NULL && sampling->temperature > 0 && sampling->min_p > 0) {
            float least = (float)((double)state->maximum +
                                  (double)sampling->temperature * log((double)sampling->min_p));
            cut = least > cut ? least : cut;
        }
        // The largest logit always stays, whatever rounding did to a cut beside it.
        op->cuts[op->rows[row]] = cut < state->maximum ? cut : state->maximum;
    }
}

static void check(const struct sample_cut *op)
{
    ASSERT(op->rows_count >= 0 && op->rows_count <= SAMPLE_CUT_ROWS_MAX && op->ranks >= 1);
    ASSERT(op->logits != NULL && op->states != NULL && op->bins != NULL && op->cuts != NULL);
}

void sample_cut_begin(struct stream *stream, const struct sample_cut *op)
{
    check(op);
    stream_run(stream, run_begin, op, sizeof *op);
}

void sample_cut_histogram(struct stream *stream, const struct sample_cut *op,
                          enum sample_cut_kind kind, int level)
{
    check(op);
    ASSERT(level >= 0 && level < SAMPLE_CUT_LEVELS);
    struct level_arguments arguments = {*op, kind, level};
    stream_run(stream, run_histogram, &arguments, sizeof arguments);
}

void sample_cut_narrow(struct stream *stream, const struct sample_cut *op,
                       enum sample_cut_kind kind, int level)
{
    check(op);
    ASSERT(level >= 0 && level < SAMPLE_CUT_LEVELS && op->gathered != NULL);
    struct level_arguments arguments = {*op, kind, level};
    stream_run(stream, run_narrow, &arguments, sizeof arguments);
}

void sample_cut_end(struct stream *stream, const struct sample_cut *op)
{
    check(op);
    stream_run(stream, run_end, op, sizeof *op);
}
