// SPDX-License-Identifier: Apache-2.0
// route.cuh -- a warp picks the experts of a token from the router's logits.
#pragma once

#include <stdint.h>

#include "kernels/device/reduce.cuh"

// What a warp picked: lane p < picks holds pick p, the largest first.
struct route_picked {
    int id;
    float weight; // softmax over the picked
    float shared; // of the shared expert, in every lane
};

// Larger is better; a NaN comes after all numbers, what is taken (0) after that.
static __device__ __forceinline__ unsigned route_key(float logit)
{
    unsigned bits = __float_as_uint(logit + 0.0f); // -0 becomes 0
    if (isnan(logit))
        return 1;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The logit of a key; a NaN's key becomes another NaN's, what is taken is nobody's.
static __device__ __forceinline__ float route_logit(unsigned key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// All lanes of a warp: lane l holds the keys of experts l, l + 32, .., and all the logit of the
// shared one. `picks` times the largest that is left, ties to the lowest id. Keys are used up.
template <int PER_LANE>
static __device__ __forceinline__ route_picked route_pick(unsigned (&keys)[PER_LANE], float shared,
                                                          int picks)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float first = 0, logit = 0; // of pick 0, of pick `lane`
    route_picked own = {0, 0, 0};
    for (int pick = 0; pick < picks; pick++) {
        unsigned best = 0;
        int best_at = 0;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            if (keys[i] > best) {
                best = keys[i];
                best_at = i;
            }
        }
        unsigned most = __reduce_max_sync(0xffffffffu, best);
        unsigned id = static_cast<unsigned>(best_at * WARP_THREADS + lane);
        id = __reduce_min_sync(0xffffffffu, best == most ? id : 0xffffffffu);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            if (static_cast<unsigned>(i * WARP_THREADS + lane) == id)
                keys[i] = 0;
        }
        first = pick == 0 ? route_logit(most) : first;
        if (lane == pick) {
            own.id = static_cast<int>(id);
            logit = route_logit(most);
        }
    }
    float share = lane < picks ? expf(logit - first) : 0.0f;
    own.weight = share / warp_sum(share);
    own.shared = 1.0f / (1.0f + expf(-shared));
    return own;
}

// The same from logits [experts + 1] of the token. PER_LANE * 32 >= experts.
template <int PER_LANE>
static __device__ __forceinline__ route_picked route_token(const float *logits, int experts,
                                                           int picks)
{
    unsigned keys[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        int id = i * WARP_THREADS + static_cast<int>(threadIdx.x) % WARP_THREADS;
        keys[i] = id < experts ? route_key(__ldcg(logits + id)) : 0;
    }
    return route_pick(keys, __ldcg(logits + experts), picks);
}
