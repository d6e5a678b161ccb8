// SPDX-License-Identifier: Apache-2.0
// step_engine.h -- what is inside struct step_engine, for step.c, step_stage.c, step_sampling.c and
// step_graphs.c and nobody else.
#pragma once

#include <stdatomic.h>

#include "kernels/sample.h"
#include "kernels/sample_cut.h"
#include "kernels/sample_lists.h"
#include "kernels/sample_logprobs.h"
#include "kernels/sample_penalty.h"
#include "kernels/state_checkpoint.h"
#include "worker/step.h"

// What the host uploads for a step. Arrays have room for the largest step. The first three lie one
// behind the other, so that one copy takes what most steps need.
struct upload {
    uint64_t *step;                      // [1] its number
    struct step_row *rows;               // [STEP_ROWS_MAX]
    int32_t *token_ids;                  // [step_tokens]
    struct state_checkpoint_move *loads; // [STEP_ROWS_MAX]
    struct row_save *saves;              // [STEP_ROWS_MAX * STEP_SAVES_MAX] of prefill rows
    struct state_checkpoint_move *folds; // [STEP_ROWS_MAX] of decode rows
    struct slot_opening *openings;       // [STEP_ROWS_MAX]
    struct slot_pages *pages;            // [STEP_ROWS_MAX]
    int32_t *page_ids;                   // [STEP_PAGE_IDS_MAX]
    int32_t *cut_rows;                   // [samples_max] sampled rows with top-k, top-p or min-p
    int32_t *penalty_rows;               // [samples_max] with penalties or banned stops
    int32_t *list_rows;                  // [samples_max] with biases, allowed ids or words
    int32_t *lists;                      // [STEP_LISTS_MAX] of the openings
    // Entries of which log-probabilities are told: drawn tokens, then tokens of prompts.
    // logprobs_max is samples_max + STEP_PROMPT_LOGPROBS_MAX.
    int32_t *logprob_rows;   // [logprobs_max] drawn: the sampled row
    int32_t *logprob_hidden; // [logprobs_max] token of the step whose hidden row foretells it
    int32_t *logprob_tops;   // [logprobs_max] alternatives
    int32_t *logprob_tokens; // [logprobs_max] prompt: its id
};

enum { STEP_LOGPROBS_TURN = 256 }; // entries at once; more take turns

// What comes back: in one copy, and log-probabilities in another where there are some.
struct download {
    uint64_t *hash;                  // [1]
    struct row_result *results;      // [STEP_ROWS_MAX]
    struct sample_logprob *logprobs; // [logprobs_max] of rank 0
};

// Where a row's entries lie in download.logprobs.
struct row_logprobs {
    int32_t prompt_first, prompt_count;
    int32_t drawn_first, drawn_count; // one for each token that it may draw
};

struct staging {
    struct upload upload;
    struct download download;
    void *memory; // holds both
    struct event *ended;
    uint64_t step;
    uint64_t queued_ns;
    int rows_count;
    struct row_logprobs row_logprobs[STEP_ROWS_MAX];
};

enum { STEP_GRAPHS_MAX = 24 };

// How much a recorded step does to choose its tokens.
enum step_class {
    STEP_CLASS_PLAIN, // the largest logit, perturbed or not
    STEP_CLASS_FULL,  // penalties and cuts of every row that has them
    STEP_CLASSES,
};

// Decode steps recorded at start, by drafts that a row verifies and makes, and by count of rows,
// ascending.
struct step_graphs {
    uint64_t launched; // steps that came from a graph
    uint64_t bytes;    // that the device had fewer free after they were recorded
    int counts[STEP_VERIFY_MAX];
    int rows[STEP_VERIFY_MAX][STEP_GRAPHS_MAX];
    struct graph *decode[STEP_CLASSES][STEP_VERIFY_MAX][STEP_GRAPHS_MAX];
    int32_t *every_row_dev; // [samples] 0, 1, 2, ..: what full steps cut and penalise
};

