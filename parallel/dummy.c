// SPDX-License-Identifier: Apache-2.0
// dummy.c -- the values of dummy weights and their ranges by kind of tensor. Pure.
#include "parallel/dummy.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "parallel/base/mix.h"

static bool ends_with(const char *name, const char *suffix)
{
    size_t name_bytes = strlen(name), suffix_bytes = strlen(suffix);
    return name_bytes >= suffix_bytes && strcmp(name + name_bytes - suffix_bytes, suffix) == 0;
}

// Norm weights that the model adds to 1; the gated norm of GDN is the one that it does not.
static bool is_zero_centred_norm(const char *name)
{
    return ends_with(name, "norm.weight") || ends_with(name, "norm_embedding.weight") ||
           ends_with(name, "norm_hidden.weight");
}

struct dummy_tensor dummy_tensor(const char *canonical_name, int64_t fan_in)
{
    uint64_t seed = 0xcbf29ce484222325u; // FNV-1a 64
    for (const char *at = canonical_name; *at != '\0'; at++)
        seed = (seed ^ (uint8_t)*at) * 0x100000001b3u;
    // Spread 1/sqrt(fan_in): a uniform value in [-a, a) has the variance a^2 / 3.
    double centre = 0, amplitude = sqrt(3.0 / (double)fan_in);
    if (ends_with(canonical_name, "linear_attn.norm.weight")) {
        centre = 1;
        amplitude = 0.25;
    } else if (is_zero_centred_norm(canonical_name)) {
        amplitude = 0.25;
    } else if (ends_with(canonical_name, "linear_attn.A_log")) {
        centre = amplitude = 1.375; // A in 1..16
    } else if (ends_with(canonical_name, "linear_attn.dt_bias")) {
        centre = -3.5;
        amplitude = 2.5;
    } else if (ends_with(canonical_name, "linear_attn.conv1d.weight")) {
        amplitude = sqrt(3.0 / 4.0); // four taps
    }
    return (struct dummy_tensor){seed, (float)centre, (float)(amplitude / 8388608.0)};
}

static inline uint16_t value_at(const struct dummy_tensor *tensor, uint64_t index)
{
    int32_t n = (int32_t)(mix_at(tensor->seed, index + 1) >> 40) - (1 << 23);
    float product = (float)n * tensor->step; // rounded; the build forbids contraction
    float value = tensor->centre + product;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16); // nearest even; never NaN
}

uint16_t dummy_value(const struct dummy_tensor *tensor, uint64_t index)
{
    return value_at(tensor, index);
}

void dummy_fill(uint16_t *out, const struct dummy_tensor *tensor, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = value_at(tensor, first + i);
}
