// SPDX-License-Identifier: Apache-2.0
// twins.h -- the ops in plain C before their last rounding: what a kernel's result is held
// against, and what the CPU launchers round. Same inputs as the op, sums in double; owns nothing.
// Products alone are in linear.h.
#pragma once

#include "kernels/attention.h"
#include "kernels/gdn.h"
#include "kernels/linear_push.h"
#include "kernels/moe_push.h"
#include "kernels/slots.h"

// y[i] = x[i] / sqrt(mean(x^2) + eps) * (1 + norm[i]), i < width.
void norm_row_twin(double *y, const bf16 *x, const float *norm, double eps, int width);

// The same, rounded once: how the ops store a normalised row. y may be x.
void norm_row_bf16(bf16 *y, const bf16 *x, const float *norm, double eps, int width);

// The gated rows of linear_push, [tokens, columns]: norm(x) * silu(gate), per head.
void linear_push_gated_twin(double *y, const struct linear_push *op);

// silu(gate) * up of gate_up [2 * width].
void silu_mul_row_twin(double *y, const bf16 *gate_up, int width);

// Everything gdn does, state and pending rows included; o [tokens, value_heads, value_dim] is
// written unrounded instead of op->o.
void gdn_twin(double *o, const struct gdn *op);

// The same, but that with bf16_state rows that find room among op->workspace.chunks round where
// rows do that are served by chunks.
void gdn_twin_chunks(double *o, const struct gdn *op);

// Everything attention does, appending included; y [tokens, heads * head_dim] unrounded instead
// of op->y.
void attention_twin(double *y, const struct attention *op);

// The combined sums of moe_push, [tokens, hidden], unrounded; op->middle is written on the way.
void moe_push_twin(double *y, const struct moe_push *op);

// Philox4x32-10 as published: what sample_uniform draws from.
void sample_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

// The perturbed logit of `id` as sample.h defines it, before it is rounded to f32.
double sample_value_twin(const struct slot_sampling *sampling, int32_t position, int32_t id,
                         float logit);
