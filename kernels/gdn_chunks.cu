// SPDX-License-Identifier: Apache-2.0
// gdn_chunks.cu -- chunked prefill, first kernel: all that does not depend on the state. A block
// per chunk of 64 tokens and key head: convolution of its q, k and v, k k^T and q k^T on tensor
// cores, then for each of its value heads the gates and the inverse of I + A. The operands are the
// convolution's bf16 as they are; norms, gates and decays stay f32 factors outside the products.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/gdn_mma.cuh"
#include "kernels/device/reduce.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    THREADS = 256,
    WARPS = THREADS / WARP_THREADS,
    SEGMENT = 16, // tokens that a warp convolves, AT_ONCE of them in flight
    AT_ONCE = 8,
    SEGMENTS = CHUNK / SEGMENT,
    GROUP_THREADS = THREADS / 2, // solve one value head's system
    GROUP_HEADS_MAX = 4,
    STRIDE = CHUNK + 4, // floats of a row of a square of tokens
};

struct chunk_shared {
    union {
        bf16 kq[2][TILE_K];              // as in the workspace
        float system[2][CHUNK * STRIDE]; // of two value heads, after the products
    };
    float kk[CHUNK * STRIDE];
    float q_scale[CHUNK], k_scale[CHUNK]; // 1 / norm, 0 beyond the tokens
    float decay[GROUP_HEADS_MAX][CHUNK];  // g, then its running sum
    float beta[GROUP_HEADS_MAX][CHUNK];
};

// What every part of the block needs.
struct chunk_place {
    gdn_row row;
    int first, tokens; // of the chunk within the row
    int key_head, group_heads;
};

static __device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

// The raw columns of four channels at token `token` of the row and beyond, zero beyond the row.
static __device__ __forceinline__ uint2 load_raw(const struct gdn &op, const gdn_row &row,
                                                 int token, int channel)
{
    const bf16 *from =
        token < 0
            ? gdn_history(op, row) + static_cast<int64_t>(token + GDN_HISTORY) * row.channels
            : op.projected + static_cast<int64_t>(row.token_first + token) * op.projected_stride;
    return token < row.tokens ? *reinterpret_cast<const uint2 *>(from + channel) : make_uint2(0, 0);
}

// A warp convolves 128 channels of 16 tokens, four a lane: channels from `channel` on. write(token
// of the segment, four values of bf16) takes them; tokens beyond the row give zero.
template <typename Write>
static __device__ __forceinline__ void convolve(const struct gdn &op, const gdn_row &row, int first,
                                                int channel, Write write)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    uint2 before[GDN_HISTORY];
    float4 taps[4];
    channel += 4 * lane;
#pragma unroll
    for (int i = 0; i < GDN_HISTORY; i++)
        before[i] = load_raw(op, row, first - GDN_HISTORY + i, channel);
#pragma unroll
    for (int i = 0; i < 4; i++)
        taps[i] = __ldg(reinterpret_cast<const float4 *>(op.conv_weight) + channel + i);
#pragma unroll 1
    for (int part = 0; part < SEGMENT; part += AT_ONCE) {
        uint2 raw[AT_ONCE + GDN_HISTORY];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            raw[GDN_HISTORY + i] = load_raw(op, row, first + part + i, channel);
#pragma unroll
        for (int i = 0; i < GDN_HISTORY; i++) {
            raw[i] = before[i];
            before[i] = raw[AT_ONCE + i];
        }
#pragma unroll
        for (int t = 0; t < AT_ONCE; t++) {
            float y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float x[GDN_CONV_WIDTH];
#pragma unroll
                for (int tap = 0; tap < GDN_CONV_WIDTH; tap++) {
                    uint32_t pair = i < 2 ? raw[t + tap].x : raw[t + tap].y;
                    x[tap] = i % 2 == 0 ? low_half(pair) : high_half(pair);
                }
                float sum = taps[i].x * x[0];
                sum = __fmaf_rn(taps[i].y, x[1], sum);
                sum = __fmaf_rn(taps[i].z, x[2], sum);
                y[i] = gdn_silu(__fmaf_rn(taps[i].w, x[3], sum));
            }
            bool there = first + part + t < row.tokens;
            write(part + t, there ? pack_bf16(y[0], y[1]) : 0u, there ? pack_bf16(y[2], y[3]) : 0u);
        }
    }
}

