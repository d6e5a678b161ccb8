// SPDX-License-Identifier: Apache-2.0
// gdn_scan_sm90.cu -- chunked prefill, second kernel: the state through a row's chunks. A warpgroup
// has 64 value dimensions of a head, all 128 key dimensions of them in accumulators, as S^T.
// Everything is computed transposed: the accumulators of one product are then, packed to bf16, the
// left operand of the next, and the right operands are the tiles as the bulk engine brings them. A
// second warpgroup reads out, one chunk behind: it needs the state's image and u, no accumulator of
// the first. The state is f32; its bf16 image is only read. Where memory has it as bf16 it becomes
// what memory keeps at each chunk's end.
#include "kernels/device/gdn_chunks.cuh"
#include "kernels/device/gdn_launch.cuh"
#include "kernels/device/gdn_wgmma.cuh"
#include "kernels/device/reduce.cuh"

enum {
    DIM = GDN_HEAD_DIM,
    SLICES_OWN = 2, // of 32 value dimensions, of a block
    BLOCKS = SLICES / SLICES_OWN,
    WARP_VALUES = 16,
    PAIRS = SLICES_OWN * GDN_VALUE_SLICE / WARP_VALUES, // of warps: one carries, one reads out
    THREADS = PAIRS * 2 * WARP_THREADS,
    STAGES = 3,
    K_STEPS = DIM / 16,
    T_STEPS = CHUNK / 16,
    TOKEN_TILES = CHUNK / 8,
    KEY_TILES = DIM / 8,
    HANDOFFS = 2,
};

// One chunk on its way through a block.
struct scan_stage {
    bf16 k[TILE_K], q[TILE_K];
    bf16 t[TILE_T], p[TILE_T];
    bf16 v[SLICES_OWN * TILE_V];
    float factors[GDN_FACTORS];
};

// What a warp that carries state hands to the one that reads it out: the state before a chunk as an
// operand, and u. A lane hands to the same lane, and every lane arrives for itself: right without a
// barrier of the warp, and so that compute-sanitizer's racecheck sees it.
struct scan_handoff {
    uint4 image[K_STEPS][WARP_THREADS];
    uint4 u[T_STEPS][WARP_THREADS];
};

struct scan_shared {
    scan_stage stages[STAGES];
    scan_handoff handoffs[PAIRS][HANDOFFS];
    uint64_t full[STAGES], empty[STAGES]; // empty: every thread arrives for itself, too
    uint64_t given[PAIRS][HANDOFFS], taken[PAIRS][HANDOFFS];
};

static __device__ __forceinline__ void bring(scan_stage *stage, uint64_t *full,
                                             const gdn_tiles &tiles, int slice)
{
    barrier_expect(full, static_cast<int>(sizeof *stage));
    copy_bulk(stage->k, tiles.k, 2 * TILE_K * 2, full);
    copy_bulk(stage->t, tiles.t, 2 * TILE_T * 2, full);
    copy_bulk(stage->v, tiles.v + slice * TILE_V, SLICES_OWN * TILE_V * 2, full);
    copy_bulk(stage->factors, tiles.factors, GDN_FACTORS * 4, full);
}

// Accumulators of two neighbouring tiles as the left operand of a product over their columns.
static __device__ __forceinline__ void pack_operand(uint32_t a[4], const float low[4],
                                                    const float high[4])
{
    a[0] = pack_bf16(low[0], low[1]);
    a[1] = pack_bf16(low[2], low[3]);
    a[2] = pack_bf16(high[0], high[1]);
    a[3] = pack_bf16(high[2], high[3]);
}

// c [64 values, 64 tokens] = S^T x^T, x a tile of k or q: two of 64 key dimensions.
static __device__ __forceinline__ void read_state(float c[TOKEN_TILES][4],
                                                  const uint32_t s[K_STEPS][4], const bf16 *x)
{
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < K_STEPS; i++) {
        const bf16 *at = x + i / 4 * (TILE_K / 2) + i % 4 * 16;
        wgmma_64(c, s[i], wgmma_operand(at, true, 0), i > 0);
    }
    wgmma_end();
}

