// SPDX-License-Identifier: Apache-2.0
// gdn_chunks_sm90.cu -- chunked prefill, first kernel: all that does not depend on the state. A
// block per chunk of 64 tokens and key head: convolution of its q, k and v, k k^T and q k^T on
// tensor cores, then for each of its value heads the gates and the inverse of I + A. The operands
// are the convolution's bf16 as they are; norms, gates and decays stay f32 factors outside.
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
    float products[2][CHUNK * STRIDE]; // k k^T and q k^T with their norms
    // 1 / norm, that of q with the output's 1 / sqrt(128); 0 beyond the tokens
    float q_scale[CHUNK], k_scale[CHUNK];
    float decay[GROUP_HEADS_MAX][CHUNK]; // g, then its running sum
    float beta[GROUP_HEADS_MAX][CHUNK];
};

// What every part of the block needs.
struct chunk_place {
    const bf16 *history; // the three columns before the row
    int row_first, row_tokens;
    int first, tokens; // of the chunk within the row
    int key_head, group_heads;
};

static __device__ __forceinline__ int channels_of(const struct gdn &op)
{
    return (2 * op.key_heads + op.value_heads) * DIM;
}

static __device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

// Four channels of a token of the row, zero beyond it; before it lies the
// history.
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

// bf16(silu(convolution)) of four channels; x: their columns of this token and
// the three before.
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

// A warp convolves 128 channels from `channel` on, four a lane, of 16 tokens
// from `first` on. write(part, t, four values) takes token part + t of the
// segment, part a multiple of 8. WHOLE: all of these tokens and the three
// before are of the row, else what lies beyond gives zero.
template <bool WHOLE, typename Write, typename Done>
static __device__ __forceinline__ void convolve(const struct gdn &op, const chunk_place &place,
                                                int first, int channel, Write write, Done done)
{
    uint2 before[GDN_HISTORY];
    float4 taps[4];
    channel += 4 * (static_cast<int>(threadIdx.x) % WARP_THREADS);
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

// The sums over the warp of eight values: of value i in lanes 4 i .. 4 i + 3. Lanes halve what they
// still sum: nine shuffles in place of forty.
static __device__ __forceinline__ float sums_of_eight(float x[8], int lane)
{
#pragma unroll
    for (int count = 4; count > 0; count /= 2) {
        bool upper = (lane & 4 * count) != 0;
#pragma unroll
        for (int i = 0; i < count; i++) {
            float given = upper ? x[i] : x[i + count];
            x[i] = (upper ? x[i + count] : x[i]) + __shfl_xor_sync(0xffffffffu, given, 4 * count);
        }
    }
    x[0] += __shfl_xor_sync(0xffffffffu, x[0], 2);
    return x[0] + __shfl_xor_sync(0xffffffffu, x[0], 1);
}

// q or k of 16 tokens into shared memory, and their norms'
// inverse.
template <bool WHOLE>
static __device__ __forceinline__ void convolve_key(chunk_shared *shared, const struct gdn &op,
                                                    const chunk_place &place, bool is_q,
                                                    int segment)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, token = segment * SEGMENT;
    int head = is_q ? place.key_head : op.key_heads + place.key_head;
    bf16 *tile = shared->kq[is_q] + token * (DIM / 2);
    float *scale = (is_q ? shared->q_scale : shared->k_scale) + token;
    const float full = is_q ? 0.08838834764831845f : 1.0f;
    const int there = place.tokens - token; // of these tokens
    float squares[AT_ONCE];
    convolve<WHOLE>(
        op, place, place.first + token, head * DIM,
        [&](int part, int t, uint2 y) {
            int at = part * (DIM / 2) + tile_128(t, lane / 2) + lane % 2 * 4;
            float a = low_half(y.x), b = high_half(y.x), c = low_half(y.y), d = high_half(y.y);
            squares[t] = a * a + b * b + c * c + d * d;
            *reinterpret_cast<uint2 *>(tile + at) = y;
        },
        [&](int part) {
            int own = part + lane / 4; // of these tokens
            float sum = sums_of_eight(squares, lane);
            if (lane % 4 == 0)
                scale[own] = WHOLE || own < there ? rsqrtf(sum + 1e-6f) * full : 0.0f;
        });
}