// q or k of 16 tokens into shared memory and workspace, and their norms' inverse.
static __device__ __forceinline__ void convolve_key(chunk_shared *shared, const gdn_tiles &tiles,
                                                    const struct gdn &op, const chunk_place &place,
                                                    bool is_q, int segment)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    int head = is_q ? place.key_head : op.key_heads + place.key_head;
    bf16 *tile = shared->kq[is_q], *to = is_q ? tiles.q : tiles.k;
    float *scale = is_q ? shared->q_scale : shared->k_scale;
    convolve(op, place.row, place.first + segment * SEGMENT, head * DIM,
             [&](int t, uint32_t a, uint32_t b) {
                 int token = segment * SEGMENT + t;
                 int at = tile_128(token, lane / 2) + lane % 2 * 4;
                 *reinterpret_cast<uint2 *>(tile + at) = make_uint2(a, b);
                 *reinterpret_cast<uint2 *>(to + at) = make_uint2(a, b);
                 float x = low_half(a), y = high_half(a), z = low_half(b), w = high_half(b);
                 float squares = warp_sum(x * x + y * y + z * z + w * w);
                 if (lane == 0)
                     scale[token] = token < place.tokens ? rsqrtf(squares + 1e-6f) : 0.0f;
             });
}

static __device__ __forceinline__ void convolve_value(const gdn_tiles &tiles, const struct gdn &op,
                                                      const chunk_place &place, int value_head,
                                                      int segment)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    bf16 *slice = tiles.v + lane / 8 * TILE_V;
    convolve(op, place.row, place.first + segment * SEGMENT, (2 * op.key_heads + value_head) * DIM,
             [&](int t, uint32_t a, uint32_t b) {
                 int token = segment * SEGMENT + t;
                 int at = tile_32(token, lane % 8 / 2) + lane % 2 * 4;
                 *reinterpret_cast<uint2 *>(slice + at) = make_uint2(a, b);
             });
}

static __device__ __forceinline__ void load_gates(chunk_shared *shared, const struct gdn &op,
                                                  const chunk_place &place)
{
    int thread = static_cast<int>(threadIdx.x), own = thread / CHUNK, token = thread % CHUNK;
    if (own >= place.group_heads)
        return;
    bool there = token < place.tokens;
    int head = place.key_head * place.group_heads + own;
    int64_t at = static_cast<int64_t>(place.row.token_first + place.first + token);
    const bf16 *b = op.projected + (there ? at * op.projected_stride : 0) + place.row.channels +
                    op.value_heads * DIM + head;
    shared->decay[own][token] = there ? gdn_log_decay(op, head, b[op.value_heads]) : 0.0f;
    shared->beta[own][token] = there ? gdn_beta(b[0]) : 0.0f;
}

// Running sums of g: a warp per value head, two tokens a lane. Then the factors.
static __device__ __forceinline__ void sum_decays(chunk_shared *shared, float *factors, int own)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float a = shared->decay[own][2 * lane], b = a + shared->decay[own][2 * lane + 1], sum = b;
#pragma unroll
    for (int offset = 1; offset < WARP_THREADS; offset *= 2) {
        float left = __shfl_up_sync(0xffffffffu, sum, offset);
        sum += lane >= offset ? left : 0.0f;
    }
    float last = __shfl_sync(0xffffffffu, sum, WARP_THREADS - 1), before = sum - b;
    float decays[2] = {lane == 0 ? a : before + a, sum};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int token = 2 * lane + i;
        float decay = expf(decays[i]);
        shared->decay[own][token] = decays[i];
        factors[FACTOR_READ + token] = decay * shared->k_scale[token];
        factors[FACTOR_OUT + token] = decay * shared->q_scale[token] * 0.08838834764831845f;
        factors[FACTOR_WRITE + token] =
            expf(fminf(last - decays[i], 0.0f)) * shared->k_scale[token];
    }
    if (lane == 0)
        factors[FACTOR_DECAY] = expf(last);
}

// Rows 16 `block` .. of x k^T up to the diagonal, x = q or k: c[n] is columns 8 n ...
static __device__ __forceinline__ void multiply_tokens(float c[CHUNK / 8][4], const bf16 *x,
                                                       const bf16 *k, int block)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] = 0;
    }
#pragma unroll
    for (int s = 0; s < DIM / 16; s += 2) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++)
            load_matrices(a[i], shared_address(
                                    x + tile_128(16 * block + lane % 16, 2 * (s + i) + lane / 16)));
#pragma unroll
        for (int n = 0; n < CHUNK / 8; n++) {
            uint32_t b[4];
            if (n > 2 * block + 1)
                break;
            load_matrices(b, shared_address(k + tile_128(8 * n + lane % 8, 2 * s + lane / 8)));
            multiply_add(c[n], a[0], b[0], b[1]);
            multiply_add(c[n], a[1], b[2], b[3]);
        }
    }
}

