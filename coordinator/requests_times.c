// SPDX-License-Identifier: Apache-2.0
// requests_times.c -- five moments and their differences.
#include "coordinator/requests_times.h"

void request_times_begin(struct request_times *times, uint64_t arrived_ns, uint64_t now_ns)
{
    bool known = arrived_ns > 0 && arrived_ns < now_ns;
    *times = (struct request_times){.arrived_ns = known ? arrived_ns : now_ns};
}

void request_times_admit(struct request_times *times, uint64_t now_ns)
{
    if (times->admitted_ns == 0)
        times->admitted_ns = now_ns;
}

void request_times_prefill(struct request_times *times, uint64_t now_ns)
{
    if (times->begun_ns == 0)
        times->begun_ns = now_ns;
}

uint64_t request_times_waited_ns(const struct request_times *times, uint64_t now_ns)
{
    return times->admitted_ns > 0 && times->begun_ns == 0 ? now_ns - times->admitted_ns : 0;
}

void request_times_tell(struct request_times *times, struct coord_action *action, uint64_t now_ns)
{
    if (action->tokens_count == 0)
        return;
    action->is_first = times->first_ns == 0;
    action->since_ns = now_ns - (action->is_first ? times->arrived_ns : times->told_ns);
    times->told_ns = now_ns;
    if (action->is_first)
        times->first_ns = now_ns;
}

void request_times_end(const struct request_times *times, struct coord_action *action,
                       uint64_t now_ns)
{
    uint64_t begun_ns = times->begun_ns > 0 ? times->begun_ns : now_ns;
    uint64_t first_ns = times->first_ns > 0 ? times->first_ns : now_ns;
    action->times = (struct coord_times){.queue_ns = begun_ns - times->arrived_ns,
                                         .prefill_ns = first_ns - begun_ns,
                                         .decode_ns = now_ns - first_ns,
                                         .all_ns = now_ns - times->arrived_ns};
}