struct step_engine {
    struct step_options options;
    struct staging staging[STEP_STAGING]; // see staging_of
    size_t staging_bytes;
    // Device side.
    struct upload upload_dev;
    struct download download_dev;
    struct step_tables tables_dev;                 // counts are set per step
    struct sample_candidate *candidates_dev;       // [samples]
    struct sample_candidate *gathered_dev;         // [ranks, samples]
    struct sample_candidate *parts_dev;            // [SAMPLE_PARTS + samples]
    int32_t *sampled_dev;                          // [samples]
    struct sample_cut_state *cut_states_dev;       // [SAMPLE_CUT_ROWS_MAX]
    double *bins_dev;                              // [SAMPLE_CUT_ROWS_MAX, SAMPLE_CUT_BINS]
    double *gathered_bins_dev;                     // [ranks, SAMPLE_CUT_ROWS_MAX, SAMPLE_CUT_BINS]
    float *cuts_dev;                               // [samples]
    struct slot_sampling *sampling;                // [sequences] of the slots, as opened
    struct sample_logprob_part *logprob_parts_dev; // [STEP_LOGPROBS_TURN]
    struct sample_logprob_part *logprob_parts_gathered_dev; // [ranks, STEP_LOGPROBS_TURN]
    // Drafting, with drafts_max > 0.
    struct step_tables drafts_dev;   // a token per row; counts are set per step
    struct step_row *draft_rows_dev; // [STEP_ROWS_MAX] of drafts_dev
    int32_t *pair_ids_dev;           // [step_tokens]
    int32_t *draft_picks_dev;        // [STEP_ROWS_MAX]
    uint64_t *draft_hash_dev; // [1] of the picks, told to nobody: the next step's tokens tell
    void *memory_dev;
    struct stream *notifier;   // waits for steps and tells the host; the model's own on the CPU
    struct step_graphs graphs; // none when options.graphs is off
    int samples_max;
    atomic_uint_fast64_t begun, done;
    uint64_t ended_ns; // when the last step ended
};

// Which sampled rows need more than the largest logit: known here, since a slot's parameters
// never change.
struct sampling_plan {
    bool every_row;    // the counts are of all rows, which find out for themselves
    int cut_count;     // rows in cut_rows
    bool cut_by_count; // some row has top-k
    bool cut_by_mass;  // some row has top-p
    int penalty_count; // rows in penalty_rows
    bool counts;       // some row of the step, sampled or not, has counts to keep
    int lists_count;   // rows in list_rows
    bool recent;       // some row of the step, sampled or not, has banned words
    int logprobs_drawn, logprobs_prompt; // entries; the first kind's come first
    bool logprobs_changed; // some entry's sampled row is not of the model's own logits any more
};

// What prefix reuse does in a step.
struct prefix_moves {
    int loads;    // checkpoints copied to slots
    int folds;    // decode rows that may begin at one
    bool recalls; // a slot with penalties opens behind tokens that it does not run
};

// ---- step_stage.c: a step plan laid out in a staging buffer ----

// Copies the plan's openings and pages, and keeps the sampling of the slots that open.
void step_stage_openings(struct step_engine *engine, struct upload *up,
                         const struct step_plan *plan);
// Lays the rows' tokens one after another, lists the checkpoints that prefill rows leave and sets
// the counts of tables; decode tokens are filled in on the device.
void step_stage_rows(struct upload *up, struct step_tables *tables, const struct step_plan *plan);
// Lists the rows that need a cut or penalties; tables must have been staged.
struct sampling_plan step_stage_sampling(const struct step_engine *engine, struct upload *up);
// Lists the entries of log-probabilities and where each row's lie.
void step_stage_logprobs(const struct step_engine *engine, struct staging *staging,
                         struct sampling_plan *sampling, const struct step_plan *plan);

// ---- step_logprobs.c: the log-probabilities of what was drawn, and of prompts ----