// c = (adds ? c : 0) + x m^T, m a square of tokens.
static __device__ __forceinline__ void
multiply_tokens(float c[TOKEN_TILES][4], const uint32_t x[T_STEPS][4], const bf16 *m, bool adds)
{
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < T_STEPS; i++)
        wgmma_64(c, x[i], wgmma_operand(m + i * 16, true, 0), adds || i > 0);
    wgmma_end();
}

// S^T += x k.
static __device__ __forceinline__ void write_state(float s[KEY_TILES][4],
                                                   const uint32_t x[T_STEPS][4], const bf16 *k)
{
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < T_STEPS; i++)
        wgmma_128(s, x[i], wgmma_operand(k + i * 16 * 64, false, TILE_K));
    wgmma_end();
}

// x = bf16(v - factor c), the left operand of the solve. values: the warp's column of eighths.
static __device__ __forceinline__ void subtract_read(uint32_t x[T_STEPS][4],
                                                     const float c[TOKEN_TILES][4], const bf16 *v,
                                                     const float *factors, int eighth, int lane)
{
#pragma unroll
    for (int i = 0; i < T_STEPS; i++) {
        uint32_t b[4]; // values 0..7 and 8..15 of tokens 16 i .. + 7, then of the next eight
        float rest[2][4];
        load_transposed(b, shared_address(v + tile_32(16 * i + lane / 16 * 8 + lane % 8,
                                                      eighth + lane / 8 % 2)));
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float2 f =
                *reinterpret_cast<const float2 *>(factors + 16 * i + 8 * j + lane % 4 * 2);
            const float *read = c[2 * i + j];
            rest[j][0] = __uint_as_float(b[2 * j] << 16) - f.x * read[0];
            rest[j][1] = __uint_as_float(b[2 * j] & 0xffff0000u) - f.y * read[1];
            rest[j][2] = __uint_as_float(b[2 * j + 1] << 16) - f.x * read[2];
            rest[j][3] = __uint_as_float(b[2 * j + 1] & 0xffff0000u) - f.y * read[3];
        }
        pack_operand(x[i], rest[0], rest[1]);
    }
}

static __device__ __forceinline__ void scale_tokens(float c[TOKEN_TILES][4], const float *factors,
                                                    int lane)
{
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
        const float2 f = *reinterpret_cast<const float2 *>(factors + 8 * n + lane % 4 * 2);
        c[n][0] *= f.x;
        c[n][1] *= f.y;
        c[n][2] *= f.x;
        c[n][3] *= f.y;
    }
}

static __device__ __forceinline__ void pack_tokens(uint32_t x[T_STEPS][4],
                                                   const float c[TOKEN_TILES][4])
{
#pragma unroll
    for (int i = 0; i < T_STEPS; i++)
        pack_operand(x[i], c[2 * i], c[2 * i + 1]);
}

// o [tokens, 16 values] from c; to: the warp's first value of the chunk's first token.
static __device__ __forceinline__ void
write_out(bf16 *to, int64_t stride, const float c[TOKEN_TILES][4], int tokens, int lane)
{
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
        uint32_t low = transpose_matrix(pack_bf16(c[n][0], c[n][1]));
        uint32_t high = transpose_matrix(pack_bf16(c[n][2], c[n][3]));
        int token = 8 * n + lane / 4;
        if (token < tokens) {
            bf16 *at = to + token * stride + lane % 4 * 2;
            *reinterpret_cast<uint32_t *>(at) = low;
            *reinterpret_cast<uint32_t *>(at + 8) = high;
        }
    }
}

static __device__ __forceinline__ uint4 as_vector(const uint32_t x[4])
{
    return make_uint4(x[0], x[1], x[2], x[3]);
}

static __device__ __forceinline__ void from_vector(uint32_t x[4], uint4 vector)
{
    x[0] = vector.x;
    x[1] = vector.y;
    x[2] = vector.z;
    x[3] = vector.w;
}

