// SPDX-License-Identifier: Apache-2.0
// memory_plan.h -- turns model, shard, bytes free and the operator's wishes into counts of slots,
// pages and buffers. It clamps and says so; it refuses only when not one sequence of
// TOKENS_PER_PAGE tokens would fit. Pure; both programs call it with the same numbers.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parallel/config.h"
#include "parallel/shard.h"

enum {
    TOKENS_PER_PAGE = 64,    // of KV; also the grid on which prefill is cut
    SEQUENCES_MAX = 1024,    // running at once in a group
    SEQUENCES_DEFAULT = 256, // as many as the speed goals speak of
    STEP_TOKENS_MAX = 65536, // of one step
    VERIFY_ROWS_MAX = 6,     // the known token and up to 5 drafts
    PENDING_ROWS = 8,        // of a slot that wait to be folded; and a step's
    PENDING_ROWS_BF16 = 14,  // with a bf16 state: 7, and behind a prompt 7; and a step's
    CHECKPOINTS_MAX = 4096,  // of prefix reuse, in a group
    SEQUENCE_TOKENS_MAX = 1 << 20,
    SEQUENCE_LISTS_BYTES = 8572, // of a request's biases, allowed ids and banned words
    // kernels/attention.h: parts of decode rows under way, their queries, bytes beside their sums;
    // for heads of this size only.
    ATTENTION_PARTS = 320,
    ATTENTION_PART_QUERIES = 48,
    ATTENTION_PART_BORDER_BYTES = 16,
    ATTENTION_PART_HEAD_DIM = 256,
    EXPERT_FLOAT_TOKENS_MAX = 256, // steps that keep experts' products in f32
    MEMORY_PAGES_MAX = 1 << 30,    // that may be wished for
    RECORDED_CLASSES = 2,          // of every recorded step: plain, and with penalties and cuts
};

// What the operator asked for; 0 = choose.
struct memory_wishes {
    uint64_t bytes_free; // on the smallest rank, before weights
    double utilization;  // share of bytes_free to use, (0, 1]
    int sequences;       // --max-num-seqs
    int sequence_tokens; // --max-model-len
    int step_tokens;     // --max-num-batched-tokens
    int checkpoints;     // of prefix reuse; -1 = none (--no-prefix-cache)
    int pages;           // --kv-pages: no more than these, 0 = as many as fit
    bool mtp;            // the model's files have the head
    int drafts_max;      // as in struct memory_plan
    int recorded;        // as there: launches cost time
    bool bf16_state;     // --state-dtype bfloat16
};

// What both sides then use. Counts are per group; bytes are per rank.
struct memory_plan {
    int32_t sequences;          // state slots
    int32_t sequence_tokens;    // longest sequence, prompt and output together
    int32_t step_tokens;        // most tokens of one step, a multiple of 64
    int32_t pages;              // KV pages of TOKENS_PER_PAGE tokens
    int32_t pages_per_sequence; // width of a block table row
    int32_t checkpoints;        // states that later requests may start from, 0 = no prefix reuse
    int32_t drafts_max;         // that a step verifies, 0 .. VERIFY_ROWS_MAX - 1
    int32_t recorded;           // steps are, with 0 .. recorded - 1 drafts; 0 = none are
    uint64_t weight_bytes, kv_bytes, state_bytes, pending_bytes, workspace_bytes;
    uint64_t recorded_bytes; // of recorded steps, by an estimate
    uint64_t prefix_bytes;   // checkpoints, and what prefix reuse keeps beside slots and pages
    uint64_t total_bytes;
    bool clamped;    // some wish was cut down
    bool bf16_state; // recurrent states, checkpoints' too, are bf16 in memory; else f32
};

// E_LIMIT when even one sequence of one page does not fit (text: bytes needed, bytes there), or
// E_INPUT when a wish is out of range. `ranks` bounds what is replicated: see struct shard.
enum status memory_plan_make(struct memory_plan *out, const struct model_config *config,
                             const struct shard *shard, const struct memory_wishes *wishes,
                             struct error *error) MUST_CHECK;

// Fills the byte fields of a plan from its counts.
void memory_plan_count_bytes(struct memory_plan *plan, const struct model_config *config,
                             const struct shard *shard, bool mtp);

// Bytes of one KV page, one state slot (recurrent state and conv columns) and one slot's pending
// rows where steps verify up to drafts_max drafts, over all layers of this rank, the MTP layer's KV
// included when mtp; with a bf16 state or an f32 one.
uint64_t memory_plan_page_bytes(const struct model_config *config, const struct shard *shard,
                                bool mtp);
uint64_t memory_plan_slot_bytes(const struct model_config *config, const struct shard *shard,
                                bool bf16_state);
uint64_t memory_plan_pending_bytes(const struct model_config *config, const struct shard *shard,
                                   bool bf16_state, int drafts_max);

// Bytes of one checkpoint: a slot's state and the last hidden row.
uint64_t memory_plan_checkpoint_bytes(const struct model_config *config, const struct shard *shard,
                                      bool bf16_state);

// Bytes of all weights of this rank.
uint64_t memory_plan_weight_bytes(const struct model_config *config, const struct shard *shard,
                                  bool mtp);

// ---- memory_plan_recorded.c: decode steps that are recorded ----

// The most rows of a step whose rows verify so many drafts, and the smallest recorded count that
// holds so many rows, which is that where no other does.
int memory_plan_recorded_most(const struct memory_plan *plan, int drafts);
int memory_plan_recorded_rows(const struct memory_plan *plan, int rows, int drafts);

// All recorded steps, classes and numbers of drafts counted; and their bytes on a rank.
int memory_plan_recorded_steps(const struct memory_plan *plan);
uint64_t memory_plan_recorded_bytes(const struct memory_plan *plan,
                                    const struct model_config *config, const struct shard *shard);

// Writes the plan as a table of lines for a person; never more than text_bytes with its NUL.
void memory_plan_print(char *text, size_t text_bytes, const struct memory_plan *plan);
