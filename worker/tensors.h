// SPDX-License-Identifier: Apache-2.0
// tensors.h -- the canonical tensors of a model: names, shapes and kinds, as a Qwen3.5 bf16
// checkpoint with packed experts has them, without the prefix `model.language_model.`. Loader,
// dummy rule and tests speak of weights in these terms, whatever a checkpoint's own layout. Pure.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/config.h"

enum { TENSOR_NAME_BYTES = 64 };

struct tensor {
    char name[TENSOR_NAME_BYTES];
    int dims_count;
    int64_t dims[3];
    // The same as a matrix: rows = all leading dimensions (1 for a vector), columns = the last;
    // the taps of a convolution [channels, 1, taps] are its columns.
    int64_t rows, columns;
    bool is_f32; // f32 in memory (norms, A_log, dt_bias, conv taps); else bf16
};

struct tensor_list {
    struct tensor *items;
    int count;
};

// All tensors of the text model, lm_head unless tied, and of the MTP head when mtp. The list is
// the caller's to give to tensors_fini. E_SYSTEM when there is no memory.
enum status tensors_init(struct tensor_list *out, const struct model_config *config, bool mtp,
                         struct error *error) MUST_CHECK;
void tensors_fini(struct tensor_list *list);

// The tensor of that name, or NULL.
const struct tensor *tensors_find(const struct tensor_list *list, const char *name);
