// SPDX-License-Identifier: Apache-2.0
// gdn.c -- Gated DeltaNet on the CPU, prefill too always token by token, so that cuts, folds and
// neighbours change no bit. Four rows of a head's state go through up to 16 tokens at a time.
#include "kernels/gdn.h"

#include <math.h>
#include <string.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/twins.h"
#include "kernels/twins/vector.h"

enum {
    DIM = GDN_HEAD_DIM,
    HISTORY = GDN_CONV_WIDTH - 1, // columns that a slot keeps
    CHUNK_TOKENS = 16,
    CHUNK_TOKENS_MAX = GDN_CHUNK_TOKENS,
    STATE_ROWS = 4, // carried together, so that their sums overlap
};

// A row of the step on its way through the layer.
struct walk {
    const struct gdn *op;
    double *unrounded; // o of all tokens, or NULL: op->o
    size_t channels;
    size_t slot, pending_from, pending_to; // index of slot * 2 + parity, read and written
    int token_first, tokens;
    int accepted;             // of the last step's rows
    struct gdn_waiting waits; // rows to fold, those of the last step among them
    bool decode;
    bool by_chunks;               // with bf16_state: rounds where the kernels of chunked prefill do
    int folded;                   // of the rows that wait, into memory
    int position;                 // of the row's first token
    const struct row_save *saves; // checkpoints that a prefill row leaves
    int saves_count;
    // Behind the chunk before: own tokens have come to memory; own tokens in the ring since.
    bool stored;
    int left;
};

// Tokens of a key head and one of its value heads, in double, all values f32.
struct chunk {
    int first, tokens; // of the row's tokens
    bool stores;       // the state behind it goes to memory; else its tokens go to the ring
    double q[CHUNK_TOKENS_MAX][DIM], k[CHUNK_TOKENS_MAX][DIM], v[CHUNK_TOKENS_MAX][DIM];
    double alpha[CHUNK_TOKENS_MAX], beta[CHUNK_TOKENS_MAX];
};

// One token applied to one row of the state, the fold's case included.
struct update {
    const double *k;
    double alpha, u;
};

// Place of the waiting row i, or behind them of the row's own tokens, in all slots' rings.
static size_t pending_row(const struct walk *walk, int i)
{
    int places = walk->op->state.pending_rows;
    return walk->slot * (size_t)places + (size_t)((walk->waits.first + i) % places);
}

// Of the chunk's token i.
static int own_row(const struct walk *walk, int i)
{
    return walk->waits.count + walk->left + i;
}

static bool rounds_at(const struct walk *walk, int position)
{
    return walk->op->bf16_state && position % GDN_ROUND_TOKENS == 0;
}

static size_t pending_k_at(const struct walk *walk, int i, int key_head)
{
    return (pending_row(walk, i) * (size_t)walk->op->key_heads + (size_t)key_head) * DIM;
}

static size_t pending_g_at(const struct walk *walk, int i, int value_head)
{
    return pending_row(walk, i) * (size_t)walk->op->value_heads + (size_t)value_head;
}

static bf16 *conv_columns(const struct walk *walk)
{
    return walk->op->state.conv + walk->slot * HISTORY * walk->channels;
}

static bf16 *pending_columns(const struct walk *walk, size_t buffer)
{
    return walk->op->state.pending_conv +
           buffer * (size_t)walk->op->state.pending_columns * walk->channels;
}

// Raw projection of token `token` of the row. Before token 0 lie the last of {history, accepted
// pending rows}, which stand in the pending buffer; when nothing is pending, the slot's columns.
static const bf16 *column(const struct walk *walk, int token)
{
    if (token >= 0) {
        return walk->op->projected +
               (size_t)(walk->token_first + token) * (size_t)walk->op->projected_stride;
    }
    const bf16 *history = walk->accepted > 0 ? pending_columns(walk, walk->pending_from) +
                                                   (size_t)walk->accepted * walk->channels
                                             : conv_columns(walk);
    return history + (size_t)(HISTORY + token) * walk->channels;
}

