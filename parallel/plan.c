// SPDX-License-Identifier: Apache-2.0
// plan.c -- member numbers, groups and ranks. Pure.
#include "parallel/plan.h"

struct place plan_place(int member, int ranks)
{
    ASSERT(member >= 0 && ranks >= 1);
    return (struct place){.group = member / ranks, .rank = member % ranks, .ranks = ranks};
}

int plan_member(struct place place)
{
    ASSERT(place.group >= 0 && place.rank >= 0 && place.rank < place.ranks);
    return place.group * place.ranks + place.rank;
}

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
