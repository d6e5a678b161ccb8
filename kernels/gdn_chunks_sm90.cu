// SPDX-License-Identifier: Apache-2.0
// gdn_chunks_sm90.cu -- chunked prefill, first kernel: all that does not depend on the state. A
// block per chunk of 64 tokens and key head, or, of a few chunks, value head. Eight warps, the
// solvers, convolve its q and k, form k k^T and q k^T on tensor cores, then for each of its value
// heads the inverse of I + A; four convolve v meanwhile and form the gates. The operands are the
// convolution's bf16 as they are; norms, gates and decays stay f32 factors outside.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_convolve.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/gdn_wgmma.cuh"
#include "kernels/device/reduce.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    SOLVERS = 256,
    VALUERS = 128,
    THREADS = SOLVERS + VALUERS,
    VALUE_WARPS = VALUERS / WARP_THREADS,
    EIGHT = 8, // tokens of a segment in flight, where there are as many
    SEGMENTS = CHUNK / SEGMENT,
    GROUP_THREADS = SOLVERS / 2, // solve one value head's system
    GROUP_HEADS_MAX = 4,
    STRIDE = CHUNK + 4, // floats of a row of a square of tokens
};

// Named barriers of the block. NORMS: solvers arrive, GATES: the others do.
enum { MEET_SOLVERS = 1, MEET_GROUP, MEET_VALUERS = MEET_GROUP + 2, MEET_NORMS, MEET_GATES };

struct chunk_solved {
    bf16 t[TILE_T], p[TILE_T]; // as in the workspace
};

struct chunk_shared {
    bf16 kq[2][TILE_K];     // as in the workspace
    chunk_solved solved[2]; // of two value heads
    float system[2][CHUNK * STRIDE];
    // 1 / norm, that of q with the output's 1 / sqrt(128); 0 beyond the tokens
    float q_scale[CHUNK], k_scale[CHUNK];
    float decay[GROUP_HEADS_MAX][CHUNK]; // g, then its running sum * log2(e)
    float beta[GROUP_HEADS_MAX][CHUNK];
    chunk_place place;
};

static const float LOG2_E = 1.4426950408889634f;

