// SPDX-License-Identifier: Apache-2.0
// attention.cuh -- what the attention kernels for heads of 256 share: swizzled tiles in shared
// memory, tensor-core products, and the norm and rotation of one head by one warp.
//
// A tile row is a head: 256 bf16, 32 chunks of 16 bytes. Chunk c of row r lies at place
// c ^ (r % 8), so that eight rows of one chunk fall into different banks.
#pragma once

#include "kernels/device/bf16.cuh"
#include "kernels/device/launch.cuh"
#include "kernels/device/reduce.cuh"

extern "C" {
#include "kernels/attention.h"
}

enum {
    HEAD_DIM = 256,
    HEAD_BYTES = HEAD_DIM * 2,
    PAGE_TOKENS = ATTENTION_PAGE_TOKENS,
    PAGE_BYTES = PAGE_TOKENS * HEAD_BYTES, // of one head's keys or values
    ROTARY_PAIRS_MAX = 32,                 // of these kernels
};

// Where the chunk lies in a tile, in bytes.
static __device__ __forceinline__ uint32_t tile_at(int row, int chunk)
{
    return static_cast<uint32_t>(row * HEAD_BYTES + ((chunk ^ (row & 7)) << 4));
}

// As the instructions below want it.
static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory behind the thread's back; zeros when `bytes` is 0.
static __device__ __forceinline__ void copy_async(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

// Closes the group of this thread's copies so far.
static __device__ __forceinline__ void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Returns when all but the last `LEFT` groups of this thread have come.
template <int LEFT> static __device__ __forceinline__ void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
static __device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

// The same, each matrix transposed.
static __device__ __forceinline__ void load_matrices_turned(uint32_t (&m)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

// c [16, 8] += a [16, 16] b [16, 8], bf16 products summed in f32.
static __device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two rounded values, the first in the low half.
static __device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

// 2^value to 2 ulp; tiny results are 0.
static __device__ __forceinline__ float power_of_2(float value)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(value));
    return power;
}

// 1 / (1 + e^-value) to 4 ulp of f32.
static __device__ __forceinline__ float sigmoid(float value)
{
    return __fdividef(1.0f, 1.0f + __expf(-value));
}

// Largest over the four lanes that hold a row of a product.
static __device__ __forceinline__ float quad_max(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// Their sum.
static __device__ __forceinline__ float quad_sum(float value)
{
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// Cosine and sine of one rotary pair at a position, times rotary_scale. The angle is f32.
static __device__ __forceinline__ float2 rotation_of(const struct attention &op, int position,
                                                     int pair)
{
    float angle = static_cast<float>(position) * op.inverse_frequencies[pair];
    return make_float2(cosf(angle) * op.rotary_scale, sinf(angle) * op.rotary_scale);
}

// A lane's eight dimensions of 1 + norm.
static __device__ __forceinline__ void load_norm(float (&scale)[BF16_VECTOR], const float *norm)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    const float4 *from = reinterpret_cast<const float4 *>(norm) + 2 * lane;
    float4 low = from[0], high = from[1];
    const float values[BF16_VECTOR] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < BF16_VECTOR; i++)
        scale[i] = 1.0f + values[i];
}

// Norm and rotation of one head by one warp, eight dimensions a lane. rotation [rotary_dim / 2];
// rotary_dim % 16 == 0, so that the other half of a pair lies in another lane at the same place.
static __device__ __forceinline__ bf16x8 norm_rotate_head(bf16x8 raw,
                                                          const float (&scale)[BF16_VECTOR],
                                                          float eps, const float2 *rotation,
                                                          int rotary_dim)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int half_lanes = rotary_dim / 2 / BF16_VECTOR;
    float x[BF16_VECTOR], squares = 0;
    bf16x8_to_float(x, raw);
#pragma unroll
    for (int i = 0; i < BF16_VECTOR; i++)
        squares += x[i] * x[i];
    float inverse = rsqrtf(warp_sum(squares) / HEAD_DIM + eps);
    bool rotated = lane < 2 * half_lanes, low = lane < half_lanes;
    int partner = rotated ? (low ? lane + half_lanes : lane - half_lanes) : lane;
#pragma unroll
    for (int i = 0; i < BF16_VECTOR; i++) {
        x[i] *= inverse * scale[i];
        float other = __shfl_sync(0xffffffffu, x[i], partner);
        if (rotated) {
            float2 turn = rotation[(low ? lane : partner) * BF16_VECTOR + i];
            x[i] = x[i] * turn.x + (low ? -other : other) * turn.y;
        }
    }
    return bf16x8_from_float(x);
}

// A row of a step as these kernels need it.
struct row_view {
    int slot, token_first, active, position; // position of its first token; active 0: inert
};

// Reads the row from the step's tables.
static __device__ __forceinline__ row_view view_row(const struct attention &op, int row)
{
    const struct step_row *from = &op.tables.rows[row];
    row_view view = {from->slot, from->token_first, op.tables.active_count[row], 0};
    if (view.active > 0)
        view.position = op.tables.token_positions[view.token_first];
    return view;
}

// The raw query, key, gate of one head and token as a lane's eight dimensions. `head` counts
// through [heads q | heads gate | kv_heads k | kv_heads v].
static __device__ __forceinline__ bf16x8 projected_head(const struct attention &op, int token,
                                                        int head)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    const bf16 *from = op.projected + static_cast<int64_t>(token) * op.projected_stride +
                       static_cast<int64_t>(head) * HEAD_DIM;
    return reinterpret_cast<const bf16x8 *>(from)[lane];
}

// y of one token and head is zeros: one warp.
static __device__ __forceinline__ void clear_head(const struct attention &op, int token, int head)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    bf16 *y = op.y + (static_cast<int64_t>(token) * op.heads + head) * HEAD_DIM;
    reinterpret_cast<uint4 *>(y)[lane] = make_uint4(0, 0, 0, 0);
}

// An item (row, KV head, block of queries) that lies in several blocks, as attention_merge needs
// it.
struct border {
    int count, first; // blocks that share the item, 0: nothing to merge; the first of them
    int token_first, queries, query_first, kv_head;
    int pad[2];
};

static_assert(sizeof(struct border) == ATTENTION_BORDER_BYTES, "as attention.h counts");

// Where block c keeps the part of an item that began before it (0) or in it (1).
static __device__ __forceinline__ int64_t part_of(int block, int begun_here)
{
    return static_cast<int64_t>(block) * 2 + begun_here;
}

// Queue the rows of one kind; called by attention() when the op fits these kernels.
void attention_decode(struct stream *stream, const struct attention *op);
void attention_prefill(struct stream *stream, const struct attention *op);

// After a decode kernel that wrote `borders` of them, of up to `queries` queries each.
void attention_merge(struct stream *stream, const struct attention *op, int borders, int queries);