// Queue: the lists of entries up; the entries, after the pick and before drafts take the place of
// hidden rows and logits; what is to be told down, on rank 0. Nothing without entries.
void step_upload_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling,
                          const struct upload *up);
void step_queue_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling);
void step_download_logprobs(const struct step_engine *engine, const struct sampling_plan *sampling,
                            const struct download *down);
// Copies a row's entries behind the report's; result is filled but for them.
void step_report_logprobs(struct report *report, struct step_result *result,
                          const struct staging *staging, int row);

// ---- step_prefix.c: checkpoints, and tokens beside their pages ----

// Lists the checkpoints to load, and those of decode rows; openings, rows and tables must have been
// staged.
struct prefix_moves step_stage_prefix(struct upload *up, const struct step_tables *tables,
                                      const struct step_plan *plan);
// Queue, in a step's order: before slots open; after their pages are set; before slots_begin; after
// it; after the forward pass, before anything else writes hidden rows; after all else. A recorded
// step has the notes in it; fold_begin and fold_end stand around it.
void step_queue_loads(const struct step_engine *engine, const struct prefix_moves *moves);
void step_queue_recalls(const struct step_engine *engine, const struct prefix_moves *moves,
                        int openings_count);
void step_queue_fold_begin(const struct step_engine *engine, const struct prefix_moves *moves);
void step_queue_notes(const struct step_engine *engine);
void step_queue_saves(const struct step_engine *engine);
void step_queue_fold_end(const struct step_engine *engine, const struct prefix_moves *moves);

// ---- step_sampling.c: from hidden rows to sampled ids ----

// The lists op over the first rows_count of the uploaded list rows.
struct sample_lists step_lists_op(const struct step_engine *engine, int rows_count);
// The penalty op over the rows that the sampling plan lists.
struct sample_penalty step_penalty_op(const struct step_engine *engine,
                                      const struct sampling_plan *sampling);
// Queues logits, penalties, cuts and the choice of a token for every sampled row.
void step_queue_sampling(const struct step_engine *engine, const struct sampling_plan *sampling);

// ---- step.c ----

// Queues the step that lies in the device's upload area, from slots_begin to slots_end and the
// drafts for the next, with the counts of tables_dev.
void step_queue_rows(const struct step_engine *engine, const struct sampling_plan *sampling,
                     int drafts);

// ---- step_graphs.c: decode steps recorded at start and launched ----

// Open records them: none of a step's memory may move afterwards. E_SYSTEM when memory is short.
enum status step_graphs_open(struct step_engine *engine, struct error *error) MUST_CHECK;
void step_graphs_close(struct step_engine *engine);
// The recorded step that can run these rows and make so many drafts, or NULL: some row is no decode
// row, or verifies another number of drafts than it makes, or there are more than the largest graph
// has. Fills the staged rows up to the graph's count, also where options.padded stands in for
// graphs; what the sampling plan lists need not be uploaded when there is a graph.
struct graph *step_graphs_find(struct step_engine *engine, struct upload *up,
                               const struct sampling_plan *sampling, int drafts);

// One pass over this shard's logits for the samples of tables, as model_logits left them: its best
// id below ids_end of every row, gathered from all ranks. cuts_dev [samples] or NULL.
void step_queue_candidates(const struct step_engine *engine, const struct step_tables *tables,
                           const float *cuts_dev, int ids_end);

// ---- step_draft.c: the multi-token-prediction head; only with drafts_max > 0 ----

// Before slots_end: replaces samples so that drafts are accepted by chance, when that was asked.
void step_queue_synthetic(const struct step_engine *engine);

// After the forward pass, before sampling: the head's keys and values of the step's known pairs.
void step_queue_known_pairs(const struct step_engine *engine);
// After slots_end: keeps the last hidden rows and makes `count` drafts for every row that drew.
// Overwrites workspace.hidden and logits.
void step_queue_drafts(const struct step_engine *engine, int count);
