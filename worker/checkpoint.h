// SPDX-License-Identifier: Apache-2.0
// checkpoint.h -- a model directory's safetensors seen as canonical tensors (worker/tensors.h),
// whatever its layout: name prefixes, packed or per-expert experts, Qwen3-Next's grouped rows.
// Reads nothing but headers until checkpoint_read is called.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "parallel/config.h"
#include "worker/safetensors.h"
#include "worker/tensors.h"

struct checkpoint; // opaque

// Opens DIR/model.safetensors.index.json with its shards, or DIR/model.safetensors, finds out
// whether the MTP head is there, and matches every stored tensor with the model of config.
// E_NOT_FOUND, E_MALFORMED, E_INPUT, E_UNSUPPORTED: file, tensor, shape or dtype found and
// expected; E_INPUT also for a tensor that nobody uses.
enum status checkpoint_open(struct checkpoint **out, const char *model_dir,
                            const struct model_config *config, struct error *error) MUST_CHECK;

// Closes the files; NULL is allowed.
void checkpoint_close(struct checkpoint *checkpoint);

// Whether any tensor of the MTP head is there (then all of them are).
bool checkpoint_has_mtp(const struct checkpoint *checkpoint);

// The canonical tensors, valid until close. checkpoint_read takes tensors of this list only.
const struct tensor_list *checkpoint_tensors(const struct checkpoint *checkpoint);

// The stored files, for their counters of bytes read.
const struct safetensors *checkpoint_files(const struct checkpoint *checkpoint);

enum { CHECKPOINT_SCRATCH_BYTES = 8 << 20 };

// A rectangle of a canonical tensor as a matrix.
struct tensor_range {
    const struct tensor *tensor;
    int64_t row, rows;
    int64_t column, columns;
};

// Bytes of a row of the rectangle in memory.
size_t checkpoint_row_bytes(const struct tensor_range *range);

// Reads a rectangle, row-major without gaps, into out[rows * columns] of the tensor's kind: bf16
// bits, or f32 for tensors with is_f32. scratch: [CHECKPOINT_SCRATCH_BYTES], aligned as malloc
// does, of no meaning afterwards. Any thread, each with its own scratch. E_SYSTEM and E_MALFORMED
// name the file.
enum status checkpoint_read(struct checkpoint *checkpoint, void *out,
                            const struct tensor_range *range, uint8_t *scratch,
                            struct error *error) MUST_CHECK;
