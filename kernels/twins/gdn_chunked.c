// SPDX-License-Identifier: Apache-2.0
// gdn_chunked.c -- the chunked form as its formulas stand, one chunk after the other. Owns nothing.
#include "kernels/twins/gdn_chunked.h"

#include <math.h>

#include "kernels/gdn.h"

enum { DIM = GDN_HEAD_DIM, CHUNK = GDN_CHUNK_TOKENS };

// A chunk's own view of its tokens.
struct chunk {
    int tokens;
    const double *q, *k, *v, *beta;
    double decay[CHUNK];         // G
    double solved[CHUNK][CHUNK]; // T
    double u[CHUNK][DIM];
};

static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < DIM; i++)
        sum += a[i] * b[i];
    return sum;
}

// Row i of T: column j of (I + A) X = diag(beta), solved downwards.
static void solve(struct chunk *chunk)
{
    for (int i = 0; i < chunk->tokens; i++) {
        for (int j = 0; j < CHUNK; j++)
            chunk->solved[i][j] = i == j ? chunk->beta[i] : 0;
        for (int m = 0; m < i; m++) {
            double a = chunk->beta[i] * dot(chunk->k + i * DIM, chunk->k + m * DIM) *
                       exp(chunk->decay[i] - chunk->decay[m]);
            for (int j = 0; j <= m; j++)
                chunk->solved[i][j] -= a * chunk->solved[m][j];
        }
    }
}

static void correct(struct chunk *chunk, const double *state)
{
    for (int row = 0; row < DIM; row++) {
        double rest[CHUNK];
        for (int j = 0; j < chunk->tokens; j++)
            rest[j] = chunk->v[j * DIM + row] -
                      exp(chunk->decay[j]) * dot(state + row * DIM, chunk->k + j * DIM);
        for (int i = 0; i < chunk->tokens; i++) {
            chunk->u[i][row] = 0;
            for (int j = 0; j <= i; j++)
                chunk->u[i][row] += chunk->solved[i][j] * rest[j];
        }
    }
}

static void read_out(double *o, const struct chunk *chunk, const double *state)
{
    for (int i = 0; i < chunk->tokens; i++) {
        const double *q = chunk->q + i * DIM;
        double decay = chunk->decay[i];
        for (int row = 0; row < DIM; row++)
            o[i * DIM + row] = exp(decay) * dot(state + row * DIM, q) / sqrt((double)DIM);
        for (int j = 0; j <= i; j++) {
            double p = dot(q, chunk->k + j * DIM) * exp(decay - chunk->decay[j]);
            for (int row = 0; row < DIM; row++)
                o[i * DIM + row] += p * chunk->u[j][row] / sqrt((double)DIM);
        }
    }
}

static void move_on(double *state, const struct chunk *chunk)
{
    double last = chunk->decay[chunk->tokens - 1];
    for (int i = 0; i < DIM * DIM; i++)
        state[i] *= exp(last);
    for (int j = 0; j < chunk->tokens; j++) {
        double decay = exp(last - chunk->decay[j]);
        for (int row = 0; row < DIM; row++) {
            for (int i = 0; i < DIM; i++)
                state[row * DIM + i] += decay * chunk->k[j * DIM + i] * chunk->u[j][row];
        }
    }
}

void gdn_chunked_run(double *o, double *state, const struct gdn_chunked *in)
{
    struct chunk chunk;
    for (int first = 0; first < in->tokens; first += CHUNK) {
        double decay = 0;
        chunk.tokens = in->tokens - first < CHUNK ? in->tokens - first : CHUNK;
        chunk.q = in->q + first * DIM;
        chunk.k = in->k + first * DIM;
        chunk.v = in->v + first * DIM;
        chunk.beta = in->beta + first;
        for (int i = 0; i < chunk.tokens; i++)
            chunk.decay[i] = decay += in->g[first + i];
        solve(&chunk);
        correct(&chunk, state);
        read_out(o + first * DIM, &chunk, state);
        move_on(state, &chunk);
    }
}