// Tiles of the block's value head `own`.
static __device__ __forceinline__ gdn_tiles tiles_of(const struct gdn &op, const chunk_place &place,
                                                     int64_t index, int own)
{
    return gdn_tiles_of(op, index, place.key_head, place.head + own);
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

// q or k of 16 tokens into shared memory, and their norms' inverse.
template <bool WHOLE>
static __device__ __forceinline__ void convolve_key(chunk_shared *shared, const struct gdn &op,
                                                    const chunk_place &place, bool is_q,
                                                    int segment)
{
    int lane = lane_of_warp(), token = segment * SEGMENT;
    int head = is_q ? place.key_head : op.key_heads + place.key_head;
    bf16 *tile = shared->kq[is_q] + token * (DIM / 2);
    float *scale = (is_q ? shared->q_scale : shared->k_scale) + token;
    const float full = is_q ? 0.08838834764831845f : 1.0f;
    const int there = place.tokens - token; // of these tokens
    float squares[EIGHT];
    convolve<WHOLE, EIGHT>(
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
    int lane = lane_of_warp(), token = segment * SEGMENT;
    bf16 *to = tiles + lane / 8 * TILE_V + token * GDN_VALUE_SLICE;
    convolve<WHOLE, WHOLE ? EIGHT : 4>(
        op, place, place.first + token, (2 * op.key_heads + value_head) * DIM,
        [&](int part, int t, uint2 y) {
            int at = tile_32(part + t, lane % 8 / 2) + lane % 2 * 4;
            *reinterpret_cast<uint2 *>(to + at) = y;
        },
        [](int) {});
}

// Segment `i` of v of the chunk's value heads.
static __device__ __forceinline__ void convolve_value(bf16 *tiles, const struct gdn &op,
                                                      const chunk_place &place, int i)
{
    int head = place.head + i / SEGMENTS;
    if (place.whole)
        convolve_value<true>(tiles, op, place, head, i % SEGMENTS);
    else
        convolve_value<false>(tiles, op, place, head, i % SEGMENTS);
}

// Of the value heads' tokens, by the valuers.
static __device__ __forceinline__ void load_gates(chunk_shared *shared, const struct gdn &op,
                                                  const chunk_place &place, int thread)
{
    const int token = thread % CHUNK;
    const bool there = token < place.tokens;
    const int64_t at = static_cast<int64_t>(place.row_first + place.first + token);
    for (int own = thread / CHUNK; own < place.heads; own += VALUERS / CHUNK) {
        int head = place.head + own;
        const bf16 *b = op.projected + (there ? at * op.projected_stride : 0) + channels_of(op) +
                        op.value_heads * DIM + head;
        shared->decay[own][token] = there ? gdn_log_decay(op, head, b[op.value_heads]) : 0.0f;
        shared->beta[own][token] = there ? gdn_beta(b[0]) : 0.0f;
    }
}

// Running sums of g times log2(e): a warp per value head, two tokens a lane.
static __device__ __forceinline__ void sum_decays(float *decay)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    float a = decay[2 * lane], b = a + decay[2 * lane + 1], sum = b;
#pragma unroll
    for (int offset = 1; offset < WARP_THREADS; offset *= 2) {
        float left = __shfl_up_sync(0xffffffffu, sum, offset);
        sum += lane >= offset ? left : 0.0f;
    }
    float before = sum - b;
    decay[2 * lane] = (lane == 0 ? a : before + a) * LOG2_E;
    decay[2 * lane + 1] = sum * LOG2_E;
}

// By the same warp.
static __device__ __forceinline__ void store_factors(float *factors, const chunk_shared *shared,
                                                     const float *decay)
{
    const float last = decay[CHUNK - 1];
    for (int token = static_cast<int>(threadIdx.x) % WARP_THREADS; token < CHUNK;
         token += WARP_THREADS) {
        const float own = decay[token], reads = exp2f(own);
        factors[FACTOR_READ + token] = reads * shared->k_scale[token];
        factors[FACTOR_OUT + token] = reads * shared->q_scale[token];
        factors[FACTOR_WRITE + token] = exp2f(fminf(last - own, 0.0f)) * shared->k_scale[token];
        if (token == CHUNK - 1)
            factors[FACTOR_DECAY] = reads;
    }
}

// x k^T by a group's warps, of which `block` gets rows 16 `block` ..; x = q or k: c[n] is columns
// 8 n ...
static __device__ __forceinline__ void multiply_tokens(float c[CHUNK / 8][4], const bf16 *x,
                                                       const bf16 *k, int block)
{
    enum { STEPS = DIM / 16 / 2 };
    int lane = lane_of_warp();
#pragma unroll
    for (int half = 0; half < 2; half++) { // of the key dimensions
        uint32_t a[STEPS][4];
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            int at = tile_128(16 * block + lane % 16, 2 * (STEPS * half + i) + lane / 16);
            load_matrices(a[i], shared_address(x + at));
        }
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            wgmma_64(c, a[i], wgmma_operand(k + half * (TILE_K / 2) + 16 * i, true, 0),
                     half + i > 0);
        wgmma_end();
    }
}

// Of these, up to the diagonal, with their norms, and the scale of the output where x is q.
static __device__ __forceinline__ void scale_products(float c[CHUNK / 8][4], const float *x_scale,
                                                      const float *k_scale, int block)
{
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS, row = 16 * block + lane / 4;
    const float scale[2] = {x_scale[row], x_scale[row + 8]};
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        if (n > 2 * block + 1)
            break;
        const float2 own = *reinterpret_cast<const float2 *>(k_scale + 8 * n + lane % 4 * 2);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            c[n][2 * half] *= scale[half] * own.x;
            c[n][2 * half + 1] *= scale[half] * own.y;
        }
    }
}