// The warp's view of a chunk.
struct scan_view {
    const scan_stage *stage;
    scan_handoff *handoff;
    uint64_t *given, *taken;
    uint32_t turn; // how often the handoff was used before
    int pair;      // of warps: 16 value dimensions of the block
};

// One chunk: s is the state before it and after.
static __device__ __forceinline__ void carry_state(float s[KEY_TILES][4], const scan_view &view)
{
    const scan_stage &stage = *view.stage;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    const bf16 *v = stage.v + view.pair / 2 * TILE_V;
    uint32_t image[K_STEPS][4], x[T_STEPS][4];
    float c[TOKEN_TILES][4];
    barrier_wait(view.taken, view.turn % 2 ^ 1); // passes the first time
#pragma unroll
    for (int i = 0; i < K_STEPS; i++) {
        pack_operand(image[i], s[2 * i], s[2 * i + 1]);
        view.handoff->image[i][lane] = as_vector(image[i]);
    }
    read_state(c, image, stage.k);
    subtract_read(x, c, v, stage.factors + FACTOR_READ, view.pair % 2 * 2, lane);
    multiply_tokens(c, x, stage.t, false); // u
    pack_tokens(x, c);
#pragma unroll
    for (int i = 0; i < T_STEPS; i++)
        view.handoff->u[i][lane] = as_vector(x[i]);
    barrier_arrive(view.given);
    scale_tokens(c, stage.factors + FACTOR_WRITE, lane);
    pack_tokens(x, c);
    float decay = stage.factors[FACTOR_DECAY];
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] *= decay;
    }
    write_state(s, x, stage.k);
}

// o of one chunk into c.
static __device__ __forceinline__ void read_out(float c[TOKEN_TILES][4], const scan_view &view)
{
    const scan_stage &stage = *view.stage;
    int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    uint32_t image[K_STEPS][4], x[T_STEPS][4];
    barrier_wait(view.given, view.turn % 2);
#pragma unroll
    for (int i = 0; i < K_STEPS; i++)
        from_vector(image[i], view.handoff->image[i][lane]);
#pragma unroll
    for (int i = 0; i < T_STEPS; i++)
        from_vector(x[i], view.handoff->u[i][lane]);
    barrier_arrive(view.taken);
    read_state(c, image, stage.q);
    scale_tokens(c, stage.factors + FACTOR_OUT, lane);
    multiply_tokens(c, x, stage.p, true);
}

static __device__ __forceinline__ float2 load_two(const float *from)
{
    return *reinterpret_cast<const float2 *>(from);
}

static __device__ __forceinline__ float2 load_two(const bf16 *from)
{
    return gdn_unpack(*reinterpret_cast<const uint32_t *>(from));
}

static __device__ __forceinline__ void store_two(float *to, float a, float b)
{
    *reinterpret_cast<float2 *>(to) = make_float2(a, b);
}

static __device__ __forceinline__ void store_two(bf16 *to, float a, float b)
{
    *reinterpret_cast<uint32_t *>(to) = gdn_pack(a, b);
}

static __device__ __forceinline__ void round_state(float s[KEY_TILES][4])
{
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
        gdn_round<4>(s[n]);
}