// A prefill row's last columns become the slot's, and those at its checkpoints theirs. A decode row
// leaves its history and its own in the other parity.
static void keep_conv(const struct walk *walk)
{
    for (int i = 0; i < walk->saves_count; i++) {
        bf16 *to = walk->op->checkpoints.conv +
                   (size_t)walk->saves[i].checkpoint * HISTORY * walk->channels;
        for (int k = 0; k < HISTORY; k++)
            memcpy(to + (size_t)k * walk->channels,
                   column(walk, walk->saves[i].tokens - HISTORY + k),
                   walk->channels * sizeof(bf16));
    }
    int first = walk->decode ? -HISTORY : walk->tokens - HISTORY;
    bf16 *to = walk->decode ? pending_columns(walk, walk->pending_to) : conv_columns(walk);
    // Ascending order: a column is read before it is overwritten.
    for (int token = first; token < walk->tokens; token++, to += walk->channels)
        memmove(to, column(walk, token), walk->channels * sizeof(bf16));
}

// y = bf16(silu(convolution)) of 128 channels of one token.
VECTOR_PURE
static void convolve(double *y, const struct walk *walk, int token, size_t channel)
{
    const float *taps = walk->op->conv_weight + channel * GDN_CONV_WIDTH;
    const bf16 *from[GDN_CONV_WIDTH];
    vector_reads(taps, DIM * GDN_CONV_WIDTH * sizeof *taps);
    for (int tap = 0; tap < GDN_CONV_WIDTH; tap++) {
        from[tap] = column(walk, token - HISTORY + tap) + channel;
        vector_reads(from[tap], DIM * sizeof(bf16));
    }
    for (int i = 0; i < DIM; i++) {
        double sum = 0;
        for (int tap = 0; tap < GDN_CONV_WIDTH; tap++)
            sum += (double)taps[i * GDN_CONV_WIDTH + tap] * (double)bf16_to_float(from[tap][i]);
        y[i] = (double)bf16_to_float(bf16_from_double(sum / (1 + exp(-sum))));
    }
}

VECTOR_PURE
static void l2_normalise(double *x)
{
    double scale = 1 / sqrt(vector_dot(x, x, DIM) + 1e-6);
    for (int i = 0; i < DIM; i++)
        x[i] = (double)(float)(x[i] * scale);
}

static void load_queries_keys(struct chunk *chunk, const struct walk *walk, int key_head)
{
    size_t q_channel = (size_t)key_head * DIM;
    size_t k_channel = (size_t)(walk->op->key_heads + key_head) * DIM;
    for (int i = 0; i < chunk->tokens; i++) {
        convolve(chunk->q[i], walk, chunk->first + i, q_channel);
        convolve(chunk->k[i], walk, chunk->first + i, k_channel);
        l2_normalise(chunk->q[i]);
        l2_normalise(chunk->k[i]);
        if (chunk->stores)
            continue;
        float *to = walk->op->state.pending_k + pending_k_at(walk, own_row(walk, i), key_head);
        for (int j = 0; j < DIM; j++)
            to[j] = (float)chunk->k[i][j];
    }
}

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

static void load_values(struct chunk *chunk, const struct walk *walk, int value_head)
{
    const struct gdn *op = walk->op;
    size_t z_columns = (size_t)op->value_heads * DIM;
    for (int i = 0; i < chunk->tokens; i++) {
        int token = chunk->first + i;
        convolve(chunk->v[i], walk, token, (size_t)(2 * op->key_heads + value_head) * DIM);
        const bf16 *b = column(walk, token) + walk->channels + z_columns + value_head;
        double a = (double)bf16_to_float(b[op->value_heads]) + (double)op->dt_bias[value_head];
        float g = (float)(-exp((double)op->a_log[value_head]) * softplus(a));
        chunk->alpha[i] = exp((double)g);
        chunk->beta[i] = 1 / (1 + exp(-(double)bf16_to_float(b[0])));
        if (!chunk->stores)
            op->state.pending_g[pending_g_at(walk, own_row(walk, i), value_head)] = g;
    }
}