// Returns when `threads` threads of the block have come to the barrier.
static __device__ __forceinline__ void meet(int barrier, int threads)
{
    jitter();
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// As meet, for those who need not wait.
static __device__ __forceinline__ void pass(int barrier, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Before a barrier, after which the bulk engine reads what this thread wrote.
static __device__ __forceinline__ void show_to_engine()
{
    ASM_SM90("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The decays between the tokens of four products of a lane, in its order: those of rows `row` and
// `row` + 8 and two columns. Above the diagonal they are anything.
static __device__ __forceinline__ void decays_between(float to[4], const float rows[2],
                                                      const float *columns)
{
    const float2 before = *reinterpret_cast<const float2 *>(columns);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        to[2 * half] = power_of_two(rows[half] - before.x);
        to[2 * half + 1] = power_of_two(rows[half] - before.y);
    }
}

// Rows 16 `block` .. of a value head's A, from k k^T. In the blocks of 16 x 16 on the diagonal only
// what lies below it means something; the block beside an even one is zero.
static __device__ __forceinline__ void fill_system(float *a, const float c[CHUNK / 8][4],
                                                   const chunk_shared *shared, int own, int block)
{
    int lane = lane_of_warp(), row = 16 * block + lane / 4;
    const float *decay = shared->decay[own], *beta = shared->beta[own];
    const float rows[2] = {decay[row], decay[row + 8]}, scale[2] = {beta[row], beta[row + 8]};
    float *to = a + row * STRIDE + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        float between[4] = {};
        if (n > (2 * block | 3))
            break;
        if (n <= 2 * block + 1)
            decays_between(between, rows, decay + 8 * n + lane % 4 * 2);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float x = scale[half] * c[n][2 * half] * between[2 * half];
            float y = scale[half] * c[n][2 * half + 1] * between[2 * half + 1];
            *reinterpret_cast<float2 *>(to + half * 8 * STRIDE + 8 * n) = make_float2(x, y);
        }
    }
}

// Rows 16 `block` .. of a value head's P: q k^T with decays up to the diagonal.
static __device__ __forceinline__ void fill_attention(bf16 *p, const float c[CHUNK / 8][4],
                                                      const float *decay, int block)
{
    int lane = lane_of_warp(), row = 16 * block + lane / 4;
    const float rows[2] = {decay[row], decay[row + 8]};
#pragma unroll
    for (int n = 0; n < CHUNK / 8; n++) {
        const int column = 8 * n + lane % 4 * 2;
        float between[4];
        uint32_t pairs[2] = {0, 0};
        if (n <= 2 * block + 1) {
            decays_between(between, rows, decay + column);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float x = c[n][2 * half] * between[2 * half];
                float y = c[n][2 * half + 1] * between[2 * half + 1];
                pairs[half] = pack_bf16(column <= row + 8 * half ? x : 0.0f,
                                        column < row + 8 * half ? y : 0.0f);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
            *reinterpret_cast<uint32_t *>(p + tile_64(row + 8 * half, n) + lane % 4 * 2) =
                pairs[half];
    }
}

// The four 16 x 16 blocks of the diagonal inverted where they stand, a thread per column.
static __device__ __forceinline__ void invert_diagonal(float *a, int thread)
{
    float x[16];
    float *block = a + thread / 16 * 16 * (STRIDE + 1);
    int column = lane_of_warp() % 16;
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
    int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
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
    int lane = lane_of_warp(), g = lane / 4, t = lane % 4;
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
    int lane = lane_of_warp();
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
    meet(MEET_GROUP + group, GROUP_THREADS);
    int row = 32 + warp / 2 * 16, column = warp % 2 * 16;
    float x[4][4] = {}, y[2][4] = {};
    multiply_blocks<4, 32>(x, a + row * STRIDE + 32, a + 32 * STRIDE);
    multiply_held<2, 32>(y, x, a + column);
    meet(MEET_GROUP + group, GROUP_THREADS); // the block has been read
    store_negative<2>(a + row * STRIDE + column, y);
    meet(MEET_GROUP + group, GROUP_THREADS);
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

// T of a value head from its system, by a group's warps.
static __device__ __forceinline__ void solve(chunk_shared *shared, int own, int group)
{
    const int thread = thread_of_block() % GROUP_THREADS;
    float *a = shared->system[group];
    if (thread < CHUNK)
        invert_diagonal(a, thread);
    meet(MEET_GROUP + group, GROUP_THREADS);
    merge_blocks(a, group, thread / WARP_THREADS);
    store_solved(shared->solved[group].t, a, shared->beta[own], thread);
}

// T and P of the chunk's value heads, two at a time. The first group has k k^T, the second q k^T.
static __device__ __forceinline__ void solve_heads(chunk_shared *shared, const struct gdn &op,
                                                   const chunk_place &place, int64_t index)
{
    const int group = thread_of_block() / GROUP_THREADS;
    const int block = thread_of_block() / WARP_THREADS % 4;
#pragma unroll 1
    for (int first = 0; first < place.heads; first += 2) {
        const int pair = min(2, place.heads - first);
        float c[CHUNK / 8][4];
        multiply_tokens(c, shared->kq[group], shared->kq[0], block);
        scale_products(c, group == 0 ? shared->k_scale : shared->q_scale, shared->k_scale, block);
        if (first == 0)
            meet(MEET_GATES, THREADS);
        else
            meet(MEET_SOLVERS, SOLVERS); // the pair before has been stored
#pragma unroll 1
        for (int i = 0; i < pair; i++) {
            if (group == 0)
                fill_system(shared->system[i], c, shared, first + i, block);
            else
                fill_attention(shared->solved[i].p, c, shared->decay[first + i], block);
        }
        show_to_engine();
        meet(MEET_SOLVERS, SOLVERS);
        if (group >= pair)
            continue;
        solve(shared, first + group, group);
        show_to_engine();
        meet(MEET_GROUP + group, GROUP_THREADS);
        if (thread_of_block() % GROUP_THREADS == 0) {
            store_bulk(tiles_of(op, place, index, first + group).t, &shared->solved[group],
                       static_cast<int>(sizeof(chunk_solved)));
            wait_bulk();
        }
    }
}

static __device__ __forceinline__ void run_solver(chunk_shared *shared, const struct gdn &op,
                                                  const chunk_place &place, int64_t index)
{
    const int warp = static_cast<int>(threadIdx.x) / WARP_THREADS;
    if (place.whole)
        convolve_key<true>(shared, op, place, warp % 2 == 1, warp / 2);
    else
        convolve_key<false>(shared, op, place, warp % 2 == 1, warp / 2);
    show_to_engine();
    pass(MEET_NORMS, THREADS);
    meet(MEET_SOLVERS, SOLVERS);
    if (threadIdx.x == 0 && place.leads)
        store_bulk(tiles_of(op, place, index, 0).k, shared->kq, 2 * TILE_K * 2);
    solve_heads(shared, op, place, index);
}

static __device__ __forceinline__ void run_valuer(chunk_shared *shared, const struct gdn &op,
                                                  const chunk_place &place, int64_t index)
{
    load_gates(shared, op, place, thread_of_block() - SOLVERS);
    meet(MEET_VALUERS, VALUERS);
    int warp = thread_of_block() / WARP_THREADS - SOLVERS / WARP_THREADS;
    if (warp < place.heads)
        sum_decays(shared->decay[warp]);
    pass(MEET_GATES, THREADS);
#pragma unroll 1
    for (int i = warp; i < SEGMENTS * place.heads; i += VALUE_WARPS)
        convolve_value(tiles_of(op, place, index, i / SEGMENTS).v, op, place, i);
    meet(MEET_NORMS, THREADS);
    warp = thread_of_block() / WARP_THREADS - SOLVERS / WARP_THREADS;
    if (warp < place.heads)
        store_factors(tiles_of(op, place, index, warp).factors, shared, shared->decay[warp]);
}

// Where chunk `index` of the step lies; without any tokens where there is none. Called by a warp.
static __device__ __forceinline__ chunk_place place_of(const struct gdn &op, int index)
{
    const gdn_chunk chunk = gdn_find_chunk(op, index);
    chunk_place place = {};
    if (chunk.row < 0)
        return place;
    const gdn_row row = gdn_load_row(op, chunk.row);
    place.history = gdn_history(op, row);
    place.row_first = row.token_first;
    place.row_tokens = row.tokens;
    place.first = chunk.first;
    place.tokens = min(CHUNK, row.tokens - chunk.first);
    place.whole = place.first >= GDN_HISTORY && place.tokens == CHUNK;
    place.heads = op.value_heads / static_cast<int>(gridDim.x);
    place.head = static_cast<int>(blockIdx.x) * place.heads;
    place.key_head = place.head / (op.value_heads / op.key_heads);
    place.leads = place.head % (op.value_heads / op.key_heads) == 0;
    return place;
}

// grid (key heads or value heads, chunks), shared memory chunk_shared.
static __global__ void __launch_bounds__(THREADS, 2) gdn_chunks_kernel(struct gdn op)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    chunk_shared *shared = reinterpret_cast<chunk_shared *>(memory);
    if (threadIdx.x < WARP_THREADS) {
        const chunk_place place = place_of(op, static_cast<int>(blockIdx.y));
        if (threadIdx.x == 0)
            shared->place = place;
    }
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (shared->place.tokens == 0)
        return;
    if (threadIdx.x < SOLVERS)
        run_solver(shared, op, shared->place, blockIdx.y);
    else
        run_valuer(shared, op, shared->place, blockIdx.y);
}

void gdn_launch_chunks(struct stream *stream, const struct gdn *op, int chunks)
{
    const int bytes = static_cast<int>(sizeof(chunk_shared));
    CUDA_CHECK(cudaFuncSetAttribute(gdn_chunks_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    bytes));
    // A few chunks are done sooner when a block has one value head, though its q and k are not its
    // own.
    const bool few = chunks * op->value_heads <= multiprocessors();
    dim3 grid(static_cast<unsigned>(few ? op->value_heads : op->key_heads),
              static_cast<unsigned>(chunks));
    launch_chained(gdn_chunks_kernel, grid, dim3(THREADS), bytes, stream->handle, *op);
}