static __device__ __forceinline__ void keep_products(chunk_shared *shared,
                                                     const float c[CHUNK / 8][4], int block)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        if (n > 2 * block + 1)
            break;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = 16 * block + lane / 4 + i / 2 * 8, column = 8 * n + lane % 4 * 2 + i % 2;
            shared->kk[row * STRIDE + column] =
                c[n][i] * shared->k_scale[row] * shared->k_scale[column];
        }
    }
}

// P of a value head: q k^T with norms, decays and the scale of the output, lower triangle.
static __device__ __forceinline__ void store_attention(bf16 *p, const chunk_shared *shared,
                                                       const float c[CHUNK / 8][4], int own,
                                                       int block)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    const float *decay = shared->decay[own];
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        if (n > 2 * block + 1)
            break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = 16 * block + lane / 4 + 8 * half, column = 8 * n + lane % 4 * 2;
            float scale = shared->q_scale[row] * 0.08838834764831845f, x[2];
#pragma unroll
            for (int i = 0; i < 2; i++)
                x[i] = column + i <= row
                           ? c[n][2 * half + i] * scale * shared->k_scale[column + i] *
                                 __expf(decay[row] - decay[column + i])
                           : 0.0f;
            *reinterpret_cast<uint32_t *>(p + tile_64(row, n) + lane % 4 * 2) =
                pack_bf16(x[0], x[1]);
        }
    }
}

static __device__ __forceinline__ void group_barrier(int group)
{
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(static_cast<int>(GROUP_THREADS))
                 : "memory");
}

// A below the diagonal, zero above: rows of the system of one value head.
static __device__ __forceinline__ void fill_system(float *a, const chunk_shared *shared, int own,
                                                   int thread)
{
    const float *decay = shared->decay[own];
    int column = thread % CHUNK;
#pragma unroll 8
    for (int row = thread / CHUNK; row < CHUNK; row += GROUP_THREADS / CHUNK)
        a[row * STRIDE + column] = column < row ? shared->beta[own][row] *
                                                      shared->kk[row * STRIDE + column] *
                                                      __expf(decay[row] - decay[column])
                                                : 0.0f;
}

// The four 16 x 16 blocks of the diagonal inverted where they stand, a thread per column.
static __device__ __forceinline__ void invert_diagonal(float *a, int thread)
{
    float x[16];
    float *block = a + thread / 16 * 16 * (STRIDE + 1);
    int column = thread % 16;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        x[i] = i == column ? 1.0f : 0.0f;
#pragma unroll
        for (int j = 0; j < i; j++)
            x[i] -= block[i * STRIDE + j] * x[j];
    }
    __syncwarp(); // the block's 16 columns are in one warp
#pragma unroll
    for (int i = 0; i < 16; i++)
        block[i * STRIDE + column] = x[i];
}

// c += x y for 16 rows of x and 8 N columns of y, K deep, in tf32. x and y stand in the system.
template <int N, int K>
static __device__ __forceinline__ void multiply_blocks(float c[N][4], const float *x,
                                                       const float *y)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < K; k += 8) {
        float a[4] = {x[g * STRIDE + k + t], x[(g + 8) * STRIDE + k + t], x[g * STRIDE + k + t + 4],
                      x[(g + 8) * STRIDE + k + t + 4]};
#pragma unroll
        for (int n = 0; n < N; n++) {
            float b[2] = {y[(k + t) * STRIDE + 8 * n + g], y[(k + t + 4) * STRIDE + 8 * n + g]};
            multiply_add_tf32(c[n], a, b);
        }
    }
}

// c += x y with x as an accumulator holds it: column 2 t of eight stands for k = t, 2 t + 1 for
// t + 4.
template <int N, int K>
static __device__ __forceinline__ void multiply_held(float c[N][4], const float x[K / 8][4],
                                                     const float *y)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < K; k += 8) {
        float a[4] = {x[k / 8][0], x[k / 8][2], x[k / 8][1], x[k / 8][3]};
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float *from = y + (k + 2 * t) * STRIDE + 8 * n + g;
            float b[2] = {from[0], from[STRIDE]};
            multiply_add_tf32(c[n], a, b);
        }
    }
}

template <int N>
static __device__ __forceinline__ void store_negative(float *to, const float c[N][4])
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[(lane / 4 + i / 2 * 8) * STRIDE + 8 * n + lane % 4 * 2 + i % 2] = -c[n][i];
    }
}