// state <- alpha state + k u, every element rounded to f32.
VECTOR_INLINE void apply(double *restrict state, const struct update *update)
{
    const double *restrict k = update->k;
    double alpha = update->alpha, u = update->u;
    for (int i = 0; i < DIM; i++)
        state[i] = (double)(float)(alpha * state[i] + k[i] * u);
}

// apply, and in the same pass over the row what is read from it next: state . q and state . k of
// the token after, in vector_dot's order.
VECTOR_INLINE void apply_and_read(double *state, const struct update *update, const double *q,
                                  const double *k_next, double reads[2])
{
    DOUBLE4 q_low = {0}, q_high = {0}, k_low = {0}, k_high = {0};
    for (int i = 0; i < DIM; i += VECTOR_LANES) {
        double __attribute__((vector_size(64))) s, k;
        float __attribute__((vector_size(32))) rounded;
        VECTOR_LOAD(s, state + i);
        VECTOR_LOAD(k, update->k + i);
        s = update->alpha * s + k * update->u;
        rounded = __builtin_convertvector(s, __typeof__(rounded));
        s = __builtin_convertvector(rounded, __typeof__(s));
        DOUBLE4 low = __builtin_shufflevector(s, s, 0, 1, 2, 3);
        DOUBLE4 high = __builtin_shufflevector(s, s, 4, 5, 6, 7);
        DOUBLE4 read;
        VECTOR_STORE(state + i, low);
        VECTOR_STORE(state + i + 4, high);
        VECTOR_LOAD(read, q + i);
        q_low += low * read;
        VECTOR_LOAD(read, q + i + 4);
        q_high += high * read;
        VECTOR_LOAD(read, k_next + i);
        k_low += low * read;
        VECTOR_LOAD(read, k_next + i + 4);
        k_high += high * read;
    }
    VECTOR_SUM(q_low, q_high, &reads[0]);
    VECTOR_SUM(k_low, k_high, &reads[1]);
}

// Four rows of the state (value dimensions `row` ..) through the chunk's tokens; o [tokens][4]
// and u [tokens][4] come out.
VECTOR_CLONES
static void run_tokens(double state[STATE_ROWS][DIM], double o[CHUNK_TOKENS_MAX][STATE_ROWS],
                       double u[CHUNK_TOKENS_MAX][STATE_ROWS], const struct chunk *chunk, int row)
{
    const double read_scale = 1 / sqrt((double)DIM);
    double reads[STATE_ROWS][2]; // state . q of this token, state . k of the next
    for (int r = 0; r < STATE_ROWS; r++)
        reads[r][1] = vector_dot(state[r], chunk->k[0], DIM);
    for (int i = 0; i < chunk->tokens; i++) {
        const double *k_next = chunk->k[i + 1 < chunk->tokens ? i + 1 : i];
        for (int r = 0; r < STATE_ROWS; r++) {
            double read = chunk->alpha[i] * reads[r][1];
            u[i][r] = (double)(float)(chunk->beta[i] * (chunk->v[i][row + r] - read));
            const struct update update = {chunk->k[i], chunk->alpha[i], u[i][r]};
            apply_and_read(state[r], &update, chunk->q[i], k_next, reads[r]);
            o[i][r] = reads[r][0] * read_scale;
        }
    }
}

// As bf16 would keep it.
VECTOR_INLINE void round_state(double state[STATE_ROWS][DIM])
{
    for (int r = 0; r < STATE_ROWS; r++) {
        for (int i = 0; i < DIM; i++)
            state[r][i] = (double)bf16_to_float(bf16_from_float((float)state[r][i]));
    }
}

