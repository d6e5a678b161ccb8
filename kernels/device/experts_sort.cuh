// SPDX-License-Identifier: Apache-2.0
// experts_sort.cuh -- the (token, pick) slots of a step sorted by expert, for kernels that multiply
// all slots of an expert together. Not an op: launchers of moe_push queue it.
#pragma once

#include "kernels/device/launch.cuh"

enum { SORT_EXPERTS_MAX = 1024 };

struct experts_sort {
    const int32_t *ids; // [slots_count / picks, picks], distinct of a token
    int slots_count, picks, experts;
    int tile_tokens;  // an expert's slots make tiles of at most so many
    int32_t *slots;   // [slots_count] by expert, then in order
    int32_t *offsets; // [experts + 1] of an expert's slots
    int32_t *tiles;   // [experts + 1] of an expert's tiles
    int32_t *counts;  // workspace, experts_sort_counts values
};

// Values of the workspace.
int64_t experts_sort_counts(int slots_count, int experts);

// Queues the sort; experts at most SORT_EXPERTS_MAX.
void experts_sort(cudaStream_t stream, const struct experts_sort &sort);
