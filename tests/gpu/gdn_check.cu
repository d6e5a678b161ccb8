// SPDX-License-Identifier: Apache-2.0
// gdn_check.cu -- Gated DeltaNet: decode and verify rows with pending rows of every count, prefill
// token by token and by chunks, against the twin; and bit for bit, however a sequence is cut.
#include <math.h>
#include <string.h>

#include "tests/gpu/gdn_layer.cuh"

extern "C" {
#include "kernels/twins/twins.h"
}

CPU_FUNCTION(gdn);
CPU_FUNCTION(gdn_twin);
CPU_FUNCTION(gdn_twin_chunks);

enum { ROWS_MAX = 160, STEPS_MAX = 24 };

// Steps of one layer. Between two of them something that is no chained kernel: each reads what the
// one before has written, ahead of its wait.
struct steps {
    struct gdn ops[STEPS_MAX]; // on the device
    int count;
    void *between_dev;
};

static void launch(struct stream *stream, const void *argument)
{
    const struct steps *steps = static_cast<const struct steps *>(argument);
    for (int i = 0; i < steps->count; i++) {
        stream_zero(stream, steps->between_dev, 16);
        gdn(stream, &steps->ops[i]);
    }
}

// ---- against the twin ----

// |got - want|_2 / |want|_2 of a result against the host's side or numbers in double.
template <typename T> static double distance(const T *host, const double *want, size_t count)
{
    const T *got = check_result(host);
    double difference = 0, size = 1e-300;
    for (size_t i = 0; i < count; i++) {
        double value;
        if constexpr (sizeof(T) == sizeof(bf16))
            value = bf16_to_float(got[i]);
        else
            value = got[i];
        difference += (value - want[i]) * (value - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(difference / size);
}

static void check_distance(const char *what, double distance, double limit)
{
    if (!(distance <= limit))
        check_fail("%s is off by %.3g of its length, the bound is %.3g", what, distance, limit);
}

template <typename T>
static void check_floats(const char *what, const T *host, size_t count, double limit)
{
    double *want = static_cast<double *>(malloc(count * sizeof(double)));
    for (size_t i = 0; i < count; i++) {
        if constexpr (sizeof(T) == sizeof(bf16))
            want[i] = bf16_to_float(host[i]);
        else
            want[i] = host[i];
    }
    check_distance(what, distance(host, want, count), limit);
    free(want);
}

// Token by token, o is rounded once to bf16, at most 2^-9 of each element. The convolution's bf16
// may fall to the other side where f32 and double disagree (some 2^-20 of a value): one in 2^11,
// each off by 2^-8, and so 2^-13.5 of the length of q, k and v: together below 2^-8 of o and 2^-12
// of the state. By chunks, the stated bounds of the issue: what the state, u and the solved system
// lose as bf16.
static const double O_BY_TOKEN = 0x1p-8, STATE_BY_TOKEN = 0x1p-12;
static const double O_BY_CHUNK = 1e-2, STATE_BY_CHUNK = 5e-3;

// Both sides round a bf16 state. Elements d apart fall to neighbours e <= 2^-7 apart with
// probability d / e: sqrt(d e) rms a rounding. Token by token d is 2^-12 of the length, and four
// last: 2^-8. By chunks d is 1e-3, a fifth of the above, and 16 last where nothing decays: 1.5e-2.
static const double BF16_BY_TOKEN = 0x1p-8, BF16_BY_CHUNK = 1.5e-2, BF16_O_BY_CHUNK = 2e-2;

static double state_bound(const struct gdn *op, bool chunked)
{
    if (op->bf16_state)
        return chunked ? BF16_BY_CHUNK : BF16_BY_TOKEN;
    return chunked ? STATE_BY_CHUNK : STATE_BY_TOKEN;
}

static void check_states(const char *what, const struct gdn *op, const void *host, size_t count,
                         bool chunked)
{
    if (op->bf16_state)
        check_floats(what, static_cast<const bf16 *>(host), count, state_bound(op, chunked));
    else
        check_floats(what, static_cast<const float *>(host), count, state_bound(op, chunked));
}

// Runs one step and compares everything that it may write.
static void check_step(const struct layer *layer, struct gdn *host, bool chunked)
{
    struct steps steps = {};
    size_t values = static_cast<size_t>(host->tables.tokens_count) *
                    static_cast<size_t>(host->value_heads) * DIM;
    double *o = static_cast<double *>(malloc(values * sizeof(double)));
    steps.ops[0] = on_device(host);
    steps.count = 1;
    steps.between_dev = check_dev(array<uint8_t>(ARRAY_SCRATCH, 16));
    check_run(launch, &steps);
    (chunked ? cpu_gdn_twin_chunks : cpu_gdn_twin)(o, host); // changes the host's states
    const struct gdn_state *state = &host->state;
    double of_o = !chunked ? O_BY_TOKEN : host->bf16_state ? BF16_O_BY_CHUNK : O_BY_CHUNK;
    check_distance("o", distance(host->o, o, values), of_o);
    for (size_t i = 0; i < values; i++) {
        if (o[i] == 0 && check_result(host->o)[i].bits != 0)
            check_fail("o[%zu] of a token that does not run is not zero", i);
    }
    double of_u = host->bf16_state ? BF16_BY_TOKEN : STATE_BY_TOKEN; // a prefill row's last, too
    check_states("state", host, state->state, layer->state_values, chunked);
    check_floats("pending k", state->pending_k, layer->k_values, STATE_BY_TOKEN);
    check_floats("pending u", state->pending_u, layer->u_values, of_u);
    check_floats("pending g", state->pending_g, layer->g_values, STATE_BY_TOKEN);
    check_equal("conv", state->conv, state->conv, layer->conv_values, sizeof(bf16));
    check_equal("waiting", state->waiting, state->waiting, static_cast<size_t>(layer->slots) * 2,
                sizeof(struct gdn_waiting));
    check_equal("pending conv", state->pending_conv, state->pending_conv, layer->pending_values,
                sizeof(bf16));
    if (layer->checkpoints > 0) {
        check_states("checkpoints", host, host->checkpoints.state, checkpoint_states(layer),
                     chunked);
        check_equal("columns of checkpoints", host->checkpoints.conv, host->checkpoints.conv,
                    checkpoint_columns(layer), sizeof(bf16));
    }
    check_end();
    free(o);
}

// Rows of every pending count, of as many more that wait as there may be, an inert one between,
// both parities; in a ring for ROW_VERIFY_MAX tokens, or just for these.
static void check_decode(int key_heads, int value_heads, int count, int verify, bool bf16_state)
{
    struct row rows[ROWS_MAX];
    check_begin("gdn decode%s heads=%d/%d rows=%d verify=%d", bf16_state ? " bf16" : "", key_heads,
                value_heads, count, verify);
    const int most_tokens = bf16_state == (verify % 2 == 0) ? verify : ROW_VERIFY_MAX;
    struct layer layer = open_layer(key_heads, value_heads, count, -1, bf16_state, most_tokens);
    const int ring = layer.op.state.pending_rows;
    for (int i = 0; i < count; i++) {
        int active = i == 3 ? 0 : 1 + (verify - 1) * (i % 3) / 2;
        rows[i] = {count - 1 - i,
                   i == 3 ? ROW_NONE : ROW_DECODE,
                   verify,
                   active,
                   i % (most_tokens + 1),
                   i % 2,
                   bf16_state ? 100 + i % GDN_ROUND_TOKENS : 0};
    }
    for (int i = 0; i < count; i++) {
        // With a bf16 state one place of rounding lies among them at most.
        int behind = min(rows[i].position % GDN_ROUND_TOKENS, most_tokens - 1);
        int most = bf16_state ? GDN_ROUND_TOKENS + behind : GDN_WAITING_MAX;
        int waits = (3 * i + verify) % (most + 1 - rows[i].pending);
        layer.op.state.waiting[2 * rows[i].slot + rows[i].parity] = {(5 * i + 3) % ring, waits};
    }
    struct gdn op = make_step(&layer, rows, count, 3);
    check_step(&layer, &op, false);
}

// One prefill row behind a decode row, with and without pending rows; chunks 0: token by token.
static void check_prefill(int key_heads, int value_heads, int tokens, int chunks, double decay,
                          bool bf16_state)
{
    check_begin("gdn prefill%s heads=%d/%d T=%d chunks=%d decay=%g", bf16_state ? " bf16" : "",
                key_heads, value_heads, tokens, chunks, decay);
    struct layer layer = open_layer(key_heads, value_heads, 3, decay, bf16_state);
    // Checkpoints within a row lie at multiples of GDN_ROUND_TOKENS.
    struct row rows[3] = {{1, ROW_DECODE, 2, 2, 1, 0},
                          {0, ROW_PREFILL, tokens, tokens, tokens % 3, 1, tokens > 64 ? 96 : 100},
                          {2, ROW_PREFILL, 65, tokens % 2 == 0 ? 65 : 0, 0, 0, 96}};
    layer.op.state.waiting[1] = {layer.op.state.pending_rows - 2, tokens % 5};
    if (chunks > 0)
        open_workspace(&layer, chunks);
    open_checkpoints(&layer, 5);
    struct gdn op = make_step(&layer, rows, 3, 1);
    if (tokens > 128)
        add_save(&op, 3, 1, 64);
    if (tokens > 64)
        add_save(&op, 0, 1, (tokens - 1) / 64 * 64);
    add_save(&op, 4, 1, tokens);
    add_save(&op, 1, 2, 64);
    check_step(&layer, &op, chunks > 0);
}

// ---- bit for bit ----

struct piece {
    int tokens, accepted; // accepted 0: a prefill row
};

enum { PLACES = 4 };

// Runs a sequence of slot 0 in pieces, ending with a prefill row, from the inputs `raw`
// [positions, stride]; o [positions, value_heads, 128] of committed tokens and the state come out,
// and checkpoints at the places that prefill rows reach.
static void run_pieces(struct layer *layer, const struct piece *pieces, int count,
                       const int places[PLACES], const bf16 *raw, bf16 *o)
{
    struct steps steps = {};
    const bf16 *outputs[STEPS_MAX];
    int pending = 0, parity = 0, position = 0;
    size_t stride = static_cast<size_t>(layer->stride);
    size_t width = static_cast<size_t>(layer->op.value_heads) * DIM;
    for (int i = 0; i < count; i++) {
        const struct piece piece = pieces[i];
        bool decode = piece.accepted > 0;
        size_t kept = static_cast<size_t>(decode ? piece.accepted : piece.tokens);
        struct row row = {0,
                          decode ? ROW_DECODE : ROW_PREFILL,
                          piece.tokens,
                          piece.tokens,
                          pending,
                          parity,
                          96 + position};
        struct gdn op = make_step(layer, &row, 1, 0);
        memcpy(const_cast<bf16 *>(op.projected), raw + static_cast<size_t>(position) * stride,
               kept * stride * sizeof(bf16));
        outputs[i] = op.o;
        for (int k = 0; k < PLACES && !decode; k++) {
            if (places[k] > position && places[k] <= position + piece.tokens)
                add_save(&op, k, 0, places[k] - position);
        }
        steps.ops[steps.count++] = on_device(&op);
        pending = decode ? piece.accepted : 0;
        parity = decode ? 1 - parity : parity;
        position += static_cast<int>(kept);
    }
    steps.between_dev = check_dev(array<uint8_t>(ARRAY_SCRATCH, 16));
    check_run(launch, &steps);
    for (int i = 0; i < count; i++) {
        size_t kept =
            static_cast<size_t>(pieces[i].accepted > 0 ? pieces[i].accepted : pieces[i].tokens);
        memcpy(o, check_result(outputs[i]), kept * width * sizeof(bf16));
        o += kept * width;
    }
}

// The same positions cut in several ways; the first way says what the others have to give. What a
// layer starts from is the same because a check's name seeds it.
static void check_cuts(const char *name, const struct piece (*ways)[STEPS_MAX], int ways_count,
                       const int places[PLACES], int chunks, bool bf16_state)
{
    const int positions = places[PLACES - 1];
    enum { KEYS = 2, VALUES = 4 };
    const size_t o_count = static_cast<size_t>(positions) * VALUES * DIM;
    bf16 *first_o = NULL;
    void *first_state = NULL, *first_saves = NULL;
    const size_t value_bytes = static_cast<size_t>(gdn_state_bytes(bf16_state));
    for (int way = 0; way < ways_count; way++) {
        check_begin("gdn cuts%s %s", bf16_state ? " bf16" : "", name);
        struct layer layer = open_layer(KEYS, VALUES, 1, -1, bf16_state);
        if (chunks > 0)
            open_workspace(&layer, chunks);
        open_checkpoints(&layer, PLACES);
        const bf16 *raw = halves(
            ARRAY_INPUT, static_cast<size_t>(positions) * static_cast<size_t>(layer.stride), 1);
        bf16 *o = static_cast<bf16 *>(malloc(o_count * sizeof(bf16)));
        int count = 0;
        while (count < STEPS_MAX && ways[way][count].tokens > 0)
            count++;
        run_pieces(&layer, ways[way], count, places, raw, o);
        size_t state_bytes = layer.state_values * value_bytes;
        size_t saves_bytes = checkpoint_states(&layer) * value_bytes;
        if (way == 0) {
            first_o = o;
            first_state = malloc(state_bytes);
            memcpy(first_state, check_result_of(layer.op.state.state), state_bytes);
            first_saves = malloc(saves_bytes);
            memcpy(first_saves, check_result_of(layer.op.checkpoints.state), saves_bytes);
        } else {
            if (memcmp(o, first_o, o_count * sizeof(bf16)) != 0)
                check_fail("way %d: o has other bytes than the first way's", way);
            check_equal("state", layer.op.state.state, first_state, layer.state_values,
                        value_bytes);
            check_equal("checkpoints", layer.op.checkpoints.state, first_saves,
                        checkpoint_states(&layer), value_bytes);
            free(o);
        }
        check_end();
    }
    free(first_o);
    free(first_state);
    free(first_saves);
}

static void check_bits(bool bf16_state)
{
    static const struct piece by_token[][STEPS_MAX] = {
        {{24, 0}},
        {{7, 0}, {17, 0}},
        {{1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, {17, 0}},
        {{6, 6}, {6, 1}, {5, 3}, {14, 0}},
        {{1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {1, 1},
         {7, 0}},
        {{4, 3}, {4, 2}, {4, 4}, {4, 1}, {2, 2}, {4, 2}, {10, 0}},
        {{3, 2}, {2, 0}, {6, 5}, {4, 4}, {1, 1}, {2, 1}, {9, 0}},
    };
    static const struct piece by_chunk[][STEPS_MAX] = {
        {{500, 0}},
        {{64, 0}, {436, 0}},
        {{128, 0}, {64, 0}, {192, 0}, {116, 0}},
    };
    static const int token_places[PLACES] = {18, 19, 21, 24};
    static const int chunk_places[PLACES] = {64, 192, 384, 500};
    check_cuts("token by token", by_token, 7, token_places, 0, bf16_state);
    check_cuts("by chunks", by_chunk, 3, chunk_places, 32, bf16_state);
}

static void check_all(bool bf16_state)
{
    static const int heads[][2] = {{1, 1}, {1, 2}, {1, 3}, {1, 4}, {4, 8}, {16, 32}};
    for (const int *pair : heads) {
        for (int verify : {1, 2, 4, 6})
            check_decode(pair[0], pair[1], 8, verify, bf16_state);
    }
    // One task of a block and two; more than it knows of at once.
    for (int rows : {1, 2, 7, 9, 17})
        check_decode(16, 32, rows, 3, bf16_state);
    check_decode(2, 6, 60, 5, bf16_state);
    check_decode(16, 32, 160, 2, bf16_state);
    check_decode(1, 1, 160, 1, bf16_state);
    for (int verify : {1, 5}) // as few rows as blocks that stay take, and more than they know of
        check_decode(16, 32, verify == 1 ? 150 : 20, verify, bf16_state);
    for (int i = 0; i < CHECK_TOKENS_COUNT; i++) {
        const int *pair = heads[i % 5];
        if (CHECK_TOKENS[i] <= 100)
            check_prefill(pair[0], pair[1], CHECK_TOKENS[i], 0, -1, bf16_state);
        check_prefill(pair[0], pair[1], CHECK_TOKENS[i], 32, -1, bf16_state);
    }
    // Heads that remember everything, and that forget at once.
    check_prefill(2, 4, 1000, 32, -8, bf16_state);
    check_prefill(2, 4, 256, 32, 3, bf16_state);
    // Too little room: the second row goes token by token.
    check_prefill(1, 2, 256, 4, -1, bf16_state);
    check_bits(bf16_state);
}

CHECK(gdn)
{
    check_all(false);
    check_all(true);
}

// ---- for sanitizers ----

// Both heights of a block, one token and several; a prefill row that leaves checkpoints.
SMALL(gdn_recurrent)
{
    for (int verify : {1, 2}) {
        check_decode(1, 2, 4, verify, false);
        check_decode(4, 8, 5, verify, false);
    }
    check_prefill(1, 2, 5, 0, -1, false);
    check_prefill(6, 12, 5, 0, -1, false);
}

// 640 heads: from there on blocks stay. Every count of tokens that has a kernel of its own.
SMALL(gdn_stream_1)
{
    check_decode(16, 32, 20, 1, false);
}
SMALL(gdn_stream_4)
{
    check_decode(16, 32, 20, 3, false);
}
SMALL(gdn_stream_6)
{
    check_decode(16, 32, 20, 5, false);
}

// Enough chunks to use each stage and hand-over twice; two rows, the ends of both ragged.
SMALL(gdn_scan)
{
    check_prefill(1, 2, 257, 8, -1, false);
    check_prefill(1, 1, 70, 8, -1, false);
}

// The same with bf16 states.
SMALL(gdn_bf16)
{
    for (int verify : {1, 2})
        check_decode(1, 2, 4, verify, true);
    for (int verify : {1, 3, 5})
        check_decode(16, 32, 20, verify, true);
    check_prefill(1, 2, 5, 0, -1, true);
    check_prefill(1, 2, 70, 8, -1, true);
}

// ---- benchmarks ----

struct gdn_bench {
    struct gdn op;
    int layers;
    size_t value_bytes;          // of a value of the state
    struct gdn_waiting *waiting; // of every layer: as in the middle of long outputs
    struct gdn_state states[64];
};

static void launch_bench(struct stream *stream, const void *argument, int turn)
{
    const struct gdn_bench *bench = static_cast<const struct gdn_bench *>(argument);
    struct gdn op = bench->op;
    op.state = bench->states[turn % bench->layers];
    gdn(stream, &op);
}

template <typename T> static T *upload(const T *from, size_t count)
{
    T *to = static_cast<T *>(bench_memory(count * sizeof(T), 0));
    CUDA_CHECK(cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

// Rows that wait before those pending where the state is bf16: all that is behind the last place of
// rounding, at every distance as often. Not in step with the rows that one block takes.
static int waits_of(int slot)
{
    return (slot + slot / 8) % GDN_ROUND_TOKENS;
}

static void make_tables(struct gdn *op, int rows, int tokens, int kind, int pending)
{
    size_t count = static_cast<size_t>(rows);
    struct step_row *step = static_cast<struct step_row *>(calloc(count, sizeof *step));
    struct slot *slots = static_cast<struct slot *>(calloc(count, sizeof *slots));
    int32_t *active = static_cast<int32_t *>(calloc(count, sizeof *active));
    for (int i = 0; i < rows; i++) {
        step[i].slot = rows - 1 - i;
        step[i].kind = kind;
        step[i].token_first = i * tokens;
        step[i].token_count = active[i] = tokens;
        slots[i].pending = pending;
        slots[i].position = 96 + waits_of(i) + pending;
    }
    op->tables.rows = upload(step, count);
    op->tables.active_count = upload(active, count);
    op->slots.slots = upload(slots, count);
    op->slots.slots_count = rows;
    op->tables.rows_count = rows;
    op->tables.tokens_count = rows * tokens;
    op->tables.decode_rows = kind == ROW_DECODE ? rows : 0;
    op->tables.verify = kind == ROW_DECODE ? tokens : 0;
    size_t row_bytes = count * static_cast<size_t>(tokens) * sizeof(int32_t);
    op->tables.token_rows = static_cast<int32_t *>(bench_memory(row_bytes, 0));
    CUDA_CHECK(cudaMemset(op->tables.token_rows, 0, row_bytes)); // of some row, all of them
    free(step);
    free(slots);
    free(active);
}

// As many rows wait as steps of so many tokens leave, each count as often as any other. Returns how
// many of the slots fold.
static size_t open_waiting(struct gdn_bench *bench, size_t slots, int tokens, int pending)
{
    struct gdn_waiting *waiting =
        static_cast<struct gdn_waiting *>(calloc(slots * 2, sizeof *waiting));
    size_t folding = 0;
    int counts = 1;
    while (pending > 0 && counts * pending + tokens <= GDN_WAITING_MAX)
        counts++;
    for (size_t i = 0; i < slots && pending > 0; i++) {
        int waits = static_cast<int>(i + i / 8) % counts * pending;
        if (bench->op.bf16_state)
            waits = waits_of(static_cast<int>(i));
        waiting[2 * i].count = waits;
        folding += bench->op.bf16_state ? waits + pending >= GDN_ROUND_TOKENS
                                        : waits + pending + tokens > GDN_WAITING_MAX;
    }
    bench->waiting = upload(waiting, slots * 2);
    free(waiting);
    return folding;
}

// The memory of bench->layers layers.
static void open_states(struct gdn_bench *bench, size_t slots)
{
    size_t keys = static_cast<size_t>(bench->op.key_heads);
    size_t values = static_cast<size_t>(bench->op.value_heads);
    struct gdn_state all = {};
    set_pending(&all, bench->op.bf16_state, ROW_VERIFY_MAX);
    size_t channels = (2 * keys + values) * DIM, layers = static_cast<size_t>(bench->layers);
    size_t rows = slots * static_cast<size_t>(all.pending_rows);
    size_t columns = slots * 2 * static_cast<size_t>(all.pending_columns);
    const size_t state_bytes = slots * values * DIM * DIM * bench->value_bytes;
    all.state = bench_memory(layers * state_bytes, 0);
    all.conv = static_cast<bf16 *>(bench_memory(layers * slots * 3 * channels * 2, 0));
    all.pending_k = static_cast<float *>(bench_memory(layers * rows * keys * DIM * 4, 0));
    all.pending_u = static_cast<float *>(bench_memory(layers * rows * values * DIM * 4, 0));
    all.pending_g = static_cast<float *>(bench_memory(layers * rows * values * 4, 0));
    all.waiting = bench->waiting;
    all.pending_conv = static_cast<bf16 *>(bench_memory(layers * columns * channels * 2, 0));
    for (int i = 0; i < bench->layers; i++) {
        bench->states[i] = all;
        all.state = static_cast<uint8_t *>(all.state) + state_bytes;
        all.conv += slots * 3 * channels;
        all.pending_k += rows * keys * DIM;
        all.pending_u += rows * values * DIM;
        all.pending_g += rows * values;
        all.pending_conv += columns * channels;
    }
}

// pending < 0: prefill rows.
static void bench_gdn(int key_heads, int value_heads, int rows, int tokens, int pending,
                      bool bf16_state = false)
{
    struct gdn_bench bench = {};
    struct gdn *op = &bench.op;
    bool decode = pending >= 0;
    size_t slots = static_cast<size_t>(rows), all = slots * static_cast<size_t>(tokens);
    size_t keys = static_cast<size_t>(key_heads), values = static_cast<size_t>(value_heads);
    size_t channels = (2 * keys + values) * DIM, stride = channels + values * (DIM + 2);
    bench.value_bytes = static_cast<size_t>(gdn_state_bytes(bf16_state));
    size_t state_bytes = slots * values * DIM * DIM * bench.value_bytes;
    char shape[96];
    make_tables(op, rows, tokens, decode ? ROW_DECODE : ROW_PREFILL, decode ? pending : 0);
    op->key_heads = key_heads;
    op->value_heads = value_heads;
    op->projected_stride = static_cast<int>(stride);
    op->bf16_state = bf16_state;
    op->projected = static_cast<bf16 *>(bench_memory(all * stride * 2, 1));
    op->conv_weight = static_cast<float *>(bench_memory(channels * 16, 0));
    op->a_log = static_cast<float *>(bench_memory(values * 4, 0));
    op->dt_bias = static_cast<float *>(bench_memory(values * 4, 0));
    op->o = static_cast<bf16 *>(bench_memory(all * values * DIM * 2, 0));
    if (!decode) {
        op->workspace.chunks = gdn_workspace_chunks(static_cast<int>(all));
        size_t chunks = static_cast<size_t>(op->workspace.chunks);
        op->workspace.tiles =
            static_cast<bf16 *>(bench_memory(chunks * (keys + values) * GDN_TILE_VALUES * 2, 0));
        op->workspace.factors =
            static_cast<float *>(bench_memory(chunks * values * GDN_FACTORS * 4, 0));
    }
    bench.layers = bench_turns(state_bytes) < 64 ? bench_turns(state_bytes) : 64;
    size_t folding = open_waiting(&bench, slots, tokens, pending);
    open_states(&bench, slots);
    // Decode reads the state and, where a row folds, writes it; prefill does both, has to move its
    // inputs and outputs, and multiplies about 5.2 MFLOP a token for 32 heads in chunks of 64.
    double bytes = static_cast<double>(state_bytes) *
                   (decode ? 1 + static_cast<double>(folding) / static_cast<double>(slots) : 2);
    bytes += static_cast<double>(all) * static_cast<double>((stride + values * DIM) * 2);
    double flops = decode ? 0 : static_cast<double>(all * values) * 162500;
    snprintf(shape, sizeof shape, "%s%s heads=%d/%d rows=%d T=%d pending=%d",
             decode ? "decode" : "prefill", bf16_state ? " bf16" : "", key_heads, value_heads, rows,
             tokens, pending);
    struct bench_case what = {"gdn", shape, bytes, flops};
    bench_run(&what, launch_bench, &bench, bench.layers);
    bench_clear();
}

BENCH(gdn)
{
    for (int rows : {1, 2, 4, 8, 16, 24, 64, 256})
        bench_gdn(16, 32, rows, 1, 1);
    for (int rows : {1, 8, 64, 256})
        bench_gdn(16, 32, rows, 4, 3);
    bench_gdn(4, 8, 64, 1, 1);
    bench_gdn(16, 64, 1, 1, 1);
    for (int tokens : {16, 32, 64, 128, 512, 1024, 8192, 32768})
        bench_gdn(16, 32, 1, tokens, -1);
    bench_gdn(16, 32, 8, 1024, -1);
    bench_gdn(16, 32, 64, 128, -1);
    bench_gdn(4, 8, 1, 8192, -1);
    for (int rows : {1, 2, 4, 8, 16, 24, 64, 256})
        bench_gdn(16, 32, rows, 1, 1, true);
    for (int rows : {1, 8, 64, 256})
        bench_gdn(16, 32, rows, 4, 3, true);
    for (int tokens : {16, 128, 8192})
        bench_gdn(16, 32, 1, tokens, -1, true);
}
