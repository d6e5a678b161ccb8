// SPDX-License-Identifier: Apache-2.0
// tokenizer.h -- text to token ids, exactly as Hugging Face tokenizers does it for the family's
// byte-level BPE, and what each id stands for. Loading is tokenizer_load.c. Owns no socket, no
// clock, no thread; the way back is detokenizer.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/normalize.h"
#include "coordinator/text/pretokenize.h"
#include "parallel/base/status.h"

enum {
    TOKENIZER_FILE_BYTES_MAX = 256 << 20, // of tokenizer.json: ten times the family's largest
    TOKENIZER_TEXT_BYTES_MAX = 32 << 20,  // of one text: a million tokens of 32 bytes
    TOKENIZER_EOS_MAX = 16,               // ids that end a text
};

// Read-only once loaded: any number of threads may use one, each with its own scratch.
struct tokenizer {
    uint32_t id_count;        // real token ids: the highest, added tokens included, + 1
    uint32_t base_count;      // of them in the vocabulary proper; added tokens may come after
    uint32_t token_bytes_max; // bytes of the longest token
    // What each id decodes to: bytes[starts[id] .. starts[id + 1]). Bytes, not text: a token may
    // hold part of a code point.
    char *bytes;
    uint32_t *starts; // [id_count + 1]
    bool *special;    // [id_count] left out when special tokens are skipped
    struct bpe bpe;
    struct added_tokens added;            // found in the text as it came
    struct added_tokens added_normalized; // found in the text after normalization
    struct pretokenize pretokenize;
    uint32_t eos_ids[TOKENIZER_EOS_MAX]; // [eos_count] from generation_config.json, then
    uint32_t eos_count;                  // tokenizer_config.json; none twice
    // The model's chat template writes numbers and constants of tool calls as JSON, as Qwen3.6's
    // does (chat_format_options.json_scalars). The template is not used otherwise.
    bool json_scalars;
};

// A token's bytes, borrowed from the tokenizer; not terminated.
struct token_bytes {
    const char *bytes;
    size_t count;
};

// Where encoding puts ids: an array of the caller's and its size.
struct token_ids {
    uint32_t *ids; // [count_max], the first `count` are in use
    size_t count;
    size_t count_max;
};

struct tokenizer_scratch;

// Reads DIR/tokenizer.json, and tokenizer_config.json, generation_config.json and
// chat_template.jinja where they exist.
// `tokenizer` is the caller's storage, to be given to fini when OK came back. E_NOT_FOUND: there is
// no tokenizer.json; E_UNSUPPORTED: a kind of tokenizer that this is not, naming file, field and
// value; E_INPUT, E_MALFORMED, E_LIMIT, E_SYSTEM.
MUST_CHECK enum status tokenizer_load(struct tokenizer *tokenizer, const char *directory,
                                      struct error *error);

// The same from the bytes of a tokenizer.json; `name` stands for the file in errors. Reads no file.
MUST_CHECK enum status tokenizer_load_json(struct tokenizer *tokenizer, const char *name,
                                           const char *json, size_t json_bytes,
                                           struct error *error);
void tokenizer_fini(struct tokenizer *tokenizer);

// One thread's room for encoding with this tokenizer (and no other), from the heap; NULL when out
// of memory. It keeps what the longest text needed, and a cache of 1 MiB of pieces.
struct tokenizer_scratch *tokenizer_scratch_new(const struct tokenizer *tokenizer);
void tokenizer_scratch_free(struct tokenizer_scratch *scratch);

// Appends the ids of text[bytes] to out. Added tokens within the text become their ids. When it
// fails, out->count is as before. E_INPUT: the text is not UTF-8 (the error gives the byte's
// offset); E_LIMIT: longer than TOKENIZER_TEXT_BYTES_MAX, or more ids than fit; E_SYSTEM.
MUST_CHECK enum status tokenizer_encode(const struct tokenizer *tokenizer,
                                        struct tokenizer_scratch *scratch, struct token_ids *out,
                                        const char *text, size_t bytes, struct error *error);

// Ids that any text of so many bytes fits into (an id holds at least a byte of the normalized
// text, which is at most NORMALIZE_EXPANSION_MAX times as long).
size_t tokenizer_ids_max(size_t text_bytes);

// What an id < id_count decodes to.
struct token_bytes tokenizer_id_text(const struct tokenizer *tokenizer, uint32_t id);

// The id of the added token of that content ("<|im_end|>"); false when there is none.
bool tokenizer_added_id(const struct tokenizer *tokenizer, const char *content, uint32_t *id);
