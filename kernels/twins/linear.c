// SPDX-License-Identifier: Apache-2.0
// linear.c -- x W^T in tiles that keep converted values in the first-level cache. No allocation.
#include "kernels/twins/linear.h"

#include "kernels/twins/vector.h"

enum { BLOCK = 256 }; // columns; 16 converted rows of x are then 32 KiB

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
    for (int token = 0; token < tile->tokens; token++) {
        for (int row = 0; row < tile->rows; row++)
            sums[token][row] = 0;
    }
    for (int first = 0; first < tile->columns; first += BLOCK) {
        int columns = tile->columns - first < BLOCK ? tile->columns - first : BLOCK;
        for (int token = 0; token < tile->tokens; token++)
            vector_from_bf16(x[token], tile->x[token] + first, columns);
        for (int row = 0; row < tile->rows; row += 2) {
            const bf16 *from = tile->w + (size_t)row * (size_t)tile->columns + first;
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