// A value head's state, or part of it: `row` rows of DIM from `base` on.
struct memory {
    void *base;
    size_t row;
    bool bf16_state;
};

// The STATE_ROWS rows of a piece of memory begin here, and have so many bytes.
VECTOR_INLINE uint8_t *memory_rows(const struct memory *memory)
{
    return (uint8_t *)memory->base +
           memory->row * DIM * (size_t)gdn_state_bytes(memory->bf16_state);
}

VECTOR_INLINE size_t memory_bytes(const struct memory *memory)
{
    return (size_t)(STATE_ROWS * DIM * gdn_state_bytes(memory->bf16_state));
}

VECTOR_INLINE void load_state(double state[STATE_ROWS][DIM], const struct memory *memory)
{
    vector_reads(memory_rows(memory), memory_bytes(memory));
    for (int r = 0; r < STATE_ROWS; r++) {
        size_t at = (memory->row + (size_t)r) * DIM;
        if (memory->bf16_state) {
            for (int i = 0; i < DIM; i++)
                state[r][i] = (double)bf16_to_float(((const bf16 *)memory->base)[at + (size_t)i]);
        } else {
            for (int i = 0; i < DIM; i++)
                state[r][i] = (double)((const float *)memory->base)[at + (size_t)i];
        }
    }
}

VECTOR_INLINE void store_state(const struct memory *memory, double state[STATE_ROWS][DIM])
{
    vector_writes(memory_rows(memory), memory_bytes(memory));
    for (int r = 0; r < STATE_ROWS; r++) {
        size_t at = (memory->row + (size_t)r) * DIM;
        if (memory->bf16_state) {
            for (int i = 0; i < DIM; i++)
                ((bf16 *)memory->base)[at + (size_t)i] = bf16_from_float((float)state[r][i]);
        } else {
            for (int i = 0; i < DIM; i++)
                ((float *)memory->base)[at + (size_t)i] = (float)state[r][i];
        }
    }
}

// Applies rows of the ring to four rows of the state: those that wait, and own tokens before the
// chunk; all behind the last own token that has come to memory.
VECTOR_CLONES
static void fold_state(double state[STATE_ROWS][DIM], const struct walk *walk,
                       const struct chunk *chunk, int value_head, const struct memory *memory)
{
    const struct gdn_state *pending = &walk->op->state;
    int key_head = value_head / (walk->op->value_heads / walk->op->key_heads);
    int in_memory = chunk->first == 0 ? 0 : walk->folded;
    int first = walk->stored ? walk->waits.count : in_memory;
    int end = walk->waits.count + walk->left;
    double k[DIM];
#ifdef PLANT_gdn_fold
    end--; // the newest accepted row is lost
#endif
    for (int i = first; i < end; i++) {
        const float *from = pending->pending_k + pending_k_at(walk, i, key_head);
        size_t at = pending_g_at(walk, i, value_head);
        const float *u = pending->pending_u + at * DIM + memory->row % DIM;
        vector_reads(from, DIM * sizeof *from);
        vector_reads(pending->pending_g + at, sizeof(float));
        vector_reads(u, STATE_ROWS * sizeof *u);
        for (int j = 0; j < DIM; j++)
            k[j] = (double)from[j];
        double alpha = exp((double)pending->pending_g[at]);
        for (int r = 0; r < STATE_ROWS; r++) {
            apply(state[r], &(struct update){k, alpha, (double)u[r]});
        }
        int position = walk->position + chunk->first - (walk->waits.count + walk->left) + i + 1;
#ifdef PLANT_gdn_round
        position += i + 1 == end; // that of the newest row is forgotten
#endif
        if (rounds_at(walk, position))
            round_state(state);
        if (chunk->first == 0 && i + 1 == walk->folded)
            store_state(memory, state);
    }
}