// The state's rows of value dimensions `value` and `value` + 8, and the accepted rows of a decode
// step before.
template <typename State>
static __device__ __forceinline__ void load_state(float s[KEY_TILES][4], const struct gdn &op,
                                                  const gdn_row &row, int head, int value)
{
    int t = static_cast<int>(threadIdx.x) % 4, key_head = head / (op.value_heads / op.key_heads);
    const State *from = static_cast<const State *>(op.state.state) +
                        ((row.slot * op.value_heads + head) * DIM + value) * DIM;
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++) {
        const float2 low = load_two(from + 8 * n + 2 * t);
        const float2 high = load_two(from + 8 * DIM + 8 * n + 2 * t);
        s[n][0] = low.x;
        s[n][1] = low.y;
        s[n][2] = high.x;
        s[n][3] = high.y;
    }
    for (int i = 0; i < row.waits.count; i++) {
        int64_t of_key = gdn_pending(op, row, i, op.key_heads, key_head);
        int64_t of_value = gdn_pending(op, row, i, op.value_heads, head);
        const float *k = op.state.pending_k + of_key * DIM + 2 * t;
        const float *u = op.state.pending_u + of_value * DIM + value;
        float alpha = expf(op.state.pending_g[of_value]);
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++) {
            const float2 own = *reinterpret_cast<const float2 *>(k + 8 * n);
            s[n][0] = gdn_advance(s[n][0], alpha, own.x, u[0]);
            s[n][1] = gdn_advance(s[n][1], alpha, own.y, u[0]);
            s[n][2] = gdn_advance(s[n][2], alpha, own.x, u[8]);
            s[n][3] = gdn_advance(s[n][3], alpha, own.y, u[8]);
        }
        if constexpr (gdn_rounds<State>) {
            if (i + 1 == gdn_folded(row))
                round_state(s);
        }
    }
}

// To place `at`, of a slot or a checkpoint, of `states`.
template <typename State>
static __device__ __forceinline__ void store_state(const float s[KEY_TILES][4], void *states,
                                                   int64_t at, const struct gdn &op, int head,
                                                   int value)
{
    int t = static_cast<int>(threadIdx.x) % 4;
    State *to = static_cast<State *>(states) + ((at * op.value_heads + head) * DIM + value) * DIM;
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++) {
        store_two(to + 8 * n + 2 * t, s[n][0], s[n][1]);
        store_two(to + 8 * DIM + 8 * n + 2 * t, s[n][2], s[n][3]);
    }
}

// Where a block stands.
struct scan_place {
    gdn_row row;
    gdn_save save;
    int head, key_head, slice;
    int first, chunks; // of the row
};

template <typename State>
static __device__ __forceinline__ scan_place place_of(const struct gdn &op)
{
    scan_place place;
    int index = op.tables.decode_rows + static_cast<int>(blockIdx.y);
    place.head = static_cast<int>(blockIdx.x) / BLOCKS;
    place.key_head = place.head / (op.value_heads / op.key_heads);
    place.slice = static_cast<int>(blockIdx.x) % BLOCKS * SLICES_OWN;
    place.row = gdn_load_row<State>(op, index);
    place.save = gdn_first_save(op.tables, index);
    place.first = gdn_first_chunk(op, index);
    place.chunks = place.first < 0 ? 0 : (place.row.tokens + CHUNK - 1) / CHUNK;
    return place;
}

// A warp that reads out: the row's chunks one after the other. The first one also brings chunks, as
// stages fall free.
static __device__ __forceinline__ void read_chunks(scan_shared *shared, const struct gdn &op,
                                                   const scan_place &place, int pair)
{
    const int lane = static_cast<int>(threadIdx.x) % WARP_THREADS;
    const bool brings = pair == 0 && lane == 0;
    const int64_t stride = static_cast<int64_t>(op.value_heads) * DIM;
    bf16 *to = op.o + place.row.token_first * stride + place.head * DIM +
               place.slice * GDN_VALUE_SLICE + pair * WARP_VALUES;
    for (int i = 0; i < STAGES && i < place.chunks && brings; i++)
        bring(&shared->stages[i], &shared->full[i],
              gdn_tiles_of(op, place.first + i, place.key_head, place.head), place.slice);
    for (int i = 0; i < place.chunks; i++) {
        int stage = i % STAGES, handoff = i % HANDOFFS;
        uint32_t parity = static_cast<uint32_t>(i / STAGES) & 1u;
        float c[TOKEN_TILES][4];
        barrier_wait(&shared->full[stage], parity);
        read_out(c, scan_view{&shared->stages[stage], &shared->handoffs[pair][handoff],
                              &shared->given[pair][handoff], &shared->taken[pair][handoff],
                              static_cast<uint32_t>(i / HANDOFFS), pair});
        barrier_arrive(&shared->empty[stage]);
        if (brings && i + STAGES < place.chunks) {
            barrier_wait(&shared->empty[stage], parity);
            bring(&shared->stages[stage], &shared->full[stage],
                  gdn_tiles_of(op, place.first + i + STAGES, place.key_head, place.head),
                  place.slice);
        }
        __syncwarp();
        write_out(to + static_cast<int64_t>(i) * CHUNK * stride, stride, c,
                  place.row.tokens - i * CHUNK, lane);
    }
}

