// SPDX-License-Identifier: Apache-2.0
// pretokenize.h -- cuts text into the pieces that byte-pair encoding works on, by the regular
// expression of the model's family. Only expressions known here are accepted: PCRE2 reads them a
// little differently from the engine they were written for, so each is respelled by hand.
#pragma once

#include <stddef.h>

#include "parallel/base/status.h"

// Read-only after init: any number of threads may cut with one.
struct pretokenize {
    void *code;         // pcre2_code
    const char *family; // "qwen3.5" or "qwen2", for messages
};

// One thread's working room.
struct pretokenize_scratch {
    void *match;   // pcre2_match_data
    void *context; // pcre2_match_context
    void *stack;   // pcre2_jit_stack
};

// Compiles the expression that a tokenizer.json spells `regex`. E_UNSUPPORTED names it when it is
// not one of the family's.
MUST_CHECK enum status pretokenize_init(struct pretokenize *pretokenize, const char *regex,
                                        struct error *error);
void pretokenize_fini(struct pretokenize *pretokenize);

// The caller's storage, for init and fini; E_SYSTEM: no memory.
MUST_CHECK enum status pretokenize_scratch_init(struct pretokenize_scratch *scratch,
                                                struct error *error);
void pretokenize_scratch_fini(struct pretokenize_scratch *scratch);

// The piece of text[bytes] (well-formed UTF-8) that starts at byte *at < bytes: *at becomes one
// past it. Text that the expression does not match is a piece of its own, as is each match.
// E_SYSTEM carries PCRE2's words (a resource limit).
MUST_CHECK enum status pretokenize_next(const struct pretokenize *pretokenize,
                                        struct pretokenize_scratch *scratch, const char *text,
                                        size_t bytes, size_t *at, struct error *error);