static void store_outputs(const struct walk *walk, const struct chunk *chunk,
                          double o[CHUNK_TOKENS_MAX][STATE_ROWS], int value_head, int row)
{
    for (int i = 0; i < chunk->tokens; i++) {
        size_t token = (size_t)(walk->token_first + chunk->first + i);
        size_t at =
            (token * (size_t)walk->op->value_heads + (size_t)value_head) * DIM + (size_t)row;
        for (int r = 0; r < STATE_ROWS; r++) {
            if (walk->unrounded != NULL)
                walk->unrounded[at + (size_t)r] = o[i][r];
            else
                walk->op->o[at + (size_t)r] = bf16_from_double(o[i][r]);
        }
    }
}

// Where a value head's state goes at the chunk's end besides the slot; base NULL: no checkpoint is
// due.
static struct memory saved_state(const struct walk *walk, const struct chunk *chunk, int value_head)
{
    struct memory saved = {.bf16_state = walk->op->bf16_state};
    for (int i = 0; i < walk->saves_count; i++) {
        size_t at = (size_t)walk->saves[i].checkpoint * (size_t)walk->op->value_heads;
        if (walk->saves[i].tokens != chunk->first + chunk->tokens)
            continue;
        saved.base = walk->op->checkpoints.state;
        saved.row = (at + (size_t)value_head) * DIM;
    }
    return saved;
}

// Folds, runs and stores one value head. A decode row stores the state as folded, without its own
// tokens, and leaves u; so does what a prefill row has behind the last place where it stores.
VECTOR_CLONES
static void run_value_head(const struct walk *walk, const struct chunk *chunk, int value_head)
{
    double state[STATE_ROWS][DIM], o[CHUNK_TOKENS_MAX][STATE_ROWS], u[CHUNK_TOKENS_MAX][STATE_ROWS];
    struct memory saved = saved_state(walk, chunk, value_head);
    size_t head = walk->slot * (size_t)walk->op->value_heads + (size_t)value_head;
    for (int row = 0; row < DIM; row += STATE_ROWS) {
        struct memory memory = {walk->op->state.state, head * DIM + (size_t)row,
                                walk->op->bf16_state};
        load_state(state, &memory);
        fold_state(state, walk, chunk, value_head, &memory);
        run_tokens(state, o, u, chunk, row);
        store_outputs(walk, chunk, o, value_head, row);
        if (chunk->stores)
            store_state(&memory, state);
        if (saved.base != NULL)
            store_state(&(struct memory){saved.base, saved.row + (size_t)row, saved.bf16_state},
                        state);
        for (int i = 0; i < chunk->tokens && !chunk->stores; i++) {
            size_t to = pending_g_at(walk, own_row(walk, i), value_head);
            vector_writes(walk->op->state.pending_u + to * DIM + row, STATE_ROWS * sizeof(float));
            for (int r = 0; r < STATE_ROWS; r++)
                walk->op->state.pending_u[to * DIM + (size_t)(row + r)] = (float)u[i][r];
        }
    }
}

// The chunk that begins at `first`: it ends where a checkpoint is due or the state is rounded.
static void cut_chunk(struct chunk *chunk, const struct walk *walk, int first)
{
    int most = walk->by_chunks ? GDN_CHUNK_TOKENS : CHUNK_TOKENS;
    if (walk->op->bf16_state && !walk->by_chunks)
        most = GDN_ROUND_TOKENS - (walk->position + first) % GDN_ROUND_TOKENS;
    int end = first + most < walk->tokens ? first + most : walk->tokens;
    for (int i = 0; i < walk->saves_count; i++) {
        if (walk->saves[i].tokens <= first || walk->saves[i].tokens >= end)
            continue;
        ASSERT(!walk->op->bf16_state); // saves lie where it rounds: no chunk is cut
        end = walk->saves[i].tokens;
    }
    chunk->first = first;
    chunk->tokens = end - first;
    chunk->stores = !walk->decode && (!walk->op->bf16_state || walk->by_chunks ||
                                      rounds_at(walk, walk->position + end));
}

