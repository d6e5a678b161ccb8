// SPDX-License-Identifier: Apache-2.0
// plan.c -- how many groups and ranks are served. Pure.
#include "parallel/plan.h"

enum status plan_check(int groups, int ranks, struct error *error)
{
    if (groups < 1 || groups > GROUPS_MAX)
        return error_set(error, E_INPUT, "%d data-parallel groups; 1 to %d are served", groups,
                         GROUPS_MAX);
    if (ranks < 1 || ranks > RANKS_MAX)
        return error_set(error, E_INPUT, "%d tensor-parallel ranks; 1 to %d are served", ranks,
                         RANKS_MAX);
    return OK;
}
