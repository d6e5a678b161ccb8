// SPDX-License-Identifier: Apache-2.0
// gdn_convolve.cuh -- the causal convolution and SiLU of a chunk, four channels a lane, 16 tokens a
// warp at a time. Where its results go is the caller's.
#pragma once

#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_mma.cuh"

enum { SEGMENT = 16 }; // tokens that a warp convolves

// Where a block stands.
struct chunk_place {
    const bf16 *history; // the three columns before the row
    int row_first, row_tokens;
    int first, tokens;         // of the chunk within the row
    bool whole;                // all of its tokens and the three before are of the row
    int key_head, head, heads; // head: the first value head
    bool leads;                // the block keeps the key head's q and k
};

// Of the projections that are convolved.
static __device__ __forceinline__ int channels_of(const struct gdn &op)
{
    return (2 * op.key_heads + op.value_heads) * GDN_HEAD_DIM;
}

// Two bf16 of a register as floats: the first, and the second.
static __device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

// As low_half.
static __device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

// Four channels of a token of the row, zero beyond it; before it lies the history.
static __device__ __forceinline__ uint2 load_raw(const struct gdn &op, const chunk_place &place,
                                                 int token, int channel)
{
    const bf16 *from =
        token < 0
            ? place.history + static_cast<int64_t>(token + GDN_HISTORY) * channels_of(op)
            : op.projected + static_cast<int64_t>(place.row_first + token) * op.projected_stride;
    return token < place.row_tokens ? *reinterpret_cast<const uint2 *>(from + channel)
                                    : make_uint2(0, 0);
}

// bf16(silu(convolution)) of four channels; x: their columns of this token and the three before.
static __device__ __forceinline__ uint2 convolve_token(const float4 taps[4], const uint2 *x)
{
    float y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float column[GDN_CONV_WIDTH];
#pragma unroll
        for (int tap = 0; tap < GDN_CONV_WIDTH; tap++) {
            uint32_t pair = i < 2 ? x[tap].x : x[tap].y;
            column[tap] = i % 2 == 0 ? low_half(pair) : high_half(pair);
        }
        float sum = __fmul_rn(taps[i].x, column[0]);
        sum = __fmaf_rn(taps[i].y, column[1], sum);
        sum = __fmaf_rn(taps[i].z, column[2], sum);
        y[i] = gdn_silu(__fmaf_rn(taps[i].w, column[3], sum));
    }
    return make_uint2(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]));
}

// A warp convolves 128 channels from `channel` on, four a lane, of 16 tokens from `first` on,
// AT_ONCE of them in flight. write(part, t, four values) takes token part + t of the segment, part
// a multiple of AT_ONCE. WHOLE: all of these tokens and the three before are of the row, else what
// lies beyond gives zero.
template <bool WHOLE, int AT_ONCE, typename Write, typename Done>
static __device__ __forceinline__ void convolve(const struct gdn &op, const chunk_place &place,
                                                int first, int channel, Write write, Done done)
{
    uint2 before[GDN_HISTORY];
    float4 taps[4];
    channel += 4 * lane_of_warp();
    const bf16 *from =
        op.projected +
        static_cast<int64_t>(place.row_first + first - GDN_HISTORY) * op.projected_stride + channel;
#pragma unroll
    for (int i = 0; i < GDN_HISTORY; i++, from += op.projected_stride)
        before[i] = WHOLE ? *reinterpret_cast<const uint2 *>(from)
                          : load_raw(op, place, first - GDN_HISTORY + i, channel);
#pragma unroll
    for (int i = 0; i < 4; i++)
        taps[i] = __ldg(reinterpret_cast<const float4 *>(op.conv_weight) + channel + i);
#pragma unroll 1
    for (int part = 0; part < SEGMENT; part += AT_ONCE) {
        uint2 raw[AT_ONCE + GDN_HISTORY];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++, from += op.projected_stride)
            raw[GDN_HISTORY + i] = WHOLE ? *reinterpret_cast<const uint2 *>(from)
                                         : load_raw(op, place, first + part + i, channel);
#pragma unroll
        for (int i = 0; i < GDN_HISTORY; i++) {
            raw[i] = before[i];
            before[i] = raw[AT_ONCE + i];
        }
#pragma unroll
        for (int t = 0; t < AT_ONCE; t++) {
            uint2 y = convolve_token(taps, raw + t);
            if (!WHOLE && first + part + t >= place.row_tokens)
                y = make_uint2(0, 0);
            write(part, t, y);
        }
        done(part);
    }
}
