// SPDX-License-Identifier: Apache-2.0
// step_frame.h -- op: a recorded step takes its rows from the host and leaves its results there by
// itself: between two steps stands no copy that the device would have to wait for. Staging memory
// on the host is a ring; a step's number says which slot is its own.
//
//   shape   ring[step % STEP_FRAME_RING]: up_bytes and down_bytes of host memory that the device
//           reads and writes; the first 8 bytes of up are the step's number
//   needs   steps numbered without gaps; up_dev starts as the number before the first; bytes
//           multiples of 16; ring memory is written before the launch, read after the step's event
//   launch  one block of 512
//   moves   up_bytes or down_bytes over the bus
//   limit   latency: 1.1 us each, where a copy by the copy engine costs 4.6 us between two graphs
//   error   exact
//   source  none
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/runtime.h"

enum { STEP_FRAME_RING = 4 };

struct step_frame {
    uint8_t *up_dev, *down_dev; // up_dev begins with the number of the newest step, uint64_t
    const uint8_t *up[STEP_FRAME_RING];
    uint8_t *down[STEP_FRAME_RING];
    size_t up_bytes, down_bytes;
};

// up_dev = the ring's slot of the step after the one whose number up_dev holds.
void step_frame_fetch(struct stream *stream, const struct step_frame *op);

// The ring's slot of the step whose number up_dev holds = down_dev.
void step_frame_report(struct stream *stream, const struct step_frame *op);
