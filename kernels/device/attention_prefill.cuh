// SPDX-License-Identifier: Apache-2.0
// attention_prefill.cuh -- what the kernels of prefill rows share, whatever multiplies: tiles of
// queries, a softmax under way, causal hiding.
//
// A query is a (token, head of the group) pair, token-major: a tile has 128 / group tokens, so
// short rows fill it, and a page is loaded once for all heads that share it.
#pragma once

#include "kernels/device/attention.cuh"

enum {
    PREFILL_WARPS = 8,
    PREFILL_THREADS = PREFILL_WARPS * WARP_THREADS,
    PREFILL_QUERIES = PREFILL_WARPS * 16,
    QUERY_BYTES = PREFILL_QUERIES * HEAD_BYTES,
};

// A warp's 16 queries: rows lane / 4 and 8 more of the products.
struct prefill_state {
    float largest[2], weight[2]; // weight: of this thread's keys only
    float sum[HEAD_DIM / 8][4];
};

// Hides keys past a query's position and before position_first. key: of column 0.
static __device__ __forceinline__ void hide(float (&scores)[PAGE_TOKENS / 8][4], int key,
                                            const int (&position)[2], int position_first)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int j = 0; j < PAGE_TOKENS / 8; j++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int at = key + j * 8 + lane % 4 * 2 + k % 2;
            if (at > position[k / 2] || at < position_first)
                scores[j][k] = -INFINITY;
        }
    }
}

// The tiles of all prefill rows by Hopper's products, after the append; false on other devices,
// where nothing was queued.
bool attention_prefill_sm90(struct stream *stream, const struct attention *op);
