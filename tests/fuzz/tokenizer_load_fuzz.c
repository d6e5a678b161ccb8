// SPDX-License-Identifier: Apache-2.0
// tokenizer_load_fuzz.c -- a tokenizer.json of any bytes. Whatever is accepted must encode a text
// and give back the same bytes.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"

enum { IDS_MAX = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void use(const struct tokenizer *tokenizer)
{
    static const char text[] = "the cat's 12 \xc3\xa9  <|im_start|>\n\xe6\x97\xa5 abcabcabcabcabc"
                               "abcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabc";
    uint32_t ids[IDS_MAX];
    struct token_ids out = {ids, 0, IDS_MAX};
    struct text_buffer back;
    struct detokenizer detokenizer;
    struct tokenizer_scratch *scratch = tokenizer_scratch_new(tokenizer);
    ASSERT(scratch != NULL);
    ASSERT(tokenizer_encode(tokenizer, scratch, &out, text, strlen(text), NULL) == OK);
    text_buffer_init(&back, 1 << 20);
    detokenizer_init(&detokenizer, tokenizer, false);
    for (size_t i = 0; i < out.count; i++)
        ASSERT(detokenizer_feed(&detokenizer, ids[i], &back, NULL) == OK);
    ASSERT(detokenizer_finish(&detokenizer, &back, NULL) == OK);
    // Stripping tokens take white space, and an added token of non-ASCII letters decodes through
    // the byte map, as in Hugging Face; without such tokens the text must come back.
    if (tokenizer->added.count == 0 && tokenizer->added_normalized.count == 0) {
        ASSERT(back.count == strlen(text));
        ASSERT(memcmp(back.bytes, text, back.count) == 0);
    }
    text_buffer_fini(&back);
    tokenizer_scratch_free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct tokenizer tokenizer;
    struct error error = {0};
    if (tokenizer_load_json(&tokenizer, "fuzz.json", (const char *)data, bytes, &error) == OK) {
        use(&tokenizer);
        tokenizer_fini(&tokenizer);
    } else {
        ASSERT(error.status != OK && error.text[0] != 0);
    }
    return 0;
}
