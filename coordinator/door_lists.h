// SPDX-License-Identifier: Apache-2.0
// door_lists.h -- logit_bias, allowed_token_ids and bad_words of a request as the core's lists:
// checked against the model's ids, texts made tokens. Knows no wire format.
#pragma once

#include "coordinator/core.h"
#include "coordinator/door_text.h"

// All borrowed.
struct door_lists_wish {
    const int32_t *bias_ids; // [bias_count]
    const float *biases;
    int32_t bias_count;
    const int32_t *allowed_ids; // [allowed_count]
    int32_t allowed_count;
    const struct request_word *words; // [words_count]
    int32_t words_count;
};

// *lists is malloc'ed, or NULL when nothing is wished; the counts of sampling are set. A word that
// is a text is banned as it stands and with a space before it, as vLLM does. E_INPUT: an id that
// the model has not, one with two biases, nothing is left to draw; E_LIMIT; E_UNSUPPORTED: a text
// without a tokenizer; E_SYSTEM. *field is then the field's name, which the text names too.
enum status door_lists_make(int32_t **lists, struct coord_sampling *sampling,
                            const struct door_lists_wish *wish, struct door_text *text,
                            const char **field, struct error *error) MUST_CHECK;