// A warp that carries state through the row's chunks, and leaves it on its way where a checkpoint
// is due.
template <typename State>
static __device__ __forceinline__ void carry_chunks(float s[KEY_TILES][4], scan_shared *shared,
                                                    const struct gdn &op, const scan_place &place,
                                                    int pair, int value)
{
    gdn_save save = place.save;
    for (int i = 0; i < place.chunks; i++) {
        int stage = i % STAGES, handoff = i % HANDOFFS;
        barrier_wait(&shared->full[stage], static_cast<uint32_t>(i / STAGES) & 1u);
        carry_state(s, scan_view{&shared->stages[stage], &shared->handoffs[pair][handoff],
                                 &shared->given[pair][handoff], &shared->taken[pair][handoff],
                                 static_cast<uint32_t>(i / HANDOFFS), pair});
        barrier_arrive(&shared->empty[stage]);
        if constexpr (gdn_rounds<State>)
            round_state(s);
        if (save.tokens == min((i + 1) * CHUNK, place.row.tokens)) {
            store_state<State>(s, op.checkpoints.state, save.checkpoint, op, place.head, value);
            save = gdn_next_save(op.tables, save);
        }
    }
    if (place.chunks > 0)
        store_state<State>(s, op.state.state, place.row.slot, op, place.head, value);
}

// grid (value heads * BLOCKS, prefill rows).
template <typename State>
static __global__ void __launch_bounds__(THREADS) gdn_scan_kernel(struct gdn op)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    auto *shared = reinterpret_cast<scan_shared *>(memory);
    const int thread = static_cast<int>(threadIdx.x), lane = thread % WARP_THREADS;
    const int pair = thread / WARP_THREADS % PAIRS;
    const bool carries = thread / WARP_THREADS < PAIRS;
    const scan_place place = place_of<State>(op);
    const int value = place.slice * GDN_VALUE_SLICE + pair * WARP_VALUES + lane / 4;
    float s[KEY_TILES][4];
    if (carries && place.chunks > 0)
        load_state<State>(s, op, place.row, place.head, value);
    if (thread == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&shared->full[i], 1);
            barrier_init(&shared->empty[i], THREADS);
        }
        for (int i = 0; i < PAIRS * HANDOFFS; i++) {
            barrier_init(&shared->given[i / HANDOFFS][i % HANDOFFS], WARP_THREADS);
            barrier_init(&shared->taken[i / HANDOFFS][i % HANDOFFS], WARP_THREADS);
        }
        ASM_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
        ASM_SM90("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (carries)
        carry_chunks<State>(s, shared, op, place, pair, value);
    else
        read_chunks(shared, op, place, pair);
}

template <typename State> static void launch(struct stream *stream, const struct gdn *op, int rows)
{
    const int bytes = static_cast<int>(sizeof(scan_shared));
    CUDA_CHECK(cudaFuncSetAttribute(gdn_scan_kernel<State>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    dim3 grid(static_cast<unsigned>(op->value_heads * BLOCKS), static_cast<unsigned>(rows));
    launch_chained(gdn_scan_kernel<State>, grid, dim3(THREADS), bytes, stream->handle, *op);
}

void gdn_launch_scan(struct stream *stream, const struct gdn *op, int rows)
{
    op->bf16_state ? launch<bf16>(stream, op, rows) : launch<float>(stream, op, rows);
}
