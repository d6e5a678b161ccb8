// SPDX-License-Identifier: Apache-2.0
// plan.h -- the coordinates of a rank and their limits. A deployment is data_parallel groups of
// tensor_parallel ranks; a rank is known by (group, rank in group). Pure.
#pragma once

#include "parallel/base/status.h"

enum {
    GROUPS_MAX = 64,
    RANKS_MAX = 8, // tensor-parallel ranks of one group: the GPUs of one host
};

struct place {
    int group; // index
    int rank;  // index within the group
    int ranks; // count in the group
};

// OK when groups and ranks are within limits; error names the value and the limit.
enum status plan_check(int groups, int ranks, struct error *error) MUST_CHECK;
