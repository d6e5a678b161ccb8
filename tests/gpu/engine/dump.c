// SPDX-License-Identifier: Apache-2.0
// dump.c -- logits of every position of some sequences, for a reference in another language
// (layer_check.py): prompts, each in a step of its own, then decode rows of all sequences at once.
#include "tests/gpu/engine/engine_check.h"

#include <stdio.h>
#include <stdlib.h>

enum { DUMP_SEQUENCES_MAX = 256, DUMP_TOKENS_MAX = 4096 };

// The token of a sequence at a position; layer_check.py has the same formula.
static int32_t token_at(int sequence, int position, int vocab)
{
    return (int32_t)((position * 7919 + sequence * 10477 + position * position % 31) % vocab);
}

static void write_logits(FILE *file, const float *logits, size_t count)
{
    if (fwrite(logits, sizeof *logits, count, file) != count)
        DIE("dump: the file is not written whole");
}

static void dump_prompt(struct rig *rig, FILE *file, int sequence, int tokens, float *logits)
{
    int32_t ids[DUMP_TOKENS_MAX];
    int pages = rig->memory.pages_per_sequence, vocab = rig->model.config.vocab;
    for (int i = 0; i < tokens; i++)
        ids[i] = token_at(sequence, i, vocab);
    rig_plan(rig);
    rig_add_open(rig, sequence, sequence * pages, pages);
    rig_add_prompt(rig, sequence, ids, tokens, token_at(sequence, tokens, vocab));
    rig_submit(rig, 0);
    rig_drain(rig, 0);
    rig_all_logits(rig, tokens, logits);
    write_logits(file, logits, (size_t)tokens * (size_t)vocab);
}

static void dump_decode(struct rig *rig, FILE *file, int sequences, int position, float *logits)
{
    int vocab = rig->model.config.vocab;
    for (int i = 0; i < sequences; i++)
        rig_force(rig, i, token_at(i, position, vocab), NULL, 0);
    rig_plan(rig);
    for (int i = 0; i < sequences; i++)
        rig_add_decode(rig, i);
    rig_submit(rig, 0);
    rig_drain(rig, 0);
    rig_sampled_logits(rig, sequences, logits);
    write_logits(file, logits, (size_t)sequences * (size_t)vocab);
}

void dump_logits(const char *model_dir, const char *path, const struct dump_size *size)
{
    struct rig *rig = (struct rig *)calloc(1, sizeof *rig);
    struct rig_options options = {.model_dir = model_dir,
                                  .sequences = size->sequences,
                                  .sequence_tokens = size->tokens + size->steps + 64,
                                  .step_tokens = (size->tokens + 127) / 64 * 64,
                                  .vocab_real = size->vocab,
                                  .graphs = true,
                                  .fill = 0xff};
    options.pages = size->sequences * ((options.sequence_tokens + 63) / 64);
    if (size->sequences > DUMP_SEQUENCES_MAX || size->tokens > DUMP_TOKENS_MAX)
        DIE("dump: %d sequences of %d tokens", size->sequences, size->tokens);
    if (options.step_tokens < size->sequences)
        options.step_tokens = (size->sequences + 63) / 64 * 64;
    rig_open(rig, &options);
    FILE *file = fopen(path, "wb");
    size_t rows = (size_t)(size->tokens > size->sequences ? size->tokens : size->sequences);
    float *logits = (float *)calloc(rows * (size_t)rig->model.config.vocab, sizeof(float));
    if (file == NULL || logits == NULL)
        DIE("dump: %s cannot be written", path);
    for (int i = 0; i < size->sequences; i++)
        dump_prompt(rig, file, i, size->tokens, logits);
    for (int i = 0; i < size->steps; i++)
        dump_decode(rig, file, size->sequences, size->tokens + i, logits);
    if (fclose(file) != 0)
        DIE("dump: %s is not written whole", path);
    free(logits);
    rig_close(rig);
    free(rig);
}
