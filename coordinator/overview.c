// SPDX-License-Identifier: Apache-2.0
// overview.c -- copies.
#include "coordinator/overview.h"

#include <stdlib.h>

struct overview *overview_make(const struct coord *coord, const struct figures *figures)
{
    struct coord_status status;
    coord_status(coord, &status);
    struct overview *overview =
        malloc(sizeof *overview + (size_t)status.groups * sizeof overview->groups[0]);
    if (overview == NULL)
        return NULL;
    overview->status = status;
    overview->figures = *figures;
    overview->groups_count = status.groups;
    for (int i = 0; i < status.groups; i++)
        coord_group_status(coord, i, &overview->groups[i]);
    return overview;
}
