// SPDX-License-Identifier: Apache-2.0
// model.h -- the forward pass of a rank as a list of op calls. Reads weights and state, owns none.
#pragma once

#include "kernels/runtime.h"
#include "kernels/slots.h"
#include "parallel/config.h"
#include "parallel/group.h"
#include "parallel/shard.h"
#include "worker/state.h"
#include "worker/weights.h"

// Everything a forward pass touches; all pointers borrowed for the model's life.
struct model {
    struct model_config config;
    struct shard shard;
    const struct model_weights *weights;
    struct rank_state *state;
    struct group *group;
    struct stream *stream;
};

// Queues all layers for the tokens of tables. Afterwards state->workspace.hidden holds
// [tokens, hidden] rows after the final norm.
void model_forward(const struct model *model, const struct step_tables *tables);

// How many of this rank's vocabulary rows, from its first one on, a choice among ids below ids_end
// looks at: whole tiles, which may hold ids beyond, and one tile where all its ids lie beyond. With
// config.vocab all.
int model_vocab_rows(const struct model *model, int ids_end);

// Queues the logits of the sampled rows into state->workspace.logits [samples,
// model_vocab_rows(ids_end)], from hidden rows [tokens, hidden].
void model_logits(const struct model *model, const struct step_tables *tables,
                  const bf16 *hidden_rows, int ids_end);

// Queues what the multi-token-prediction head keeps of known pairs, its keys and values only: ids
// and hidden_rows as in model_mtp; id -1 = no pair. workspace.hidden and logits stay; residual,
// normed (hidden_rows may lie there), joined and projected do not. No collective.
void model_mtp_known(const struct model *model, const struct step_tables *tables,
                     const int32_t *ids, const bf16 *hidden_rows);

// Queues the multi-token-prediction head over the tokens of tables: ids [tokens] are the known
// tokens t_i, hidden_rows [tokens, hidden] the model's hidden states h_{i-1} after the final norm,
// positions in tables are i. The head's KV row of the pair lives at position i. Afterwards
// workspace.hidden holds the head's rows after mtp.norm; needs weights->has_mtp. Source: model
// card of the family, Qwen3_5MTP of vLLM; chaining: the head's own row is the next hidden row.
void model_mtp(const struct model *model, const struct step_tables *tables, const int32_t *ids,
               const bf16 *hidden_rows);