template <bool WHOLE>
static __device__ __forceinline__ void convolve_value(bf16 *tiles, const struct gdn &op,
                                                      const chunk_place &place, int value_head,
                                                      int segment)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, token = segment * SEGMENT;
    bf16 *to = tiles + lane / 8 * TILE_V + token * GDN_VALUE_SLICE;
    convolve<WHOLE>(
        op, place, place.first + token, (2 * op.key_heads + value_head) * DIM,
        [&](int part, int t, uint2 y) {
            int at = part * GDN_VALUE_SLICE + tile_32(t, lane % 8 / 2) + lane % 2 * 4;
            *reinterpret_cast<uint2 *>(to + at) = y;
        },
        [](int) {});
}

// All convolutions of the block, a segment of 16 tokens and 128 channels a
// warp.
template <bool WHOLE>
static __device__ __forceinline__ void convolve_all(chunk_shared *shared, const struct gdn &op,
                                                    const chunk_place &place, int64_t index)
{
    int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    int head = place.key_head * place.group_heads;
    convolve_key<WHOLE>(shared, op, place, warp % 2 == 1, warp / 2);
#pragma unroll 1
    for (int i = warp; i < SEGMENTS * place.group_heads; i += WARPS)
        convolve_value<WHOLE>(gdn_tiles_of(op, index, place.key_head, head + i / SEGMENTS).v, op,
                              place, head + i / SEGMENTS, i % SEGMENTS);
}

static __device__ __forceinline__ void load_gates(chunk_shared *shared, const struct gdn &op,
                                                  const chunk_place &place)
{
    int thread = static_cast<int>(threadIdx.x), own = thread / CHUNK, token = thread % CHUNK;
    if (own >= place.group_heads)
        return;
    bool there = token < place.tokens;
    int head = place.key_head * place.group_heads + own;
    int64_t at = static_cast<int64_t>(place.row_first + place.first + token);
    const bf16 *b = op.projected + (there ? at * op.projected_stride : 0) + channels_of(op) +
                    op.value_heads * DIM + head;
    shared->decay[own][token] = there ? gdn_log_decay(op, head, b[op.value_heads]) : 0.0f;
    shared->beta[own][token] = there ? gdn_beta(b[0]) : 0.0f;
}

// Running sums of g: a warp per value head, two tokens a lane. Then the
// factors.
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
        factors[FACTOR_OUT + token] = decay * shared->q_scale[token];
        factors[FACTOR_WRITE + token] =
            expf(fminf(last - decays[i], 0.0f)) * shared->k_scale[token];
    }
    if (lane == 0)
        factors[FACTOR_DECAY] = expf(last);
}

// Rows 16 `block` .. of x k^T up to the diagonal, x = q or k: c[n] is columns 8
// n ...
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
#pragma unroll 1
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

// The same rows with their norms, and the scale of the output where x is q.
static __device__ __forceinline__ void keep_products(float *to, const float c[CHUNK / 8][4],
                                                     const float *x_scale, const float *k_scale,
                                                     int block)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        if (n > 2 * block + 1)
            break;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = 16 * block + lane / 4 + half * 8, column = 8 * n + lane % 4 * 2;
            float scale = x_scale[row];
            *reinterpret_cast<float2 *>(to + row * STRIDE + column) =
                make_float2(c[n][2 * half] * scale * k_scale[column],
                            c[n][2 * half + 1] * scale * k_scale[column + 1]);
        }
    }
}

static __device__ __forceinline__ void group_barrier(int group)
{
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(static_cast<int>(GROUP_THREADS))
                 : "memory");
}

// Of one value head the system, A below the diagonal and zero above, and P: q
// k^T with decays up to the diagonal, which needs the same exponentials. Blocks
// of 16 x 16 above the diagonal: P has none.
static __device__ __forceinline__ void fill_squares(float *a, bf16 *p, const chunk_shared *shared,
                                                    int own, int thread)
{
    const float *decay = shared->decay[own];
#pragma unroll
    for (int i = 0; i < CHUNK * CHUNK / 8 / GROUP_THREADS; i++) {
        int row = i * (GROUP_THREADS / 8) + thread / 8, eighth = thread % 8, column = 8 * eighth;
        float *to = a + row * STRIDE + column, x[8], y[8];
        if (eighth / 2 > i) { // 16 rows a turn
#pragma unroll
            for (int j = 0; j < 8; j++)
                to[j] = 0;
            *reinterpret_cast<uint4 *>(p + tile_64(row, eighth)) = make_uint4(0, 0, 0, 0);
            continue;
        }
        float beta = shared->beta[own][row], own_decay = decay[row];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float decayed = __expf(fminf(own_decay - decay[column + j], 0.0f));
            x[j] = beta * shared->products[0][row * STRIDE + column + j] * decayed;
            y[j] = shared->products[1][row * STRIDE + column + j] * decayed;
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
            to[j] = column + j < row ? x[j] : 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++)
            y[j] = column + j <= row ? y[j] : 0.0f;
        *reinterpret_cast<uint4 *>(p + tile_64(row, eighth)) =
            make_uint4(pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]),
                       pack_bf16(y[6], y[7]));
    }
}

