// SPDX-License-Identifier: Apache-2.0
// gdn_launch.cuh -- the parts of the op gdn, each in a file of its own, as its launcher queues
// them.
#pragma once

#include "kernels/device/launch.cuh"

extern "C" {
#include "kernels/gdn.h"
}

// Decode rows, and prefill rows that are not served by chunks, token by token; a block has 32 *
// `rows` rows of a head's state, rows 2 or 4.
void gdn_launch_recurrent(struct stream *stream, const struct gdn *op, int rows);

// Decode rows alone, for enough of them to keep the GPU busy; op->projected_stride a multiple of 8.
void gdn_launch_stream(struct stream *stream, const struct gdn *op);

// Long prefill rows: what does not depend on the state, for at most `chunks` chunks; then the state
// through the chunks of the step's last `rows` rows.
void gdn_launch_chunks(struct stream *stream, const struct gdn *op, int chunks);
void gdn_launch_scan(struct stream *stream, const struct gdn *op, int rows);