// The inverse of I + A from its diagonal blocks: the block below two inverted ones becomes
// -(lower inverse) (block) (upper inverse); first of 16 x 16, then of 32 x 32.
static __device__ __forceinline__ void merge_blocks(float *a, int group, int warp)
{
    if (warp < 2) {
        float *block = a + 32 * warp * (STRIDE + 1), x[2][4] = {}, y[2][4] = {};
        multiply_blocks<2, 16>(x, block + 16 * (STRIDE + 1), block + 16 * STRIDE);
        multiply_held<2, 16>(y, x, block);
        __syncwarp();
        store_negative<2>(block + 16 * STRIDE, y);
    }
    group_barrier(group);
    int row = 32 + warp / 2 * 16, column = warp % 2 * 16;
    float x[4][4] = {}, y[2][4] = {};
    multiply_blocks<4, 32>(x, a + row * STRIDE + 32, a + 32 * STRIDE);
    multiply_held<2, 32>(y, x, a + column);
    group_barrier(group); // the block has been read
    store_negative<2>(a + row * STRIDE + column, y);
    group_barrier(group);
}

// T = inverse * diag(beta), 16 x 16 blocks up to the diagonal.
static __device__ __forceinline__ void store_solved(bf16 *to, const float *a, const float *beta,
                                                    int thread)
{
    for (int i = thread; i < CHUNK * CHUNK / 8; i += GROUP_THREADS) {
        int row = i / 8, eighth = i % 8;
        const float *from = a + row * STRIDE + 8 * eighth, *scale = beta + 8 * eighth;
        if (eighth / 2 > row / 16)
            continue;
        *reinterpret_cast<uint4 *>(to + tile_64(row, eighth)) =
            make_uint4(pack_bf16(from[0] * scale[0], from[1] * scale[1]),
                       pack_bf16(from[2] * scale[2], from[3] * scale[3]),
                       pack_bf16(from[4] * scale[4], from[5] * scale[5]),
                       pack_bf16(from[6] * scale[6], from[7] * scale[7]));
    }
}

static __device__ __forceinline__ void solve(chunk_shared *shared, bf16 *to, int own, int group)
{
    int thread = static_cast<int>(threadIdx.x) % GROUP_THREADS;
    float *a = shared->system[group];
    fill_system(a, shared, own, thread);
    group_barrier(group);
    if (thread < CHUNK)
        invert_diagonal(a, thread);
    group_barrier(group);
    merge_blocks(a, group, thread / WARP_THREADS);
    store_solved(to, a, shared->beta[own], thread);
    group_barrier(group); // before the next head's system
}

// grid (key heads, chunks), shared memory chunk_shared.
static __global__ void __launch_bounds__(THREADS, 2) gdn_chunks_kernel(struct gdn op)
{
    extern __shared__ __align__(128) unsigned char memory[];
    chunk_shared *shared = reinterpret_cast<chunk_shared *>(memory);
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS, block = warp % 4;
    const gdn_chunk chunk = gdn_find_chunk(op, static_cast<int>(blockIdx.y));
    pdl_wait();
    pdl_trigger();
    if (chunk.row < 0)
        return;
    chunk_place place;
    place.row = gdn_load_row(op, chunk.row);
    place.first = chunk.first;
    place.tokens = min(CHUNK, place.row.tokens - chunk.first);
    place.key_head = static_cast<int>(blockIdx.x);
    place.group_heads = op.value_heads / op.key_heads;
    const int head = place.key_head * place.group_heads;
    const int64_t index = blockIdx.y;
    load_gates(shared, op, place);
    convolve_key(shared, gdn_tiles_of(op, index, place.key_head, head), op, place, warp % 2 == 1,
                 warp / 2);
    for (int i = warp; i < SEGMENTS * place.group_heads; i += WARPS)
        convolve_value(gdn_tiles_of(op, index, place.key_head, head + i / SEGMENTS), op, place,
                       head + i / SEGMENTS, i % SEGMENTS);
    __syncthreads();
    if (warp < place.group_heads)
        sum_decays(shared, gdn_tiles_of(op, index, place.key_head, head + warp).factors, warp);
    float c[CHUNK / 8][4];
    multiply_tokens(c, shared->kq[warp / 4], shared->kq[0], block);
    if (warp < 4)
        keep_products(shared, c, block);
    __syncthreads(); // q and k have been read, their place becomes the systems'
    for (int own = 0; own < place.group_heads && warp >= 4; own++)
        store_attention(gdn_tiles_of(op, index, place.key_head, head + own).p, shared, c, own,
                        block);
    for (int own = warp / 4; own < place.group_heads; own += 2)
        solve(shared, gdn_tiles_of(op, index, place.key_head, head + own).t, own, warp / 4);
}

void gdn_launch_chunks(struct stream *stream, const struct gdn *op, int chunks)
{
    const int bytes = static_cast<int>(sizeof(chunk_shared));
    CUDA_CHECK(cudaFuncSetAttribute(gdn_chunks_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    bytes));
    dim3 grid(static_cast<unsigned>(op->key_heads), static_cast<unsigned>(chunks));
    launch_chained(gdn_chunks_kernel, grid, dim3(THREADS), bytes, stream->handle, *op);
}
