// SPDX-License-Identifier: Apache-2.0
// rig.h -- one rank with the engine of the worker and nothing of its loop: steps are submitted by
// the test, which sees logits, forces tokens and keeps a hash of all that was reported.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "worker/model.h"
#include "worker/step.h"

enum { RIG_ROWS_MAX = 64 };

struct rig_options {
    const char *model_dir; // dummy weights
    int sequences, sequence_tokens, step_tokens, pages, checkpoints, drafts_max;
    int vocab_real;          // ids from here on are never drawn
    int draft_vocab;         // as in struct step_options
    double synthetic_length; // as there
    bool graphs, padded;     // as there
    uint8_t fill;            // of all state and workspace before the first step
};

struct rig {
    struct rig_options options;
    struct model model;
    struct model_weights weights;
    struct rank_state state;
    struct memory_plan memory;
    struct step_engine *engine;
    struct step_plan plan;
    struct report report; // the last that was taken
    uint64_t step;        // submitted
    uint64_t hash;        // of all reports
    int32_t *all_tokens_dev;
    void (*took)(void *context, const struct report *report); // may be NULL
    void *context;
};

// Ends the program with a message when something fails, as all here. With
// DELTAMESH_CHECK_BF16_STATE in the environment recurrent states are bf16.
void rig_open(struct rig *rig, const struct rig_options *options);
void rig_close(struct rig *rig);

// The plan of the next step, empty.
struct step_plan *rig_plan(struct rig *rig);

// Opens `slot` in the plan with pages first .. first + count; tokens_end is the longest possible.
struct step_open *rig_add_open(struct rig *rig, int slot, int page_first, int page_count);

// Adds tokens of a prompt, after which `next` follows (-1: a token is drawn), and a decode row.
struct step_plan_row *rig_add_prompt(struct rig *rig, int slot, const int32_t *ids, int count,
                                     int32_t next);
struct step_plan_row *rig_add_decode(struct rig *rig, int slot);

// Submits the plan when at most `ahead` steps are in flight.
void rig_submit(struct rig *rig, int ahead);

// Takes reports until at most `left` steps are in flight.
void rig_drain(struct rig *rig, int left);

// With nothing in flight: logits [count, vocab] of the last step's tokens (it made no drafts), and
// those that its samples were drawn from.
void rig_all_logits(struct rig *rig, int count, float *logits);
void rig_sampled_logits(struct rig *rig, int count, float *logits);

// With nothing in flight: the token that a slot runs next, and the drafts behind it.
void rig_force(struct rig *rig, int slot, int32_t next, const int32_t *drafts, int count);
void rig_drafts(struct rig *rig, int slot, int32_t *drafts); // [ROW_VERIFY_MAX - 1]

// With nothing in flight: hash of slots, keys, values, recurrent state and checkpoints.
uint64_t rig_state_hash(struct rig *rig);
