// SPDX-License-Identifier: Apache-2.0
// normalize.h -- Unicode normal form C by utf8proc's data, as Hugging Face tokenizers computes it:
// with the combining classes and compositions of Unicode 9, so that newer marks stay where they
// are. Owns only its scratch.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/text_buffer.h"
#include "parallel/base/status.h"

enum { NORMALIZE_EXPANSION_MAX = 3 }; // bytes out per byte in, at worst (U+1D160 and its kin)

// One thread's. init, then any number of calls, then fini.
struct normalize_scratch {
    int32_t *points; // [points_capacity] code points of the stretch under way
    size_t points_capacity;
    int32_t *sorted; // [sorted_capacity] a run of marks being put in order
    size_t sorted_capacity;
    struct text_buffer text; // the result
};

// bytes_max bounds the text that comes out of one call.
void normalize_scratch_init(struct normalize_scratch *scratch, size_t bytes_max);
void normalize_scratch_fini(struct normalize_scratch *scratch);

// NFC of text[bytes], which must be well-formed UTF-8. *out is text itself when there was nothing
// to do, else scratch's bytes until the next call. Linear time whatever the marks. E_LIMIT,
// E_SYSTEM.
MUST_CHECK enum status normalize_nfc(struct normalize_scratch *scratch, const char *text,
                                     size_t bytes, const char **out, size_t *out_bytes,
                                     struct error *error);
