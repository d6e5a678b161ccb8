// SPDX-License-Identifier: Apache-2.0
// attention.c -- gated attention over KV pages on the CPU. Softmax is carried from page to page
// (64 absolute positions each), so what a token gets depends on its position and the pages alone.
// Up to 16 (token, query head) pairs that share a KV head run together, to convert keys and
// values once for all of them. Owns nothing.
#include "kernels/attention.h"

#include <math.h>
#include <string.h>

#include "kernels/runtime_cpu.h"
#include "kernels/twins/twins.h"
#include "kernels/twins/vector.h"

enum {
    HEAD_DIM_MAX = 256,
    QUERIES = 16, // (token, head) pairs in a tile
    PAGE_TOKENS = ATTENTION_PAGE_TOKENS,
};

// Cosine and sine of every rotary pair at one position.
struct rotation {
    double cosine[HEAD_DIM_MAX / 2], sine[HEAD_DIM_MAX / 2];
};

// Queries that share a KV head, with their running softmax.
struct tile {
    int count, kv_head;
    int skip, keys[QUERIES]; // of the page at hand: keys skip .. keys[i] are query i's
    int position[QUERIES];
    size_t gate_at[QUERIES], y_at[QUERIES]; // in projected and y
    _Alignas(64) double q[QUERIES][HEAD_DIM_MAX];
    _Alignas(64) double sum[QUERIES][HEAD_DIM_MAX]; // of weight * v, not normalised
    double weight[QUERIES], largest[QUERIES];
    double scores[QUERIES][PAGE_TOKENS];
};

// The angle is position * frequency in f32, as the models were trained with.
static void make_rotation(struct rotation *rotation, const struct attention *op, int position)
{
    for (int i = 0; i < op->rotary_dim / 2; i++) {
        float angle = (float)position * op->inverse_frequencies[i];
        rotation->cosine[i] = cos((double)angle) * (double)op->rotary_scale;
        rotation->sine[i] = sin((double)angle) * (double)op->rotary_scale;
    }
}

// y = rotated norm of one head of q or k, and zeros up to a multiple of eight.
static void norm_rotate(double *y, const bf16 *x, const float *norm, const struct attention *op,
                        const struct rotation *rotation)
{
    int half = op->rotary_dim / 2;
    norm_row_twin(y, x, norm, (double)op->eps, op->head_dim);
    for (int i = 0; i < half; i++) {
        double low = y[i], high = y[i + half];
        y[i] = low * rotation->cosine[i] - high * rotation->sine[i];
        y[i + half] = high * rotation->cosine[i] + low * rotation->sine[i];
    }
    for (int i = op->head_dim; i < VECTOR_ROUND_UP(op->head_dim); i++)
        y[i] = 0;
}

static const bf16 *projected_row(const struct attention *op, int token)
{
    return op->projected + (size_t)token * (size_t)op->projected_stride;
}

// Where the page of `position` of a slot begins, for one KV head.
static size_t page_at(const struct attention *op, int slot, int position, int kv_head)
{
    int page = position / PAGE_TOKENS;
#ifdef PLANT_attention_first_page
    page = 0; // later tokens land on the first page
#endif
    ASSERT(position >= 0 && page < op->slots.pages_per_sequence);
    int32_t id =
        op->slots.block_table[(size_t)slot * (size_t)op->slots.pages_per_sequence + (size_t)page];
    ASSERT(id >= 0);
    return ((size_t)id * (size_t)op->kv_heads + (size_t)kv_head) * PAGE_TOKENS *
           (size_t)op->head_dim;
}

// Writes k (normalised, rotated, rounded) and v of one token to its page; keys: its [k | v].
static void append(const struct attention *op, int slot, int token, const bf16 *keys)
{
    double k[HEAD_DIM_MAX];
    struct rotation rotation;
    int position = op->tables.token_positions[token];
    size_t head_dim = (size_t)op->head_dim;
    const bf16 *values = keys + (size_t)op->kv_heads * head_dim;
    make_rotation(&rotation, op, position);
    for (int head = 0; head < op->kv_heads; head++) {
        size_t at = page_at(op, slot, position, head) + (size_t)(position % PAGE_TOKENS) * head_dim;
        norm_rotate(k, keys + (size_t)head * head_dim, op->k_norm, op, &rotation);
        for (int i = 0; i < op->head_dim; i++)
            op->k_pages[at + (size_t)i] = bf16_from_double(k[i]);
        memcpy(op->v_pages + at, values + (size_t)head * head_dim, head_dim * sizeof(bf16));
    }
}

