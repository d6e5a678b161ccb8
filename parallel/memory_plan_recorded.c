// SPDX-License-Identifier: Apache-2.0
// memory_plan_recorded.c -- which decode steps a worker records before it is ready, and the device
// memory that they are planned with. Pure. worker/step_graphs.c records by the same functions.
#include "parallel/memory_plan.h"

// At most a third of a step's rows are filling, and none up to four.
static const int counts[] = {1,  2,  3,  4,   6,   8,   12,  16,  24,  32,
                             48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};

enum {
    // A layer of Qwen3.5-35B-A3B of up to four rows is eleven kernels; a dense one is less. Groups
    // send and wait in kernels of their own, 256 KiB in each (EXCHANGE_PACKETS_BYTES_MAX).
    LAYER_KERNELS = 11,
    LAYER_EXCHANGES = 2,
    EXCHANGE_BYTES = 1 << 18,
    STEP_KERNELS = 7,
    // With a head: of its known pairs; of every draft beside a layer: its input, logits and choice.
    KNOWN_KERNELS = 6,
    DRAFT_KERNELS = 10,
    // Of a step with penalties and cuts: these, and of every turn of rows: three levels by count
    // and three by mass, of a histogram and a narrowing each, with a beginning and an end. Ranks
    // gather the histograms and take turns of fewer rows.
    FULL_KERNELS = 6,
    CUT_ROWS = 64,
    CUT_ROWS_GATHERED = 16,
    CUT_KERNELS = 2 + 2 * 3 * 2,
    CUT_GATHERS = 2 * 3,
    // On H200s, of 22 to 192 recorded steps of 35B-A3B and 27B: 1,950 to 2,830, the more the more
    // drafts. A worker says at its start what its own took.
    KERNEL_BYTES = 3072,
};

int memory_plan_recorded_most(const struct memory_plan *plan, int drafts)
{
    int64_t tokens = (int64_t)plan->sequences * VERIFY_ROWS_MAX; // that can be sampled
    if (tokens > plan->step_tokens)
        tokens = plan->step_tokens;
    int most = (int)tokens / (1 + drafts);
    return plan->sequences < most ? plan->sequences : most;
}

int memory_plan_recorded_rows(const struct memory_plan *plan, int rows, int drafts)
{
    int most = memory_plan_recorded_most(plan, drafts);
    for (size_t i = 0; i < sizeof counts / sizeof *counts && counts[i] < most; i++) {
        if (counts[i] >= rows)
            return counts[i];
    }
    return most;
}

// Of a layer: ranks sum twice, and send at most EXCHANGE_BYTES in a kernel.
static uint64_t layer_kernels(const struct model_config *config, const struct shard *shard,
                              int tokens)
{
    uint64_t bytes = (uint64_t)tokens * (uint64_t)config->hidden * 2;
    uint64_t sends = (bytes + EXCHANGE_BYTES - 1) / EXCHANGE_BYTES;
    return LAYER_KERNELS + (shard->ranks > 1 ? LAYER_EXCHANGES * sends : 0);
}

// Of a step of so many rows: the plain one and the one with penalties and cuts.
static uint64_t kernels_of(const struct model_config *config, const struct shard *shard, int rows,
                           int drafts, bool head)
{
    bool group = shard->ranks > 1;
    int samples = rows * (1 + drafts);
    uint64_t plain = (uint64_t)config->layers * layer_kernels(config, shard, samples);
    plain += STEP_KERNELS;
    if (head)
        plain +=
            KNOWN_KERNELS + (uint64_t)drafts * (layer_kernels(config, shard, rows) + DRAFT_KERNELS);
    int at_once = group ? CUT_ROWS_GATHERED : CUT_ROWS;
    int turns = (samples + at_once - 1) / at_once;
    int full = FULL_KERNELS + turns * (CUT_KERNELS + (group ? CUT_GATHERS : 0));
    return RECORDED_CLASSES * plain + (uint64_t)full;
}

int memory_plan_recorded_steps(const struct memory_plan *plan)
{
    int steps = 0;
    for (int drafts = 0; drafts < plan->recorded; drafts++) {
        int most = memory_plan_recorded_most(plan, drafts);
        for (int rows = 0; rows < most; steps += RECORDED_CLASSES)
            rows = memory_plan_recorded_rows(plan, rows + 1, drafts);
    }
    return steps;
}

uint64_t memory_plan_recorded_bytes(const struct memory_plan *plan,
                                    const struct model_config *config, const struct shard *shard)
{
    uint64_t kernels = 0;
    for (int drafts = 0; drafts < plan->recorded; drafts++) {
        int most = memory_plan_recorded_most(plan, drafts);
        for (int rows = 0; rows < most;) {
            rows = memory_plan_recorded_rows(plan, rows + 1, drafts);
            kernels += kernels_of(config, shard, rows, drafts, plan->recorded > 1);
        }
    }
    return kernels * KERNEL_BYTES;
}
