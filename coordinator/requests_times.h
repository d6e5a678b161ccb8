// SPDX-License-Identifier: Apache-2.0
// requests_times.h -- when what happened to a request, for the figures that operators read. Pure:
// the caller says what time it is, and time never goes back.
#pragma once

#include "coordinator/core.h"

struct request_times {
    uint64_t arrived_ns, admitted_ns, begun_ns, first_ns, told_ns; // 0 = not yet
};

// It has come. arrived_ns is the door's word, taken where it lies in the past.
void request_times_begin(struct request_times *times, uint64_t arrived_ns, uint64_t now_ns);

// It got a slot; only the first counts: a preempted request has run before.
void request_times_admit(struct request_times *times, uint64_t now_ns);

// A step carries tokens of it; only the first counts. Until here it was queued, slot or no slot.
void request_times_prefill(struct request_times *times, uint64_t now_ns);

// How long it has had a slot without a step that carries a token of it; 0 when one has.
uint64_t request_times_waited_ns(const struct request_times *times, uint64_t now_ns);

// Tokens are told: fills since_ns and is_first of their action, unless it has none.
void request_times_tell(struct request_times *times, struct coord_action *action, uint64_t now_ns);

// It has ended: fills times of its last action. What it never reached took no time, and what it
// was in goes on to the end.
void request_times_end(const struct request_times *times, struct coord_action *action,
                       uint64_t now_ns);
