// SPDX-License-Identifier: Apache-2.0
// linear.c -- x W^T in tiles that keep converted values in the first-level cache. No allocation.
#include "kernels/twins/linear.h"

#include "kernels/twins/vector.h"

enum { BLOCK = 256 }; // columns; 16 converted rows of x are then 32 KiB

// Sixteen bf16 as doubles, to[0 .. 4) of four each, without a detour through memory. Types are
// twice as wide as the machine's: gcc 12 then widens whole registers and not halves of them.
#define LOAD16_BF16(to, pointer)                                                                   \
    do {                                                                                           \
        uint16_t __attribute__((vector_size(32))) narrow_;                                         \
        uint32_t __attribute__((vector_size(64))) bits_;                                           \
        float __attribute__((vector_size(32))) floats_[2];                                         \
        double __attribute__((vector_size(64))) doubles_;                                          \
        VECTOR_LOAD(narrow_, pointer);                                                             \
        bits_ = __builtin_convertvector(narrow_, __typeof__(bits_)) << 16;                         \
        memcpy(floats_, &bits_, sizeof floats_);                                                   \
        doubles_ = __builtin_convertvector(floats_[0], __typeof__(doubles_));                      \
        memcpy((to), &doubles_, sizeof doubles_);                                                  \
        doubles_ = __builtin_convertvector(floats_[1], __typeof__(doubles_));                      \
        memcpy((to) + 2, &doubles_, sizeof doubles_);                                              \
    } while (0)

// sums[0 .. 2) += x . w[0 .. 2) for one token: W goes straight from bf16 into the sum, since
// nobody else needs it converted. count is a multiple of sixteen.
VECTOR_INLINE void add_one_token(double *sums, const double *x, const bf16 *const w[2], int count)
{
    DOUBLE4 low0 = {0}, high0 = {0}, low1 = {0}, high1 = {0};
    for (int i = 0; i < count; i += 2 * VECTOR_LANES) {
        DOUBLE4 x4[4], w4[4];
        memcpy(x4, x + i, sizeof x4);
        LOAD16_BF16(w4, w[0] + i);
        low0 += x4[0] * w4[0];
        high0 += x4[1] * w4[1];
        low0 += x4[2] * w4[2];
        high0 += x4[3] * w4[3];
        LOAD16_BF16(w4, w[1] + i);
        low1 += x4[0] * w4[0];
        high1 += x4[1] * w4[1];
        low1 += x4[2] * w4[2];
        high1 += x4[3] * w4[3];
    }
    double sum[2];
    VECTOR_SUM(low0, high0, &sum[0]);
    VECTOR_SUM(low1, high1, &sum[1]);
    sums[0] += sum[0];
    sums[1] += sum[1];
}

// sums[t][row .. row + rows) += this block's part, rows being 1 or 2.
VECTOR_INLINE void add_rows(double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS], double x[][BLOCK],
                            double w[2][BLOCK], const struct linear_tile *tile, int row,
                            int columns)
{
    int rows = tile->rows - row < 2 ? 1 : 2;
    int token = 0;
    if (rows == 2) {
        for (; token + 2 <= tile->tokens; token += 2) {
            double pair[2][2];
            vector_dot_2x2(pair, (const double *const[2]){x[token], x[token + 1]},
                           (const double *const[2]){w[0], w[1]}, columns);
            for (int i = 0; i < 2; i++) {
                sums[token + i][row] += pair[i][0];
                sums[token + i][row + 1] += pair[i][1];
            }
        }
    }
    for (; token < tile->tokens; token++) {
        for (int i = 0; i < rows; i++)
            sums[token][row + i] += vector_dot(x[token], w[i], columns);
    }
}

VECTOR_CLONES
static void sum_tile(double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS],
                     const struct linear_tile *tile)
{
    _Alignas(64) double x[LINEAR_TILE_TOKENS][BLOCK];
    _Alignas(64) double w[2][BLOCK];
    size_t row_bytes = (size_t)tile->columns * sizeof(bf16);
    vector_reads(tile->w, (size_t)tile->rows * row_bytes);
    for (int token = 0; token < tile->tokens; token++) {
        vector_reads(tile->x[token], row_bytes);
        for (int row = 0; row < tile->rows; row++)
            sums[token][row] = 0;
    }
    for (int first = 0; first < tile->columns; first += BLOCK) {
        int columns = tile->columns - first < BLOCK ? tile->columns - first : BLOCK;
        for (int token = 0; token < tile->tokens; token++)
            vector_from_bf16(x[token], tile->x[token] + first, columns);
        for (int row = 0; row < tile->rows; row += 2) {
            const bf16 *from = tile->w + (size_t)row * (size_t)tile->columns + first;
            if (tile->tokens == 1 && row + 1 < tile->rows && columns % 16 == 0) {
                add_one_token(&sums[0][row], x[0],
                              (const bf16 *const[2]){from, from + tile->columns}, columns);
                continue;
            }
            vector_from_bf16(w[0], from, columns);
            if (row + 1 < tile->rows)
                vector_from_bf16(w[1], from + tile->columns, columns);
            add_rows(sums, x, w, tile, row, VECTOR_ROUND_UP(columns));
        }
    }
}

void linear_tile_sum(double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS],
                     const struct linear_tile *tile)
{
    sum_tile(sums, tile);
}

// One of the three is not NULL.
struct output {
    double *as_double;
    float *as_float;
    bf16 *as_bf16;
};

static void store(const struct output *y, size_t first, const double *sums, int count)
{
    for (int i = 0; i < count; i++) {
        if (y->as_bf16 != NULL)
            y->as_bf16[first + (size_t)i] = bf16_from_double(sums[i]);
        else if (y->as_float != NULL)
            y->as_float[first + (size_t)i] = (float)sums[i];
        else
            y->as_double[first + (size_t)i] = sums[i];
    }
}

// Tokens run inside rows, so that a tile of W is read from memory once and then from the cache.
static void linear_rows(const struct output *y, const struct linear_rows *linear)
{
    double sums[LINEAR_TILE_TOKENS][LINEAR_TILE_ROWS];
    struct linear_tile tile = {.columns = linear->columns};
    for (int row = 0; row < linear->rows; row += LINEAR_TILE_ROWS) {
        int rows = linear->rows - row;
        tile.rows = rows < LINEAR_TILE_ROWS ? rows : LINEAR_TILE_ROWS;
        tile.w = linear->w + (size_t)row * (size_t)linear->columns;
        for (int token = 0; token < linear->tokens; token += LINEAR_TILE_TOKENS) {
            int tokens = linear->tokens - token;
            tile.tokens = tokens < LINEAR_TILE_TOKENS ? tokens : LINEAR_TILE_TOKENS;
            for (int i = 0; i < tile.tokens; i++) {
                int source = linear->gather != NULL ? linear->gather[token + i] : token + i;
                tile.x[i] = linear->x + (size_t)source * linear->x_stride;
            }
            linear_tile_sum(sums, &tile);
            for (int i = 0; i < tile.tokens; i++)
                store(y, (size_t)(token + i) * (size_t)linear->rows + (size_t)row, sums[i],
                      tile.rows);
        }
    }
}

void linear_rows_double(double *y, const struct linear_rows *linear)
{
    linear_rows(&(struct output){.as_double = y}, linear);
}

void linear_rows_float(float *y, const struct linear_rows *linear)
{
    linear_rows(&(struct output){.as_float = y}, linear);
}

void linear_rows_bf16(bf16 *y, const struct linear_rows *linear)
{
    linear_rows(&(struct output){.as_bf16 = y}, linear);
}