// What the slot's next row finds waiting, besides the tokens of this one if it is a decode row.
static void keep_waiting(const struct walk *walk)
{
    struct gdn_waiting waits = walk->waits, *waiting = walk->op->state.waiting;
    int gone = walk->stored ? waits.count : walk->folded;
    waits.first = (waits.first + gone) % walk->op->state.pending_rows;
    waits.count += (walk->decode ? 0 : walk->left) - gone;
    if (!walk->decode && waits.count == 0)
        waits.first = 0;
    waiting[walk->decode ? walk->pending_to : walk->pending_from] = waits;
}

static void run_row(struct walk *walk)
{
    int group = walk->op->value_heads / walk->op->key_heads;
    struct chunk chunk;
    for (int first = 0; first < walk->tokens; first += chunk.tokens) {
        cut_chunk(&chunk, walk, first);
        for (int key_head = 0; key_head < walk->op->key_heads; key_head++) {
            load_queries_keys(&chunk, walk, key_head);
            for (int i = 0; i < group; i++) {
                load_values(&chunk, walk, key_head * group + i);
                run_value_head(walk, &chunk, key_head * group + i);
            }
        }
        walk->stored |= chunk.stores;
        walk->left = chunk.stores ? 0 : walk->left + chunk.tokens;
    }
    keep_conv(walk);
    keep_waiting(walk);
}

// Rows that wait and that this row folds into memory. With a bf16 state those up to the last place
// of rounding, which for a prefill row may lie behind its own first token: then it stores there.
static int rows_folded(const struct walk *walk, const struct slot *slot, const struct step_row *row)
{
    int count = walk->waits.count, begin = walk->position;
    int end = walk->decode || walk->by_chunks ? begin : begin + walk->tokens;
    if (!walk->op->bf16_state) {
        bool folds = count + walk->tokens > GDN_WAITING_MAX || slot->position == row->pause_at;
        return walk->decode && folds ? count : 0;
    }
    int place = end - end % GDN_ROUND_TOKENS;
    return walk->by_chunks || place > begin || place < begin - count ? 0 : place - (begin - count);
}

static void find_saves(struct walk *walk, const struct step_tables *tables, int row)
{
    walk->saves_count = 0;
    for (int i = 0; i < tables->saves_count; i++) {
        if (tables->saves[i].row == row && walk->saves_count++ == 0)
            walk->saves = &tables->saves[i];
    }
    ASSERT(walk->saves_count == 0 || (!walk->decode && walk->op->checkpoints.state != NULL &&
                                      walk->op->checkpoints.conv != NULL));
}

// Whether the kernels of chunked prefill serve the row, `chunks` of whose room is left.
static bool by_chunks(const struct walk *walk, int *chunks)
{
    int own = (walk->tokens + GDN_CHUNK_TOKENS - 1) / GDN_CHUNK_TOKENS;
    if (walk->decode || walk->tokens < GDN_CHUNKED_TOKENS_MIN)
        return false;
    *chunks -= own;
    return *chunks >= 0 && walk->op->bf16_state;
}