// Query `first` .. of the row's (token, head of the group) pairs, for one KV head.
static void load_tile(struct tile *tile, const struct attention *op, const struct step_row *row,
                      int first)
{
    int group = op->heads / op->kv_heads, last_token = -1;
    size_t head_dim = (size_t)op->head_dim;
    struct rotation rotation;
    for (int i = 0; i < tile->count; i++) {
        int token = row->token_first + (first + i) / group;
        size_t head = (size_t)(tile->kv_head * group + (first + i) % group);
        size_t heads = (size_t)op->heads;
        if (token != last_token)
            make_rotation(&rotation, op, op->tables.token_positions[token]);
        last_token = token;
        norm_rotate(tile->q[i], projected_row(op, token) + head * head_dim, op->q_norm, op,
                    &rotation);
        tile->position[i] = op->tables.token_positions[token];
        tile->gate_at[i] = (size_t)token * (size_t)op->projected_stride + (heads + head) * head_dim;
        tile->y_at[i] = ((size_t)token * heads + head) * head_dim;
        tile->weight[i] = 0;
        tile->largest[i] = -INFINITY;
        for (int j = 0; j < op->head_dim; j++) {
            tile->q[i][j] = (double)bf16_to_float(bf16_from_double(tile->q[i][j]));
            tile->sum[i][j] = 0;
        }
    }
}

// For VECTOR_PURE: keys skip .. keys of a page are read; tiles are their thread's own.
VECTOR_PURE
static inline void reads_keys(const struct tile *tile, const bf16 *page, int keys, int head_dim)
{
    size_t row = (size_t)head_dim, skip = (size_t)tile->skip;
    if (keys > tile->skip)
        vector_reads(page + skip * row, ((size_t)keys - skip) * row * sizeof *page);
}

// Scores of keys skip .. keys of a page for all queries of the tile. A score past a query's own
// position is computed from whatever lies there and not used.
VECTOR_CLONES
static void score_page(struct tile *tile, const bf16 *k_page, int keys, int head_dim)
{
    _Alignas(64) double k[2][HEAD_DIM_MAX];
    int width = VECTOR_ROUND_UP(head_dim);
    double scale = 1 / sqrt((double)head_dim);
    reads_keys(tile, k_page, keys, head_dim);
    for (int key = tile->skip; key < keys; key += 2) {
        int second = key + 1 < keys ? key + 1 : key;
        vector_from_bf16(k[0], k_page + (size_t)key * (size_t)head_dim, head_dim);
        vector_from_bf16(k[1], k_page + (size_t)second * (size_t)head_dim, head_dim);
        for (int i = 0; i < tile->count; i += 2) {
            int other = i + 1 < tile->count ? i + 1 : i;
            double pair[2][2];
            vector_dot_2x2(pair, (const double *const[2]){tile->q[i], tile->q[other]},
                           (const double *const[2]){k[0], k[1]}, width);
            tile->scores[i][key] = pair[0][0] * scale;
            tile->scores[i][second] = pair[0][1] * scale;
            tile->scores[other][key] = pair[1][0] * scale;
            tile->scores[other][second] = pair[1][1] * scale;
        }
    }
}

// Turns the scores of a page into weights relative to the largest so far; sums that were relative
// to a smaller one are scaled down first.
VECTOR_CLONES
static void weigh_page(struct tile *tile, int query, int head_dim)
{
    double *scores = tile->scores[query];
    double largest = tile->largest[query];
    int keys = tile->keys[query];
    for (int key = tile->skip; key < keys; key++)
        largest = scores[key] > largest ? scores[key] : largest;
    double scale = exp(tile->largest[query] - largest);
    tile->weight[query] *= scale;
    for (int i = 0; i < head_dim; i++)
        tile->sum[query][i] *= scale;
    for (int key = tile->skip; key < keys; key++) {
        scores[key] = exp(scores[key] - largest);
        tile->weight[query] += scores[key];
    }
    tile->largest[query] = largest;
}

// sum += weight * v, key after key, for the keys that each query may see.
VECTOR_CLONES
static void add_values(struct tile *tile, const bf16 *v_page, int keys_most, int head_dim)
{
    _Alignas(64) double v[HEAD_DIM_MAX];
    reads_keys(tile, v_page, keys_most, head_dim);
    for (int key = tile->skip; key < keys_most; key++) {
        vector_from_bf16(v, v_page + (size_t)key * (size_t)head_dim, head_dim);
        for (int query = 0; query < tile->count; query++) {
            if (key >= tile->keys[query])
                continue;
            double weight = tile->scores[query][key];
            double *restrict sum = tile->sum[query];
            for (int i = 0; i < head_dim; i++)
                sum[i] += weight * v[i];
        }
    }
}

