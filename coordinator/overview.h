// SPDX-License-Identifier: Apache-2.0
// overview.h -- what the core's thread gives a door that asks how things are: counts, figures, and
// each group with its ranks. A copy, so that doors read it in their own time.
#pragma once

#include "coordinator/core.h"
#include "coordinator/figures.h"

struct overview {
    struct coord_status status;
    struct figures figures;
    int groups_count;
    struct coord_group_status groups[]; // [groups_count]
};

// malloc'ed, for the door to free; NULL when there is no memory.
struct overview *overview_make(const struct coord *coord, const struct figures *figures);