// The four 16 x 16 blocks of the diagonal inverted where they stand, a thread
// per column.
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

// c += x y for 16 rows of x and 8 N columns of y, K deep, in tf32. x and y
// stand in the system.
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

// c += x y with x as an accumulator holds it: column 2 t of eight stands for k
// = t, 2 t + 1 for t + 4.
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

// The inverse of I + A from its diagonal blocks: the block below two inverted
// ones becomes
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
        if (eighth / 2 > row / 16) {
            *reinterpret_cast<uint4 *>(to + tile_64(row, eighth)) = make_uint4(0, 0, 0, 0);
            continue;
        }
        *reinterpret_cast<uint4 *>(to + tile_64(row, eighth)) =
            make_uint4(pack_bf16(from[0] * scale[0], from[1] * scale[1]),
                       pack_bf16(from[2] * scale[2], from[3] * scale[3]),
                       pack_bf16(from[4] * scale[4], from[5] * scale[5]),
                       pack_bf16(from[6] * scale[6], from[7] * scale[7]));
    }
}

static __device__ __forceinline__ void solve(chunk_shared *shared, const gdn_tiles &tiles, int own,
                                             int group)
{
    int thread = static_cast<int>(threadIdx.x) % GROUP_THREADS;
    float *a = shared->system[group];
    fill_squares(a, tiles.p, shared, own, thread);
    group_barrier(group);
    if (thread < CHUNK)
        invert_diagonal(a, thread);
    group_barrier(group);
    merge_blocks(a, group, thread / WARP_THREADS);
    store_solved(tiles.t, a, shared->beta[own], thread);
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
    const gdn_row row = gdn_load_row(op, chunk.row);
    place.history = gdn_history(op, row);
    place.row_first = row.token_first;
    place.row_tokens = row.tokens;
    place.first = chunk.first;
    place.tokens = min(CHUNK, row.tokens - chunk.first);
    place.key_head = static_cast<int>(blockIdx.x);
    place.group_heads = op.value_heads / op.key_heads;
    const int head = place.key_head * place.group_heads;
    const int64_t index = blockIdx.y;
    load_gates(shared, op, place);
    if (place.first >= GDN_HISTORY && place.tokens == CHUNK)
        convolve_all<true>(shared, op, place, index);
    else
        convolve_all<false>(shared, op, place, index);
    ASM_SM90("fence.proxy.async.shared::cta;" ::: "memory"); // what the bulk engine reads
    __syncthreads();
    if (threadIdx.x == 0)
        store_bulk(gdn_tiles_of(op, index, place.key_head, head).k, shared->kq, 2 * TILE_K * 2);
    if (warp < place.group_heads)
        sum_decays(shared, gdn_tiles_of(op, index, place.key_head, head + warp).factors, warp);
    float c[CHUNK / 8][4];
    multiply_tokens(c, shared->kq[warp / 4], shared->kq[0], block);
    keep_products(shared->products[warp / 4], c, warp < 4 ? shared->k_scale : shared->q_scale,
                  shared->k_scale, block);
    if (threadIdx.x == 0)
        wait_bulk_read();
    __syncthreads(); // q and k have been read, their place becomes the systems'
#pragma unroll 1
    for (int own = warp / 4; own < place.group_heads; own += 2)
        solve(shared, gdn_tiles_of(op, index, place.key_head, head + own), own, warp / 4);
}

void gdn_launch_chunks(struct stream *stream, const struct gdn *op, int chunks)
{
    const int bytes = static_cast<int>(sizeof(chunk_shared));
    CUDA_CHECK(cudaFuncSetAttribute(gdn_chunks_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    bytes));
    dim3 grid(static_cast<unsigned>(op->key_heads), static_cast<unsigned>(chunks));
    launch_chained(gdn_chunks_kernel, grid, dim3(THREADS), bytes, stream->handle, *op);
}
