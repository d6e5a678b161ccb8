// SPDX-License-Identifier: Apache-2.0
// dummy.h -- weights of --load-format dummy: a function of (tensor name, index in the whole
// tensor) alone, so that every tensor-parallel degree and every language that implements it holds
// the same model and goldens need no weight files. Pure.
//
// seed = FNV-1a 64 of the canonical name (the Qwen3.5 name without `model.language_model.`);
// z = splitmix64 finaliser of seed + (index + 1) * 0x9E3779B97F4A7C15; n = (z >> 40) - 2^23;
// value = bf16(centre + (float)n * step), two float operations, each rounded.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct dummy_tensor {
    uint64_t seed;
    float centre;
    float step; // (float)(amplitude / 2^23)
};

// fan_in is the tensor's last dimension. Ranges by kind of tensor are in dummy.c.
struct dummy_tensor dummy_tensor(const char *canonical_name, int64_t fan_in);

// The bf16 bits at a flat row-major index of the whole tensor.
uint16_t dummy_value(const struct dummy_tensor *tensor, uint64_t index);

// The values at first .. first + count - 1.
void dummy_fill(uint16_t *out, const struct dummy_tensor *tensor, uint64_t first, size_t count);
