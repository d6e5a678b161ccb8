// SPDX-License-Identifier: Apache-2.0
// sample_cut.h -- op: the lowest logit that may be drawn, from top-k, then top-p, then min-p
//
// A cut is exact and needs no sorted and no gathered logits: the bits of the k-th logit, or of the
// one that completes the mass p, are found 11 at a time from histograms of all shards, which
// sample_shard's second pass then compares with. Every logit equal to the cut is kept, so that the
// result depends on no order. Of rows with temperature 0 nothing is cut: their largest wins anyway.
//
//   shape   rows [rows_count] index of the sampled rows to cut; maxima in gathered candidates
//           [ranks, samples]; bins [rows_count, SAMPLE_CUT_BINS] f64; gathered bins [ranks,
//           rows_count, SAMPLE_CUT_BINS]; cuts [samples] f32
//   needs   rows_count <= SAMPLE_CUT_ROWS_MAX
//   launch  blocks of 256 over parts of the rows add to bins; a block per row, eight bins a thread,
//           narrows
//   moves   rows_count * vocab own * 4 bytes a pass, three passes for top-k, three for top-p
//   limit   a pass reads 1 MB a row of 248,320 logits, 0.2 us at 4.6 TB/s; latency for few rows
//   error   mass sums in f64 in id order within a shard and in rank order over them, or in units of
//           2^-44 of the largest logit's mass (CUDA); a logit whose cumulative mass is closer to p
//           than their rounding, 2^-27 of all, may fall on either side
//   source  order of the filters and what each keeps: TopKLogitsWarper, TopPLogitsWarper,
//           MinPLogitsWarper of HF transformers
#pragma once

#include "kernels/sample.h"

enum {
    SAMPLE_CUT_ROWS_MAX = 64, // at once; more rows take turns
    SAMPLE_CUT_BINS = 2048,
    SAMPLE_CUT_LEVELS = 3, // 11 + 11 + 10 bits of a logit
};

enum sample_cut_kind {
    SAMPLE_CUT_COUNT, // top-k: a logit counts 1
    SAMPLE_CUT_MASS,  // top-p: a logit counts exp((logit - maximum) / temperature)
};

// How far the search of one row has come. Device memory, one for each row of a turn.
struct sample_cut_state {
    float maximum;  // largest logit of all shards
    float cut;      // logits below are out, -infinity at first
    uint32_t key;   // the decided upper bits of the logit searched for, in ordered form
    int32_t active; // 0: this row is not cut by the kind under way
    double target;  // count or mass to reach, from above
    double above;   // reached by bins above the decided one
    float floor;    // top-k: more than k logits are at least this; the others need no look
};

struct sample_cut {
    struct step_tables tables; // sample_positions, sample_slots
    struct slots slots;
    const float *logits;
    int vocab_first, vocab_count, vocab_real;
    const int32_t *rows; // [rows_count]
    int rows_count;
    struct sample_cut_state *states;           // [rows_count]
    const struct sample_candidate *candidates; // gathered [ranks, samples], of an uncut pass
    const struct sample_candidate *parts;      // of the same pass on this shard; CUDA only
    int ranks;
    double *bins;           // [rows_count, SAMPLE_CUT_BINS] of this shard; CUDA: as integers
    const double *gathered; // [ranks, rows_count, SAMPLE_CUT_BINS]
    float *cuts;            // [samples]
};

// All of cuts [samples] to -infinity: nothing is cut.
void sample_cut_clear(struct stream *stream, float *cuts, int samples);

// Takes the rows' maxima; no bin needed.
void sample_cut_begin(struct stream *stream, const struct sample_cut *op);

// Fills this shard's bins of one level (0 = upper bits) of one kind; the caller gathers them, and
// narrow decides the level's bits. After the last level the row's cut is known.
void sample_cut_histogram(struct stream *stream, const struct sample_cut *op,
                          enum sample_cut_kind kind, int level);
void sample_cut_narrow(struct stream *stream, const struct sample_cut *op,
                       enum sample_cut_kind kind, int level);

// Applies min-p and writes cuts[rows[i]].
void sample_cut_end(struct stream *stream, const struct sample_cut *op);

// Whether a row with these parameters is cut at all, and by which kinds.
bool sample_cut_needed(const struct slot_sampling *sampling);
bool sample_cut_has(const struct slot_sampling *sampling, enum sample_cut_kind kind);