static void store_tile(const struct tile *tile, const struct attention *op, double *unrounded)
{
    for (int query = 0; query < tile->count; query++) {
        const bf16 *gate = op->projected + tile->gate_at[query];
        bool blind = tile->position[query] < op->position_first; // else it would be 0 / 0
        for (int i = 0; i < op->head_dim; i++) {
            double open = 1 / (1 + exp(-(double)bf16_to_float(gate[i])));
            double y = blind ? 0 : tile->sum[query][i] / tile->weight[query] * open;
            if (unrounded != NULL)
                unrounded[tile->y_at[query] + (size_t)i] = y;
            else
                op->y[tile->y_at[query] + (size_t)i] = bf16_from_double(y);
        }
    }
}

static void run_tile(struct tile *tile, const struct attention *op, int slot)
{
    int last = 0;
    for (int i = 0; i < tile->count; i++)
        last = tile->position[i] > last ? tile->position[i] : last;
    int page_first = op->position_first / PAGE_TOKENS * PAGE_TOKENS;
    for (int first = page_first; first <= last; first += PAGE_TOKENS) {
        int keys_most = 0;
        tile->skip = op->position_first > first ? op->position_first - first : 0;
        for (int i = 0; i < tile->count; i++) {
            int seen = tile->position[i] + 1 - first;
            tile->keys[i] = seen < 0 ? 0 : seen > PAGE_TOKENS ? PAGE_TOKENS : seen;
            keys_most = tile->keys[i] > keys_most ? tile->keys[i] : keys_most;
        }
        size_t at = page_at(op, slot, first, tile->kv_head);
        score_page(tile, op->k_pages + at, keys_most, op->head_dim);
        for (int i = 0; i < tile->count; i++) {
            if (tile->keys[i] > tile->skip)
                weigh_page(tile, i, op->head_dim);
        }
        add_values(tile, op->v_pages + at, keys_most, op->head_dim);
    }
}

static void run_row(const struct attention *op, const struct step_row *row, int tokens,
                    double *unrounded)
{
    struct tile tile;
    int queries = tokens * (op->heads / op->kv_heads);
    size_t keys_first = 2 * (size_t)op->heads * (size_t)op->head_dim;
    ASSERT(row->slot >= 0 && row->slot < op->slots.slots_count);
    for (int i = 0; i < tokens; i++) {
        int token = row->token_first + i;
        append(op, row->slot, token, projected_row(op, token) + keys_first);
    }
    for (tile.kv_head = 0; tile.kv_head < op->kv_heads; tile.kv_head++) {
        for (int first = 0; first < queries; first += QUERIES) {
            tile.count = queries - first < QUERIES ? queries - first : QUERIES;
            load_tile(&tile, op, row, first);
            run_tile(&tile, op, row->slot);
            store_tile(&tile, op, unrounded);
        }
    }
}

void attention_twin(double *y, const struct attention *op)
{
    size_t values = (size_t)op->tables.tokens_count * (size_t)op->heads * (size_t)op->head_dim;
    // Tokens that do not run leave zeros.
    if (y != NULL) {
        for (size_t i = 0; i < values; i++)
            y[i] = 0;
    } else {
        memset(op->y, 0, values * sizeof(bf16));
    }
    for (int i = 0; i < op->tables.rows_count; i++) {
        if (op->tables.active_count[i] > 0)
            run_row(op, &op->tables.rows[i], op->tables.active_count[i], y);
    }
}

static void run(const void *arguments)
{
    attention_twin(NULL, arguments);
}

// What both ops need of their arguments.
static void check(const struct attention *op)
{
    ASSERT(op->kv_heads > 0 && op->heads > 0 && op->heads % op->kv_heads == 0);
    ASSERT(op->head_dim > 0 && op->head_dim <= HEAD_DIM_MAX);
    ASSERT(op->rotary_dim >= 0 && op->rotary_dim % 2 == 0 && op->rotary_dim <= op->head_dim);
    ASSERT(op->k_pages != NULL && op->v_pages != NULL && op->projected != NULL);
    ASSERT(op->k_norm != NULL && op->inverse_frequencies != NULL);
    ASSERT(op->slots.block_table != NULL && op->slots.pages_per_sequence > 0);
}

void attention(struct stream *stream, const struct attention *op)
{
    check(op);
    ASSERT(op->position_first >= 0 && op->q_norm != NULL && op->y != NULL);
    ASSERT(op->projected_stride >= 2 * (op->heads + op->kv_heads) * op->head_dim);
    stream_run(stream, run, op, sizeof *op);
}

static void run_append(const void *arguments)
{
    const struct attention *op = arguments;
    for (int i = 0; i < op->tables.rows_count; i++) {
        const struct step_row *row = &op->tables.rows[i];
        for (int t = 0; t < op->tables.active_count[i]; t++) {
            int token = row->token_first + t;
            append(op, row->slot, token, projected_row(op, token));
        }
    }
}

void attention_append(struct stream *stream, const struct attention *op)
{
    check(op);
    ASSERT(op->projected_stride >= 2 * op->kv_heads * op->head_dim);
    stream_run(stream, run_append, op, sizeof *op);
}
