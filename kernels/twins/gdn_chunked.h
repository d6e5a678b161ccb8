// SPDX-License-Identifier: Apache-2.0
// gdn_chunked.h -- the chunked form of Gated DeltaNet in double, as the prefill kernels compute it:
// 64 tokens at a time, what the tokens of a chunk do to one another solved as a triangular system.
// Equal to the recurrence of kernels/gdn.h but for rounding. Source: Yang, Kautz, Hatamizadeh,
// Gated Delta Networks, 2024, section 3.3; the system's inverse is the WY form of Bischof and Van
// Loan, 1987.
//
// G_i = g_0 + .. + g_i within the chunk; i, j are its tokens, S the state before it:
//   A_ij = beta_i (k_i . k_j) exp(G_i - G_j) for j < i, else 0;  T = (I + A)^-1 diag(beta)
//   u_i  = sum_j T_ij (v_j - exp(G_j) S^T k_j)
//   o_i  = (exp(G_i) S^T q_i + sum_{j <= i} (q_i . k_j) exp(G_i - G_j) u_j) / sqrt(128)
//   S   <- exp(G_last) S + sum_j exp(G_last - G_j) k_j u_j^T
// Differences of G are taken only where j <= i: there they are never positive.
#pragma once

// One value head's tokens, q and k normalised.
struct gdn_chunked {
    int tokens;
    const double *q, *k, *v; // [tokens, 128]
    const double *g, *beta;  // [tokens], g = log alpha <= 0
};

// Runs the tokens in chunks from the first on, the last one ragged: o [tokens, 128] out, state
// [value_dim, key_dim] in and out.
void gdn_chunked_run(double *o, double *state, const struct gdn_chunked *in);