static void run_rows(double *o, const struct gdn *op, int chunks)
{
    const struct step_tables *tables = &op->tables;
    size_t values = (size_t)tables->tokens_count * (size_t)op->value_heads * DIM;
    // Tokens that do not run leave zeros.
    if (o != NULL) {
        for (size_t i = 0; i < values; i++)
            o[i] = 0;
    } else {
        memset(op->o, 0, values * sizeof(bf16));
    }
    for (int i = 0; i < tables->rows_count; i++) {
        const struct step_row *row = &tables->rows[i];
        if (tables->active_count[i] == 0)
            continue;
        ASSERT(row->slot >= 0 && row->slot < op->slots.slots_count);
        const struct slot *slot = &op->slots.slots[row->slot];
        size_t buffers = (size_t)row->slot * 2;
        struct walk walk = {
            .op = op,
            .unrounded = o,
            .channels = (size_t)(2 * op->key_heads + op->value_heads) * DIM,
            .slot = (size_t)row->slot,
            .pending_from = buffers + (size_t)slot->parity,
            .pending_to = buffers + (size_t)(1 - slot->parity),
            .token_first = row->token_first,
            .tokens = tables->active_count[i],
            .accepted = slot->pending,
            .decode = row->kind == ROW_DECODE,
            .position = slot->position,
        };
        find_saves(&walk, tables, i);
        walk.waits = op->state.waiting[walk.pending_from];
        walk.waits.count += slot->pending;
        walk.by_chunks = by_chunks(&walk, &chunks);
        walk.folded = rows_folded(&walk, slot, row);
        ASSERT(slot->pending >= 0 && slot->pending <= ROW_VERIFY_MAX);
        ASSERT(walk.waits.count >= slot->pending);
        ASSERT(walk.waits.count <= (op->bf16_state ? GDN_BF16_WAITING_MAX : GDN_WAITING_MAX));
        ASSERT(!walk.decode || gdn_pending_columns(walk.tokens) <= op->state.pending_columns);
        int behind = walk.decode ? walk.tokens : op->bf16_state ? GDN_ROUND_TOKENS - 1 : 0;
        ASSERT(walk.waits.count + behind <= op->state.pending_rows);
        run_row(&walk);
    }
}

void gdn_twin(double *o, const struct gdn *op)
{
    run_rows(o, op, 0);
}

void gdn_twin_chunks(double *o, const struct gdn *op)
{
    run_rows(o, op, op->workspace.chunks);
}

static void run(const void *arguments)
{
    gdn_twin(NULL, arguments);
}

void gdn(struct stream *stream, const struct gdn *op)
{
    ASSERT(op->key_heads > 0 && op->value_heads % op->key_heads == 0);
    ASSERT(op->projected_stride >=
           (2 * op->key_heads + 2 * op->value_heads) * DIM + 2 * op->value_heads);
    ASSERT(op->projected != NULL && op->o != NULL && op->conv_weight != NULL);
    ASSERT(op->a_log != NULL && op->dt_bias != NULL);
    ASSERT(op->state.state != NULL && op->state.conv != NULL && op->state.pending_k != NULL);
    ASSERT(op->state.pending_u != NULL && op->state.pending_g != NULL);
    ASSERT(op->state.pending_conv != NULL && op->state.waiting != NULL);
    stream_run(stream, run, op, sizeof *op);
}

static void run_open(const void *arguments)
{
    const struct gdn_open *op = arguments;
    size_t state_bytes =
        (size_t)op->value_heads * DIM * DIM * (size_t)gdn_state_bytes(op->bf16_state);
    size_t conv_values = (size_t)(2 * op->key_heads + op->value_heads) * DIM * HISTORY;
    for (int i = 0; i < op->openings_count; i++) {
        size_t slot = (size_t)op->openings[i].slot;
        for (int k = 0; k < op->layers_count; k++) {
            const struct gdn_state *layer = &op->layers[k];
            memset(layer->waiting + 2 * slot, 0, 2 * sizeof *layer->waiting);
            // A later position comes from a checkpoint, whose copy has already filled the slot.
            if (op->openings[i].position > 0)
                continue;
            memset((uint8_t *)layer->state + slot * state_bytes, 0, state_bytes);
            memset(layer->conv + slot * conv_values, 0, conv_values * sizeof(bf16));
        }
    }
}

void gdn_open(struct stream *stream, const struct gdn_open *op)
{
    ASSERT(op->layers != NULL || op->layers_count == 0);
    ASSERT(op->layers_count >= 0 && op->key_heads > 0 && op->value_heads > 0);
    ASSERT(op->openings_count >= 0 && (op->openings != NULL || op->openings_count == 0));
    if (op->layers_count > 0 && op->openings_count > 0)
        stream_run(stream, run_open, op, sizeof *op);
}
